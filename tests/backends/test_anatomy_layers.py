"""Layers of anybody's own code, and of modules that are shared: what they add is followed through their operations, not by their names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backends.families import Scaled, build
from openmav.backends.transformers.discovery.anatomy import find


class Ordinary(nn.Module):
    """A layer in whose names nothing says what it holds; `form` is how its parts are added."""

    def __init__(self, layer: nn.Module, form: str) -> None:
        super().__init__()
        self.first, self.second, self.norms = (
            layer.self_attn,
            layer.mlp,
            nn.ModuleList([layer.input_layernorm, layer.post_attention_layernorm]),
        )
        self.form = form
        self.register_buffer("scale", torch.tensor([0.7]))
        self.channels = nn.Parameter(torch.linspace(0.5, 1.5, 64))

    def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
        mixed = self.first(self.norms[0](x), **kwargs)[0]
        if self.form == "parallel":
            return self.second(self.norms[1](x)).sub(mixed, alpha=-3).add(x)
        if self.form == "in place":
            flat = x.view(-1, 64)
            flat += mixed.view(-1, 64)
            x += self.second(self.norms[1](x))
            return x
        middle = x.mul(self.scale) + mixed / 2
        if self.form == "channels":
            return (middle + self.second(self.norms[1](middle)) * self.channels).transpose(0, 1).contiguous().transpose(0, 1)
        return torch.clamp(torch.add(middle, self.second(self.norms[1](middle)), alpha=0.25), -1e4, 1e4) + self.channels


@pytest.mark.parametrize(
    ("form", "carry", "attention", "mlp"),
    [("parallel", 1, 3, 1), ("in place", 1, 1, 1), ("channels", 0.7, 0.5, "channels"), ("clamped", 0.7, 0.5, 0.25)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_code_that_adds_is_followed(form: str, carry: float, attention: float, mlp: float | str, dtype: torch.dtype) -> None:
    model = build("llama")
    for at, layer in enumerate(model.model.layers):
        model.model.layers[at] = Ordinary(layer, form)
    anatomy = find(model.to(dtype))
    eps = torch.finfo(dtype).eps
    for at, layer in enumerate(model.model.layers):
        one, two = anatomy.attention[at], anatomy.mlp[at]
        assert one is not None
        assert two is not None
        assert [*one, *two] == [*one[:1], *two[:1]]
        assert (one[0].module, two[0].module) == (layer.first, layer.second)
        assert (anatomy.carry or (1.0,) * 3)[at] == pytest.approx(carry, rel=eps)
        assert one[0].coefficient == attention
        if mlp == "channels":
            assert torch.equal(two[0].coefficient, layer.channels.float())
        else:
            assert two[0].coefficient == mlp
        other = anatomy.other[at]
        assert (other is None) == (form != "clamped")
        if other is not None:
            assert other[0].module is None
            assert torch.equal(other[0].coefficient, layer.channels.float())
    assert anatomy.mlp_internals.last_linear == tuple(layer.second.down_proj for layer in model.model.layers)
    assert anatomy.kinds == ("attention",) * 3


class Gated(nn.Module):
    """A layer that scales what its MLP gives by a number that it computes for each token."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.self_attn, self.mlp = layer.self_attn, layer.mlp

    def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
        x = x + self.self_attn(x, **kwargs)[0]
        return x + self.mlp(x) * x.mean(-1, keepdim=True).sigmoid()


def test_what_the_layers_own_code_makes_is_said_and_the_rest_is_shown() -> None:
    model = build("llama")
    model.model.layers[1] = Gated(model.model.layers[1])
    anatomy = find(model)
    attention = anatomy.attention[1]
    assert attention is not None
    assert attention[0].module is model.model.layers[1].self_attn
    assert anatomy.mlp[1] is None
    assert "own code" in anatomy.missing["mlp.out"][1]
    assert set(anatomy.missing["mlp.out"]) == {1}


def test_what_mixes_positions_is_told_apart_by_what_it_does_not_by_its_name() -> None:
    """The words "moe" and "attention" in names, swapped: the short convolution of a mixture, and an MLP that is called attention."""
    moe = find(build("lfm2_moe", layer_types=["conv", "full_attention", "conv"], num_dense_layers=1, moe_intermediate_size=32))
    assert moe.kinds == ("convolution", "attention", "convolution")
    assert [part and part[0].module for part in moe.attention] == [moe.layers[0].conv, moe.layers[1].self_attn, moe.layers[2].conv]
    model = build("llama")
    model.model.layers[1].mlp.__class__ = type("AttentionLikeBlock", (type(model.model.layers[1].mlp),), {})
    part = find(model).mlp[1]
    assert part is not None
    assert part[0].module is model.model.layers[1].mlp


class Chained(nn.Module):
    """A layer whose MLP takes what its attention gave, which is not added itself."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.self_attn, self.mlp = layer.self_attn, layer.mlp

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        return hidden_states + self.mlp(self.self_attn(hidden_states, **kwargs)[0])


def test_an_mlp_that_follows_attention_unadded_is_no_part() -> None:
    model = build("llama")
    model.model.layers[1] = Chained(model.model.layers[1])
    anatomy = find(model)
    assert anatomy.attention[1] is None
    assert anatomy.mlp[1] is None
    assert "follow one another" in anatomy.missing["mlp.out"][1]
    assert anatomy.mlp[0]


def test_what_does_not_add_up_is_missing_with_a_reason() -> None:
    model = build("llama")
    model.model.layers[1] = Scaled(model.model.layers[1])
    anatomy = find(model)
    assert anatomy.attention[1] is None
    assert anatomy.mlp[1] is None
    assert "sum" in anatomy.missing["attention.out"][1]
    assert set(anatomy.missing["mlp.out"]) == {1}
    assert anatomy.attention[0]
    assert anatomy.mlp[2]


def test_a_norm_shared_by_layers_is_no_part_of_any_of_them() -> None:
    """One module that runs in several layers: a hook on it sees the last layer only, so its output must not be used for the others."""
    model = build("gemma2")
    for layer in model.model.layers:
        layer.post_feedforward_layernorm = model.model.layers[0].post_feedforward_layernorm
    anatomy = find(model)
    assert anatomy.mlp == (None, None, None)
    assert set(anatomy.missing["mlp.out"]) == {0, 1, 2}


def test_attention_shared_by_layers_has_no_rows() -> None:
    model = build("llama")
    model.model.layers[2].self_attn = model.model.layers[0].self_attn
    anatomy = find(model)
    assert [module is None for module in anatomy.attention_modules] == [True, False, True]
    assert "share" in anatomy.missing["attention.probs"][2]
