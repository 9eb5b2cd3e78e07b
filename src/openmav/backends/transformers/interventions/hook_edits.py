"""Edits of a transformers model: hooks that replace what modules take or return, registered for one forward pass only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from openmav.backends.shared.edits import Edit
from openmav.backends.transformers.discovery.values import output_tensor


@dataclass(frozen=True)
class Place:
    """Where a site's value is computed: `coefficient` times a module's "input", its "output", or its "change" (output minus input).

    `columns` are the first column and the one after the last; None: all."""

    module: nn.Module
    side: Literal["input", "output", "change"]
    coefficient: float | Tensor = 1.0  # a number, or one a channel [width]
    columns: tuple[int, int] | None = None

    def read(self, x: Tensor) -> Tensor:
        """[..., width] -> [tokens, columns] fp32 of what was computed there."""
        x = x.reshape(-1, x.shape[-1])
        by = self.coefficient.to(x.device) if isinstance(self.coefficient, Tensor) else self.coefficient
        return (x if self.columns is None else x[:, slice(*self.columns)]).float() * by


@dataclass(frozen=True)
class PlacedEdit:
    """An edit of a value that is the sum over these places, as what a sub-block adds may come from several modules."""

    edit: Edit
    places: tuple[Place, ...]

    def in_row(self, row: int) -> PlacedEdit:
        """The same for one text of a batch."""
        return PlacedEdit(replace(self.edit, row=row), self.places)

    def at(self, place: Place) -> Edit:
        """The edit of this place's part of the sum: the first place alone gets a value that is set, the others get 0."""
        edit = self.edit
        by = place.coefficient
        if edit.action == "scale" or (len(self.places) == 1 and isinstance(by, float) and by == 1):
            return edit
        return replace(edit, value=_divided(edit.value, by) if place is self.places[0] else 0.0)


def _divided(value: Tensor | float, by: float | Tensor) -> Tensor | float:
    """What times `by` is `value`; 0 in channels that are multiplied by 0."""
    if not isinstance(by, Tensor):
        return value / by
    value = value.to(by.device) if isinstance(value, Tensor) else torch.full_like(by, value)
    return torch.where(by == 0, 0.0, value / by)


class InterventionHooks:
    """The hooks of some placed edits. They run before all other hooks, so that capture sees the edited values.

    `length()` is how many tokens have been fed, those of the running forward pass included; `batch` how many texts run at once.
    `runs` counts for each module how often it was edited in the last forward pass.
    """

    def __init__(self, placed: Sequence[PlacedEdit], length: Callable[[], int], batch: int = 1) -> None:
        self.length = length
        self.batch = batch
        self.runs: Counter[nn.Module] = Counter()
        self._edits: dict[tuple[nn.Module, str], list[tuple[Place, Edit]]] = {}
        self._input_of: dict[nn.Module, Tensor] = {}
        for one in placed:
            for place in one.places:
                self._edits.setdefault((place.module, place.side), []).append((place, one.at(place)))

    @contextmanager
    def on(self) -> Iterator[None]:
        """The hooks are registered inside this block, and removed after it."""
        with ExitStack() as stack:
            for (module, side), edits in self._edits.items():
                if side == "input":
                    hook = module.register_forward_pre_hook(partial(self._input, edits), prepend=True, with_kwargs=True)
                else:
                    hook = module.register_forward_hook(partial(self._output, edits, side), prepend=True)
                stack.callback(hook.remove)
                if side == "change":
                    stack.callback(module.register_forward_pre_hook(self._keep, prepend=True, with_kwargs=True).remove)
            stack.callback(self._input_of.clear)
            self.runs.clear()
            yield

    def _input(self, edits: Sequence[tuple[Place, Edit]], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name, x = taken(args, kwargs)
        edited = self._edited(x, edits)
        self.runs[module] += 1
        return ((edited, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: edited})

    def _keep(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._input_of[module] = taken(args, kwargs)[1].clone()

    def _output(self, edits: Sequence[tuple[Place, Edit]], side: str, module: nn.Module, _args: object, output: Any) -> Any:
        x = output_tensor(output)
        self.runs[module] += 1
        if side == "output":
            return replaced(output, self._edited(x, edits))
        came = self._input_of[module]
        change = self._edited(x - came, edits)
        rest = self._unedited(x, edits)
        return replaced(output, torch.where(rest, x, came + change))

    def _edited(self, x: Tensor, edits: Sequence[tuple[Place, Edit]]) -> Tensor:
        """x [..., width] of all texts and tokens, with the edits applied one after another."""
        edited = x.reshape(self.batch, -1, x.shape[-1])
        start = self.length() - edited.shape[1]
        for place, edit in edits:
            if place.columns is None:
                edited = edit.apply(edited, start)
            else:
                edited, columns = edited.clone(), slice(*place.columns)
                edited[..., columns] = edit.apply(edited[..., columns], start)
        return edited.view_as(x)

    def _unedited(self, x: Tensor, edits: Sequence[tuple[Place, Edit]]) -> Tensor:
        """[..., 1] True where no edit reaches, so that nothing is rounded there."""
        mark = x.new_zeros(*x.shape[:-1], 1).reshape(self.batch, -1, 1)
        start = self.length() - mark.shape[1]
        for _, edit in edits:
            mark = replace(edit, action="set", value=1.0).apply(mark, start)
        return mark.view(*x.shape[:-1], 1) == 0


def taken(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[str | None, Tensor]:
    """What a module takes, and its name if it has one: the first argument, else `hidden_states`, else the first tensor by name."""
    if args:
        return None, args[0]
    if "hidden_states" in kwargs:
        return "hidden_states", kwargs["hidden_states"]
    return next((name, value) for name, value in kwargs.items() if isinstance(value, Tensor))


def replaced(output: Any, made: Tensor) -> Any:
    """A module's output with another first tensor."""
    if isinstance(output, Tensor):
        return made
    first, *rest = output
    entries = (replaced(first, made), *rest)
    return type(output)(*entries) if hasattr(output, "_fields") else type(output)(entries)


class Reading:
    """Keeps the values at some places during a forward pass: [tokens, columns] fp32 each, chunks of a prompt one after another."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = places
        self._found: dict[int, list[Tensor]] = {at: [] for at in range(len(places))}
        self._input_of: dict[nn.Module, Tensor] = {}

    @contextmanager
    def on(self) -> Iterator[None]:
        """The hooks are registered inside this block, and removed after it."""
        with ExitStack() as stack:
            for at, place in enumerate(self.places):
                module = place.module
                if place.side != "output":
                    stack.callback(module.register_forward_pre_hook(partial(self._take, at), with_kwargs=True).remove)
                if place.side != "input":
                    stack.callback(module.register_forward_hook(partial(self._give, at)).remove)
            yield

    def _take(self, at: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        came = taken(args, kwargs)[1]
        if self.places[at].side == "change":
            self._input_of[module] = came.clone()
        else:
            self._found[at].append(self.places[at].read(came).clone())

    def _give(self, at: int, module: nn.Module, _args: object, output: object) -> None:
        place, x = self.places[at], output_tensor(output)
        self._found[at].append(place.read(x - self._input_of[module] if place.side == "change" else x).clone())

    def __getitem__(self, place: Place) -> Tensor:
        """[tokens, columns]. Raises LookupError where the module did not run."""
        parts = self._found[self.places.index(place)]
        if not parts:
            raise LookupError("nothing passed there")
        return torch.cat(parts)
