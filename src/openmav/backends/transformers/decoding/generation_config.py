"""A model's generation config: read and checked, turned into mav's defaults, and into the logits processors that `generate` would use.

generate() supports settings that do not apply to one sequence (beams, several sequences, other caches, assistant models). They are
never passed to it: `OwnConfig` prevents generate() from reading the model's own config.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel
from transformers.utils import cached_file

from openmav.backends.transformers.decoding.generation_rules import LEFT_OUT, RULES, TOKENS, is_list, is_token
from openmav.errors import LoadError, UsageError, words_of
from openmav.record import SAMPLING_STAGES
from openmav.settings.generation_defaults import GenerationDefaults
from openmav.settings.sampling import Sampling

FILE = "generation_config.json"


class OwnConfig(GenerationConfig):
    """The config passed to generate(), which adds its defaults to it, and nothing from the model's own generation config."""

    def update(self, defaults_only: bool = False, allow_custom_entries: bool = False, **values: Any) -> dict[str, Any]:
        if defaults_only and allow_custom_entries:  # how generate() adds the model's own
            return values
        unused: dict[str, Any] = super().update(defaults_only=defaults_only, allow_custom_entries=allow_custom_entries, **values)
        return unused


def one_token() -> GenerationConfig:
    """A config with which generate() prepares one sequence with the usual cache."""
    return OwnConfig(do_sample=False, max_new_tokens=1, use_cache=True)


# ---- reading ---------------------------------------------------------------------------------------------------------------


def read(place: str, common: Mapping[str, Any]) -> GenerationConfig | None:
    """The generation config of a model, as it is in its file; None where there is none.

    transformers checks a config while reading it, and silently drops one that is not JSON. Raises LoadError for that.
    """
    how = {name: value for name, value in common.items() if name in ("revision", "subfolder", "token", "cache_dir")}
    quiet = dict.fromkeys(("_raise_exceptions_for_missing_entries", "_raise_exceptions_for_connection_errors"), False)
    file = cached_file(place, FILE, **how, **quiet, _raise_exceptions_for_gated_repo=False)
    if file is None:
        return None
    try:
        values = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LoadError(f"the {FILE} of this model can't be read ({error}); mend it, or move it away") from error
    if not isinstance(values, dict):
        raise LoadError(f"the {FILE} of this model holds no JSON object; mend it, or move it away")
    config = GenerationConfig()
    for name, value in values.items():
        if name.isidentifier() and not callable(getattr(config, name, None)):
            setattr(config, name, value)
    return config


def settings_of(model: PreTrainedModel) -> dict[str, Any]:
    """The settings in a model's generation config that are not None."""
    own = vars(getattr(model, "generation_config", None) or GenerationConfig())
    return {name: value for name, value in own.items() if value is not None and not name.startswith("_")}


def end_ids(model: PreTrainedModel, tokenizer: Any) -> frozenset[int]:
    """All tokens that end a text: the generation config may name several, the tokenizer one.

    Raises LoadError for an invalid eos_token_id.
    """
    named = settings_of(model).get("eos_token_id")
    if named is not None and not (is_token(named) or is_list(named, is_token)):
        raise _wrong("eos_token_id", named, "a token id or a list of token ids")
    ids = {named} if isinstance(named, int) else set(named or ())
    ids.add(getattr(tokenizer, "eos_token_id", None))
    return frozenset(int(i) for i in ids if i is not None)


def note_on_ends(ends: frozenset[int], vocab: int) -> tuple[str, ...]:
    """A note where an end token is not in the model's vocabulary: no text can end with it."""
    unknown = ", ".join(str(i) for i in sorted(ends) if not 0 <= i < vocab)
    return (f"never reached: end token {unknown}; the model has tokens 0 to {vocab - 1}",) if unknown else ()


def _wrong(name: str, value: Any, must: str) -> LoadError:
    shown = repr(value)
    return LoadError(f"{name} in the model's generation config must be {must}, not {shown[:60]}{'...' * (len(shown) > 60)}")


def _tokens_in(value: Any) -> Collection[int]:
    """All token ids in a setting of TOKENS."""
    if isinstance(value, int):
        return (value,)
    return [i for item in value for i in (_tokens_in(item) if isinstance(item, list | tuple) else (item,)) if isinstance(i, int)]


# ---- mav's defaults --------------------------------------------------------------------------------------------------------


