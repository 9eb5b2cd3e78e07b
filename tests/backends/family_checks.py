"""Measures a family's tiny model through mav's backend against independent runs of transformers; figures only, no verdicts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from backends.families import FAMILIES, OTHERS, build
from openmav.backends.base import Frame
from openmav.backends.sites import SITES
from openmav.backends.transformers import TransformersBackend, wrap

PROMPT, DECODED = 13, 8  # tokens; together more than twice the sliding window
IDS: list[int] = torch.randint(3, 128, (PROMPT + DECODED,), generator=torch.Generator().manual_seed(11)).tolist()
ROWS_TOLERANCE = 1e-5  # absolute, of attention weights
CACHED_TOLERANCE = 1e-4  # relative to the largest logit
PARTS_TOLERANCE = 1e-4  # relative to the change of the residual stream
RESIDUAL_TOLERANCE = 1e-4  # relative to the residual stream


@dataclass(frozen=True)
class Figures:
    """What was measured; errors are the largest over all tokens and layers, None where nothing could be compared."""

    layers: int
    rows_layers: int  # layers with attention rows
    parts_layers: int  # layers where all parts that exist were found
    rows: float | None
    cached: float
    residual: float
    parts: float | None
    bit_identical: bool
    left_behind: tuple[str, ...]
    shown_though_missing: tuple[str, ...]  # sites of which a frame holds a value for a layer that is said to have none
    missing: Mapping[str, Mapping[int, str]]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Reference:
    """One plain forward pass over all tokens with eager attention: [tokens, vocab], rows [heads, tokens, tokens], [tokens, width]."""

    logits: Tensor
    rows: list[Tensor | None]  # of each layer; None where it has no attention
    residuals: list[Tensor]  # after each layer, before the final norm
    inputs: list[Tensor]  # of each layer


def reference(model: nn.Module, layers: Sequence[nn.Module], owners: Sequence[nn.Module | None]) -> Reference:
    """Run all of IDS through a model that nobody has touched, with hooks of our own on its layers and its attention modules."""
    came: dict[nn.Module, Tensor] = {}  # of a layer that runs more than once, the last run
    went: dict[nn.Module, Tensor] = {}
    told: dict[nn.Module, Tensor] = {}
    handles = [m.register_forward_hook(lambda m, a, out: told.update({m: _rows(out)})) for m in owners if m is not None]
    for layer in layers:
        handles.append(layer.register_forward_pre_hook(lambda m, a, k: came.update({m: _first((*a, *k.values()))}), with_kwargs=True))
        handles.append(layer.register_forward_hook(lambda m, a, out: went.update({m: _first(out)})))
    inputs = {"input_ids": torch.tensor([IDS]), "use_cache": False}
    if "position_ids" in inspect.signature(model.forward).parameters:
        inputs["position_ids"] = torch.arange(len(IDS))[None]
    if any(owner is not None for owner in owners):
        inputs["output_attentions"] = True
    with torch.no_grad():
        output = model(**inputs)
    for handle in handles:
        handle.remove()
    return Reference(
        output.logits[0], [None if owner is None else told[owner] for owner in owners], list(went.values()), list(came.values())
    )


def _rows(output: tuple[object, ...]) -> Tensor:
    """[heads, tokens, tokens] that an attention module returns beside its output."""
    return next(entry for entry in output if isinstance(entry, Tensor) and entry.ndim == 4)[0]


def _first(value: object) -> Tensor:
    """[tokens, width], a copy of the first tensor."""
    while isinstance(value, tuple | list):
        value = value[0]
    assert isinstance(value, Tensor)
    return value[0].clone()


def run(backend: TransformersBackend, want: frozenset[str]) -> list[Frame]:
    """The frames of IDS: one for the prompt, one for each token after it."""
    frames = [backend.prefill(IDS[:PROMPT], want)]
    return frames + [backend.decode_one_token(token, want) for token in IDS[PROMPT:]]


@cache
def measure(name: str) -> Figures:
    """Figures of a family, measured once."""
    plain, model = build(name), build(name)
    before = _traces(model)
    backend = wrap(model, None, name=name)
    anatomy = backend.anatomy
    paths = {id(module): path for path, module in model.named_modules()}
    owners = [None if m is None else plain.get_submodule(paths[id(m)]) for m in anatomy.attention_modules]
    truth = reference(plain, [plain.get_submodule(paths[id(layer)]) for layer in anatomy.layers], owners)
    shown, bare = run(backend, SITES), run(backend, frozenset())
    compared = shown[:1] if (FAMILIES | OTHERS)[name].drifts else shown
    parts = [_parts_error(backend, frame) for frame in shown]
    found = [a is not None or m is not None for a, m in zip(anatomy.attention, anatomy.mlp)]
    backend.close()
    return Figures(
        layers=len(anatomy.layers),
        rows_layers=sum(row is not None for row in shown[-1].sites["attention.probs"]),
        parts_layers=sum(found),
        rows=max((_rows_error(frame, truth, PROMPT - 1 + i) for i, frame in enumerate(compared))) if any(owners) else None,
        cached=max(_relative(frame.logits, truth.logits[PROMPT - 1 + i]) for i, frame in enumerate(compared)),
        residual=max(_residual_error(frame, truth, PROMPT - 1 + i) for i, frame in enumerate(compared)),
        parts=max(parts) if any(found) else None,
        bit_identical=all(torch.equal(a.logits, b.logits) for a, b in zip(shown, bare)),
        left_behind=tuple(key for key, value in _traces(model).items() if before[key] != value),
        shown_though_missing=_shown_though_missing(backend, shown[-1]),
        missing=backend.missing,
        notes=backend.info.notes,
    )


def _shown_though_missing(backend: TransformersBackend, frame: Frame) -> tuple[str, ...]:
    sites = {site: layers for site, layers in backend.missing.items() if site in SITES}
    return tuple(site for site, layers in sites.items() if any(frame.sites[site][layer] is not None for layer in layers))


def _traces(model: nn.Module) -> dict[str, object]:
    """All that a backend might leave behind in a model."""
    hooks = {f"hooks on {n or 'model'}": (len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()}
    forwards = {f"forward of {n or 'model'}": "forward" in vars(m) for n, m in model.named_modules()}
    return {**hooks, **forwards, "training": model.training, "attention": model.config._attn_implementation}


def _relative(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float((a - b).abs().max() / b.abs().max())


def _rows_error(frame: Frame, truth: Reference, position: int) -> float:
    """Rows of all layers that have them; one that holds its window only is compared at its right end, and the rest must be 0."""
    worst = 0.0
    for ours, theirs in zip(frame.sites["attention.probs"], truth.rows, strict=True):
        if ours is None or theirs is None:
            assert ours is None, "a row where eager attention has none"
            continue
        expected = theirs[:, position, : position + 1]
        padded = torch.zeros_like(expected)
        padded[:, padded.shape[1] - ours.shape[1] :] = ours
        worst = max(worst, float((padded - expected).abs().max()))
    return worst


def _residual_error(frame: Frame, truth: Reference, position: int) -> float:
    """Of the residual stream before and after each layer."""
    errors = [0.0]
    for site, expected in (("residual.before", truth.inputs), ("residual.after", truth.residuals)):
        for ours, theirs in zip(frame.sites[site], expected, strict=True):
            if ours is not None:
                errors.append(float((ours - theirs[position]).norm() / theirs[position].norm()))
    return max(errors)


def _parts_error(backend: TransformersBackend, frame: Frame) -> float:
    """carry * before + attention + mlp + other against after, relative to the change; layers without parts do not count."""
    anatomy, worst = backend.anatomy, 0.0
    carries = anatomy.carry or (1.0,) * len(anatomy.layers)
    for layer, carry in enumerate(carries):
        parts = [frame.sites[site][layer] for site in ("attention.out", "mlp.out")]
        if all(part is None for part in parts):
            continue
        before, after = frame.sites["residual.before"][layer], frame.sites["residual.after"][layer]
        assert before is not None
        assert after is not None
        change = after - carry * before
        parts.append(frame.sites["other.out"][layer])
        worst = max(worst, float((sum(p for p in parts if p is not None) - change).norm() / change.norm()))
    return worst
