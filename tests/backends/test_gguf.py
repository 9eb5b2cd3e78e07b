"""What a GGUF file says of its model beside the weights: applied, so that the numbers are those of the model it was made of, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from backends.gguf_files import VOCABULARY, write
from openmav.backends.base import LoadOptions
from openmav.backends.loading import gguf_metadata
from openmav.backends.transformers import TransformersBackend, load
from openmav.backends.transformers.loading import quantised
from openmav.errors import LoadError

pytestmark = pytest.mark.skipif(
    not (quantised.is_installed("gguf") and quantised.is_installed("accelerate")), reason="gguf or accelerate not installed"
)
HEAD = 16
IDS = [(7 * i * i + 3 * i + 11) % VOCABULARY for i in range(150)]  # longer than the context before scaling, 64
USUAL = {"rope.freq_base": 10000.0, "attention.layer_norm_rms_epsilon": 1e-6, "vocab_size": VOCABULARY}


def built(kind: str, rope: dict[str, Any], **settings: Any) -> Any:
    """A tiny random model whose attention is far from even, so that positions count."""
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    more = {"num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.3, "tie_word_embeddings": False}
    ids = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": None}
    config = AutoConfig.for_model(kind, **{**sizes, **more, **ids, **settings}, rope_parameters=rope)
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def error(model: Any, backend: TransformersBackend, ids: list[int]) -> float:
    """How far the logits of mav are from the model's own full pass, of the largest one."""
    with torch.no_grad():
        own = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
    return float((backend.prefill(ids, frozenset()).logits - own).abs().max() / own.abs().max())


def llama(rope: dict[str, Any]) -> Any:
    return built("llama", {"rope_theta": 10000.0, **rope}, head_dim=HEAD, rms_norm_eps=1e-6)


def refusal(path: Path) -> str:
    with pytest.raises(LoadError) as raised:
        load(str(path), LoadOptions())
    assert "\n" not in str(raised.value)
    return str(raised.value)


LLAMA = {**USUAL, "rope.dimension_count": HEAD}
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 8.0, "rope.scaling.original_context_length": 64}


