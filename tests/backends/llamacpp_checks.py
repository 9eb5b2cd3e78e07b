"""What mav shows of a model of llama.cpp, against llama.cpp without mav and against itself: figures, and what it lacks."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openmav.backends import llamacpp
from openmav.backends.base import Frame, LoadOptions
from openmav.backends.llamacpp import native
from openmav.backends.llamacpp.backend import LlamaCppBackend
from openmav.backends.sites import HEAD_SITES, SITES
from openmav.errors import MavError
from openmav.record.ranges import ranges
from openmav.settings.interventions import parse

PROMPT, DECODED, BACK = 250, 12, 9  # across the 256 tokens at which llama.cpp makes another graph, and back before them
PARTS = ("attention.out", "mlp.out", "other.out")
SPECS = ("ablate L1.attn", "ablate L1.mlp", "ablate L1.H0", "ablate L1.N3", "amplify L1=0.5")
LIMITS = {  # what each figure may be
    "bare": 0.0,
    "capture": 0.0,
    "stops": 0.0,
    "back": 0.0,
    "aside": 0.0,
    "chain": 0.0,
    "sum": 1e-5,
    "rows": 1e-5,
    "scores": 1e-5,
    "lens": 1e-4,
    "ablation": 1e-5,
}


@dataclass
class Report:
    """Of one model. `errors`: the largest of all layers and tokens. `none`: {what: reason, with the layers where not all lack it}."""

    errors: dict[str, float] = field(default_factory=dict)
    none: dict[str, str] = field(default_factory=dict)
    refused: str = ""  # mav does not open it, and why
    unusable: str = ""  # llama.cpp itself does not build it, or computes nothing with it
    failed: str = ""  # what was raised, or how its process ended
    layers: int = 0
    cuts: bool = True

    @property
    def wrong(self) -> dict[str, float]:
        return {name: error for name, error in self.errors.items() if not error <= LIMITS[name]}

    def worst(self, name: str, error: float) -> None:
        self.errors[name] = max(self.errors.get(name, 0.0), error) if error == error else error


def text() -> list[int]:
    ids = torch.randint(3, 1500, (PROMPT + DECODED,), generator=torch.Generator().manual_seed(11))
    return [int(i) for i in ids]


def bare_logits(path: Path, ids: Sequence[int]) -> list[Tensor]:
    """llama.cpp's own logits [vocab] after PROMPT tokens and after each of the others, without a callback; [] where it fails."""
    import llama_cpp.llama_cpp as llama

    model: Any = llama.llama_model_load_from_file(os.fsencode(path), llama.llama_model_default_params())
    params = llama.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = 512, 256, 256
    params.n_threads = params.n_threads_batch = 1
    params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.type_k = params.type_v = 0  # float32
    params.swa_full = True
    context: Any = llama.llama_init_from_model(model, params) if model else None
    result = []
    if context:
        vocabulary = int(llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model)))
        for piece in (ids[: PROMPT - 1], *([token] for token in ids[PROMPT - 1 :])):
            row = (llama.llama_token * len(piece))(*piece)
            if llama.llama_decode(context, llama.llama_batch_get_one(row, len(piece))):
                return []
            logits = llama.llama_get_logits_ith(context, -1)
            if not logits:
                return []
            result.append(torch.tensor(logits[:vocabulary]))
        llama.llama_free(context)
    if model:
        llama.llama_model_free(model)
    return result[1:]


def examine(path: Path, on_stage: Callable[[str], None] = lambda _stage: None) -> Report:
    """Everything about one file. `on_stage` is called with what comes next, for who sees the process die."""
    report = Report()
    native.load()  # which keeps llama.cpp's log from the screen
    on_stage("llama.cpp runs it alone")
    ids = text()
    bare = bare_logits(path, ids)
    if not bare or not all(bool(one.isfinite().all()) for one in bare):
        report.unusable = "llama.cpp computes no finite logits with it"
        return report
    on_stage("mav opens it")
    try:
        backend = llamacpp.load(str(path), LoadOptions(dtype="float32", threads=1))
    except MavError as error:
        report.refused = str(error)
        return report
    report.layers, report.cuts = backend.info.layers, backend.examined.cuts
    report.none = lacking(backend)
    on_stage("mav runs it")
    _examine(backend, ids, bare, report)
    backend.close()
    return report


def lacking(backend: LlamaCppBackend) -> dict[str, str]:
    result = {}
    for site in sorted(SITES | HEAD_SITES):
        by_reason: dict[str, list[int]] = {}
        for layer, why in sorted(backend.missing.get(site, {}).items()):
            by_reason.setdefault(why, []).append(layer)
        if by_reason:
            everywhere = [list(range(backend.info.layers))] == list(by_reason.values())
            result[site] = "; ".join(why if everywhere else f"{why} ({ranges(at)})" for why, at in by_reason.items())
    return result


