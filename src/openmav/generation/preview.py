"""A preview of other sampling parameters on the newest token's logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from openmav.generation.step_maker import StepMaker
from openmav.measures import distribution, sampling_stages
from openmav.measures.base import array_of
from openmav.record import Array, freeze_values, frozen
from openmav.record.sampling_preview import SamplingPreview
from openmav.settings.sampling import Sampling

if TYPE_CHECKING:
    from openmav.generation.sampler import Choice


def preview(maker: StepMaker, sampling: Sampling) -> SamplingPreview | None:
    """What each stage of `sampling` leaves of the newest step's candidates; None where there is no step.

    Its forward pass is run once more where it is no longer captured. Nothing is drawn.
    """
    if not maker.tree.steps:
        return None
    step, ids = maker.tree.steps[-1], maker.token_ids[:-1]
    if maker.newest is None:
        frame = maker.runs.current.aside(maker.tree.prompt.token_ids, ids, maker.runner.sites)
    else:
        frame, _ = maker.newest
    choice = maker.choose(frame, ids, step.token_id, maker.sampler.with_(sampling))
    context = maker.runner.context(frame, choice, sampling)
    values = {**sampling_stages.compute(frame, context), "distribution": distribution.compute(frame, context)}
    names = ("raw", *(stage.name for stage in choice.stages), *(("greedy",) if sampling.greedy else ()))
    kept, tokens = step.candidates.token_ids, step.candidates.tokens
    probs = np.stack([row[kept] for row in _rows(choice, sampling)])
    return SamplingPreview(sampling, step.index, step.token_id, kept, tokens, names, frozen(probs), freeze_values(values))


def _rows(choice: Choice, sampling: Sampling) -> list[Array]:
    """[vocab] probabilities: raw, after each stage, and where nothing is drawn all on the token with the largest score."""
    rows = [array_of(choice.probs), *(sampling_stages.softmax(stage.scores).astype(np.float32) for stage in choice.stages)]
    return [*rows, array_of(choice.sampled_probs)] if sampling.greedy else rows
