"""Hearing what a module takes and gives: by a `forward` of the instance's own that tells, or by a hook where others have hooks there.

On a small model a hook costs a token several times as much as a function call does, since torch takes another way through a
module that has one. But what somebody else's hook changes can only be heard by a hook.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import nn

Undo: TypeAlias = Callable[[], None]
Given: TypeAlias = Callable[[nn.Module, tuple[Any, ...], Any], None]  # of a module, its arguments and its output
Taken: TypeAlias = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]  # of a module and its arguments


def hooks_of(module: nn.Module) -> tuple[Mapping[int, Any], Mapping[int, Any]]:
    """The hooks around the module's forward pass; they change as hooks come and go."""
    return module._forward_pre_hooks, module._forward_hooks


def hear_output(module: nn.Module, tell: Given, by_hook: bool) -> Undo:
    """Tells what the module gives, each time that it runs."""
    if by_hook:
        return module.register_forward_hook(tell).remove
    return _ear(module).add(tell, after=True)


def hear_input(module: nn.Module, tell: Taken, by_hook: bool) -> Undo:
    """Tells what the module takes, each time that it runs."""
    if by_hook:
        return module.register_forward_pre_hook(tell, with_kwargs=True).remove
    return _ear(module).add(tell, after=False)


class _Ear:
    """Stands in place of one module's forward, for all who listen there; when the last one goes, what was there comes back."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._own = vars(module).get("forward")  # that somebody else put on the instance
        self._before: list[Taken] = []
        self._after: list[Given] = []
        module.forward = self.forward = self._telling(module.forward)

    def _telling(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        module, before, after = self._module, self._before, self._after

        def telling(*args: Any, **kwargs: Any) -> Any:
            for tell in before:
                tell(module, args, kwargs)
            output = forward(*args, **kwargs)
            for hear in after:
                hear(module, args, output)
            return output

        vars(telling)["ear"] = self
        return telling

    def add(self, tell: Callable[..., None], *, after: bool) -> Undo:
        listeners: list[Any] = self._after if after else self._before
        listeners.append(tell)

        def undo() -> None:
            listeners.remove(tell)
            if not (self._before or self._after):
                self._leave()

        return undo

    def _leave(self) -> None:
        if vars(self._module).get("forward") is not self.forward:
            return  # somebody put another one around it; with nobody listening this one only passes on
        if self._own is None:
            del self._module.forward
        else:
            self._module.forward = self._own


def _ear(module: nn.Module) -> _Ear:
    """The one that listens there already, else a new one."""
    ear = getattr(vars(module).get("forward"), "ear", None)
    return ear if isinstance(ear, _Ear) else _Ear(module)