def _examine(backend: LlamaCppBackend, ids: list[int], bare: list[Tensor], report: Report) -> None:
    report.worst("stops", backend.examined.errors.get("stops", 0.0))
    frames = [backend.prefill(ids[:PROMPT], SITES), *(backend.decode_one_token(token, SITES) for token in ids[PROMPT:])]
    for frame, own in zip(frames, bare, strict=True):
        report.worst("bare", _apart(frame.logits, own))
        _numbers(frame, report)
    with backend.aside():
        backend.prefill(ids[3:20], SITES)
    end = len(ids)
    backend.rewind(end - BACK)
    again = [backend.decode_one_token(token, SITES) for token in ids[end - BACK :]]
    for a, b in zip(again, frames[-BACK:], strict=True):
        report.worst("back", max(_apart(a.logits, b.logits), _sites_apart(a, b)))
    with backend.aside():
        backend.rewind(end - 3)
        backend.decode_one_token(5, SITES)
    after = backend.decode_one_token(ids[0], SITES).logits
    backend.prefill(ids[:PROMPT], frozenset())
    fresh = [backend.decode_one_token(token, frozenset()).logits for token in [*ids[PROMPT:], ids[0]]]
    report.worst("aside", _apart(after, fresh[-1]))
    report.worst("capture", max(_apart(a, frame.logits) for a, frame in zip(fresh[:-1], frames[1:], strict=True)))
    _interventions(backend, ids, report)


def _numbers(frame: Frame, report: Report) -> None:
    """Of one pass: parts against the stream, rows against scores, the lens of the last layer against the logits."""
    sites = frame.sites
    for layer, (before, after) in enumerate(zip(sites["residual.before"], sites["residual.after"], strict=True)):
        rows, scores = sites["attention.probs"][layer], sites["attention.scores"][layer]
        if rows is not None:
            report.worst("rows", max(float((rows.sum(-1) - 1).max()), -float(rows.min())))
        if rows is not None and scores is not None:
            shared = rows.sum(-1, keepdim=True)  # less than 1 where a sink has a part
            report.worst("scores", float((scores.double().softmax(-1) * shared - rows).abs().max()))
        if before is None or after is None:
            continue
        if layer and sites["residual.after"][layer - 1] is not None:
            report.worst("chain", _apart(before, sites["residual.after"][layer - 1]))
        parts = [part for site in PARTS if (part := sites[site][layer]) is not None]
        if all(_known(report, site, layer) for site in PARTS) and parts:
            sizes = before.abs() + sum(part.abs() for part in parts)
            report.worst("sum", float(((before + sum(parts) - after).abs() / sizes.clamp_min(1e-30)).max()))
    last = sites["residual.after"][-1]
    if frame.head is not None and last is not None:
        report.worst("lens", _apart(frame.head.logits(last[None])[0], frame.logits))


def _known(report: Report, site: str, layer: int) -> bool:
    """Whether a part that is None is so since the layer has none."""
    return all(word not in report.none.get(site, "") for word in ("not found", "off by", "another", "followed"))


def _interventions(backend: LlamaCppBackend, ids: list[int], report: Report) -> None:
    """What is ablated is gone, what follows is other, and the model itself is as before."""
    plain = backend.prefill(ids[:9], SITES)
    for spec in SPECS:
        one = parse(spec)
        if backend.why_not(one) is not None:
            continue
        changed = backend.intervened([one], ids[:9])
        frame = changed.prefill(ids[:9], SITES)
        changed.close()
        if torch.equal(frame.logits, plain.logits):
            report.worst("ablation", 1.0)
        site = {"ablate L1.attn": "attention.out", "ablate L1.mlp": "mlp.out"}.get(spec)
        if site is not None:
            report.worst("ablation", float(frame.sites[site][1].abs().max()))
        if spec == "amplify L1=0.5":
            before, after = plain.sites["residual.before"][1], plain.sites["residual.after"][1]
            changed_to = frame.sites["residual.after"][1]
            assert before is not None
            assert after is not None
            assert changed_to is not None
            report.worst("ablation", _apart(changed_to, before + 0.5 * (after - before)))
    report.worst("back", _apart(backend.prefill(ids[:9], frozenset()).logits, plain.logits))


def _sites_apart(a: Frame, b: Frame) -> float:
    pairs = [(x, y) for site in SITES for x, y in zip(a.sites.get(site, ()), b.sites.get(site, ()), strict=True)]
    return float(any((x is None) != (y is None) or (x is not None and not torch.equal(x, y)) for x, y in pairs))


def _apart(a: Tensor, b: Tensor) -> float:
    """max |a - b| / max |b|."""
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-30))
