"""Past the lengths at which a configuration changes something: mav against `generate` and against one pass without a cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertLMHeadModel, RobertaConfig, RobertaForCausalLM

from backends.families import MLA, MOE, VOCAB, build
from backends.test_own_inputs import LONGROPE, far, generated, ids_of, ours
from backends.tiny_models import tiny_model
from openmav.backends.sites import SITES
from openmav.backends.transformers import wrap
from openmav.backends.transformers.capture import attention
from openmav.backends.transformers.checks import agreement, thresholds
from openmav.backends.transformers.checks.agreement import in_order
from openmav.errors import LoadError
from openmav.measures._rows import learned_share, rows_over_tokens

SIZES: dict[str, Any] = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
LONG: dict[str, Any] = {"max_position_embeddings": 2048}
DYNAMIC = {"max_position_embeddings": 128, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}}
LLAMA_LONGROPE = {**LONG, "rope_parameters": {**LONGROPE, "original_max_position_embeddings": 64, "factor": 32.0}}
SPARSE = {**MOE, **MLA, **LONG, "index_topk": 64, "index_n_heads": 32, "index_head_dim": 32}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "window": ("mistral", {**LONG, "sliding_window": 64}),
    "windows and full attention": ("gemma3_text", {**LONG, "sliding_window": 128}),
    "sinks": ("gpt_oss", {**LONG, "sliding_window": 64}),
    "sparse": ("deepseek_v32", SPARSE),
    "dynamic": ("qwen2", DYNAMIC),
    "longrope without a switch": ("llama", LLAMA_LONGROPE),
    "states": ("recurrent_gemma", {**LONG, "attention_window_size": 64}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_the_logits_are_those_of_generate(name: str, dtype: torch.dtype) -> None:
    """A prompt of more than 300 tokens, and tokens that cross the lengths one by one."""
    kind, changes = CASES[name]
    for prompt, count in ((310, 4), (60, 8), (124, 8)):
        model, same = (build(kind, **changes).to(dtype) for _ in range(2))
        tokens, expected = generated(model, ids_of(prompt), count)
        found = ours(same, ids_of(prompt), tokens)
        limit = 1e-4 if dtype == torch.float32 else 0.06
        assert far(found, expected) <= limit, prompt


@pytest.mark.parametrize("name", ["dynamic", "longrope without a switch"])
def test_frequencies_that_depend_on_the_length_are_read_in_one_piece_in_any_float_type(name: str) -> None:
    """In half precision the pieces differ from the whole by no more than rounding on some texts, and by more on others."""
    kind, changes = CASES[name]
    for dtype in (torch.float32, torch.bfloat16):
        assert wrap(build(kind, **changes).to(dtype), None).checked.in_one_piece, dtype
    assert not wrap(build("mistral", **LONG, sliding_window=64).to(torch.bfloat16), None).checked.in_one_piece


@pytest.mark.parametrize(("name", "prompt"), [("dynamic", 124), ("longrope without a switch", 60)])
def test_where_generate_is_not_one_pass_over_all_it_is_said(name: str, prompt: int) -> None:
    kind, changes = CASES[name]
    model = build(kind, **changes)
    tokens, expected = generated(model, ids_of(prompt), 8)
    with torch.no_grad():
        whole = build(kind, **changes)(torch.tensor([ids_of(prompt) + tokens[:-1]]), use_cache=False).logits[0, -8:]
    assert far(expected, whole) > 1e-3
    notes = [note for note in wrap(model, None).info.notes if "not one pass without a cache" in note]
    assert len(notes) == 1
    assert ("max_position_embeddings = 128" if name == "dynamic" else "original_max_position_embeddings = 64") in notes[0]


PHI3_LONGROPE = {**LONG, "original_max_position_embeddings": 64, "rope_parameters": {**LONGROPE, "original_max_position_embeddings": 64}}


def test_what_is_read_again_past_a_length_is_one_pass() -> None:
    """Phi-3 reads all again at its rotary switch: each text's logits are those of a pass over it, if not over a longer one."""
    tokens, expected = generated(build("phi3", **PHI3_LONGROPE), ids_of(60), 8)
    with torch.no_grad():
        texts = [torch.tensor([ids_of(60) + tokens[:at]]) for at in range(8)]
        alone = torch.stack([build("phi3", **PHI3_LONGROPE)(text, use_cache=False).logits[0, -1] for text in texts])
        together = build("phi3", **PHI3_LONGROPE)(texts[-1], use_cache=False).logits[0, -8:]
    assert far(expected, alone) <= 1e-5 < 1e-3 < far(expected, together)
    assert not any("generate" in note for note in wrap(build("phi3", **PHI3_LONGROPE), None).info.notes)


