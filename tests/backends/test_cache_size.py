"""What a cache holds, against counting by hand."""

from __future__ import annotations

import torch

from backends.families import WINDOW, build
from openmav.backends.transformers import wrap
from openmav.generation.session import Session
from openmav.settings import Settings

IDS = list(range(3, 15))


def test_keys_and_values_of_all_layers() -> None:
    model = build("llama")
    backend = wrap(model, None, "llama")
    config = model.config
    each = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    frame = backend.prefill(IDS, frozenset())
    assert frame.cache_bytes is not None
    assert frame.cache_bytes() == each * len(IDS)
    frame = backend.decode_one_token(4, frozenset())
    assert frame.cache_bytes is not None
    assert frame.cache_bytes() == each * (len(IDS) + 1)


def test_a_state_does_not_grow() -> None:
    backend = wrap(build("mamba"), None, "mamba")
    sizes = []
    for ids in (IDS[:4], IDS):
        frame = backend.prefill(ids, frozenset())
        assert frame.cache_bytes is not None
        sizes.append(frame.cache_bytes())
    assert sizes[0] == sizes[1] > 0


def test_half_as_much_in_half_precision() -> None:
    whole, half = (wrap(build("llama").to(dtype), None, "llama").prefill(IDS, frozenset()) for dtype in (torch.float32, torch.bfloat16))
    assert whole.cache_bytes is not None
    assert half.cache_bytes is not None
    assert whole.cache_bytes() == 2 * half.cache_bytes()


def test_a_model_that_keeps_no_cache_holds_nothing() -> None:
    backend = wrap(build("openai-gpt"), None, "openai-gpt")
    for frame in (backend.prefill(IDS, frozenset()), backend.decode_one_token(4, frozenset())):
        assert frame.cache_bytes is not None
        assert frame.cache_bytes() == 0


def test_asked_later_it_is_still_what_was_held_then() -> None:
    backend = wrap(build("llama"), None, "llama")
    first = backend.prefill(IDS, frozenset())
    assert first.cache_bytes is not None
    held = first.cache_bytes()
    for _ in range(3):
        backend.decode_one_token(4, frozenset())
    assert first.cache_bytes() == held


def test_windows_hold_all_tokens_by_every_way_to_a_token(id_tokenizer) -> None:
    """Step by step, in a burst, and looked back at: two keys and values a layer, and no counters."""
    model = build("mistral")
    config = model.config
    each = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4

    def session(*measures: str) -> Session:
        return Session(wrap(model, id_tokenizer), Settings(model="x", prompt="hello hello", max_new_tokens=20, measures=measures))

    single, burst, bare = session("cache_size"), session("cache_size"), session("residual_norm")
    prompt = len(single.prompt.token_ids)
    for one in (single, bare):
        list(one)
    while burst.reason is None:
        burst.burst(1.0)
    bare.want(("cache_size",))
    expected = [each * (prompt + index) for index in range(len(single.steps))]
    assert len(expected) > WINDOW
    for steps in (single.steps, burst.steps, [bare.look_back(index) for index in range(len(expected))]):
        assert [step.values["cache_size"][0] for step in steps] == expected


def test_states_of_modules_count() -> None:
    backend = wrap(build("recurrent_gemma"), None)
    frame = backend.prefill(IDS, frozenset())
    layers = frame_bytes = 0
    for module in backend.model.modules():
        if hasattr(module, "conv1d_state"):
            layers += 1
            frame_bytes += 4 * (module.lru_width + module.lru_width * (module.conv1d_width - 1))
    assert layers > 0
    assert frame.cache_bytes is not None
    assert frame.cache_bytes() >= frame_bytes
