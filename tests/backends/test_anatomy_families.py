"""What single families do otherwise than most, from factors and norms in the stream to several streams: found, or the reason is said."""

from __future__ import annotations

import pytest
import torch

from backends.families import GEMMA4, build, mllama, tiny
from openmav.backends.transformers.discovery.anatomy import find


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


def test_a_mixture_that_looks_at_other_tokens_is_an_mlp_beside_attention() -> None:
    """Doge's experts are chosen with the router logits of other tokens."""
    model = build("doge", is_moe=True, num_experts=16, num_experts_per_tok=2)
    for dtype in (torch.float32, torch.bfloat16):
        anatomy = find(model.to(dtype))
        assert [part and part[0].module for part in anatomy.mlp] == [layer.mlp for layer in model.model.layers]
        assert [part and len(part) for part in anatomy.attention] == [1, 1, 1]
        assert set(anatomy.mlp_internals.missing["mlp.hidden"]) == {0, 1, 2}


def test_a_norm_that_takes_the_place_of_the_stream_is_a_term_of_its_own() -> None:
    """Layer 0 of RWKV normalises its input first; its channel mixing looks one token back and is an MLP all the same."""
    model = build("rwkv")
    anatomy = find(model)
    blocks = model.rwkv.blocks
    assert [part and part[0].module for part in anatomy.mlp] == [block.feed_forward for block in blocks]
    assert [part and part[0].module for part in anatomy.attention] == [block.attention for block in blocks]
    assert [part and part[0].module for part in anatomy.other] == [blocks[0].pre_ln, None, None]
    assert anatomy.carry == (0.0, 1.0, 1.0)


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