class Generation:
    """The generation config of one model, checked. `ends` are the tokens that end a text.

    Raises LoadError for an invalid value.
    """

    def __init__(self, model: PreTrainedModel, ends: frozenset[int], vocab: int) -> None:
        self._model = model
        self._ends = sorted(i for i in ends if i < vocab)
        given = settings_of(model)
        if isinstance(given.get("sequence_bias"), dict):
            given["sequence_bias"] = [[list(word), bias] for word, bias in given["sequence_bias"].items()]
        self._used: dict[str, Any] = {}
        for name, (good, must, active) in RULES.items():
            if name in given:
                if not good(given[name]):
                    raise _wrong(name, given[name], must)
                if active(given[name]):
                    self._used[name] = given[name]
        for name in TOKENS:
            for token in _tokens_in(self._used.get(name, ())):
                if token >= vocab:
                    raise LoadError(f"{name} in the model's generation config names token {token}; the model has tokens 0 to {vocab - 1}")
        left_out = {name: given[name] for name, asks in LEFT_OUT.items() if name in given and asks(given[name])}
        try:
            self.defaults = _defaults(self._used, left_out)
        except UsageError as error:
            raise LoadError(f"the model's generation config: {error}") from error
        self.processors(self.defaults.sampling, [0], 1)  # their own checks

    def processors(self, sampling: Sampling, prompt_ids: Sequence[int], max_new_tokens: int) -> LogitsProcessorList | None:
        """Those that generate() would use after this prompt, in its order; None where there are none.

        The settings of `sampling` replace those in the file.
        """
        config = self._config(sampling, len(prompt_ids), max_new_tokens)
        try:
            chain = self._model._get_logits_processor(
                generation_config=config,
                input_ids_seq_length=len(prompt_ids),
                encoder_input_ids=torch.tensor([list(prompt_ids)]),
                logits_processor=LogitsProcessorList(),
                device="cpu",
                model_kwargs={},
            )
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            raise LoadError(f"the model's generation config: {words_of(error)}; mend it, or use --ignore-generation-config") from error
        return chain if len(chain) else None

    def _config(self, sampling: Sampling, prompt: int, max_new_tokens: int) -> GenerationConfig:
        """The config that generate() would derive; set one by one, since a config's own checks reject more than is used."""
        config = OwnConfig()
        values = {name: value for name, value in self._used.items() if name not in ("stop_strings", "max_new_tokens")}
        values |= {
            "do_sample": not sampling.greedy,
            "temperature": float(sampling.temperature),
            "top_k": sampling.top_k,
            "top_p": float(sampling.top_p),
            "min_p": float(sampling.min_p) or None,
            "repetition_penalty": float(sampling.repetition_penalty),
            "max_length": prompt + max_new_tokens,
        }
        if "min_new_tokens" in values:
            values["min_length"] = prompt + values["min_new_tokens"]
        if not self._ends:
            values.pop("exponential_decay_length_penalty", None)
        for name, value in {**config._get_default_generation_params(), **values}.items():
            setattr(config, name, value)
        config._eos_token_tensor = torch.tensor(self._ends) if self._ends else None
        return config


def _defaults(used: Mapping[str, Any], left_out: Mapping[str, Any]) -> GenerationDefaults:
    own = Sampling(
        temperature=float(used.get("temperature", 1.0)) if used.get("do_sample") else 0.0,
        top_k=used.get("top_k", 50),
        top_p=max(float(used.get("top_p", 1.0)), math.ulp(0.0)),
        min_p=float(used.get("min_p", 0.0)),
        repetition_penalty=float(used.get("repetition_penalty", 1.0)),
        stages=_stages(used),
    )
    stops = used.get("stop_strings", ())
    return GenerationDefaults(
        sampling=own,
        max_new_tokens=used.get("max_new_tokens"),
        max_length=used.get("max_length"),
        stop=(stops,) if isinstance(stops, str) else tuple(text for text in stops if text),
        used=dict(used),
        left_out=left_out,
    )


STAGE_OF_SETTING = {
    "sequence_bias": "sequence bias",
    "encoder_repetition_penalty": "prompt penalty",
    "no_repeat_ngram_size": "no n-gram",
    "encoder_no_repeat_ngram_size": "prompt n-gram",
    "bad_words_ids": "bad words",
    "min_length": "min length",
    "min_new_tokens": "min tokens",
    "forced_bos_token_id": "forced start",
    "forced_eos_token_id": "forced end",
    "remove_invalid_values": "finite",
    "exponential_decay_length_penalty": "end bias",
    "suppress_tokens": "suppressed",
    "begin_suppress_tokens": "not first",
    "top_h": "top-h",
    "typical_p": "typical-p",
    "epsilon_cutoff": "epsilon",
    "eta_cutoff": "eta",
    "renormalize_logits": "normalise",
}


def _stages(used: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """The stages besides those of mav's own flags, in order, each with its setting: for a list, its length."""
    stages = {stage: used[name] for name, stage in STAGE_OF_SETTING.items() if name in used}
    if "min_new_tokens" in used:
        stages["min length"] = used["min_new_tokens"]  # generate() derives one from the other
    order = sorted(stages.items(), key=lambda item: SAMPLING_STAGES.index(item[0]))
    return tuple((stage, float(len(value) if isinstance(value, list | tuple) else value)) for stage, value in order)
