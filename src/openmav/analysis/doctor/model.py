"""Inspects and checks one model: where its sites are, and whether the numbers that mav shows of it are right.

Every check compares two computations of the same number. Limits are for fp32; coarser float types round more, and their limits grow
with the size of their last bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from openmav.analysis.doctor import Section
from openmav.backends.base import (
    NO_ATTENTION,
    NO_MLP,
    Backend,
    Configured,
    Directions,
    Frame,
    Inspectable,
    LoadOptions,
    ModelCheck,
    Progress,
)
from openmav.backends.loading.choice import backend_for
from openmav.backends.sites import HEAD_SITES, SITES
from openmav.measures import attribution
from openmav.measures.base import Context
from openmav.plugins import registry
from openmav.record.ranges import ranges
from openmav.settings.generation_defaults import value_text

if TYPE_CHECKING:
    from torch import Tensor

PROMPT = "The cat sat on the mat. The dog sat on the log, and the frog"
MORE = 8  # tokens that are decoded one by one after the prompt
LOGIT, CHANGE = "of the largest logit", "of what is added to each number"


def examine(
    name: str,
    backend: str,
    options: LoadOptions,
    progress: Progress | None = None,
    limit: AbstractContextManager[object] | None = None,
) -> list[Section]:
    """Load a model, within the time limit of `limit`, inspect it, check it, and free it.

    Raises LoadError where it can't be loaded.
    """
    with limit or nullcontext():
        model: Backend = registry.load("backends", backend_for(backend, name)).load(name, options, progress)
    try:
        sections = [Section("Model", tuple(_about(model)))]
        if isinstance(model, Inspectable):
            sections.append(Section("Sites", tuple(model.describe())))
        sections.append(Section("Generation config", tuple(_generation(model))))
        sections.append(Section("Not available", tuple(_missing(model))))
        sections.append(Section("Checks", checks=tuple(check(model))))
        return sections
    finally:
        model.close()


def _about(model: Backend) -> Iterator[tuple[str, str]]:
    info = model.info
    yield "name", f"{info.name}, {info.backend}"
    yield "weights", f"{info.parameters / 1e6:.1f} million, {info.dtype} on {info.device}"
    yield "shape", f"{info.layers} layers, {info.heads} heads over {info.kv_heads or info.heads}, width {info.width}, {info.vocab} tokens"
    yield "context", "no limit known" if info.context is None else f"{info.context} tokens"
    for note in info.notes:
        yield "note", note


def _generation(model: Backend) -> Iterator[tuple[str, str]]:
    """The model's own generation settings; nothing where it has none."""
    if not isinstance(model, Configured):
        return
    defaults = model.generation_defaults()
    for name, value in defaults.used.items():
        yield name, value_text(value)
    for name, value in defaults.left_out.items():
        yield name, f"{value_text(value)}; not followed: mav generates one sequence token by token"


def _missing(model: Backend) -> Iterator[tuple[str, str]]:
    for site, layers in sorted(model.missing.items()):
        for reason in dict.fromkeys(layers.values()):
            affected = [layer for layer, why in layers.items() if why == reason]
            yield site, f"{reason} ({'all layers' if len(affected) == model.info.layers else ranges(affected)})"


# ---- the checks ------------------------------------------------------------------------------------------------------------


def check(model: Backend) -> list[ModelCheck]:
    """All checks of a loaded model; its cache holds other tokens afterwards."""
    want = SITES | HEAD_SITES
    ids = tokens(model)
    start = len(ids) - MORE
    shown = [model.prefill(ids[:start], want), *(model.decode_one_token(i, want) for i in ids[start:])]
    bare = [model.prefill(ids[:start], frozenset()), *(model.decode_one_token(i, frozenset()) for i in ids[start:])]
    whole = model.prefill(ids, frozenset())
    limit, wide = relative_limit(model.info.dtype), relative_limit(model.info.dtype, 16)
    sums = max(1e-5, limit if limit > 1e-4 else 0.0)
    checks = [
        ModelCheck("lens of the last layer = logits", _worst(_lens_error(frame) for frame in shown), limit, LOGIT),
        ModelCheck("parts add up to the residual stream", _worst(_parts_error(frame, model.missing) for frame in shown), sums, CHANGE),
        ModelCheck("attribution adds up to the logit", _worst(_attribution_error(frame) for frame in shown), limit, "of what is rounded"),
        ModelCheck("decoding with a cache = one pass over all", _difference(shown[-1].logits, whole.logits), wide, LOGIT),
        ModelCheck("logits with and without capture, different", float(_different(shown, bare)), 0, "tokens"),
    ]
    return [*(model.checks() if isinstance(model, Inspectable) else []), *checks]


