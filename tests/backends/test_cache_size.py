"""What a cache holds, against counting by hand."""

from __future__ import annotations

import torch

from backends.families import build
from openmav.backends.transformers import wrap

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
