"""The deep measures on real transformers models: against formulas written out for a family, and against the model's own modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from backends.families import FAMILIES, Scaled, build
from backends.frames import feed
from openmav.backends.base import Frame
from openmav.backends.transformers import wrap
from openmav.generation.session import Session
from openmav.measures.base import Context
from openmav.plugins import registry
from openmav.settings import Settings

DEEP = ("logit_lens", "attribution", "neurons", "router", "sink_share", "relative_attention_entropy", "attention_rows")


def about(frame: Frame, token_id: int | None = None) -> Context:
    probs = frame.logits.softmax(-1)
    chosen = int(probs.argmax()) if token_id is None else token_id
    return Context(frame.logits, probs, probs, frame.logits.argsort(descending=True), chosen)


def compute(frame: Frame, name: str, token_id: int | None = None) -> dict[str, np.ndarray]:
    found = registry.load("measures", name).compute(frame, about(frame, token_id))
    return found if isinstance(found, dict) else {name: found}


@pytest.fixture(scope="module", params=FAMILIES)
def shown(request):
    """A family's model, its backend and a frame."""
    model = build(request.param)
    backend = wrap(model, None, request.param)
    yield request.param, backend, feed(backend)
    backend.close()


# ---- every family ----------------------------------------------------------------------------------------------------------


def test_lens_of_the_last_layer_is_the_models_logits(shown) -> None:
    _, _, frame = shown
    assert frame.head is not None
    lens = frame.head.logits(torch.stack(list(frame.sites["residual.after"])))[-1]
    assert float((lens - frame.logits).abs().max()) <= 1e-5 * float(frame.logits.abs().max())


@pytest.mark.parametrize("rank", [0, 100])
def test_attribution_sums_to_the_logit(shown, rank: int) -> None:
    _, _, frame = shown
    token = int(frame.logits.argsort(descending=True)[rank])
    found = compute(frame, "attribution", token)
    size = np.nansum(np.abs(found["attribution"])) + abs(found["attribution.embedding"][0])
    assert abs(found["attribution.rest"][0]) <= 1e-5 * size


def test_attribution_is_of_the_logit_before_a_soft_cap(shown) -> None:
    name, _, frame = shown
    found = compute(frame, "attribution")["attribution.logit"][0]
    logit = float(frame.logits.max())
    assert found == pytest.approx(30 * np.arctanh(logit / 30) if name == "gemma2" else logit, rel=1e-5)


def test_neurons_or_a_router_or_a_reason_in_every_layer(shown) -> None:
    name, backend, frame = shown
    for layer, (hidden, experts) in enumerate(zip(frame.sites["mlp.hidden"], frame.sites["router.experts"], strict=True)):
        assert (hidden is None) == (layer in backend.missing.get("mlp.hidden", {}))
        assert (experts is None) == (layer in backend.missing.get("router.experts", {}))
        assert hidden is not None or experts is not None or layer in FAMILIES[name].without_mlp
    moe = any(experts is not None for experts in frame.sites["router.experts"])
    assert moe == FAMILIES[name].moe


def test_rows_and_shares_are_within_bounds(shown) -> None:
    _, _, frame = shown
    rows = compute(frame, "attention_rows")["attention_rows"]
    present = [i for i, row in enumerate(frame.sites["attention.probs"]) if row is not None]
    assert (rows[present] >= 0).all()
    shares = compute(frame, "sink_share")
    assert (rows[present].sum(-1) + shares["sink_share.learned"][present]) == pytest.approx(1, abs=2e-4)
    relative = compute(frame, "relative_attention_entropy")["relative_attention_entropy"]
    assert (relative[present] >= 0).all()
    assert (relative[present] <= 1).all()
    assert [i for i in range(len(rows)) if np.isnan(relative[i]).all()] == [i for i in range(len(rows)) if i not in present]


# ---- against formulas written out --------------------------------------------------------------------------------------------


def rms(x: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean() + eps).sqrt()


def layer_norm_scale(x: Tensor, eps: float) -> Tensor:
    return 1 / (x.var(unbiased=False) + eps).sqrt()


def llama(model: Any, x: Tensor, token: int) -> tuple[Tensor, Tensor]:
    """(all logits at x, direction of one)."""
    norm, rows = model.model.norm, model.lm_head.weight
    scale = 1 / (x.square().mean() + norm.variance_epsilon).sqrt()
    return rows @ (norm.weight * x * scale), rows[token] * norm.weight * scale


def gemma2(model: Any, x: Tensor, token: int) -> tuple[Tensor, Tensor]:
    norm, rows = model.model.norm, model.lm_head.weight
    scale = 1 / (x.square().mean() + norm.eps).sqrt()
    before = rows @ ((1 + norm.weight) * x * scale)
    return 30 * torch.tanh(before / 30), rows[token] * (1 + norm.weight) * scale


def gpt2(model: Any, x: Tensor, token: int) -> tuple[Tensor, Tensor]:
    norm, rows = model.transformer.ln_f, model.lm_head.weight
    scale = layer_norm_scale(x, norm.eps)
    direction = rows[token] * norm.weight * scale
    return rows @ ((x - x.mean()) * scale * norm.weight + norm.bias), direction - direction.mean()


