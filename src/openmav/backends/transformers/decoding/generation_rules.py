"""The settings of a generation config: what each must be, and when it has an effect; those that do not apply to one sequence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def is_token(value: Any) -> bool:
    return is_int(value) and value >= 0


def is_list(value: Any, each: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and all(each(item) for item in value)


def is_word(value: Any) -> bool:
    return is_list(value, is_token) and len(value) > 0


def is_bias(value: Any) -> bool:
    if isinstance(value, dict):
        return all(is_word(word) and is_number(bias) for word, bias in value.items())
    return is_list(value, lambda pair: isinstance(pair, list | tuple) and len(pair) == 2 and is_word(pair[0]) and is_number(pair[1]))


def _positive(value: Any) -> bool:
    return is_number(value) and value > 0


def _share(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1


def _count(value: Any) -> bool:
    return is_int(value) and value >= 0


def _yes_or_no(value: Any) -> bool:
    return isinstance(value, bool)


NUMBER_FROM_0, SHARE, COUNT, IDS = "a number of 0 or more", "a number from 0 to 1", "a whole number of 0 or more", "a list of token ids"
Rule: TypeAlias = tuple[Callable[[Any], bool], str, Callable[[Any], bool]]  # is it valid; what it must be; has it any effect
RULES: dict[str, Rule] = {
    "do_sample": (_yes_or_no, "true or false", bool),
    "temperature": (lambda v: is_number(v) and v >= 0, NUMBER_FROM_0, lambda v: v != 1),
    "top_k": (_count, COUNT, lambda v: v != 50),
    "top_p": (lambda v: is_number(v) and v >= 0, NUMBER_FROM_0, lambda v: v < 1),
    "min_p": (_share, SHARE, lambda v: v > 0),
    "top_h": (_share, SHARE, bool),
    "typical_p": (_positive, "a number above 0", lambda v: v < 1),
    "epsilon_cutoff": (lambda v: is_number(v) and v >= 0, NUMBER_FROM_0, lambda v: 0 < v < 1),
    "eta_cutoff": (lambda v: is_number(v) and v >= 0, NUMBER_FROM_0, lambda v: 0 < v < 1),
    "sequence_bias": (is_bias, "a list of [token ids, number] pairs", bool),
    "encoder_repetition_penalty": (_positive, "a number above 0", lambda v: v != 1),
    "repetition_penalty": (_positive, "a number above 0", lambda v: v != 1),
    "no_repeat_ngram_size": (_count, COUNT, bool),
    "encoder_no_repeat_ngram_size": (_count, COUNT, bool),
    "bad_words_ids": (lambda v: is_list(v, is_word), "a list of lists of token ids", bool),
    "min_length": (_count, COUNT, bool),
    "min_new_tokens": (_count, COUNT, bool),
    "forced_bos_token_id": (is_token, "a token id", lambda v: True),
    "forced_eos_token_id": (lambda v: is_token(v) or is_list(v, is_token), "a token id or a list of token ids", lambda v: v != []),
    "remove_invalid_values": (_yes_or_no, "true or false", bool),
    "exponential_decay_length_penalty": (
        lambda v: isinstance(v, list | tuple) and len(v) == 2 and is_int(v[0]) and _positive(v[1]),
        "[a whole number, a number above 0]",
        bool,
    ),
    "suppress_tokens": (lambda v: is_list(v, is_int), IDS, bool),
    "begin_suppress_tokens": (lambda v: is_list(v, is_int), IDS, bool),
    "renormalize_logits": (_yes_or_no, "true or false", bool),
    "max_length": (lambda v: is_int(v) and v >= 1, "a whole number of 1 or more", lambda v: True),
    "max_new_tokens": (lambda v: is_int(v) and v >= 1, "a whole number of 1 or more", lambda v: True),
    "stop_strings": (
        lambda v: isinstance(v, str) or is_list(v, lambda text: isinstance(text, str)),
        "a string or a list of strings",
        lambda v: any(v),
    ),
}
TOKENS = ("bad_words_ids", "sequence_bias", "forced_bos_token_id", "forced_eos_token_id")  # every one must be in the vocabulary
LEFT_OUT: dict[str, Callable[[Any], bool]] = {  # what one sequence can't follow, and where it asks for something
    "num_beams": lambda v: v != 1,
    "num_beam_groups": lambda v: v != 1,
    "diversity_penalty": lambda v: v != 0,
    "num_return_sequences": lambda v: v != 1,
    "penalty_alpha": lambda v: v != 0,
    "dola_layers": bool,
    "constraints": bool,
    "force_words_ids": bool,
    "guidance_scale": lambda v: v != 1,
    "watermarking_config": bool,
    "token_healing": bool,
    "use_cache": lambda v: v is False,
    "cache_implementation": lambda v: v not in ("dynamic", "hybrid"),
    "cache_config": bool,
    "max_time": lambda v: True,
    "prompt_lookup_num_tokens": bool,
    "assistant_early_exit": bool,
    "use_mtp": bool,
    "speculation_type": bool,
    "compile_config": bool,
}
