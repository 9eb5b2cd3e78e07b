"""The parts that `find` names really add up, for every family, and the model is left as it was."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backends.families import FAMILIES, Scaled, build, mllama, tiny
from openmav.backends.transformers.discovery.anatomy import Anatomy, Part, find
from openmav.errors import LoadError

IDS = torch.randint(3, 128, (1, 19), generator=torch.Generator().manual_seed(7))


class Reference:
    """Own hooks: what came into each layer, what left it, and what every module inside made last."""

    def __init__(self, model: nn.Module, anatomy: Anatomy) -> None:
        self.came: list[Tensor] = []
        self.went: list[Tensor] = []
        self.made: list[dict[nn.Module, Tensor]] = []
        self.normed: list[Tensor] = []
        handles = []
        for layer in anatomy.layers:
            handles.append(layer.register_forward_pre_hook(self._enter, with_kwargs=True))
            handles += [m.register_forward_hook(self._inside) for m in layer.modules() if m is not layer]
            handles.append(layer.register_forward_hook(self._leave))
        if anatomy.final_norm is not None:
            handles.append(anatomy.final_norm.register_forward_pre_hook(lambda m, args: self.normed.append(args[0].clone())))
        with torch.no_grad():
            model(input_ids=IDS, use_cache=False)
        for handle in handles:
            handle.remove()

    def _enter(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        self.came.append((args[0] if args else kwargs["hidden_states"]).clone())
        self.made.append({})

    def _inside(self, module: nn.Module, args: tuple, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if isinstance(first, Tensor):
            self.made[-1][module] = first.clone()

    def _leave(self, module: nn.Module, args: tuple, output: Any) -> None:
        self.went.append((output[0] if isinstance(output, tuple) else output).clone())

    def part(self, layer: int, part: Part | None) -> Tensor:
        """[1, tokens, width]; zero for None."""
        total = torch.zeros_like(self.came[layer])
        for term in part or ():
            total += term.coefficient * (1 if term.module is None else self.made[layer][term.module].reshape(total.shape))
        return total


@pytest.mark.parametrize("name", FAMILIES)
def test_parts_add_up(name: str) -> None:
    model = tiny(name)
    anatomy = find(model)
    reference = Reference(model, anatomy)
    assert len(anatomy.layers) == model.config.num_hidden_layers
    for layer in range(len(anatomy.layers)):
        change = reference.went[layer] - reference.came[layer]
        parts = reference.part(layer, anatomy.attention[layer]) + reference.part(layer, anatomy.mlp[layer])
        assert (parts - change).norm() <= 1e-5 * change.norm()
        torch.testing.assert_close(reference.normed[0], reference.went[-1], rtol=0, atol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_kinds_and_what_is_missing(name: str) -> None:
    family, anatomy = FAMILIES[name], find(tiny(name))
    layers = range(len(anatomy.layers))
    assert anatomy.kinds == family.expected_kinds(len(layers))
    soft = [layer for layer in layers if "attention" in anatomy.kinds[layer].split()[-1:] and anatomy.kinds[layer] != "linear attention"]
    assert [layer for layer in layers if anatomy.attention_modules[layer] is not None] == soft
    assert sorted(anatomy.missing.get("attention.probs", {})) == [layer for layer in layers if layer not in soft]
    assert tuple(anatomy.missing.get("mlp.out", {})) == family.without_mlp
    assert all(anatomy.attention)
    assert [layer for layer in layers if anatomy.mlp[layer] is None] == list(family.without_mlp)
    assert "residual.after" not in anatomy.missing


@pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if any(k.endswith("attention") for k in f.expected_kinds(1))])
def test_attention_modules_own_the_rows(name: str) -> None:
    """In eager mode the module that is said to own the rows returns them, and they are softmax rows of every token."""
    anatomy, model = find(tiny(name)), tiny(name)
    rows: list[Any] = []
    owners = [m for m in anatomy.attention_modules if m is not None]
    handles = [
        m.register_forward_hook(lambda m, a, out: rows.append([t for t in out if isinstance(t, Tensor) and t.ndim == 4])) for m in owners
    ]
    with torch.no_grad():
        model(input_ids=IDS, use_cache=False, output_attentions=True)
    for handle in handles:
        handle.remove()
    assert len(rows) == len(owners)
    for found in rows:
        assert any(t.shape[-2:] == (IDS.shape[1],) * 2 and (t.sum(-1) <= 1 + 1e-5).all() for t in found)


@pytest.mark.parametrize("name", ["llama", "gemma2", "bloom", "mixtral", "granitemoehybrid"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_finds_the_same(name: str, dtype: torch.dtype) -> None:
    model = build(name)
    exact = _named(model, find(model))
    assert _named(model, find(model.to(dtype))) == exact


POST_NORMS = {  # what the layers add by transformers' own modeling files
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gemma3_text": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "exaone4": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "glm4": ("post_self_attn_layernorm", "post_mlp_layernorm"),
    "llama": ("self_attn", "mlp"),
    "granite": ("self_attn", "mlp"),
    "phi": ("self_attn", "mlp"),
    "opt": ("self_attn", "fc2"),
    "bloom": ("self_attention.dense", "mlp.dense_4h_to_h"),
    "falcon": ("self_attention", "mlp"),
    "mpt": ("attn", "ffn.down_proj"),
    "qwen3_moe": ("self_attn", "mlp"),
    "lfm2": ("conv", "feed_forward"),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", POST_NORMS)
def test_parts_are_the_modules_that_the_modeling_code_adds(name: str, dtype: torch.dtype) -> None:
    """Also where blocks add a few per cent of a large stream, which coarse float types hide among their rounding."""
    model = build(name)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(6)
    anatomy = find(model.to(dtype))
    for layer, attention, mlp in zip(anatomy.layers, anatomy.attention, anatomy.mlp, strict=True):
        for part, path in zip((attention, mlp), POST_NORMS[name], strict=True):
            wanted = "self_attn" if path == "conv" and hasattr(layer, "self_attn") else path
            assert part is not None
            assert [term.module for term in part] == [layer.get_submodule(wanted)]
            assert part[0].coefficient == (0.5 if name == "granite" else 1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_factor_for_each_channel_is_followed(dtype: torch.dtype) -> None:
    """Doge multiplies the residual stream, not its sub-blocks, by a weight of the layer."""
    model = build("doge").to(dtype)
    anatomy = find(model)
    for at, layer in enumerate(model.model.layers):
        attention, mlp = anatomy.attention[at], anatomy.mlp[at]
        assert attention is not None
        assert mlp is not None
        torch.testing.assert_close(anatomy.carry[at], (layer.input_residual * layer.post_attention_residual).float(), rtol=1e-2, atol=0)
        assert attention[0].module is layer.self_attn
        assert torch.equal(attention[0].coefficient, layer.post_attention_residual.float())
        assert (mlp[0].module, mlp[0].coefficient) == (layer.mlp, 1.0)


def test_a_weight_that_scales_is_followed_as_it_is_trained() -> None:
    model = build("doge")
    found = find(model).attention[0]
    assert found is not None
    with torch.no_grad():
        model.model.layers[0].post_attention_residual.mul_(2)
    assert torch.equal(found[0].coefficient, model.model.layers[0].post_attention_residual)


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


def test_a_mixture_that_looks_at_other_tokens_is_an_mlp_beside_attention() -> None:
    """Doge's experts are chosen with the router logits of other tokens."""
    model = build("doge", is_moe=True, num_experts=16, num_experts_per_tok=2)
    for dtype in (torch.float32, torch.bfloat16):
        anatomy = find(model.to(dtype))
        assert [part and part[0].module for part in anatomy.mlp] == [layer.mlp for layer in model.model.layers]
        assert [part and len(part) for part in anatomy.attention] == [1, 1, 1]
        assert set(anatomy.mlp_internals.missing["mlp.hidden"]) == {0, 1, 2}


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


