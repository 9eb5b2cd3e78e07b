"""Logits, tokens and attention rows of a tiny model against passes of transformers' own, with the same weights in a wider float type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from backends.tiny_models import exacter, jittered, tiny_model
from backends.tiny_reference import FullPass, full_pass, generated
from backends.tiny_report import DECODED, LIMITS, PIECE, PROMPT, Report, context, error_of, text
from openmav.backends.base import Frame
from openmav.backends.transformers import TransformersBackend
from openmav.measures import attention_entropy

GONE = "gone"
NOISE = 64  # positions at which the error of a float type is measured


def against_transformers(
    backend: TransformersBackend,
    model_type: str,
    plain: PreTrainedModel,
    prompt: Sequence[int],
    tokens: Sequence[int],
    frames: Sequence[Frame],
    report: Report,
) -> None:
    """Logits and rows against a full pass and `generate`; the pass in fp32 with the same weights says how exact this float type is."""
    paths = {id(module): path for path, module in backend.model.named_modules()}
    owners = [None if m is None else paths.get(id(m), GONE) for m in backend.anatomy.attention_modules]
    if GONE in owners:
        report.failed = "an attention module that mav found is not in the model any more"
        return
    named = [path for path in dict.fromkeys(owners) if path is not None]
    ids = [*prompt, *tokens[:-1]]
    copy = _other_copies(plain, model_type)  # each used once: some models keep a state
    other = copy()
    passes = [full_pass(one, ids, named) for one in (plain, other)]
    theirs, exact = passes if other.dtype != plain.dtype else passes[::-1]  # a copy in the same float type is none the exacter
    chosen, logits = generated(tiny_model(model_type, plain.dtype), prompt, DECODED)  # a copy of its own: some keep a state
    same = next((i for i, (a, b) in enumerate(zip(tokens, chosen, strict=True)) if a != b), DECODED)  # later ones follow another text
    eps = torch.finfo(backend.model.dtype).eps
    at, last = slice(PROMPT - 1, PROMPT - 1 + DECODED), slice(PROMPT - NOISE, None)
    mine, full, true = torch.stack([frame.logits for frame in frames]), theirs.logits[at], exact.logits[at]
    report.own = max(error_of(full, true) / eps, error_of(theirs.logits[last], exact.logits[last]) / eps, _least(eps, 16, 1))
    cached = max(report.own, _cached_error(copy(), prompt, chosen, logits) / eps)
    drift = error_of(logits[: same + 1], full[: same + 1]) / eps  # of `generate` from the full pass
    report.worst("tokens", float(_far_apart(mine[same], chosen[same], tokens[same], cached * eps)) if same < DECODED else 0.0)
    report.worst("generate", error_of(mine[: same + 1], logits[: same + 1]) / eps / cached)
    if drift > LIMITS["generate"] * cached:
        report.none["full pass"] = f"transformers' generate is not its full pass (off by {drift * eps:.1g})"
        report.worst("told", float(not any("without a cache" in note for note in backend.info.notes)))
    else:
        report.worst("logits", error_of(mine, true) / eps / report.own)
        _rows(owners, frames, theirs, exact, eps, report)


def _other_copies(plain: PreTrainedModel, model_type: str) -> Callable[[], PreTrainedModel]:
    """Makes the model in a wider float type; where it can't compute in one, with weights changed by their rounding."""
    for wider in (torch.float64, torch.float32):
        if wider != plain.dtype:
            try:
                if not bool(full_pass(exacter(plain, model_type, wider), text()[:PIECE]).logits.isfinite().all()):
                    continue  # some mask with the least number of fp32
            except RuntimeError:  # code that asks for float32 in so many words
                continue
            return partial(exacter, plain, model_type, wider)
    return partial(jittered, plain, model_type)


def _cached_error(other: PreTrainedModel, prompt: Sequence[int], chosen: Sequence[int], logits: Tensor) -> float:
    """What `generate` in this float type is off from that of the other copy, as long as both choose the same tokens."""
    theirs, exact = generated(other, prompt, DECODED)
    same = next((i for i, (a, b) in enumerate(zip(chosen, theirs, strict=True)) if a != b), DECODED)
    return error_of(logits[: same + 1], exact[: same + 1])


def _least(eps: float, single: float, half: float) -> float:
    """The least error in eps that is expected: in fp32 there is no exacter pass to compare with."""
    return single if eps < 1e-6 else half


def _far_apart(logits: Tensor, a: int, b: int, error: float) -> bool:
    """Whether two tokens' logits differ by more than the float type's error can explain."""
    return float((logits[a] - logits[b]).abs()) > 8 * error * float(logits.abs().max())


def _rows(owners: Sequence[str | None], frames: Sequence[Frame], theirs: FullPass, exact: FullPass, eps: float, report: Report) -> None:
    """Attention rows and their entropy against those of an exacter pass, in units of what eager attention in this float type is off."""
    off = {"rows": 0.0, "entropy": 0.0}
    known = [path for path in dict.fromkeys(owners) if path is not None and path in exact.rows]
    for path in known:
        full, true = (one.rows[path][:, PROMPT - NOISE :] for one in (theirs, exact))
        off["rows"] = max(off["rows"], float((full - true).abs().max()))
        off["entropy"] = max(off["entropy"], float((_entropy(full) - _entropy(true)).abs().max()))
    own = {"rows": max(off["rows"] / eps, _least(eps, 4, 1)), "entropy": max(off["entropy"] / eps, _least(eps, 16, 2))}
    for number, frame in enumerate(frames):
        entropies = attention_entropy.compute(frame, context(frame))
        for layer, (path, row) in enumerate(zip(owners, frame.sites["attention.probs"], strict=True)):
            if path not in known or row is None:
                continue
            others = frame.other_keys[layer] if frame.other_keys else 0
            true = _row(exact.rows[path], PROMPT - 1 + number, row.shape[-1], others)
            if true is None or true.shape != row.shape:
                report.worst("rows", float("inf"))
                continue
            report.worst("rows", float((row.cpu() - true).abs().max()) / eps / own["rows"])
            shown = torch.as_tensor(entropies[layer][: len(true)])
            report.worst("entropy", float((shown - _entropy(true)).abs().max()) / eps / own["entropy"])


def _entropy(rows: Tensor) -> Tensor:
    """[..., keys] -> [...] nats."""
    return -(rows * rows.clamp_min(1e-38).log()).sum(-1)


def _row(rows: Tensor, position: int, keys: int, others: int) -> Tensor | None:
    """[heads, keys]: the row of a position, of a window its last keys, after `others` keys that are no token's.

    None where keys outside of these have weight.
    """
    row, blocks = rows[:, position, : position + 1], rows[:, position, rows.shape[1] :]
    outside = row[:, : max(row.shape[-1] - (keys - others), 0)]
    if bool((outside != 0).any()) or bool((blocks[:, others:] != 0).any()):
        return None
    window = nn.functional.pad(row[:, outside.shape[-1] :], (max(keys - others - row.shape[-1], 0), 0))
    return torch.cat([blocks[:, :others], window], -1)
