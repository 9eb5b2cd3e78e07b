"""What mav shows inside of the layers of a tiny model, against hooks of our own in the same pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from backends.tiny_names import NamedParts
from backends.tiny_reference import Recorder
from backends.tiny_report import Report, context, error_of
from openmav.backends.base import Frame
from openmav.backends.sites import SITES
from openmav.backends.transformers import TransformersBackend
from openmav.measures import attention_norm, mlp_norm, residual_norm

PARTS = ("attention.out", "mlp.out", "other.out")


def inside(
    backend: TransformersBackend, model_type: str, prompt: Sequence[int], tokens: Sequence[int], frames: Sequence[Frame], report: Report
) -> None:
    """Once more with hooks of our own: the same bits, and what mav shows is what those modules gave."""
    anatomy, eps = backend.anatomy, torch.finfo(backend.model.dtype).eps
    sides = (anatomy.attention, anatomy.mlp, anatomy.other or (None,) * len(anatomy.layers))
    terms = [term.module for side in sides for part in side for term in part or () if term.module is not None]
    named = [NamedParts(model_type, layer, backend.model.config) for layer in anatomy.layers]
    recorder = Recorder(anatomy.layers, [*anatomy.layers, *terms, *(module for parts in named for module in parts.modules)])
    carries = anatomy.carry or (1.0,) * len(anatomy.layers)
    for number, frame in enumerate(frames):
        with recorder.recording():
            again = backend.prefill(prompt, SITES) if number == 0 else backend.decode_one_token(tokens[number - 1], SITES)
        report.worst("bits", float(not torch.equal(again.logits, frame.logits)))
        if report.errors["bits"]:
            return
        norms = {m.__name__: m.compute(frame, context(frame)) for m in (residual_norm, attention_norm, mlp_norm)}
        for layer, module in enumerate(anatomy.layers):
            shown = {site: rows[layer] for site, rows in frame.sites.items()}
            _residual(shown, recorder.taken.get(module), recorder.given.get(module), report)
            _norms(shown, {name.rpartition(".")[2]: float(values[layer]) for name, values in norms.items()}, report)
            for site, side in zip(PARTS, sides, strict=True):
                value, part = shown[site], side[layer]
                if value is not None and part is not None:
                    total = sum(t.coefficient * (1.0 if t.module is None else recorder.given[t.module].double()) for t in part)
                    report.worst("parts", error_of(value.double(), total) / eps)
            if layer not in backend.missing.get("other.out", {}):
                sums_up(shown, carries[layer], eps, report)
            reasons = {site: backend.missing.get(site, {}).get(layer, "") for site in PARTS}
            _named(shown, reasons, named[layer], recorder.given, eps, report)
        if frame.head is not None and shown["residual.after"] is not None:
            report.worst("lens", error_of(frame.head.logits(shown["residual.after"][None])[0], frame.logits) / eps)


def _residual(shown: Mapping[str, Tensor | None], taken: Tensor | None, given: Tensor | None, report: Report) -> None:
    for site, expected in (("residual.before", taken), ("residual.after", given)):
        value = shown[site]
        if value is not None and expected is not None and value.shape == expected.shape:
            report.worst("residual", error_of(value.double(), expected.double()))


def _norms(shown: Mapping[str, Tensor | None], norms: Mapping[str, float], report: Report) -> None:
    """The norms that the panels show, against torch's in double precision."""
    for name, site in (("residual_norm", "residual.after"), ("attention_norm", "attention.out"), ("mlp_norm", "mlp.out")):
        value = shown[site]
        if value is not None:
            true = float(value.double().norm())
            report.worst("norms", abs(norms[name] - true) / true / torch.finfo(torch.float32).eps if true else abs(norms[name]))


def sums_up(shown: Mapping[str, Tensor | None], carry: float | Tensor, eps: float, report: Report) -> None:
    """carry * what came in + what was added = what went out, to the rounding of the float type."""
    before, after = shown["residual.before"], shown["residual.after"]
    parts = [shown.get(site) for site in PARTS]
    if before is None or after is None or all(part is None for part in parts):
        return
    if any(x.shape != before.shape for x in (after, *parts) if x is not None):  # the stream is not one vector a token
        return
    vectors = [carry * before.double(), *(part.double() for part in parts if part is not None)]
    scale = max(float(v.norm()) for v in (*vectors, after.double()))
    report.worst("sum", float((sum(vectors) - after.double()).norm()) / scale / eps)


def _named(
    shown: Mapping[str, Tensor | None],
    reasons: Mapping[str, str],
    named: NamedParts,
    given: Mapping[nn.Module, Tensor],
    eps: float,
    report: Report,
) -> None:
    """What mav shows against the modules that the modeling file names, which must themselves explain the layer in fp32."""
    sums = named.sums(given)
    exact = eps < 1e-6 and named.whole and shown["residual.before"] is not None and shown["residual.after"] is not None
    if exact:
        sums_up({**shown, **dict(zip(PARTS, [*sums, None], strict=True))}, 1.0, eps, check := Report())
        if check.wrong or not check.errors:
            assert not named.sure, f"these are not the modules that add to the residual stream: off by {check.errors} eps"
            return
    if not (named.sure or exact):
        return
    for site, expected in zip(PARTS, sums):
        if shown[site] is None:
            report.worst("named", float("inf") if expected is not None and reasons[site].startswith("no ") else 0.0)
        else:
            report.worst("named", float("inf") if expected is None else error_of(shown[site].double(), expected) / eps)
