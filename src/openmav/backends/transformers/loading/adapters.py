"""Adapters beside or inside a model's folder, such as LoRA: found, checked, and applied with peft."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import cached_file

from openmav.backends.loading import checkpoint
from openmav.backends.transformers.loading import quantised
from openmav.errors import LoadError

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
IGNORED: dict[str, Any] = {"adapter_kwargs": {"subfolder": "no-adapter"}}  # so that transformers does not apply one by itself
TRIED = {f"_raise_exceptions_for_{what}": False for what in ("gated_repo", "missing_entries", "connection_errors")}


@dataclass(frozen=True)
class Adapter:
    """An adapter in a folder of this machine; `base` is the name of its base model in its configuration."""

    folder: Path
    kind: str  # peft's name for it, such as "LORA"
    base: str

    @property
    def has_tokenizer(self) -> bool:
        return (self.folder / "tokenizer_config.json").is_file()


def find(name: str, source: checkpoint.Checkpoint) -> tuple[checkpoint.Checkpoint, Adapter | None]:
    """The checkpoint of the base model, and the adapter; `source` itself and None where there is no adapter.

    Raises LoadError for an adapter that can't be applied: pickled, of an unknown kind, without its base, or without peft.
    """
    if source.gguf is not None:
        return source, None
    adapter = _read(name, source.place)
    if adapter is None:
        return source, None
    if not quantised.is_installed("peft"):
        raise LoadError(f"{name} holds an adapter ({adapter.kind}), which needs peft: pip install 'openmav[adapters]'")
    if _holds_model(source.place):
        return source, adapter
    return _base(name, adapter), adapter


def _read(name: str, place: str) -> Adapter | None:
    file = _file(place, CONFIG)
    if file is None:
        return None
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        kind, base = str(settings["peft_type"]), str(settings.get("base_model_name_or_path") or "")
    except (ValueError, KeyError, TypeError) as error:
        raise LoadError(f"{name} has an {CONFIG} that is not one of peft's") from error
    weights = _file(place, WEIGHTS)
    if weights is None:
        if _file(place, PICKLE) is not None:
            raise LoadError(f"the adapter of {name} is a pickle file ({PICKLE}), which can run code; save it as safetensors")
        raise LoadError(f"{name} has an {CONFIG}, but no {WEIGHTS}; the adapter is incomplete")
    return Adapter(weights.parent, kind, base)


def _file(place: str, file: str) -> Path | None:
    if Path(place).is_dir():
        path = Path(place) / file
        return path if path.is_file() else None
    cached = cached_file(place, file, **TRIED)
    return None if cached is None else Path(cached)


def _holds_model(place: str) -> bool:
    """Whether the base model lies in the same folder or repository."""
    return _file(place, "config.json") is not None


def _base(name: str, adapter: Adapter) -> checkpoint.Checkpoint:
    """Where the base model is: as the adapter names it, or a folder of that name in or beside the adapter's.

    Raises LoadError where it is not found.
    """
    if not adapter.base:
        raise LoadError(f"{name} is an adapter that does not name its base model; put the base model into the same folder")
    last = adapter.base.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    folders = (Path(adapter.base), adapter.folder / adapter.base, adapter.folder / last, adapter.folder.parent / last)
    local = next((folder for folder in folders if (folder / "config.json").is_file() and folder != adapter.folder), None)
    try:
        source = checkpoint.find(adapter.base if local is None else str(local))
    except LoadError as error:
        line = f"{name} is an adapter, and its base model {adapter.base} is not on this machine; put it into the same folder"
        raise LoadError(line) from error
    return source


def apply(name: str, model: PreTrainedModel, adapter: Adapter) -> tuple[PreTrainedModel, str]:
    """The model with the adapter's weights, and a note. It is merged into the base's weights, unless these are quantised.

    Raises LoadError where the adapter does not fit the model, or changes more than weights.
    """
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(str(adapter.folder))
    if config.is_prompt_learning:
        raise LoadError(f"the adapter of {name} puts learned vectors before the prompt ({adapter.kind}), which mav can't show")
    _check_ranks(name, adapter, config)
    before = set(model.state_dict())
    try:
        peft_model = PeftModel.from_pretrained(model, str(adapter.folder), config=config, torch_device=str(model.device))
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        first = str(error).strip().splitlines()
        raise LoadError(f"the adapter of {name} does not fit its base model {adapter.base} ({first[0] if first else error})") from error
    _check_used(name, adapter, peft_model)
    merges = hasattr(peft_model, "merge_and_unload") and quantised.method(model.config) is None
    if not merges:
        base: PreTrainedModel = peft_model.get_base_model()
        return base, f"adapter {adapter.kind} of {adapter.folder.name} is applied"
    merged: PreTrainedModel = peft_model.merge_and_unload(safe_merge=True)
    if set(merged.state_dict()) != before:
        raise LoadError(f"the adapter of {name} changes more than the weights of its base model ({adapter.kind}), which mav can't show")
    return merged, f"adapter {adapter.kind} of {adapter.folder.name} is merged into the weights"


def _check_ranks(name: str, adapter: Adapter, config: Any) -> None:
    """Raises LoadError where the configuration claims a rank that its file has no room for: peft makes matrices of it before it reads."""
    from safetensors import safe_open

    file = adapter.folder / WEIGHTS
    with safe_open(file, framework="pt") as weights:
        sizes = [size for key in weights.keys() for size in weights.get_slice(key).get_shape()]  # noqa: SIM118
    most = max(sizes, default=0) if adapter.kind == "LORA" else file.stat().st_size
    pattern = getattr(config, "rank_pattern", None)
    ranks = [*(getattr(config, field, None) for field in ("r", "init_r")), *(pattern.values() if isinstance(pattern, dict) else ())]
    high = next((rank for rank in ranks if isinstance(rank, int) and rank > most), None)
    if high is not None:
        raise LoadError(f"the adapter of {name} claims the rank {high:,}, for which its weights have no room; its {CONFIG} is wrong")


def _check_used(name: str, adapter: Adapter, peft_model: Any) -> None:
    """Raises LoadError where tensors of the adapter's file have no place in the model: peft silently drops them."""
    from peft.utils.save_and_load import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(adapter.folder / WEIGHTS, framework="pt") as file:
        keys = set(file.keys())
    unused = sorted(keys - set(get_peft_model_state_dict(peft_model)))
    if unused:
        raise LoadError(f"the adapter of {name} does not fit its base model: no place for {len(unused)} of its tensors ({unused[0]}, ...)")
