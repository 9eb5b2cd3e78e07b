"""The facts of a run as plain values, and back: the model, a prompt, the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from openmav.errors import MavError, UsageError
from openmav.record import ModelInfo, Prompt
from openmav.record.codec import read_sampling
from openmav.settings import Settings
from openmav.settings.constraint import Constraint
from openmav.settings.sampling import SamplingOptions


def model_content(info: ModelInfo | None) -> dict[str, Any] | None:
    """What the file says of a model."""
    return None if info is None else asdict(replace(info, missing={k: dict(v) for k, v in info.missing.items()}))


def read_model(content: Mapping[str, Any]) -> ModelInfo:
    """The model that a file names. Raises KeyError, TypeError, ValueError or AttributeError where it names none."""
    known = {one.name for one in fields(ModelInfo)}
    values = {name: value for name, value in content.items() if name in known}
    missing = {measure: {int(layer): str(why) for layer, why in layers.items()} for measure, layers in values.pop("missing", {}).items()}
    info = ModelInfo(**{**values, "missing": missing, "notes": tuple(map(str, values.get("notes", ())))})
    info = ModelInfo(**{**{f.name: getattr(info, f.name) for f in fields(ModelInfo)}, "layer_heads": tuple(info.layer_heads)})
    counts = (info.layers, info.heads, info.vocab, info.kv_heads, info.width, info.parameters, *info.layer_heads)
    texts = (info.name, info.backend, info.dtype, info.device)
    if not all(isinstance(n, int) and 0 <= n < 2**62 for n in counts) or not all(isinstance(text, str) for text in texts):
        raise ValueError("counts of a model")
    if info.layers > 10_000 or info.heads > 100_000 or not isinstance(info.context, (int, type(None))):
        raise ValueError("counts of a model")
    if not isinstance(info.generation_config, dict):
        raise ValueError("generation config")
    return info


def prompt_content(prompt: Prompt) -> dict[str, Any]:
    """What a file says of a prompt."""
    return {one.name: getattr(prompt, one.name) for one in fields(Prompt)}


def read_prompt(content: Mapping[str, Any]) -> Prompt:
    """The prompt of a branch; raises as `read_model` does."""
    parts = {int(index): str(name) for index, name in content.get("parts", {}).items()}
    prompt = Prompt(content["text"], tuple(content["token_ids"]), tuple(content["tokens"]), tuple(map(bool, content["special"])), parts)
    if not isinstance(prompt.text, str) or not all(isinstance(i, int) for i in prompt.token_ids):
        raise ValueError("prompt")
    if not all(isinstance(text, str) for text in prompt.tokens) or len(prompt.tokens) != len(prompt.token_ids):
        raise ValueError("prompt")
    return prompt


def read_constraint(content: Mapping[str, Any]) -> Constraint:
    """What the text had to keep to; raises as `read_model` does."""
    return Constraint(**_with_tuples(content))


def read_settings(content: Any) -> Settings:
    """The settings that a recording has. Raises UsageError where it has none."""
    if not isinstance(content, Mapping):
        raise UsageError("the recording does not have the settings of its run, so that it cannot be run again")
    try:
        sampling = content["sampling"]
        values = _with_tuples(content)
        values["sampling"] = read_sampling(sampling) if "stages" in sampling else SamplingOptions(**sampling)
        values["constraint"] = read_constraint(content["constraint"])
        compared = content.get("compared")
        values["compared"] = None if compared is None else read_settings(compared)
        # nothing of the file may choose code (no code of the model's, no measure of a user's own) or a host that weights and text go to
        safe = {"trust_remote_code": False, "measure_files": (), "rpc": ()}
        return Settings(**{**values, **safe, "interactive": False, "refresh_rate": 0.0})
    except MavError:
        raise
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise UsageError("the settings in the recording cannot be read, so that it cannot be run again") from error


def _with_tuples(content: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists only."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
