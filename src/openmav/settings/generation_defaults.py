"""A model's own generation config in mav's terms: defaults that a user's flags override, and settings that are not followed."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from openmav.settings.sampling import Sampling

DEFAULT_LENGTH = 200  # tokens to generate where neither the user nor the model sets a limit
SAMPLED = frozenset({"do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"})
LONGEST = 60  # characters of a value in a line
LENGTHS = frozenset({"max_length", "max_new_tokens"})


@dataclass(frozen=True)
class GenerationDefaults:
    """The generation settings of a model; empty for a model that has none.

    `used` and `left_out` are the settings that have an effect, by their names in generation_config.json, with their values there:
    those that mav follows, and those that it can't, since it generates one sequence token by token.
    """

    sampling: Sampling = field(default_factory=Sampling)
    max_new_tokens: int | None = None
    max_length: int | None = None  # tokens, prompt included
    stop: tuple[str, ...] = ()
    used: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, Any] = field(default_factory=dict)

    def limit(self, requested: int | None, prompt: int) -> int:
        """The most tokens to generate after a prompt of `prompt` tokens. `requested`: the user's limit; None: the model's."""
        if requested is not None:
            return requested
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        left = (self.max_length or 0) - prompt
        return left if left > 0 else DEFAULT_LENGTH

    def notes(self, given: Collection[str], sampling: Sampling, prompt: int) -> list[str]:
        """Notes for the user, a line each. `given`: the settings of the user, by their names in generation_config.json."""
        own = {
            name: value
            for name, value in self.used.items()
            if name not in given and not (sampling.greedy and name in SAMPLED) and not (name in LENGTHS and LENGTHS & {*given})
        }
        if not LENGTHS & {*given} and "max_new_tokens" in own:
            own.pop("max_length", None)
        lines = []
        too_long = "max_length" in own and prompt >= own["max_length"]
        if too_long:
            length = own.pop("max_length")
            lines.append(f"the model's generation config ends a text at {length} tokens, which the prompt has already: left out")
        if own:
            listed = ", ".join(one_setting(name, value) for name, value in own.items())
            lines.append(f"from the model's generation config: {listed}; --ignore-generation-config leaves it out")
        if self.left_out:
            listed = ", ".join(one_setting(name, value) for name, value in self.left_out.items())
            lines.append(f"not followed in the model's generation config, since mav generates one sequence token by token: {listed}")
        return lines


def one_setting(name: str, value: Any) -> str:
    """A setting in short; for a list of tokens or strings, its length."""
    if isinstance(value, list | tuple | dict):
        return f"{name} ({len(value)})"
    return name if value is True else f"{name} {value_text(value)}"


def value_text(value: Any) -> str:
    """A value as JSON, cut where it is long; the name of its type where it is not JSON."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = type(value).__name__
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