@pytest.mark.parametrize(
    ("rope", "keys"),
    [
        ({"rope_type": "default"}, {}),
        ({"rope_type": "linear", "factor": 4.0}, {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}),
        ({"rope_type": "linear", "factor": 2.0}, {"rope.scale_linear": 2.0}),
        ({"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}, YARN),
        (
            {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "beta_fast": 8.0, "beta_slow": 2.0},
            {**YARN, "rope.scaling.yarn_beta_fast": 8.0, "rope.scaling.yarn_beta_slow": 2.0},
        ),
        (
            {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "attention_factor": 0.8 * 1.2079441541679836},
            {**YARN, "rope.scaling.attn_factor": 0.8},
        ),
    ],
    ids=["none", "linear", "linear of old files", "yarn", "yarn with betas", "yarn with an attention factor"],
)
def test_scaled_positions_of_a_llama(tmp_path: Path, rope: dict[str, Any], keys: dict[str, Any]) -> None:
    model = llama(rope)
    backend = load(str(write(model, tmp_path / "a.gguf", "llama", {**LLAMA, **keys})), LoadOptions())
    assert error(model, backend, IDS) < 1e-5
    if keys:
        assert error(llama({"rope_type": "default"}), backend, IDS) > 1e-2  # the test can tell


def test_the_factors_of_llama_3(tmp_path: Path) -> None:
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    model = llama({"rope_type": "llama3", **scaling})
    plain = 10000.0 ** (-torch.arange(0, HEAD, 2) / HEAD)
    factors = plain / model.model.rotary_emb.inv_freq
    assert factors.max() > 7
    path = write(model, tmp_path / "a.gguf", "llama", LLAMA, {"rope_freqs.weight": factors})
    assert error(model, load(str(path), LoadOptions()), IDS) < 1e-5


def test_the_two_lists_of_factors_of_phi_3(tmp_path: Path) -> None:
    short, long = [1.0 + 0.02 * i for i in range(HEAD // 2)], [1.5 + 0.9 * i for i in range(HEAD // 2)]
    lists = {"short_factor": short, "long_factor": long}
    rope = {"rope_theta": 10000.0, "rope_type": "longrope", "original_max_position_embeddings": 64, **lists}
    model = built("phi3", rope, original_max_position_embeddings=64, rms_norm_eps=1e-6)
    keys = {**USUAL, "rope.dimension_count": HEAD, "rope.scaling.original_context_length": 64}
    keys["tokenizer.ggml.padding_token_id"] = 0  # Phi-3's own default is beyond this vocabulary
    keys["rope.scaling.attn_factor"] = (1 + torch.log(torch.tensor(8.0)) / torch.log(torch.tensor(64.0))).sqrt().item()
    tensors = {"rope_factors_short.weight": short, "rope_factors_long.weight": long}
    backend = load(str(write(model, tmp_path / "a.gguf", "phi3", keys, tensors)), LoadOptions())
    assert error(model, backend, IDS) < 1e-5
    assert error(model, backend, IDS[:40]) < 1e-5


def test_gemma_3_scales_the_layers_that_see_all_only(tmp_path: Path) -> None:
    kinds = {
        "full_attention": {"rope_theta": 1_000_000.0, "rope_type": "linear", "factor": 8.0},
        "sliding_attention": {"rope_theta": 5000.0, "rope_type": "default"},
    }
    layers = ["sliding_attention", "full_attention", "sliding_attention"]
    more = {"query_pre_attn_scalar": 16, "sliding_window": 32, "layer_types": layers, "tie_word_embeddings": True, "rms_norm_eps": 1e-6}
    model = built("gemma3_text", kinds, head_dim=HEAD, **more)
    keys = {
        **USUAL,
        "rope.freq_base": 1_000_000.0,
        "rope.freq_base_swa": 5000.0,
        "rope.scaling.type": "linear",
        "rope.scaling.factor": 8.0,
        "attention.key_length": HEAD,
        "attention.value_length": HEAD,
        "attention.sliding_window": 32,
        "attention.sliding_window_pattern": [True, False, True],
        "attention.scale": HEAD**-0.5,
    }
    backend = load(str(write(model, tmp_path / "a.gguf", "gemma3", keys)), LoadOptions())
    assert error(model, backend, IDS) < 1e-5


def test_settings_that_the_loader_leaves_out_are_applied(tmp_path: Path) -> None:
    rope = {"rope_theta": 500_000.0, "rope_type": "default"}
    code = built("starcoder2", rope, norm_epsilon=1e-3, sliding_window=None, use_bias=True)
    keys = {"rope.freq_base": 500_000.0, "attention.layer_norm_epsilon": 1e-3, "vocab_size": VOCABULARY}
    assert error(code, load(str(write(code, tmp_path / "a.gguf", "starcoder2", keys)), LoadOptions()), IDS) < 1e-5
    qwen = built("qwen3", {"rope_theta": 10000.0, "rope_type": "default"}, head_dim=24, rms_norm_eps=1e-6)
    keys = {**USUAL, "attention.key_length": 24, "attention.value_length": 24}
    assert error(qwen, load(str(write(qwen, tmp_path / "b.gguf", "qwen3", keys)), LoadOptions()), IDS) < 1e-5


@pytest.mark.parametrize(
    ("keys", "tensors", "said"),
    [
        ({"logit_scale": 0.5}, {}, "llama.logit_scale = 0.5"),
        ({"attention.scale": 0.1}, {}, "llama.attention.scale"),
        ({"attention.key_length": 2 * HEAD}, {}, "rope.dimension_count"),
        ({"final_logit_softcapping": 30.0}, {}, "final_logit_softcapping"),
        ({"rope.scaling.type": "other", "rope.scaling.factor": 2.0}, {}, "other scaling"),
        ({"rope.scaling.type": "yarn"}, {}, "without a factor"),
        ({}, {"blk.0.attn_q.bias": [0.5] * 64}, "1 tensors that transformers has no place for in LlamaForCausalLM (blk.0.attn_q.bias)"),
        ({}, {"blk.3.attn_norm.weight": [1.0] * 64}, "blk.3.attn_norm.weight"),
    ],
)
def test_what_can_not_be_applied_is_refused(tmp_path: Path, keys: dict[str, Any], tensors: dict[str, Any], said: str) -> None:
    assert said in refusal(write(llama({"rope_type": "default"}), tmp_path / "a.gguf", "llama", {**LLAMA, **keys}, tensors))


def test_settings_without_an_effect_are_no_reason_to_refuse(tmp_path: Path) -> None:
    neutral = {"logit_scale": 1.0, "attention.scale": HEAD**-0.5, "attention.key_length": HEAD, "final_logit_softcapping": 0.0}
    more = {"rope.scaling.type": "none", "rope.scaling.finetuned": True, "made_by": "a converter"}
    model = llama({"rope_type": "default"})
    backend = load(str(write(model, tmp_path / "a.gguf", "llama", {**LLAMA, **neutral, **more})), LoadOptions())
    assert error(model, backend, IDS) < 1e-5
    assert "keys of the file that are not used: made_by" in backend.info.notes


def test_every_end_of_a_file_ends_a_text(tmp_path: Path) -> None:
    model = llama({"rope_type": "default"})
    ends = {"tokenizer.ggml.eot_token_id": 77, "tokenizer.ggml.eom_token_id": 901, "tokenizer.ggml.fim_pad_token_id": 5}
    backend = load(str(write(model, tmp_path / "a.gguf", "llama", {**LLAMA, **ends})), LoadOptions())
    assert backend.end_ids == {0, 5, 77, 901}


def test_parts_of_a_split_file_say_how_to_join_them(tmp_path: Path) -> None:
    for part in (1, 2):
        (tmp_path / f"big-0000{part}-of-00002.gguf").write_bytes(b"GGUF")
    for name in (tmp_path, tmp_path / "big-00002-of-00002.gguf"):
        assert "llama-gguf-split --merge big-00001-of-00002.gguf big.gguf" in refusal(name)
    renamed = write(llama({"rope_type": "default"}), tmp_path / "renamed.gguf", "llama", {**LLAMA, "block_count": 3})
    assert load(str(renamed), LoadOptions()).info.layers == 3


@pytest.mark.parametrize("spoil", [lambda d: d[:40], lambda d: d[:8] + b"\xff" * 16 + d[24:], lambda d: d[:32] + b"\xff" * 8 + d[40:]])
def test_a_header_that_is_cut_off_or_hostile_is_no_header(tmp_path: Path, spoil: Any) -> None:
    path = write(llama({"rope_type": "default"}), tmp_path / "a.gguf", "llama", LLAMA)
    assert gguf_metadata.read(path).architecture == "llama"
    path.write_bytes(spoil(path.read_bytes()))
    assert gguf_metadata.read(path) is None
    assert "a.gguf" in refusal(path)


def test_a_header_is_that_of_the_gguf_package(tmp_path: Path) -> None:
    import gguf

    factors = [1.0, 2.0, 3.0, 4.5, 5.0, 6.0, 7.0, 8.0]
    path = write(
        llama({"rope_type": "default"}), tmp_path / "a.gguf", "llama", {**LLAMA, "list": [1, 2, 3]}, {"rope_freqs.weight": factors}
    )
    header, reader = gguf_metadata.read(path), gguf.GGUFReader(path)
    assert header.own["list"] == [1, 2, 3]
    for key, value in header.values.items():
        assert reader.fields[key].contents() == value
    assert {t.name: (t.data_offset, tuple(reversed(t.shape.tolist()))) for t in reader.tensors} == {
        name: (tensor.offset, tensor.shape) for name, tensor in header.tensors.items()
    }
    assert header.floats("rope_freqs.weight") == factors
    assert header.end_ids == [0]