def test_where_all_agree_nothing_is_said() -> None:
    for kind, changes in (CASES["window"], CASES["sinks"], ("llama", {})):
        assert not any("generate" in note for note in wrap(build(kind, **changes), None).info.notes)


def test_the_comparison_leaves_lengths_and_states_as_they_were() -> None:
    for kind, changes in CASES.values():
        model = build(kind, **changes)
        config = model.config.to_dict()
        held = [{name: value for name, value in vars(module).items() if isinstance(value, int)} for module in model.modules()]
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        wrap(model, None).close()
        assert model.config.to_dict() == config
        assert [{name: value for name, value in vars(module).items() if isinstance(value, int)} for module in model.modules()] == held
        assert buffers.keys() == dict(model.named_buffers()).keys()
        assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())


def test_lengths_are_put_back_whatever_happens() -> None:
    model = build("gemma3_text", **CASES["windows and full attention"][1])

    def fail() -> None:
        with thresholds.lowered(model, model.config):
            assert model.config.sliding_window == thresholds.LOW
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert model.config.sliding_window == 128


def test_mavs_attention_is_not_used_where_it_is_wrong_past_a_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """What differs only in texts longer than those that are compared first."""
    right = attention.attention

    def wrong(module: Any, query: torch.Tensor, key: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return right(module, query * (1.05 if key.shape[2] > 14 else 1.0), key, *args, **kwargs)

    monkeypatch.setattr(attention, "attention", wrong)
    kind, changes = CASES["longrope without a switch"]
    backend = wrap(build(kind, **changes), None)
    assert backend.checked.from_outputs
    assert backend.checked.errors["attention logits"] > 1e-4
    assert any("mav to generate()" in what for name, what in backend.describe() if name == "past lengths")


COMPRESSED = ["heavily_compressed_attention", "compressed_sparse_attention", "sliding_attention"]


def test_weights_of_blocks_are_no_tokens() -> None:
    """DeepSeek V4's compressed layers look at blocks of tokens behind those of the window: each weight stands at its own token."""
    backend = wrap(build("deepseek_v4", layer_types=COMPRESSED), None)
    ids = ids_of(144)
    frames = [backend.prefill(ids[:140], SITES), *(backend.decode_one_token(token, SITES) for token in ids[140:])]
    plain, rows = build("deepseek_v4", layer_types=COMPRESSED), {}
    plain.set_attn_implementation("eager")
    for index, layer in enumerate(plain.model.layers):
        layer.self_attn.register_forward_hook(lambda _m, _a, out, index=index: rows.update({index: out[1][0]}))
    for length, frame in enumerate(frames, 140):
        with torch.no_grad():
            plain(input_ids=torch.tensor([ids[:length]]), use_cache=False)
        shown, learned = rows_over_tokens(frame), learned_share(frame)
        blocks = [rows[layer].shape[-1] - length for layer in range(3)]
        assert [count > 0 for count in blocks] == [True, True, False]
        assert frame.other_keys[1] > 0
        for layer in range(3):
            whole = rows[layer][:, -1]
            np.testing.assert_allclose(shown[layer], whole[:, :length], atol=1e-5)
            np.testing.assert_allclose(learned[layer], 1 - whole.sum(-1), atol=2e-4)


def test_only_keys_in_the_order_of_the_tokens_are_theirs() -> None:
    tokens, block = torch.ones(1, 6, 6).tril(), torch.ones(1, 6, 2) * (torch.arange(6) >= 3)[None, :, None]
    assert in_order(torch.cat([tokens, block], -1), 6)
    assert not in_order(torch.cat([block, tokens], -1), 6)
    assert not in_order(torch.cat([tokens.roll(1, -1), block], -1), 6)
    assert not in_order(torch.cat([torch.zeros(1, 6, 1), tokens[:, :, 1:], block], -1), 6)


def test_rows_are_not_shown_where_a_split_can_not_be_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "mask_width", lambda _kwargs: None)
    backend = wrap(build("deepseek_v4", layer_types=COMPRESSED), None)
    frame = backend.prefill(ids_of(140), SITES)
    for site in ("attention.probs", "attention.scores"):
        assert frame.sites[site][:2] == [None, None]
        assert all("could not be proved" in backend.missing[site][layer] for layer in range(2))
    assert frame.sites["attention.probs"][2] is not None


