"""From interventions to edits: values that replace a site's own in a forward pass, for any backend.

Values that are needed first (means over the prompt, the other text's values, steering vectors) are read here, from the baseline model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np

from openmav.backends.sites import Site, site_of
from openmav.errors import UsageError, words_of
from openmav.settings.interventions import Intervention

if TYPE_CHECKING:
    from torch import Tensor

Values: TypeAlias = "Mapping[Site, Tensor]"  # [tokens, columns] fp32 of each


class Model(Protocol):
    """What edits are computed from: a model with sites, without interventions."""

    def encode(self, text: str, *, chat: bool = False) -> list[int]: ...

    def width_of(self, site: Site) -> int:
        """Columns of the site's value. Raises UsageError for a site that this model does not have."""

    def values_of(self, sites: Sequence[Site], ids: Sequence[int]) -> Values:
        """The values of these sites at each of these tokens."""


@dataclass(frozen=True)
class Edit:
    """Replaces the value of a site: by `value`, by its own times `value`, or by its own plus `value`.

    `first` and `last` are absolute positions, both included; None: open. A `value` of several rows belongs to the positions from
    `first` on. `row`: which text of a batch is edited; None: all.
    """

    site: Site
    action: Literal["set", "scale", "add"]
    value: Tensor | float
    first: int = 0
    last: int | None = None
    row: int | None = None

    def apply(self, x: Tensor, start: int) -> Tensor:
        """[batch, tokens, columns] whose first token stands at `start` -> the same, edited; `x` itself is left as it is."""
        end = start + x.shape[1] - 1
        low, high = max(self.first, start), end if self.last is None else min(self.last, end)
        if high < low:
            return x
        rows = slice(None) if self.row is None else slice(self.row, self.row + 1)
        where = (rows, slice(low - start, high - start + 1))
        edited = x.clone()
        edited[where] = self._edited(x[where], low, high)
        return edited

    def _edited(self, x: Tensor, low: int, high: int) -> Tensor:
        import torch

        value = self.value
        if isinstance(value, torch.Tensor):
            if value.ndim == 2:
                value = value[low - self.first : high - self.first + 1]
            value = value.to(x)
        if self.action == "set":
            return value.expand_as(x) if isinstance(value, torch.Tensor) else torch.full_like(x, value)
        return x * value if self.action == "scale" else x + value


def edits(interventions: Sequence[Intervention], prompt_ids: Sequence[int], model: Model) -> list[Edit]:
    """One for each, in order; what must be read from the baseline model is read in one run per text.

    Raises UsageError for a site, a position, a file or a text that does not fit.
    """
    for one in interventions:
        model.width_of(site_of(one))
    spans = [_span(one, len(prompt_ids)) for one in interventions]
    runs = _Runs(model, prompt_ids)
    needed = [_needs(one, runs) for one in interventions]
    for site, ids in (pair for pairs in needed for pair in pairs):
        runs.want(site, ids)
    return [_edit(one, span, pairs, runs) for one, span, pairs in zip(interventions, spans, needed, strict=True)]


_Read: TypeAlias = tuple[Site, tuple[int, ...]]  # a site, and the tokens of the run in which it is read


def refusal(intervention: Intervention, model: Model) -> str | None:
    """Why the model has no site for an intervention, one line; None where it has one."""
    try:
        model.width_of(site_of(intervention))
    except UsageError as error:
        return str(error)
    return None


class _Runs:
    """Baseline runs, one for each sequence of tokens, with all sites that are wanted there."""

    def __init__(self, model: Model, prompt_ids: Sequence[int]) -> None:
        self.model = model
        self.prompt_ids = tuple(prompt_ids)
        self._wanted: dict[tuple[int, ...], dict[Site, None]] = {}
        self._values: dict[tuple[int, ...], Values] = {}

    def want(self, site: Site, ids: tuple[int, ...]) -> None:
        self._wanted.setdefault(ids, {})[site] = None

    def __getitem__(self, read: _Read) -> Tensor:
        """[tokens, columns] fp32."""
        site, ids = read
        if ids not in self._values:
            self._values[ids] = self.model.values_of(list(self._wanted[ids]), ids)
        return self._values[ids][site]

    def tokens(self, text: str) -> tuple[int, ...]:
        ids = tuple(self.model.encode(text))
        if not ids:
            raise UsageError(f"the text '{text}' encodes to no tokens")
        return ids