def cohere(model: Any, x: Tensor, token: int) -> tuple[Tensor, Tensor]:
    norm, rows = model.model.norm, model.lm_head.weight * 0.25
    scale = layer_norm_scale(x, norm.variance_epsilon)
    direction = rows[token] * norm.weight * scale
    return rows @ ((x - x.mean()) * scale * norm.weight), direction - direction.mean()


def granite(model: Any, x: Tensor, token: int) -> tuple[Tensor, Tensor]:
    logits, direction = llama(model, x, token)
    return logits / 2, direction / 2


def phi(model: Any, x: Tensor, token: int) -> tuple[Tensor, Tensor]:
    norm, head = model.model.final_layernorm, model.lm_head
    scale = layer_norm_scale(x, norm.eps)
    direction = head.weight[token] * norm.weight * scale
    return head.weight @ ((x - x.mean()) * scale * norm.weight + norm.bias) + head.bias, direction - direction.mean()


WRITTEN: dict[str, Callable[[Any, Tensor, int], tuple[Tensor, Tensor]]] = {
    "llama": llama,
    "gemma2": gemma2,
    "gpt2": gpt2,
    "cohere": cohere,
    "granite": granite,
    "phi": phi,
}


@pytest.mark.parametrize("name", WRITTEN)
def test_lens_and_direction_are_those_of_the_formula(name: str) -> None:
    model = build(name)
    frame = feed(wrap(model, None))
    residuals = torch.stack(list(frame.sites["residual.after"]))
    token = int(frame.logits.argmax())
    with torch.no_grad():
        lens = [WRITTEN[name](model, x, token)[0] for x in residuals]
        direction = WRITTEN[name](model, residuals[-1], token)[1]
    assert frame.head is not None
    torch.testing.assert_close(frame.head.logits(residuals), torch.stack(lens), rtol=1e-5, atol=1e-5)
    found = frame.head.directions(residuals[-1], [token], frame.logits)
    assert found is not None
    torch.testing.assert_close(found.vectors[0], direction, rtol=1e-4, atol=1e-6)
    added = compute(frame, "attribution")["attribution"][:, 1]
    expected = [float(direction @ x) for x in frame.sites["mlp.out"]]
    assert added == pytest.approx(expected, rel=1e-3, abs=1e-5)


# ---- inside the MLP ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "last"), [("llama", "mlp.down_proj"), ("gpt2", "mlp.c_proj"), ("opt", "fc2"), ("bloom", "mlp.dense_4h_to_h")]
)
def test_neurons_are_what_the_last_linear_map_takes(name: str, last: str) -> None:
    model = build(name)
    backend = wrap(model, None)
    taken: list[Tensor] = []
    handles = [
        layer.get_submodule(last).register_forward_pre_hook(lambda m, a: taken.append(a[0].clone())) for layer in backend.anatomy.layers
    ]
    frame = feed(backend)
    for handle in handles:
        handle.remove()
    expected = torch.stack([x.reshape(-1, x.shape[-1])[-1] for x in taken[-len(handles) :]])
    assert torch.equal(torch.stack(list(frame.sites["mlp.hidden"])), expected)
    found = compute(frame, "neurons")
    assert found["neurons"][:, 0] == pytest.approx(expected.gather(1, expected.abs().argmax(1, keepdim=True))[:, 0].numpy())


@pytest.mark.parametrize(("name", "gate"), [("mixtral", "mlp.gate"), ("qwen3_moe", "mlp.gate"), ("gpt_oss", "mlp.router")])
def test_router_is_what_the_models_router_says(name: str, gate: str) -> None:
    model = build(name)
    backend = wrap(model, None)
    told: list[tuple[Tensor, ...]] = []
    handles = [layer.get_submodule(gate).register_forward_hook(lambda m, a, out: told.append(out)) for layer in backend.anatomy.layers]
    frame = feed(backend)
    for handle in handles:
        handle.remove()
    found = compute(frame, "router")
    for layer, (_, weights, experts) in enumerate(told[-len(handles) :]):
        pairs = sorted(zip(weights[-1].tolist(), experts[-1].tolist(), strict=True), reverse=True)
        assert found["router.ids"][layer].tolist() == [e for _, e in pairs]
        assert found["router"][layer] == pytest.approx([w for w, _ in pairs])


def test_shared_expert_and_dense_layers_are_told_apart() -> None:
    backend = wrap(build("deepseek_v3"), None)
    frame = feed(backend)
    assert [hidden is not None for hidden in frame.sites["mlp.hidden"]] == [True, False, False]
    assert [experts is not None for experts in frame.sites["router.experts"]] == [False, True, True]
    assert backend.missing["mlp.hidden"] == dict.fromkeys((1, 2), "mixture of experts: see router")


# ---- what can't be shown -----------------------------------------------------------------------------------------------------


class Shifted(nn.Module):
    """A head whose logits depend on more than the last hidden state: on how often it was asked."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.inner(x) * self.calls


class Bent(nn.Module):
    """A head that is no linear function."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner, self.weight = inner, inner.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).relu() + 0.1 * self.inner(x)