def test_rows_over_vectors_that_are_put_before_the_text_are_not_shown() -> None:
    """CPM-Ant puts 32 vectors of its own before the tokens."""
    backend = wrap(tiny_model("cpmant"), None)
    assert backend.prefill(ids_of(20), SITES).sites["attention.probs"] == [None] * 4
    assert all("keys for" in why for why in backend.missing["attention.probs"].values())


def test_a_model_whose_cache_takes_one_token_at_a_time_is_read_in_one_piece() -> None:
    model = tiny_model("prophetnet")
    tokens, expected = generated(model, ids_of(20), 4)
    backend = wrap(model, None)
    assert backend.checked.in_one_piece
    assert far(ours(model, ids_of(20), tokens), expected) <= 1e-5


def test_attention_without_a_softmax_is_no_recurrence() -> None:
    backend = wrap(tiny_model("reformer"), None)
    assert set(backend.anatomy.kinds) == {"other attention"}
    assert all("no softmax that could be followed" in why for why in backend.missing["attention.probs"].values())


def test_an_encoder_is_refused() -> None:
    torch.manual_seed(0)
    encoder = BertLMHeadModel(BertConfig(**SIZES, initializer_range=0.5)).eval()
    with pytest.raises(LoadError, match="is an encoder as it is configured"):
        wrap(encoder, None)
    decoder = BertLMHeadModel(BertConfig(**SIZES, initializer_range=0.5, is_decoder=True)).eval()
    assert not any("generate" in note for note in wrap(decoder, None).info.notes)


def test_positions_that_generate_counts_otherwise_are_said() -> None:
    """RoBERTa's own forward pass begins to count after its padding token's number, and `generate` at 0."""
    torch.manual_seed(0)
    model = RobertaForCausalLM(RobertaConfig(**SIZES, pad_token_id=1, initializer_range=0.5, is_decoder=True)).eval()
    tokens, expected = generated(model, ids_of(20), 5)
    with torch.no_grad():
        whole = model(torch.tensor([ids_of(20) + tokens[:-1]]), use_cache=False).logits[0, -5:]
    backend = wrap(model, None)
    said = [note for note in backend.info.notes if "generate(), which mav follows, is not one pass" in note]
    assert bool(said) == (far(expected, whole) > 1e-3)
    assert list(backend.info.notes[: len(said)]) == said  # before what is only about what can be shown
    assert far(ours(model, ids_of(20), tokens), expected) <= 1e-5


@pytest.mark.parametrize("how", ["sdpa", "eager"])
def test_a_model_that_computes_other_logits_when_asked_for_rows_is_not_asked(how: str) -> None:
    """Falcon adds ALiBi twice in eager attention, and once in sdpa."""
    model = build("falcon_alibi")
    model.config._attn_implementation = how
    with torch.no_grad():
        expected = model(torch.tensor([ids_of(30)]), use_cache=False).logits[0, -1]
        asked = model(torch.tensor([ids_of(30)]), use_cache=False, output_attentions=True).logits[0, -1]
    differs = far(asked, expected) > 1e-4
    backend = wrap(model, None)
    frame = backend.prefill(ids_of(30), SITES)
    assert far(frame.logits, expected) <= 1e-5
    assert all((row is None) == differs for row in frame.sites["attention.probs"])
    assert differs == any("computes other logits" in why for why in backend.missing.get("attention.probs", {}).values())