def _needs(one: Intervention, runs: _Runs) -> list[_Read]:
    """The sites to read for it."""
    site = site_of(one)
    if one.kind == "ablate" and one.how == "mean":
        return [(site, runs.prompt_ids)]
    if one.kind == "patch" or len(one.source) == 2:
        return [(site, runs.tokens(text)) for text in one.source]
    return []


def _edit(one: Intervention, span: tuple[int, int | None], reads: Sequence[_Read], runs: _Runs) -> Edit:
    site, (first, last) = site_of(one), span
    if one.kind == "amplify":
        return Edit(site, "scale", one.factor, first, last)
    if one.kind == "ablate":
        return Edit(site, "set", runs[reads[0]].mean(0) if reads else 0.0, first, last)
    if one.kind == "steer":
        vector = runs[reads[0]][-1] - runs[reads[1]][-1] if reads else read_vector(one.source[0], runs.model.width_of(site))
        return Edit(site, "add", vector * one.factor, first, last)
    last = len(runs.prompt_ids) - 1 if last is None else last
    tokens = len(reads[0][1])
    if last >= tokens:
        raise UsageError(f"'{one}' needs position {last}, and the other text has {tokens} tokens (positions 0 to {tokens - 1})")
    return Edit(site, "set", runs[reads[0]][first : last + 1], first, last)


def _span(one: Intervention, tokens: int) -> tuple[int, int | None]:
    """First and last position; None: no end."""
    if one.positions is None:
        return 0, None
    first, last = one.positions
    if first >= 0:
        return first, last
    if first + tokens < 0:
        raise UsageError(f"'{one}' counts back beyond the beginning: the prompt has {tokens} tokens")
    return first + tokens, last + tokens


def read_vector(source: str, width: int) -> Tensor:
    """[width] fp32 of a .npy or .safetensors file, "file.safetensors:name" where it holds several; one row of a matrix counts too.

    Raises UsageError.
    """
    import torch

    file, _, name = source.partition(".safetensors:")
    path = Path(f"{file}.safetensors" if name else source).expanduser()
    try:
        vector = torch.from_numpy(np.array(np.load(path, allow_pickle=False))) if path.suffix.lower() == ".npy" else _entry(path, name)
    except UsageError:
        raise
    except FileNotFoundError:
        raise UsageError(f"there is no file '{path}' to read a steering vector from") from None
    except Exception as error:  # a damaged file can make the library raise anything
        raise UsageError(f"cannot read a steering vector from '{path}': {words_of(error)}") from error
    if vector.is_complex() or vector.dtype == torch.bool:
        raise UsageError(f"the steering vector in '{source}' holds {str(vector.dtype).removeprefix('torch.')}, not numbers")
    if vector.numel() != width or vector.shape[-1:] != (width,):
        shape = " x ".join(map(str, vector.shape)) or "a single number"
        raise UsageError(f"the steering vector in '{source}' is {shape}; the residual stream of this model is {width} wide")
    if not bool(vector.isfinite().all()):
        raise UsageError(f"the steering vector in '{source}' holds NaN or infinity")
    return vector.reshape(width).float()


def _entry(path: Path, name: str) -> Tensor:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        names = sorted(file.keys())
        if not name and len(names) != 1:
            raise UsageError(f"'{path}' holds several entries; write {path}:NAME. Known: {', '.join(names)}")
        if name and name not in names:
            raise UsageError(f"there is no '{name}' in '{path}'. Known: {', '.join(names)}")
        entry: Tensor = file.get_tensor(name or names[0])
    return entry


def need_range(what: str, index: int, count: int, where: str) -> None:
    """Raises UsageError, naming the range, for an index outside of it."""
    if not 0 <= index < count:
        raise UsageError(f"there is no {what} {index}: {where} has {what}s 0 to {count - 1}")