def values_of(model: nn.Module) -> tuple[Session, dict[str, np.ndarray]]:
    settings = Settings(model="x", prompt="abc", measures=DEEP, max_new_tokens=1)
    session = Session(wrap(model, Letters()), settings)
    return session, dict(session.step().values)


class Letters:
    """A tokenizer of 128 ids."""

    all_special_ids = ()
    eos_token_id = None
    chat_template = None

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(c) for c in text]}

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(map(chr, ids))


def test_a_head_that_cannot_be_reproduced_is_missing_with_a_reason() -> None:
    model = build("llama")
    model.lm_head = Shifted(model.lm_head)
    session, values = values_of(model)
    assert np.isnan(values["logit_lens"]).all()
    assert np.isnan(values["attribution"]).all()
    assert "not the model's logits" in str(session.info.why_missing("logit_lens", 0))
    assert "not the model's logits" in str(session.info.why_missing("attribution", 2))
    assert session.info.why_missing("neurons", 0) is None


def test_a_head_that_is_not_linear_has_a_lens_but_no_attribution() -> None:
    model = build("llama")
    model.lm_head = Bent(model.lm_head)
    session, values = values_of(model)
    assert np.isfinite(values["logit_lens"]).all()
    assert session.info.why_missing("logit_lens.token_ids", 0) is None
    assert np.isnan(values["attribution"]).all()
    assert "no linear function" in str(session.info.why_missing("attribution", 0))


def test_what_came_before_a_layer_that_is_no_sum_is_not_attributed() -> None:
    model = build("llama")
    model.model.layers[1] = Scaled(model.model.layers[1])
    session, values = values_of(model)
    assert np.isnan(values["attribution"][:2]).all()
    assert np.isfinite(values["attribution"][2]).all()
    assert np.isfinite(values["logit_lens"]).all()
    assert "what layer 1 adds is not known" in str(session.info.why_missing("attribution", 0))
    assert session.info.why_missing("attribution", 2) is None


def test_neurons_of_an_mlp_that_does_more_after_its_last_linear_map_have_no_tokens() -> None:
    model = build("llama")
    inner = model.model.layers[1].mlp
    original = inner.forward
    inner.forward = lambda x: original(x).tanh()
    taken: list[Tensor] = []
    inner.down_proj.register_forward_pre_hook(lambda m, a: taken.append(a[0][0, -1].clone()))
    session, values = values_of(model)
    assert values["neurons.ids"][1].tolist() == taken[-1].abs().topk(values["neurons.ids"].shape[1]).indices.tolist()
    assert "not linear" in str(session.info.why_missing("neuron_tokens", 1))
    assert session.info.why_missing("neuron_tokens", 0) is None


# ---- sessions, precision, NaN ------------------------------------------------------------------------------------------------


def test_texts_of_the_tokens_that_the_lens_names_are_in_the_step() -> None:
    session, values = values_of(build("llama"))
    step = session.steps[0]
    assert set(step.pieces) == set(values["logit_lens.token_ids"].ravel().tolist())
    assert all(step.pieces[i] == chr(i) for i in step.pieces)
    assert values["logit_lens.token_ids"].dtype == np.int64
    top = values["logit_lens.token_ids"][-1][: len(step.candidates)]
    assert top.tolist() == step.candidates.token_ids[: len(top)].tolist()
    assert values["logit_lens"][-1] == pytest.approx(step.candidates.probs[: len(top)], rel=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_oss", "jamba", "bloom"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_give_finite_numbers_close_to_fp32(name: str, dtype: torch.dtype) -> None:
    exact, half = feed(wrap(build(name), None)), feed(wrap(build(name).to(dtype), None))
    for measure in ("attention_entropy", *DEEP):
        expected, found = compute(exact, measure), compute(half, measure)
        for part in expected:
            assert np.array_equal(np.isfinite(expected[part]), np.isfinite(found[part])), part
    entropies = [compute(frame, "attention_entropy")["attention_entropy"] for frame in (exact, half)]
    assert np.nanmax(np.abs(entropies[0] - entropies[1])) < 0.1
    found = compute(half, "attribution")
    size = np.nansum(np.abs(found["attribution"])) + abs(found["attribution.embedding"][0])
    assert abs(found["attribution.rest"][0]) <= 0.05 * size


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "mistral", "smollm3", "jamba", "gpt_oss"])
def test_rounding_is_no_reason_to_give_up_mavs_attention(name: str, dtype: torch.dtype) -> None:
    assert not wrap(build(name).to(dtype), None).checked.from_outputs


@pytest.mark.parametrize("where", ["embed_tokens", "layers.1.mlp.down_proj", "layers.2.self_attn.q_proj", "norm"])
def test_nan_weights_raise_the_flag(where: str) -> None:
    model = build("llama")
    with torch.no_grad():
        model.model.get_submodule(where).weight[:] = torch.nan
    settings = Settings(model="x", prompt="abc", measures=("residual_norm", "attention_entropy", *DEEP), max_new_tokens=2)
    session = Session(wrap(model, Letters()), settings)
    for step in session:
        assert not step.healthy
    assert len(session.steps) == 2