def test_out_of_memory_is_not_taken_for_something_else() -> None:
    model = build("llama")

    def full(*_args: Any, **_kwargs: Any) -> Tensor:
        raise torch.OutOfMemoryError("no room")

    model.model.layers[1].mlp.forward = full
    with pytest.raises(torch.OutOfMemoryError):
        find(model)


def test_a_norm_that_takes_the_place_of_the_stream_is_a_term_of_its_own() -> None:
    """Layer 0 of RWKV normalises its input first; its channel mixing looks one token back and is an MLP all the same."""
    model = build("rwkv")
    anatomy = find(model)
    blocks = model.rwkv.blocks
    assert [part and part[0].module for part in anatomy.mlp] == [block.feed_forward for block in blocks]
    assert [part and part[0].module for part in anatomy.attention] == [block.attention for block in blocks]
    assert [part and part[0].module for part in anatomy.other] == [blocks[0].pre_ln, None, None]
    assert anatomy.carry == (0.0, 1.0, 1.0)


GEMMA4: dict[str, Any] = {
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 128,
    "num_kv_shared_layers": 0,
    "global_head_dim": 16,
    "num_global_key_value_heads": 2,
    "layer_types": ["sliding_attention", "full_attention", "full_attention"],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_per_layer_inputs_are_a_term_of_their_own(dtype: torch.dtype) -> None:
    pytest.importorskip("transformers.models.gemma4")
    model = build("gemma4_text", **GEMMA4).to(dtype)
    with torch.no_grad():
        for layer, scale in zip(model.model.layers, (0.5, 1.0, 1.5), strict=True):
            layer.layer_scalar.fill_(scale)
    anatomy = find(model)
    for at, (layer, scale) in enumerate(zip(model.model.layers, (0.5, 1.0, 1.5), strict=True)):
        parts = [anatomy.attention[at], anatomy.mlp[at], anatomy.other[at]]
        norms = [layer.post_attention_layernorm, layer.post_feedforward_layernorm, layer.post_per_layer_input_norm]
        assert [part and (part[0].module, part[0].coefficient) for part in parts] == [(norm, scale) for norm in norms]
        assert anatomy.carry[at] == scale
        assert anatomy.mlp_internals.last_linear[at] is layer.mlp.down_proj


def test_layers_that_share_keys_show_every_position() -> None:
    """Gemma 4 computes them at the wanted positions only, so the trial wants all."""
    pytest.importorskip("transformers.models.gemma4")
    anatomy = find(build("gemma4_text", **{**GEMMA4, "num_kv_shared_layers": 1}))
    assert "residual.after" not in anatomy.missing
    assert all(anatomy.attention)


@pytest.mark.parametrize("cross", [[1], [0, 2], [3]])
def test_layers_that_do_not_run_keep_their_number(cross: list[int]) -> None:
    model = mllama(cross)
    anatomy = find(model)
    assert anatomy.layers == tuple(model.model.layers)
    assert anatomy.idle == set(cross)
    for at, layer in enumerate(model.model.layers):
        parts = [part and part[0].module for part in (anatomy.attention[at], anatomy.mlp[at])]
        assert parts == ([None, None] if at in cross else [layer.self_attn, layer.mlp])
        for site in ("residual.after", "attention.out", "mlp.out", "attention.probs"):
            assert ("image" in anatomy.missing.get(site, {}).get(at, "")) == (at in cross)


def test_parts_in_lists_of_their_own_are_no_layers() -> None:
    anatomy = find(build("xlm", emb_dim=64, n_layers=3, n_heads=4, causal=True, pad_index=0, mask_index=5))
    for site in ("residual.before", "residual.after", "attention.out", "mlp.out"):
        assert all("lists of their own" in anatomy.missing[site][layer] for layer in range(3))


def _named(model: nn.Module, anatomy: Anatomy) -> list[Any]:
    """The parts by module path, so that two copies of a model can be compared."""
    paths = {id(m): path for path, m in model.named_modules()}
    return [[(paths[id(t.module)], t.coefficient) for t in part or ()] for part in (*anatomy.attention, *anatomy.mlp)]


def test_packed_int8_layers_are_found_like_plain_ones() -> None:
    """Linear layers that keep their weights in a packed form have no parameters to look at."""
    model = build("llama")
    exact = _named(model, find(model))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    anatomy = find(packed)
    assert not any(True for _ in packed.model.layers[0].self_attn.parameters())
    assert _named(packed, anatomy) == exact
    assert anatomy.kinds == ("attention",) * 3


def test_layers_that_are_offloaded_are_found_where_they_run(tmp_path: Path) -> None:
    """With accelerate's hooks the weights of offloaded layers are on no device until they are needed."""
    accelerate = pytest.importorskip("accelerate")
    model = build("llama")
    exact = _named(model, find(model))
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.layers.2": "disk"}
    places |= {"model.norm": "disk", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    spread = accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=str(tmp_path))
    assert spread.model.layers[1].mlp.up_proj.weight.device.type == "meta"
    anatomy = find(spread)
    assert _named(spread, anatomy) == exact
    assert anatomy.final_norm is spread.model.norm
    assert spread.model.layers[1].mlp.up_proj.weight.device.type == "meta"


@pytest.mark.parametrize("name", ["llama", "jamba", "gpt_neo"])
def test_model_is_left_as_it_was(name: str) -> None:
    model = build(name)
    model.train()
    model.get_submodule(next(n for n, m in model.named_modules() if isinstance(m, nn.Linear))).eval()
    before = {n: (m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()}
    settings, state = model.config.to_dict(), torch.get_rng_state()
    find(model)
    assert {n: (m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()} == before
    assert model.config.to_dict() == settings
    assert torch.equal(torch.get_rng_state(), state)


def test_hooks_are_gone_after_an_error() -> None:
    model = build("llama")
    model.model.layers[1].mlp.forward = lambda x: 1 / 0
    with pytest.raises(LoadError, match="division by zero"):
        find(model)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


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


def test_multipliers_are_the_exact_numbers_of_the_config() -> None:
    for part in (*find(tiny("granite")).attention, *find(tiny("granite")).mlp):
        assert part is not None
        assert [term.coefficient for term in part] == [0.5]


def test_a_multiplier_that_no_config_names_is_read_from_the_operation() -> None:
    model = build("granite")
    model.model.layers[1].residual_multiplier = 0.73219
    part = find(model).attention[1]
    assert part is not None
    assert part[0].coefficient == 0.73219


def test_a_stream_that_is_replaced_has_no_parts() -> None:
    """MiniMax adds its sub-blocks to their normalised input, so nothing is added to what came in."""
    anatomy = find(build("minimax"))
    assert anatomy.attention == anatomy.mlp == (None, None)


def test_layers_that_normalise_the_stream_say_so() -> None:
    anatomy = find(build("openai-gpt"))
    assert all("normalises" in anatomy.missing[site][layer] for site in ("attention.out", "mlp.out") for layer in range(3))


def test_layers_are_found_where_the_config_counts_something_else() -> None:
    """Longcat's `num_hidden_layers` counts attention blocks, of which each layer has two."""
    anatomy = find(build("longcat_flash"))
    assert len(anatomy.layers) == 2
    assert [len(part or ()) for part in (*anatomy.attention, *anatomy.mlp)] == [2, 2, 3, 3]


def test_a_state_space_beside_attention_is_part_of_what_the_mixers_add() -> None:
    anatomy = find(build("falcon_h1"))
    assert [len(part or ()) for part in anatomy.attention] == [2, 2, 2]
    assert "sum of" in " ".join(anatomy.notes)


def test_a_family_called_linear_is_not_taken_for_linear_attention() -> None:
    """Kimi Linear has both kinds: KimiLinearAttention is softmax attention, KimiLinearDeltaAttention is not."""
    anatomy = find(build("kimi_linear"))
    assert anatomy.kinds == ("linear attention", "attention", "linear attention")
    assert type(anatomy.attention_modules[1]).__name__ == "KimiLinearAttention"


def test_several_residual_streams_are_not_taken_for_one() -> None:
    anatomy = find(build("deepseek_v4"))
    assert set(anatomy.missing["residual.after"]) == set(anatomy.missing["mlp.out"]) == {0, 1, 2}


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


class Rescaling(nn.Module):
    """A layer that multiplies the whole residual stream."""

    def __init__(self, layer: nn.Module, scale: float) -> None:
        super().__init__()
        self.self_attn, self.mlp, self.scale = layer.self_attn, layer.mlp, scale

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        middle = hidden_states + self.self_attn(hidden_states, **kwargs)[0]
        return (middle + self.mlp(middle)) * self.scale


def test_a_rescaled_residual_stream_is_told_apart_from_what_is_added() -> None:
    model = build("llama")
    for layer, scale in enumerate((0.9, 1.0, 1.2)):
        model.model.layers[layer] = Rescaling(model.model.layers[layer], scale)
    anatomy = find(model)
    assert anatomy.carry == (0.9, 1.0, 1.2)
    reference = Reference(model, anatomy)
    for layer, scale in enumerate((0.9, 1.0, 1.2)):
        parts = reference.part(layer, anatomy.attention[layer]) + reference.part(layer, anatomy.mlp[layer])
        torch.testing.assert_close(parts + scale * reference.came[layer], reference.went[layer], rtol=1e-4, atol=1e-4)
    assert "multiply" in " ".join(anatomy.notes)


REAL = Path(__file__).resolve().parents[2] / "models" / "SmolLM2-135M-Instruct"


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="make real-model")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_real_model(dtype: torch.dtype) -> None:
    """Trained weights, with their few huge entries of the residual stream, in both float types: every part whole and times 1."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(REAL, dtype=dtype)
    anatomy = find(model)
    layers = model.model.layers
    assert [part and [(t.module, t.coefficient) for t in part] for part in anatomy.attention] == [[(x.self_attn, 1.0)] for x in layers]
    assert [part and [(t.module, t.coefficient) for t in part] for part in anatomy.mlp] == [[(x.mlp, 1.0)] for x in layers]
    assert anatomy.final_norm is model.model.norm
    assert anatomy.missing == {}
