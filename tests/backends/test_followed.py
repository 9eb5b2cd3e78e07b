"""What is followed through a layer's operations, shown through the whole backend: norms, attribution, neurons, interventions, doctor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from backends.families import GEMMA4, build, mllama
from backends.frames import IDS, feed
from backends.test_deep import compute
from openmav.analysis.doctor.model import check
from openmav.backends.base import Frame
from openmav.backends.sites import SITES
from openmav.backends.transformers import TransformersBackend, wrap
from openmav.backends.transformers.capture.hooks import Capture
from openmav.backends.transformers.discovery.anatomy import Term
from openmav.errors import UsageError
from openmav.settings.interventions import parse

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
BLOCKS = {  # (attention, MLP): the modules whose outputs the layer adds, by transformers' own modeling files
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gemma3_text": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "glm4": ("post_self_attn_layernorm", "post_mlp_layernorm"),
    "doge": ("self_attn", "mlp"),
    "gemma4_text": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "llama": ("self_attn", "mlp"),
}


class Words:
    """A tokenizer that makes the same tokens of any text."""

    all_special_ids = (1, 2)
    eos_token_id = 2

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": IDS}


def large(name: str, dtype: torch.dtype) -> PreTrainedModel:
    """A tiny model whose blocks add some per cent of the residual stream; Gemma 4's layers scale it as well."""
    if name == "gemma4_text":
        pytest.importorskip("transformers.models.gemma4")
    model = build(name, **(GEMMA4 if name == "gemma4_text" else {}))
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(4)
        for at, layer in enumerate(model.model.layers):
            if hasattr(layer, "layer_scalar"):
                layer.layer_scalar.fill_(1 - 0.1 * at)
    return model.to(dtype)


def heard(backend: TransformersBackend, paths: tuple[str, ...]) -> tuple[Frame, list[list[Tensor]]]:
    """A frame of IDS, and [layers][paths]: what these modules gave at the last token in the same pass, by hooks of our own."""
    layers = backend.model.model.layers
    found: list[list[Tensor]] = [[torch.empty(0)] * len(paths) for _ in layers]

    def keep(layer: int, at: int, output: Any) -> None:
        found[layer][at] = (output[0] if isinstance(output, tuple) else output)[0, -1].float().clone()

    handles = [
        layer.get_submodule(path).register_forward_hook(lambda _m, _a, output, where=(number, at): keep(*where, output))
        for number, layer in enumerate(layers)
        for at, path in enumerate(paths)
    ]
    frame = backend.prefill(IDS, SITES)
    for handle in handles:
        handle.remove()
    return frame, found


def times(layer: nn.Module, path: str) -> Tensor | float:
    """What the modeling code multiplies a block's output by, once it is in the stream."""
    if hasattr(layer, "layer_scalar"):
        return float(layer.layer_scalar)
    return layer.post_attention_residual.detach().float() if path == "self_attn" and hasattr(layer, "post_attention_residual") else 1.0


@DTYPES
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_what_own_hooks_on_the_named_modules_hear(name: str, dtype: torch.dtype) -> None:
    backend = wrap(large(name, dtype), None, name)
    frame, outputs = heard(backend, BLOCKS[name])
    for layer, gave in enumerate(outputs):
        for site, path, output in zip(("attention.out", "mlp.out"), BLOCKS[name], gave, strict=True):
            shown = frame.sites[site][layer]
            assert shown is not None
            torch.testing.assert_close(shown.float(), output * times(backend.model.model.layers[layer], path), rtol=1e-6, atol=1e-6)
    backend.close()


@DTYPES
@pytest.mark.parametrize("name", BLOCKS)
def test_doctor_passes_what_is_right_and_fails_what_is_wrong(name: str, dtype: torch.dtype) -> None:
    backend = wrap(large(name, dtype), Words(), name)
    right = {found.name: found for found in check(backend)}
    assert right["parts add up to the residual stream"].good
    assert right["parts add up to the residual stream"].figure is not None
    assert right["attribution adds up to the logit"].good
    anatomy = backend.anatomy
    inner = [
        (Term(layer.mlp, part[0].coefficient if part and BLOCKS[name][1] != "mlp" else 0.9),)
        for layer, part in zip(anatomy.layers, anatomy.mlp)
    ]
    backend._run.capture.close()
    backend._run.capture = Capture(replace(anatomy, mlp=tuple(inner)), backend.checked.mlp_internals)
    assert not {found.name: found for found in check(backend)}["parts add up to the residual stream"].good
    backend.close()


@pytest.mark.changes_model  # RWKV scales its own weights when it first runs
@pytest.mark.parametrize("name", ["doge", "gemma4_text", "rwkv", "zaya"])
def test_attribution_sums_through_factors_and_other_parts(name: str) -> None:
    if name == "zaya":
        pytest.importorskip("transformers.models.zaya")
    model = large(name, torch.float32) if name in BLOCKS else build(name)
    backend = wrap(model, None, name)
    frame = feed(backend)
    found = compute(frame, "attribution", 7)
    size = np.abs(found["attribution"]).sum() + abs(found["attribution.embedding"][0]) + abs(found["attribution.other"][0])
    assert abs(found["attribution.rest"][0]) < 1e-5 * size
    assert (found["attribution.other"][0] == 0) == (name == "doge")
    backend.close()


