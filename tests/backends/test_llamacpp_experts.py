"""A mixture of experts on llama.cpp against transformers on the same weights: what the router selects, the weights, and all other sites."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: the backend llamacpp was not tested")
pytest.importorskip("gguf", reason="gguf is not installed: no file for the backend llamacpp could be written")

from backends.gguf_files import write
from backends.test_llamacpp import FLOAT32, IDS, MORE, PLAIN, SIZES, TOKENS, USUAL, WIDE, relative
from openmav.backends import llamacpp
from openmav.backends.sites import SITES
from openmav.backends.transformers.backend import wrap

OWN = {"rms_norm_eps": 1e-6, "head_dim": 16}
EXPERTS = {"moe_intermediate_size": 48, "num_experts": 8, "num_experts_per_tok": 3, "norm_topk_prob": True}
KEYS = {"expert_count": 8, "expert_used_count": 3, "expert_feed_forward_length": 48}


def built() -> Any:
    config = AutoConfig.for_model("qwen3_moe", **SIZES, **MORE, **TOKENS, **OWN, **EXPERTS, rope_parameters=PLAIN)
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def test_experts_and_their_weights_are_those_of_transformers(tmp_path: Path) -> None:
    model = built()
    path = write(model, tmp_path / "a.gguf", "qwen3moe", {**USUAL, **WIDE, **KEYS})
    ours, reference = llamacpp.load(str(path), FLOAT32), wrap(model, None)
    assert {site for site, layers in ours.missing.items() if layers} == {"mlp.hidden", "head.neurons"}
    frames = [(ours.prefill(IDS[:30], SITES), reference.prefill(IDS[:30], SITES))]
    frames += [(ours.decode_one_token(token, SITES), reference.decode_one_token(token, SITES)) for token in IDS[30:50]]
    selected = set()
    for a, b in frames:
        assert relative(a.logits, b.logits) < 1e-5
        for layer in range(ours.info.layers):
            assert torch.equal(a.sites["router.experts"][layer], b.sites["router.experts"][layer])
            assert torch.allclose(a.sites["router.weights"][layer].flatten(), b.sites["router.weights"][layer], atol=1e-5)
            assert torch.allclose(a.sites["attention.probs"][layer], b.sites["attention.probs"][layer], atol=1e-5)
            for site in ("residual.before", "residual.after", "attention.out", "mlp.out"):
                assert relative(a.sites[site][layer], b.sites[site][layer]) < 1e-4, (site, layer)
            selected.add(tuple(a.sites["router.experts"][layer].tolist()))
    assert len(selected) > 10
    ours.close()
