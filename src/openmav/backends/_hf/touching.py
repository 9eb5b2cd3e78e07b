"""Edits on a transformers model: hooks that put other numbers in the place of a module's own, on for a forward pass only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from openmav.backends._edits import Edit
from openmav.backends._hf.hooks import first_tensor


@dataclass(frozen=True)
class Place:
    """Where a site's value passes: `coefficient` times what a module takes ("input"), gives ("output"), or adds to what it takes
    ("change"); of it the columns from the first to before the last of `columns`, None: all."""

    module: nn.Module
    side: Literal["input", "output", "change"]
    coefficient: float = 1.0
    columns: tuple[int, int] | None = None

    def read(self, x: Tensor) -> Tensor:
        """[..., width] -> [tokens, columns] fp32 of what passed there."""
        x = x.reshape(-1, x.shape[-1])
        return (x if self.columns is None else x[:, slice(*self.columns)]).float() * self.coefficient


@dataclass(frozen=True)
class Touch:
    """An edit of a value that is the sum over these places, as what a sub-block adds may come from several modules."""

    edit: Edit
    places: tuple[Place, ...]

    def in_row(self, row: int) -> Touch:
        """The same for one text of a batch."""
        return Touch(replace(self.edit, row=row), self.places)

    def at(self, place: Place) -> Edit:
        """The edit of this place's part of the sum: a value that is set is given by the first place alone, nothing by the others."""
        edit = self.edit
        if edit.action == "scale" or (len(self.places) == 1 and place.coefficient == 1):
            return edit
        value = edit.value / place.coefficient if place is self.places[0] else 0.0
        return replace(edit, value=value)


class Hands:
    """The hooks of some touches. They stand before all others, so that who captures sees what really flows on.

    `length()` is how many tokens have been fed, those of the running forward pass included; `batch` how many texts run at once.
    `runs` counts for each module how often it was touched in the last forward pass.
    """

    def __init__(self, touches: Sequence[Touch], length: Callable[[], int], batch: int = 1) -> None:
        self.length = length
        self.batch = batch
        self.runs: Counter[nn.Module] = Counter()
        self._edits: dict[tuple[nn.Module, str], list[tuple[Place, Edit]]] = {}
        self._came: dict[nn.Module, Tensor] = {}
        for touch in touches:
            for place in touch.places:
                self._edits.setdefault((place.module, place.side), []).append((place, touch.at(place)))

    @contextmanager
    def on(self) -> Iterator[None]:
        """The hooks are on inside this block, and gone after it."""
        with ExitStack() as stack:
            for (module, side), edits in self._edits.items():
                if side == "input":
                    hook = module.register_forward_pre_hook(partial(self._input, edits), prepend=True, with_kwargs=True)
                else:
                    hook = module.register_forward_hook(partial(self._output, edits, side), prepend=True)
                stack.callback(hook.remove)
                if side == "change":
                    stack.callback(module.register_forward_pre_hook(self._keep, prepend=True, with_kwargs=True).remove)
            stack.callback(self._came.clear)
            self.runs.clear()
            yield

    def _input(self, edits: Sequence[tuple[Place, Edit]], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name, x = taken(args, kwargs)
        made = self._edited(x, edits)
        self.runs[module] += 1
        return ((made, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: made})

    def _keep(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._came[module] = taken(args, kwargs)[1].clone()

    def _output(self, edits: Sequence[tuple[Place, Edit]], side: str, module: nn.Module, _args: object, output: Any) -> Any:
        x = first_tensor(output)
        self.runs[module] += 1
        if side == "output":
            return replaced(output, self._edited(x, edits))
        came = self._came[module]
        change = self._edited(x - came, edits)
        rest = self._untouched(x, edits)
        return replaced(output, torch.where(rest, x, came + change))

    def _edited(self, x: Tensor, edits: Sequence[tuple[Place, Edit]]) -> Tensor:
        """x [..., width] of all texts and tokens, with the edits applied one after another."""
        made = x.reshape(self.batch, -1, x.shape[-1])
        start = self.length() - made.shape[1]
        for place, edit in edits:
            if place.columns is None:
                made = edit.apply(made, start)
            else:
                made, columns = made.clone(), slice(*place.columns)
                made[..., columns] = edit.apply(made[..., columns], start)
        return made.view_as(x)

    def _untouched(self, x: Tensor, edits: Sequence[tuple[Place, Edit]]) -> Tensor:
        """[..., 1] True where none of the edits reaches, so that nothing is rounded there."""
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
    """Keeps what passes at some places during a forward pass: [tokens, columns] fp32 each, chunks of a prompt one after another."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = places
        self._found: dict[int, list[Tensor]] = {at: [] for at in range(len(places))}
        self._came: dict[nn.Module, Tensor] = {}

    @contextmanager
    def on(self) -> Iterator[None]:
        """The hooks are on inside this block, and gone after it."""
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
            self._came[module] = came.clone()
        else:
            self._found[at].append(self.places[at].read(came).clone())

    def _give(self, at: int, module: nn.Module, _args: object, output: object) -> None:
        place, x = self.places[at], first_tensor(output)
        self._found[at].append(place.read(x - self._came[module] if place.side == "change" else x).clone())

    def __getitem__(self, place: Place) -> Tensor:
        """[tokens, columns]. Raises LookupError where nothing passed."""
        parts = self._found[self.places.index(place)]
        if not parts:
            raise LookupError("nothing passed there")
        return torch.cat(parts)
