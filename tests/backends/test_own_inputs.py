"""Models that take their inputs, or keep what they remember, in ways of their own: mav's logits are those of `generate`."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from backends.families import MLA, MOE, build
from openmav.backends.transformers import wrap
from openmav.backends.transformers.capture import attention
from openmav.backends.transformers.loading.context import context_of
from openmav.errors import UsageError

VOCAB = 128
LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 8, "long_factor": [1.0 + i for i in range(8)]}


class PlainConfig(PretrainedConfig):
    model_type = "plain-own"

    def __init__(self, **kwargs: object) -> None:
        self.vocab_size, self.hidden_size, self.num_hidden_layers, self.num_attention_heads = VOCAB, 16, 2, 2
        super().__init__(**kwargs)


class PlainBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix, self.grow, self.shrink = nn.Linear(16, 16), nn.Linear(16, 64), nn.Linear(64, 16)

    def forward(self, x: Tensor) -> Tensor:
        count = torch.arange(1, x.shape[1] + 1)[None, :, None]
        x = x + self.mix(x.cumsum(1) / count)
        return x + self.shrink(torch.relu(self.grow(x)))


class Plain(PreTrainedModel, GenerationMixin):
    """Its forward pass takes token ids and nothing else that a tokenizer makes."""

    config_class = PlainConfig

    def __init__(self, config: PlainConfig) -> None:
        super().__init__(config)
        self.embed, self.head = nn.Embedding(VOCAB, 16), nn.Linear(16, VOCAB, bias=False)
        self.blocks = nn.ModuleList([PlainBlock(), PlainBlock()])
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: object) -> dict[str, Tensor]:
        return {"input_ids": input_ids}

    def forward(self, input_ids: Tensor, return_dict: bool = True, use_cache: bool = False) -> CausalLMOutput:
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x)
        return CausalLMOutput(logits=self.head(x))


def ids_of(count: int, seed: int = 0) -> list[int]:
    return torch.randint(3, VOCAB, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def generated(model: PreTrainedModel, prompt: list[int], count: int) -> tuple[list[int], Tensor]:
    """The tokens that `generate` adds, and [count, vocab] its logits before each of them."""
    mask = {"attention_mask": torch.ones(1, len(prompt), dtype=torch.long)} if not isinstance(model, Plain) else {}
    made = model.generate(
        torch.tensor([prompt]),
        **mask,
        max_new_tokens=count,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        eos_token_id=None,
    )
    return made.sequences[0, len(prompt) :].tolist(), torch.stack([one[0] for one in made.logits]).float()


def ours(model: PreTrainedModel, prompt: list[int], tokens: list[int]) -> Tensor:
    backend = wrap(model, None)
    frames = [backend.prefill(prompt, frozenset()), *(backend.decode_one_token(token, frozenset()) for token in tokens[:-1])]
    backend.close()
    return torch.stack([frame.logits for frame in frames])


def far(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def test_a_forward_that_takes_no_mask() -> None:
    torch.manual_seed(0)
    model = Plain(PlainConfig()).eval()
    tokens, expected = generated(model, ids_of(9), 6)
    assert far(ours(model, ids_of(9), tokens), expected) <= 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("prompt", [120, 128, 140, 300, 700])
def test_a_model_that_reads_all_again_past_a_length(prompt: int, dtype: torch.dtype) -> None:
    """Phi-3 gets other rotary factors, for all tokens, when the text grows longer than 128 here."""
    rope = {**LONGROPE, "original_max_position_embeddings": 128}
    changes = {"max_position_embeddings": 2048, "original_max_position_embeddings": 128, "sliding_window": None, "rope_parameters": rope}
    model, same = (build("phi3", **changes).to(dtype) for _ in range(2))
    tokens, expected = generated(model, ids_of(prompt), 16)
    with torch.no_grad():
        whole = model(torch.tensor([ids_of(prompt) + tokens[:-1]]), use_cache=False).logits[0, -1].float()
    limit = 1e-4 if dtype == torch.float32 else 0.06
    found = ours(same, ids_of(prompt), tokens)
    assert far(found, expected) <= limit
    assert far(found[-1], whole) <= limit


def test_an_argument_that_mavs_attention_does_not_know_is_never_swallowed() -> None:
    q = torch.randn(1, 2, 3, 8)
    with pytest.raises(attention.UnknownArgumentError, match="chosen_blocks"):
        attention.attention(nn.Module(), q, q, q, None, chosen_blocks=torch.ones(3))
    with pytest.raises(attention.UnknownArgumentError, match="later tokens"):
        attention.attention(nn.Module(), q, q, q, None, is_causal=False)
    plain = attention.attention(nn.Module(), q, q, q, None)[0]
    assert torch.equal(attention.attention(nn.Module(), q, q, q, None, chosen_blocks=None, is_causal=True)[0], plain)


@pytest.mark.parametrize("length", [20, 300])
def test_sparse_attention_stays_sparse(length: int) -> None:
    """DeepSeek V3.2 looks at its 16 best tokens only."""
    model = build("deepseek_v32", **{**MOE, **MLA}, index_topk=16, index_n_heads=32, index_head_dim=32, max_position_embeddings=512)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = model(torch.tensor([ids_of(length)]), use_cache=False).logits[0, -1]
    backend = wrap(model, None)
    assert backend.checked.from_outputs
    assert far(backend.prefill(ids_of(length), frozenset()).logits, expected) <= 1e-5


def test_the_states_of_a_model_are_its_owners() -> None:
    """RecurrentGemma's states are attributes of its modules: they are left as they were, also while a session is open."""
    model = build("recurrent_gemma")
    held = {name: module for name, module in model.named_modules() if hasattr(module, "recurrent_states")}
    model.generate(torch.tensor([ids_of(9)]), max_new_tokens=2, do_sample=False, eos_token_id=None)
    before = {name: module.recurrent_states.clone() for name, module in held.items()}
    assert before
    backend = wrap(model, None)
    backend.prefill(ids_of(30), frozenset())
    backend.decode_one_token(5, frozenset())
    assert all(torch.equal(module.recurrent_states, before[name]) for name, module in held.items())
    backend.close()
    assert all(torch.equal(module.recurrent_states, before[name]) for name, module in held.items())


