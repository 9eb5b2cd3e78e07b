"""Ablating each head, sub-block or layer alone: the sites, and the effects on a token of a text that goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from openmav.backends.base import Backend, Intervening
from openmav.errors import UsageError
from openmav.record import Prompt, Step, frozen
from openmav.record.sweep import swept_sites
from openmav.record.sweep_map import SweepMap
from openmav.settings.interventions import How, Intervention
from openmav.settings.sites import Swept


def possible_sites(backend: Backend, what: Swept, how: How) -> tuple[Intervening, list[Intervention], dict[Intervention, str]]:
    """(the backend, the sites of this kind that its model has, the others with the reason).

    Raises UsageError for a backend that does not support interventions, and where there is no such site.
    """
    info = backend.info
    if not isinstance(backend, Intervening):
        raise UsageError(f"the backend {info.backend} does not support interventions")
    reasons = {one: backend.why_not(one) for one in swept_sites(what, info.layers, info.heads, how)}
    missing = {one: why for one, why in reasons.items() if why is not None}
    sites = [one for one in reasons if one not in missing]
    if not sites:
        raise UsageError(": ".join([f"{info.name} has no {what} to ablate", *list(missing.values())[:1]]))
    return backend, sites, missing


def sweep_sites(
    backend: Backend, prompt: Prompt, steps: Sequence[Step], index: int, what: Swept = "heads", how: How = "zero"
) -> Iterator[SweepMap]:
    """The map of step `index` as it grows: none known, then one site more each time. The backend's cache stays where it is.

    Raises UsageError for a backend or model that has no such sites to ablate, and where there is no such step.
    """
    info = backend.info
    model, sites, _ = possible_sites(backend, what, how)
    if not 0 <= index < len(steps):
        raise UsageError(f"there is no token {index} to sweep for; there are {len(steps)}, counted from 0")
    step, ids = steps[index], (*prompt.token_ids, *(one.token_id for one in steps[:index]))
    whole = model.intervened([], ids)
    try:
        logit = float(whole.prefill(ids, frozenset()).logits[step.token_id])
    finally:
        whole.close()
    shape = info.layers, info.heads if what == "heads" else 1
    changes, known = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.bool_)
    begun = (index, step.token_id, step.token, logit, frozen(changes.copy()), known.copy())
    result = SweepMap(*begun, total=len(sites), of_baseline=step.before is not None, what=what, how=how)
    yield result
    for one, logits in zip(sites, model.variants(sites, ids)):
        place = one.layer, one.index or 0
        changes[place], known[place] = float(logits[step.token_id]) - logit, True
        yield replace(result, changes=frozen(changes.copy()), known=known.copy())