def tokens(model: Backend) -> list[int]:
    """The tokens of the checks: a few words, as many as the context allows."""
    ids = model.encode(PROMPT)
    ids = [*ids, *ids][: max(len(ids), 2 * MORE)]
    return ids[: model.info.context or len(ids)]


def relative_limit(dtype: str, bits: int = 4) -> float:
    """1e-4, or `bits` times the last bit of a coarser float type; a type of a GGUF file such as Q4_1 is multiplied by numbers of 8 bits."""
    import torch

    kind = getattr(torch, dtype, None)
    if kind is None:
        return bits * 2.0**-8
    return max(1e-4, bits * torch.finfo(kind).eps) if isinstance(kind, torch.dtype) and kind.is_floating_point else 1e-4


def _worst(errors: Iterable[float | None]) -> float | None:
    """The largest, NaN above all; None if nothing was measured."""
    known = [error for error in errors if error is not None]
    return max(known, key=lambda error: math.inf if math.isnan(error) else error, default=None)


def _difference(result: Tensor, expected: Tensor) -> float:
    return float((result - expected).abs().max() / expected.abs().max())


def _different(shown: Sequence[Frame], bare: Sequence[Frame]) -> int:
    """The number of tokens whose logits are not bit-identical."""
    return sum(not bool((a.logits == b.logits).all()) for a, b in zip(shown, bare, strict=True))


def _lens_error(frame: Frame) -> float | None:
    last = frame.last_residual
    if frame.head is None or last is None:
        return None
    return _difference(frame.head.logits(last[None])[0].cpu(), frame.logits)


def _parts_error(frame: Frame, missing: Mapping[str, Mapping[int, str]]) -> float | None:
    """The difference of carry * before + attention + MLP + other from after, relative to the sizes of the terms; the worst layer."""
    errors = []
    rows = zip(*(frame.sites[site] for site in ("residual.before", "residual.after", *attribution.PARTS)), strict=True)
    for layer, (before, after, *parts) in enumerate(rows):
        known = [part.double() for part in parts if part is not None]
        unknown = {missing.get(site, {}).get(layer) for site in attribution.PARTS} - {None, NO_ATTENTION, NO_MLP}
        if before is None or after is None or unknown:
            continue
        carry = frame.carry[layer] if frame.carry else 1.0
        kept = before.double() * (carry if isinstance(carry, float) else carry.to(before.device).double())
        sizes = kept.abs() + sum(part.abs() for part in known)
        errors.append(float(((kept + sum(known) - after.double()).abs() / sizes.clamp_min(1e-30)).max()))
    return _worst(errors)


def _line(frame: Frame) -> Directions | None:
    """The direction of the most likely token's logit."""
    last = frame.last_residual
    if frame.head is None or last is None:
        return None
    return frame.head.directions(last, [int(frame.logits.argmax())], frame.logits)


def _attribution_error(frame: Frame) -> float | None:
    """What the parts of the most likely token's logit leave unexplained, relative to what is rounded; None where not all are known.

    Each layer rounds each number of the residual stream; their errors are independent, so their squares add up.
    """
    line, order, probs = _line(frame), frame.logits.argsort(descending=True), frame.logits.softmax(-1)
    parts = attribution.compute(frame, Context(frame.logits, probs, probs, order, int(order[0])))
    embedding, rest = float(parts["attribution.embedding"][0]), float(parts["attribution.rest"][0])
    if line is None or (math.isnan(embedding) and not bool(frame.logits.isnan().any())):
        return None
    rows = [(row, line.before(layer + 1)[0]) for layer, row in enumerate(frame.sites["residual.after"]) if row is not None]
    squares = sum(float((row.double() * direction.to(row.device)).square().sum()) for row, direction in rows)
    return abs(rest) / (math.sqrt(squares) + abs(float(line.logits[0])))