def test_parts_before_a_layer_that_scales_the_stream_arrive_scaled() -> None:
    """The embedding's part is what the logit's direction finds of it after every layer has scaled it, channel by channel."""
    model = large("doge", torch.float32)
    backend = wrap(model, None, "doge")
    frame = backend.prefill(IDS, SITES)
    embedded = model.model.embed_tokens.weight[IDS[-1]].detach()
    for layer in model.model.layers:
        embedded = embedded * (layer.input_residual * layer.post_attention_residual).detach()
    last = frame.last_residual
    assert last is not None
    norm = model.model.norm
    direction = model.lm_head.weight[7] * norm.weight / (last.square().mean() + norm.variance_epsilon).sqrt()
    assert compute(frame, "attribution", 7)["attribution.embedding"][0] == pytest.approx(float(embedded @ direction), rel=1e-4)
    backend.close()


@pytest.mark.changes_model  # its own hooks stay
@DTYPES
def test_neurons_are_the_mlps_where_a_per_layer_input_comes_after_it(dtype: torch.dtype) -> None:
    backend = wrap(large("gemma4_text", dtype), None)
    taken: list[Tensor] = []
    for layer in backend.model.model.layers:
        layer.mlp.down_proj.register_forward_pre_hook(lambda _m, args: taken.append(args[0][0, -1].clone()))
    for shown, wanted in zip(backend.prefill(IDS, SITES).sites["mlp.hidden"], taken, strict=True):
        assert shown is not None
        assert torch.equal(shown, wanted)
    backend.close()


def ablated(model: PreTrainedModel, path: str, layer: int) -> Tensor:
    """[vocab]: the logits with a module's output set to 0 by a hook of our own."""
    handle = (
        model.model.layers[layer]
        .get_submodule(path)
        .register_forward_hook(lambda _m, _a, output: (output[0] * 0, *output[1:]) if isinstance(output, tuple) else output * 0)
    )
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([IDS]), use_cache=False).logits[0, -1]
    handle.remove()
    return logits


@pytest.mark.parametrize("name", BLOCKS)
def test_ablation_takes_away_the_block_and_nothing_else(name: str) -> None:
    plain, backend = large(name, torch.float32), wrap(large(name, torch.float32), None, name)
    for site, path in zip(("attn", "mlp"), BLOCKS[name], strict=True):
        touched = backend.intervened([parse(f"ablate L1.{site}")], IDS)
        logits, wanted = touched.prefill(IDS, frozenset()).logits, ablated(plain, path, 1)
        assert float((logits - wanted).abs().max() / wanted.abs().max()) < 1e-5
        touched.close()
    backend.close()


def test_a_value_set_to_a_block_that_is_scaled_arrives_as_it_was_set() -> None:
    """Patching a block with its own values through a factor for each channel changes nothing."""
    backend = wrap(large("doge", torch.float32), Words(), "doge")
    before = backend.prefill(IDS, frozenset()).logits
    patched = backend.intervened([parse("patch L1.attn=other")], IDS)
    after = patched.prefill(IDS, frozenset()).logits
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    backend.close()


@pytest.mark.parametrize("cross", [[1], [0, 3]])
def test_lens_and_attribution_of_a_model_with_idle_layers(cross: list[int]) -> None:
    backend = wrap(mllama(cross), None)
    frame = feed(backend)
    assert [row is None for row in frame.sites["residual.after"]] == [layer in cross for layer in range(4)]
    last = frame.last_residual
    assert last is not None
    assert frame.head is not None
    torch.testing.assert_close(frame.head.logits(last[None])[0], frame.logits, rtol=1e-4, atol=1e-5)
    found = compute(frame, "attribution", 7)
    assert np.isnan(found["attribution"][cross]).all()
    assert abs(found["attribution.rest"][0]) < 1e-5 * np.nansum(np.abs(found["attribution"]))
    assert _unchanged(backend, f"ablate L{cross[0]}")
    with pytest.raises(UsageError, match="does not run"):
        backend.intervened([parse(f"ablate L{cross[0]}.mlp")], IDS)
    backend.close()


def _unchanged(backend: TransformersBackend, spec: str) -> bool:
    """Whether a layer that adds nothing can be taken away, and nothing changes."""
    before = backend.prefill(IDS, frozenset()).logits
    touched = backend.intervened([parse(spec)], IDS)
    return torch.equal(touched.prefill(IDS, frozenset()).logits, before)


@pytest.mark.changes_model  # its own hooks stay
def test_a_router_that_scores_all_experts_shows_its_choice() -> None:
    """Llama 4's experts are not called with a choice; its router gives scores that are 0 for those not chosen."""
    own = {"intermediate_size_mlp": 128, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_layers": [0, 2], "attention_chunk_size": 8}
    model = build("llama4_text", layer_types=["full_attention"] * 3, no_rope_layers=[1, 0, 1], **own)
    backend = wrap(model, None)
    scored: list[Tensor] = []
    for layer in (0, 2):
        model.model.layers[layer].feed_forward.router.register_forward_hook(lambda _m, _a, output: scored.append(output[0][-1]))
    frame = backend.prefill(IDS, SITES)
    for layer, scores in zip((0, 2), scored, strict=True):
        ids, weights = frame.sites["router.experts"][layer], frame.sites["router.weights"][layer]
        assert ids is not None
        assert weights is not None
        assert sorted(ids.tolist()) == scores.nonzero().flatten().tolist()
        torch.testing.assert_close(weights, scores[ids])
    assert "mixture" in backend.missing["mlp.hidden"][0]
    assert set(backend.missing["router.experts"]) == {1}
    backend.close()
