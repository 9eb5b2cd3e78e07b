"""Weights that a checkpoint lacks, which are refused, and weights that the model does not use, which are listed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from transformers import PreTrainedModel

from openmav.errors import LoadError

SHOWN = 4
ADAPTER = re.compile(r"lora_|\.base_layer\.|^base_model\.|modules_to_save|ia3_")
NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


def check(name: str, report: Mapping[str, Any]) -> None:
    """Raises LoadError for weights that would be random numbers: those that are not in the files, or have another shape."""
    missing, unused = sorted(report.get("missing_keys") or ()), report.get("unexpected_keys") or ()
    if missing:
        if any(ADAPTER.search(key) for key in unused):
            why = "its files are a PeftModel's; save the model that merge_and_unload() gives"
        else:
            why = "the download or the export is incomplete"
        raise LoadError(f"{name} lacks {len(missing)} weights ({missing[0]}, ...); {why}")
    if report.get("mismatched_keys"):
        count = len(report["mismatched_keys"])
        raise LoadError(f"{name} has {count} weights of another shape than its config.json says; the two do not belong together")


def notes(model: PreTrainedModel, report: Mapping[str, Any], other: Iterable[str] = ()) -> tuple[str, ...]:
    """A line on the tensors of the files that the model does not use; `other` are names of tensors that are known not to be its own.

    transformers' report does not contain what it leaves out on purpose: old position buffers, layers that predict further tokens.
    """
    aside = set(other)
    unused = sorted(key for key in report.get("unexpected_keys") or () if key not in aside)
    if not unused:
        return ()
    shown = groups(unused, model.state_dict().keys())
    names = ", ".join(shown[:SHOWN]) + (", ..." if len(shown) > SHOWN else "")
    plural = "tensor of the files is" if len(unused) == 1 else "tensors of the files are"
    adapter = "; they look like an adapter that was saved without merging" if any(ADAPTER.search(key) for key in unused) else ""
    return (f"{len(unused)} {plural} not used: {names}{adapter}",)


def groups(keys: Iterable[str], taken: Iterable[str]) -> list[str]:
    """Names for many keys: "model.layers.3.*" for a layer that the model lacks, else the numbers written as "*"."""
    known = {start for key in taken for start in _starts(key)}
    shown: dict[str, None] = {}
    for key in keys:
        start = next((start for start in _starts(key) if start not in known), None)
        shown[NUMBER.sub("*", key) if start is None else start + ".*"] = None
    return list(shown)


def _starts(key: str) -> list[str]:
    """The parts of a key that end in a number: "model.layers.3" of "model.layers.3.mlp.up_proj.weight"."""
    return [key[: match.end()] for match in NUMBER.finditer(key) if match.end() < len(key)]
