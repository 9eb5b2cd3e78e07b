"""What bends attention and the residual stream: each test computes a number independently, and would fail if mav left the feature out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from backends.families import WINDOW, build
from backends.family_checks import DECODED, IDS, PROMPT, Reference, reference, run
from openmav.backends.base import Frame
from openmav.backends.sites import SITES
from openmav.backends.transformers import wrap
from openmav.backends.transformers.discovery.anatomy import find

CLEARLY = 0.02  # a number without the feature is at least this far away
Change = Callable[[Any], None]


def last(name: str, change: Change | None = None, **settings: Any) -> Frame:
    """The frame of the last token of IDS."""
    return run(wrap(_changed(name, change, settings), None), SITES)[-1]


def eager(name: str, change: Change | None = None, **settings: Any) -> Reference:
    """One plain forward pass with eager attention over all of IDS."""
    model = _changed(name, change, settings)
    anatomy = find(model)
    return reference(model, anatomy.layers, anatomy.attention_modules)


def _changed(name: str, change: Change | None, settings: dict[str, Any]) -> Any:
    model = build(name, **settings)
    if change is not None:
        change(model)
    return model


def row(frame: Frame, layer: int = 0) -> Tensor:
    """[heads, all tokens] of a frame, zero where the row does not reach."""
    told = frame.sites["attention.probs"][layer]
    assert told is not None
    return nn.functional.pad(told, (len(IDS) - told.shape[-1], 0))


def site(frame: Frame, name: str, layer: int = 1) -> Tensor:
    value = frame.sites[name][layer]
    assert value is not None
    return value


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def far(ours: Tensor, theirs: Tensor) -> None:
    assert (ours - theirs).abs().max() > CLEARLY * theirs.abs().max()


# ---- attention -----------------------------------------------------------------------------------------------------------


def _rotated(x: Tensor, theta: float) -> Tensor:
    """Rotary embedding of [heads, tokens, d]: RoFormer (Su et al. 2021), halves of a head paired as in Llama."""
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[1])[:, None] * theta ** (-torch.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)


def test_grouped_query_attention() -> None:
    """Query head h looks through key head h // 2, not h % 2."""
    model, frame = build("llama"), last("llama")
    attention, theta = model.model.layers[0].self_attn, model.config.rope_parameters["rope_theta"]
    with torch.no_grad():
        x = model.model.layers[0].input_layernorm(model.model.embed_tokens(torch.tensor(IDS)))
        queries = _rotated(attention.q_proj(x).view(len(IDS), 4, 16).transpose(0, 1), theta)[:, -1]
        keys = _rotated(attention.k_proj(x).view(len(IDS), 2, 16).transpose(0, 1), theta)
        grouped, tiled = ((queries[:, None] * keys[[*heads]]).sum(-1).div(4).softmax(-1) for heads in ((0, 0, 1, 1), (0, 1, 0, 1)))
    close(row(frame), grouped)
    far(row(frame), tiled)


def test_sliding_window() -> None:
    frame, truth, without = last("mistral"), eager("mistral").rows[0], eager("mistral", sliding_window=None).rows[0]
    assert truth is not None
    assert without is not None
    close(row(frame), truth[:, -1])
    far(row(frame), without[:, -1])
    assert not row(frame)[:, :-WINDOW].any()
    close(row(frame)[:, -WINDOW:].sum(-1), torch.ones(4))


def test_soft_cap_of_attention() -> None:
    frame, truth, without = (f("gemma2", attn_logit_softcapping=cap) for f, cap in ((last, 1.0), (eager, 1.0), (eager, None)))
    close(row(frame, 1), truth.rows[1][:, -1])
    far(row(frame, 1), without.rows[1][:, -1])


def test_soft_cap_of_the_logits() -> None:
    frame, truth, without = (f("gemma2", final_logit_softcapping=cap) for f, cap in ((last, 2.0), (eager, 2.0), (eager, None)))
    close(frame.logits, truth.logits[-1])
    far(frame.logits, without.logits[-1])
    assert frame.logits.abs().max() <= 2


def _sinks(value: float) -> Change:
    def change(model: Any) -> None:
        for layer in model.model.layers:
            layer.self_attn.sinks.data.fill_(value)

    return change


def test_attention_sinks() -> None:
    """Rows of a model with learned sinks sum to less than 1."""
    frame, truth, without = last("gpt_oss", _sinks(2.0)), eager("gpt_oss", _sinks(2.0)).rows[1], eager("gpt_oss", _sinks(-1e4)).rows[1]
    assert truth is not None
    assert without is not None
    close(row(frame, 1), truth[:, -1])
    far(row(frame, 1), without[:, -1])
    assert (row(frame, 1).sum(-1) < 1 - CLEARLY).any()
    close(row(last("gpt_oss", _sinks(-1e4)), 1).sum(-1), torch.ones(4))


