"""The sampling settings that a GGUF file may have, its keys general.sampling.*, as mav's defaults."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from openmav.backends.loading.gguf_metadata import GgufHeader
from openmav.errors import LoadError, UsageError
from openmav.settings.generation_defaults import GenerationDefaults
from openmav.settings.sampling import Sampling

START = "general.sampling."
FOLLOWED = {  # keys, and the names of the same settings in a generation_config.json
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}
OFF = {"xtc_probability": 0, "mirostat": 0}  # other keys that change what is drawn, and the values that switch them off


def defaults(header: GgufHeader) -> GenerationDefaults:
    """The settings of a file; empty where it has none, as most have. Raises LoadError for a value that is not valid."""
    given = {key.removeprefix(START): value for key, value in header.values.items() if key.startswith(START)}
    used: dict[str, Any] = {}
    for key, name in FOLLOWED.items():
        if key in given:
            used[name] = _number(key, given[key])
    try:
        sampling = replace(Sampling(), **used)
    except UsageError as error:
        raise LoadError(f"the file's sampling settings: {error}; --ignore-generation-config leaves them out") from error
    left_out = {key: given[key] for key, off in OFF.items() if key in given and given[key] != off}
    return GenerationDefaults(sampling=sampling, used=used, left_out=left_out)


def _number(key: str, value: Any) -> float | int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise LoadError(f"{START}{key} of this file must be a number, not {str(value)[:40]!r}; --ignore-generation-config leaves it out")
    return int(value) if key == "top_k" else float(value)
