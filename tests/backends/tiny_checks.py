"""What mav shows of a tiny model against computations of its own, at every layer and token: figures only, no verdict but the limits.

Errors are in units of the float type's own rounding (its eps), so that one limit holds in fp32 and bfloat16: of sums and norms relative
to the vectors that go in, of logits and rows relative to the error that transformers' own pass in that float type makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from backends.tiny_configs import thresholds
from backends.tiny_models import CannotBuildError, tiny_model
from backends.tiny_parts import inside
from backends.tiny_passes import against_transformers
from backends.tiny_reasons import in_words
from backends.tiny_reference import full_pass, generated, zeroed
from backends.tiny_report import BACK, DECODED, PIECE, Report, error_of, text
from openmav.backends.base import Frame
from openmav.backends.sites import SITES
from openmav.backends.transformers import TransformersBackend, wrap
from openmav.backends.transformers.decoding import decoder
from openmav.errors import MavError, UsageError
from openmav.settings.interventions import parse


def examine(model_type: str, dtype: torch.dtype) -> Report:
    """Everything about one type in one float type."""
    report = Report()
    try:
        model, plain, tried = (tiny_model(model_type, dtype) for _ in range(3))
    except CannotBuildError as error:
        report.cannot = f"transformers does not build it: {error}"
        return report
    report.thresholds = thresholds(model.config)
    report.cannot = _cannot(tried)
    before = _traces(model)
    try:
        with _short_pieces():
            backend = wrap(model, None, name=model_type)
    except MavError as error:
        report.refused = str(error)
        return report
    if report.cannot:
        backend.close()
        report.failed = f"mav opens it, but {report.cannot}" if dtype == torch.float32 else ""
        return report
    report.notes, report.layers = backend.info.notes, len(backend.anatomy.layers)
    with _short_pieces():
        _examine(backend, model_type, plain, report)
    backend.close()
    report.worst("left", float(sum(before.get(key, value) != value for key, value in _traces(model).items())))
    _reasons(backend, report)
    return report


def _cannot(model: PreTrainedModel) -> str:
    """Why this is no model that transformers itself can run and continue on text alone."""
    if model.config.is_encoder_decoder:
        return "it is an encoder with a decoder"
    if not getattr(model.config, "is_decoder", True):
        return "it is an encoder: each token sees those after it"
    try:
        logits = full_pass(model, text()).logits
        tokens, _ = generated(model, text(), 2)
    except Exception as error:
        return f"transformers can't continue a text with it: {in_words(error)}"
    if not bool(logits.isfinite().all()):
        return "transformers' own pass over the text computes NaN"
    return "" if len(tokens) == 2 else "transformers does not generate text with it"


@contextmanager
def _short_pieces() -> Iterator[None]:
    """Within this block mav reads prompts in pieces of PIECE tokens, so that a short prompt has two."""
    usual = decoder.CHUNK
    decoder.CHUNK = PIECE
    try:
        yield
    finally:
        decoder.CHUNK = usual


def _examine(backend: TransformersBackend, model_type: str, plain: PreTrainedModel, report: Report) -> None:
    prompt = text()
    frames, tokens = _run(backend, prompt)
    against_transformers(backend, model_type, plain, prompt, tokens, frames, report)
    inside(backend, model_type, prompt, tokens, frames, report)
    _going_back(backend, tokens, frames, report)
    bare = _feed(backend, prompt, tokens, frozenset())
    report.worst("bits", float(sum(not torch.equal(a.logits, b.logits) for a, b in zip(frames, bare, strict=True))))
    _ablated(backend, plain, prompt, report)


def _run(backend: TransformersBackend, prompt: Sequence[int]) -> tuple[list[Frame], list[int]]:
    """The prompt and DECODED greedy tokens; a frame each, but none for the last token."""
    frames, tokens = [backend.prefill(prompt, SITES)], list[int]()
    _settle(frames[-1])
    while len(tokens) < DECODED:
        tokens.append(int(frames[-1].logits.argmax()))
        if len(tokens) < DECODED:
            frames.append(backend.decode_one_token(tokens[-1], SITES))
            _settle(frames[-1])
    return frames, tokens


def _feed(backend: TransformersBackend, prompt: Sequence[int], tokens: Sequence[int], want: frozenset[str]) -> list[Frame]:
    return [backend.prefill(prompt, want), *(backend.decode_one_token(token, want) for token in tokens[:-1])]


def _settle(frame: Frame) -> None:
    """Copy what the next forward pass may overwrite."""
    frame.sites = {site: [None if row is None else row.clone() for row in rows] for site, rows in frame.sites.items()}


# ---- what can be done with it ----------------------------------------------------------------------------------------------


def _going_back(backend: TransformersBackend, tokens: Sequence[int], frames: Sequence[Frame], report: Report) -> None:
    """Take tokens back and feed them again: the same bits."""
    backend.rewind(backend.length - BACK)
    again = [backend.decode_one_token(token, SITES) for token in tokens[-1 - BACK : -1]]
    report.worst("back", max(error_of(b.logits, a.logits) for a, b in zip(frames[-BACK:], again, strict=True)))


def _ablated(backend: TransformersBackend, plain: PreTrainedModel, prompt: Sequence[int], report: Report) -> None:
    """Layer 1 without its MLP, against a pass in which hooks of our own set it to 0."""
    if backend.model.dtype != torch.float32 or "full pass" in report.none:
        return
    wanted = parse("ablate L1.mlp")
    why = backend.why_not(wanted)
    if why is not None:
        report.none["ablation"] = why
        return
    paths = {id(module): path for path, module in backend.model.named_modules()}
    modules = [paths[id(term.module)] for term in backend.anatomy.mlp[1] or () if term.module is not None]
    try:
        touched = backend.intervened([wanted], prompt)
    except UsageError as error:
        report.none["ablation"] = str(error)
        return
    with zeroed(plain, modules):
        expected = full_pass(plain, prompt).logits[-1]
    frame = touched.prefill(prompt, frozenset())
    touched.close()
    report.worst("ablation", error_of(frame.logits, expected) / torch.finfo(torch.float32).eps / report.own)


# ---- what mav leaves and what it does not show -----------------------------------------------------------------------------


def _traces(model: nn.Module) -> dict[str, object]:
    """All that a backend might leave behind in a model."""
    hooks = {f"hooks on {n or 'model'}": (len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()}
    forwards = {f"forward of {n or 'model'}": "forward" in vars(m) for n, m in model.named_modules()}
    return {**hooks, **forwards, "training": model.training, "attention": model.config._attn_implementation}


def _reasons(backend: TransformersBackend, report: Report) -> None:
    """{site: reason}, with how many layers it holds for."""
    for site, layers in backend.missing.items():
        reasons = list(layers.values())
        if reasons and site not in ("attention.scores", "head.direction", "head.neurons", "mlp.hidden", "router.experts", "router.weights"):
            report.none[site] = "; ".join(f"{r} ({reasons.count(r)} of {report.layers})" for r in dict.fromkeys(reasons))
