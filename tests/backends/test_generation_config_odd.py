"""What of a generation config can't be followed is left out and named, and a value that makes no sense is one line."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedModel

from backends.generation_configs import Make, generated
from openmav.errors import LoadError

pytestmark = pytest.mark.changes_model  # they give a model another generation config


@pytest.mark.parametrize(
    "config",
    [
        {"num_beams": 4, "length_penalty": 0.6, "early_stopping": True},
        {"num_beams": 3, "num_return_sequences": 3},
        {"num_return_sequences": 2},
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"dola_layers": "high"},
        {"force_words_ids": [[5]]},
        {"guidance_scale": 1.5},
        {"watermarking_config": {"greenlist_ratio": 0.5}},
        {"token_healing": True},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"cache_implementation": "quantized", "cache_config": {"nbits": 4}},
        {"cache_implementation": "offloaded_static"},
        {"cache_implementation": "no such thing"},
        {"max_time": 0.5},
        {"prompt_lookup_num_tokens": 10},
        {"compile_config": {"mode": "nothing"}},
    ],
    ids=str,
)
def test_what_cannot_be_followed_is_left_out_and_named(with_config: Make, tiny_llama: PreTrainedModel, config: dict[str, Any]) -> None:
    expected, _ = generated(tiny_llama, do_sample=False)
    session = with_config(config)
    assert [step.token_id for step in session] == expected
    note = next(note for note in session.info.notes if "not followed" in note)
    silent = {"length_penalty", "early_stopping", "top_k"}  # of beams only; of sampling only
    assert all(name in note for name in config if name not in silent)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("eos_token_id", value) for value in (2.5, "</s>", {"a": 1}, [[2]], -1, True, [2, None])],
        *[("temperature", value) for value in (-0.5, "0.7", float("nan"), float("inf"), [1], True)],
        *[("top_k", value) for value in (-1, 5.5, "50")],
        *[("repetition_penalty", value) for value in (0, -1.0, "1.1", 1e300)],
        *[("min_p", value) for value in (-0.1, 2)],
        ("do_sample", "yes"),
        ("typical_p", 0),
        ("no_repeat_ngram_size", 2.0),
        ("bad_words_ids", [3]),
        ("bad_words_ids", [[]]),
        ("bad_words_ids", [[300]]),
        ("forced_eos_token_id", 300),
        ("forced_bos_token_id", "<s>"),
        ("suppress_tokens", "none"),
        ("suppress_tokens", [2**63]),
        ("top_k", 2**64),
        ("sequence_bias", {"a": 1}),
        ("sequence_bias", [[[1], "much"]]),
        ("exponential_decay_length_penalty", [3]),
        ("max_new_tokens", 0),
        ("max_length", "long"),
        ("stop_strings", 3),
        ("renormalize_logits", 1),
    ],
    ids=str,
)
def test_odd_values_are_one_line(with_config: Make, name: str, value: Any) -> None:
    with pytest.raises((LoadError, ValueError)) as error:
        with_config({"do_sample": True, name: value} if name != "do_sample" else {name: value})
    text = str(error.value)
    assert hasattr(error.value, "exit_code"), "one of mav's own"
    assert "\n" not in text
    assert name in text or name.replace("_", " ") in text
    assert "generation config" in text