class Memory:
    """Something that no scan of attributes finds."""

    def __init__(self) -> None:
        self.total = torch.zeros(VOCAB)


def test_state_that_was_not_found_is_read_again() -> None:
    """Logits that depend on how many tokens were read one by one since the prompt, kept in an object of the model's own."""
    model = build("llama")
    memory, forward = Memory(), model.forward

    def remembering(*args: object, **kwargs: object) -> object:
        output = forward(*args, **kwargs)
        memory.total = (
            torch.zeros(VOCAB)
            if output.logits.shape[1] > 1 or kwargs["input_ids"].shape[1] > 1
            else memory.total + 0.1 * output.logits[0, -1]
        )
        output.logits = output.logits + memory.total
        return output

    remembering.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    model.forward = remembering
    backend = wrap(model, None)
    assert any("state that was not found" in note for note in backend.info.notes)
    tokens = ids_of(8, 1)
    expected = [backend.prefill(ids_of(12), frozenset()).logits, *(backend.decode_one_token(t, frozenset()).logits for t in tokens)]
    backend.rewind(12 + 3)
    again = [backend.decode_one_token(t, frozenset()).logits for t in tokens[3:]]
    assert torch.equal(torch.stack(again), torch.stack(expected[4:]))
    with backend.aside():
        backend.rewind(12 + 5)
        assert torch.equal(backend.decode_one_token(tokens[5], frozenset()).logits, expected[6])
    after = backend.decode_one_token(7, frozenset()).logits
    backend.prefill(ids_of(12), frozenset())
    straight = [backend.decode_one_token(t, frozenset()).logits for t in (*tokens, 7)]
    assert torch.equal(after, straight[-1])
    with pytest.raises(UsageError, match="no other run"):
        backend.intervened([], ids_of(12))


def test_two_sequences_of_a_model_that_keeps_states_of_its_own() -> None:
    model = build("recurrent_gemma")
    alone = ours(build("recurrent_gemma"), ids_of(20), ids_of(12, 1))
    first, second = wrap(model, None), wrap(model, None)
    found = [first.prefill(ids_of(20), frozenset()).logits]
    second.prefill(ids_of(40, 2), frozenset())
    for token in ids_of(12, 1)[:-1]:
        found.append(first.decode_one_token(token, frozenset()).logits)
        second.decode_one_token(7, frozenset())
    assert torch.equal(torch.stack(found), alone)


@pytest.mark.parametrize(
    ("kind", "changes", "expected"),
    [
        ("llama", {"max_position_embeddings": 640}, 640),
        ("mpt", {"max_seq_len": 384}, 384),
        ("xlnet", {}, None),
        ("qwen2", {"max_position_embeddings": 512, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, 1024),
        ("qwen2", {"max_position_embeddings": 512, "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0}}, 1536),
        (
            "qwen2",
            {
                "max_position_embeddings": 512,
                "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 512},
            },
            2048,
        ),
        (
            "qwen2",
            {
                "max_position_embeddings": 2048,
                "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 512},
            },
            2048,
        ),
    ],
)
def test_how_much_a_model_reads(kind: str, changes: dict[str, object], expected: int | None) -> None:
    assert context_of(AutoConfig.for_model(kind, **changes)) == expected