def test_alibi() -> None:
    """Bloom's bias: of head h, 2^(-8 (h + 1) / heads) times the position of the key (Press et al. 2021)."""
    frame, model = last("bloom"), build("bloom")
    layer, slopes = model.transformer.h[0], torch.tensor([2.0 ** (-2 * (head + 1)) for head in range(4)])
    with torch.no_grad():
        x = layer.input_layernorm(model.transformer.word_embeddings_layernorm(model.transformer.word_embeddings(torch.tensor(IDS))))
        queries, keys, _ = layer.self_attention.query_key_value(x).view(len(IDS), 4, 3, 16).unbind(2)
    scores = torch.einsum("hd,khd->hk", queries[-1], keys) / 4
    close(row(frame), (scores + slopes[:, None] * torch.arange(len(IDS))).softmax(-1))
    far(row(frame), scores.softmax(-1))


# ---- what is added to the residual stream --------------------------------------------------------------------------------


def test_parallel_block() -> None:
    """Phi's MLP reads what came into the layer, not what attention made of it."""
    frame, layer = last("phi"), build("phi").model.layers[1]
    before, attention = site(frame, "residual.before"), site(frame, "attention.out")
    with torch.no_grad():
        close(site(frame, "mlp.out"), layer.mlp(layer.input_layernorm(before)))
        far(site(frame, "mlp.out"), layer.mlp(layer.input_layernorm(before + attention)))
    close(before + attention + site(frame, "mlp.out"), site(frame, "residual.after"))


def test_sequential_block() -> None:
    """The same module names in Llama are a sequence: its MLP reads the sum."""
    frame, layer = last("llama"), build("llama").model.layers[1]
    before, attention = site(frame, "residual.before"), site(frame, "attention.out")
    with torch.no_grad():
        close(site(frame, "mlp.out"), layer.mlp(layer.post_attention_layernorm(before + attention)))


def test_post_norms() -> None:
    """Gemma 2 normalises what a sub-block made before it is added."""
    frame, layer = last("gemma2"), build("gemma2").model.layers[1]
    middle = site(frame, "residual.before") + site(frame, "attention.out")
    with torch.no_grad():
        made = layer.mlp(layer.pre_feedforward_layernorm(middle))
        close(site(frame, "mlp.out"), layer.post_feedforward_layernorm(made))
    far(site(frame, "mlp.out"), made)


def test_residual_multiplier() -> None:
    """Granite adds half of what its sub-blocks make here."""
    frame, layer = last("granite"), build("granite").model.layers[1]
    middle = site(frame, "residual.before") + site(frame, "attention.out")
    with torch.no_grad():
        made = layer.mlp(layer.post_attention_layernorm(middle))
    close(site(frame, "mlp.out"), 0.5 * made)
    far(site(frame, "mlp.out"), made)


def _tie_norms(model: Any) -> None:
    """One norm for all layers, both sub-blocks and the end."""
    shared = model.model.layers[0].input_layernorm
    model.model.norm = shared
    for layer in model.model.layers:
        layer.input_layernorm = layer.post_attention_layernorm = shared


def test_tied_norms() -> None:
    """A norm that runs seven times a token is no reason to mix up layers."""
    model = build("llama")
    _tie_norms(model)
    frame, layer = last("llama", _tie_norms), model.model.layers[1]
    middle = site(frame, "residual.before") + site(frame, "attention.out")
    with torch.no_grad():
        close(site(frame, "mlp.out"), layer.mlp(model.model.norm(middle)))
        close(frame.logits, model.lm_head(model.model.norm(site(frame, "residual.after", 2))))
    anatomy = find(model)
    assert anatomy.final_norm is model.model.norm
    assert anatomy.missing == {}


def test_mixture_of_experts() -> None:
    """Mixtral: the two best of four experts, weighted by the softmax of their scores."""
    frame, layer = last("mixtral"), build("mixtral").model.layers[1]
    middle = site(frame, "residual.before") + site(frame, "attention.out")
    with torch.no_grad():
        x = layer.post_attention_layernorm(middle)
        weights, chosen = (x @ layer.mlp.gate.weight.T).softmax(-1).topk(2)
        weights = weights / weights.sum()
        outputs = []
        for expert in chosen.tolist():
            gate, up = (layer.mlp.experts.gate_up_proj[expert] @ x).chunk(2)
            outputs.append(layer.mlp.experts.down_proj[expert] @ (nn.functional.silu(gate) * up))
    close(site(frame, "mlp.out"), weights[0] * outputs[0] + weights[1] * outputs[1])
    far(site(frame, "mlp.out"), outputs[0])
    assert site(frame, "router.experts").tolist() == chosen.tolist()
    close(site(frame, "router.weights"), weights)


def test_the_sequence_is_longer_than_two_windows() -> None:
    """What the tests of windows rely on."""
    assert PROMPT > WINDOW
    assert PROMPT + DECODED > 2 * WINDOW
