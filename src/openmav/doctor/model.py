"""One model, looked at and checked: what was found in it, and whether the numbers that mav shows of it hold.

Every check compares two ways to the same number. Limits are for fp32; coarser float types round more, and their limits grow with
the size of their last bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from openmav import registry
from openmav.backends._base import HEAD_SITES, SITES, Backend, Check, Directions, Frame, Inspectable, LoadOptions, Progress
from openmav.backends._ranges import ranges
from openmav.doctor import Section
from openmav.measures import attribution
from openmav.measures._base import Context

if TYPE_CHECKING:
    from torch import Tensor

PROMPT = "The cat sat on the mat. The dog sat on the log, and the frog"
MORE = 8  # tokens that are decoded one by one after the prompt
LOGIT, CHANGE = "of the largest logit", "of what a layer adds"


def examine(name: str, backend: str, options: LoadOptions, progress: Progress | None = None) -> list[Section]:
    """Load a model, look at it, check it, and let it go.

    Raises LoadError where it can't be loaded.
    """
    model: Backend = registry.load("backends", backend).load(name, options, progress)
    try:
        sections = [Section("Model", tuple(_about(model)))]
        if isinstance(model, Inspectable):
            sections.append(Section("Found in it", tuple(model.found())))
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


def _missing(model: Backend) -> Iterator[tuple[str, str]]:
    for site, layers in sorted(model.missing.items()):
        for reason in dict.fromkeys(layers.values()):
            told = [layer for layer, why in layers.items() if why == reason]
            yield site, f"{reason} ({'all layers' if len(told) == model.info.layers else ranges(told)})"


# ---- the checks ------------------------------------------------------------------------------------------------------------


def check(model: Backend) -> list[Check]:
    """All checks of a loaded model; its cache is used and left with other tokens."""
    want = SITES | HEAD_SITES
    ids = tokens(model)
    start = len(ids) - MORE
    shown = [model.prefill(ids[:start], want), *(model.decode_one_token(i, want) for i in ids[start:])]
    bare = [model.prefill(ids[:start], frozenset()), *(model.decode_one_token(i, frozenset()) for i in ids[start:])]
    whole = model.prefill(ids, frozenset())
    limit, wide = relative_limit(model.info.dtype), relative_limit(model.info.dtype, 16)
    found = [
        Check("lens of the last layer = logits", _worst(_lens_error(frame) for frame in shown), limit, LOGIT),
        Check("parts add up to the residual stream", _worst(_parts_error(frame) for frame in shown), limit, CHANGE),
        Check("attribution adds up to the logit", _worst(_attribution_error(frame) for frame in shown), limit, "of all parts"),
        Check("decoding with a cache = one pass over all", _difference(shown[-1].logits, whole.logits), wide, LOGIT),
        Check("logits with and without capture, different", float(_different(shown, bare)), 0, "tokens"),
    ]
    return [*(model.checks() if isinstance(model, Inspectable) else []), *found]


def tokens(model: Backend) -> list[int]:
    """What the checks feed: a few words, as many as the context holds."""
    ids = model.encode(PROMPT)
    ids = [*ids, *ids][: max(len(ids), 2 * MORE)]
    return ids[: model.info.context or len(ids)]


def relative_limit(dtype: str, bits: int = 4) -> float:
    """1e-4, or so many times the last bit of a coarser float type."""
    import torch

    kind = getattr(torch, dtype, None)
    return max(1e-4, bits * torch.finfo(kind).eps) if isinstance(kind, torch.dtype) and kind.is_floating_point else 1e-4


def _worst(errors: Iterable[float | None]) -> float | None:
    """The largest, NaN above all; None if nothing was measured."""
    known = [error for error in errors if error is not None]
    return max(known, key=lambda error: math.inf if math.isnan(error) else error, default=None)


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def _different(shown: Sequence[Frame], bare: Sequence[Frame]) -> int:
    """Tokens whose logits are not the same bit for bit."""
    return sum(not bool((a.logits == b.logits).all()) for a, b in zip(shown, bare, strict=True))


def _lens_error(frame: Frame) -> float | None:
    last = frame.sites["residual.after"][-1]
    if frame.head is None or last is None:
        return None
    return _difference(frame.head.logits(last[None])[0].cpu(), frame.logits)


def _parts_error(frame: Frame) -> float | None:
    """carry * before + attention + MLP against after, the worst layer that has parts."""
    line = _line(frame)
    kept = (line.kept if line else ()) or (1.0,) * (len(frame.sites["mlp.out"]) + 1)
    errors = []
    sites = ("residual.before", "residual.after", "attention.out", "mlp.out")
    for layer, (before, after, *parts) in enumerate(zip(*(frame.sites[site] for site in sites), strict=True)):
        known = [part.float() for part in parts if part is not None]
        if before is not None and after is not None and known:
            change = after.float() - kept[layer] / kept[layer + 1] * before.float()
            errors.append(float((sum(known) - change).norm() / change.norm()))
    return _worst(errors)


def _line(frame: Frame) -> Directions | None:
    """The direction of the likeliest token's logit."""
    last = frame.sites["residual.after"][-1]
    if frame.head is None or last is None:
        return None
    return frame.head.directions(last, [int(frame.logits.argmax())], frame.logits)


def _attribution_error(frame: Frame) -> float | None:
    """What the parts of the likeliest token's logit leave unexplained, relative to the parts' sizes; None where not all can be followed."""
    order = frame.logits.argsort(descending=True)
    probs = frame.logits.softmax(-1)
    found = attribution.compute(frame, Context(frame.logits, probs, probs, order, int(order[0])))
    embedding, rest = float(found["attribution.embedding"][0]), float(found["attribution.rest"][0])
    if math.isnan(embedding) and not bool(frame.logits.isnan().any()):
        return None
    return abs(rest) / (float(np.nansum(np.abs(found["attribution"]))) + abs(embedding))
