"""Taps that observe the inputs and outputs of modules during one forward pass, and leave the modules unchanged.

On a small model a hook costs several times as much per token as a function call, since torch takes a slower path through a module that
has hooks. So each tapped module gets a wrapped `forward` in its instance dictionary for the time of the pass. Changes that other hooks
make are only visible to a hook: on a module that already has hooks, a tap is registered as one more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from torch import nn

AfterForward: TypeAlias = Callable[[nn.Module, tuple[Any, ...], Any], None]  # module, arguments, output
BeforeForward: TypeAlias = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]  # module, arguments, keyword arguments


class ForwardTap:
    """The callbacks of one module, and the `forward` that calls them."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.before: list[BeforeForward] = []
        self.after: list[AfterForward] = []
        self._own: Any = None  # the instance's own `forward` that `_wrapped` is made around
        self._wrapped: Callable[..., Any] | None = None

    def wrapped(self, own: Any) -> Callable[..., Any]:
        """A `forward` around the module's current one. `own`: the instance's own `forward`, None where it has none."""
        if self._wrapped is None or own is not self._own:
            self._own, self._wrapped = own, self._around(self.module.forward)
        return self._wrapped

    def _around(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        module, all_before, all_after = self.module, self.before, self.after

        def tapped(*args: Any, **kwargs: Any) -> Any:
            for before in all_before:
                before(module, args, kwargs)
            output = forward(*args, **kwargs)
            for after in all_after:
                after(module, args, output)
            return output

        return tapped

    def hooks(self) -> list[Any]:
        """Register the callbacks as hooks instead; returns their handles."""
        handles: list[Any] = [self.module.register_forward_pre_hook(before, with_kwargs=True) for before in self.before]
        return handles + [self.module.register_forward_hook(after) for after in self.after]


class ForwardTaps:
    """All taps in one model."""

    def __init__(self) -> None:
        self._by_module: dict[nn.Module, ForwardTap] = {}

    def _of(self, module: nn.Module) -> ForwardTap:
        if module not in self._by_module:
            self._by_module[module] = ForwardTap(module)
        return self._by_module[module]

    def tap_output(self, module: nn.Module, after: AfterForward) -> None:
        """Call `after` with the module's output each time it runs."""
        self._of(module).after.append(after)

    def tap_input(self, module: nn.Module, before: BeforeForward) -> None:
        """Call `before` with the module's arguments each time it runs."""
        self._of(module).before.append(before)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Context manager: the taps are active inside it, and every module is unchanged after it."""
        handles: list[Any] = []
        replaced: list[tuple[dict[str, Any], Any]] = []
        try:
            for module, tap in self._by_module.items():
                if module._forward_hooks or module._forward_pre_hooks:
                    handles += tap.hooks()
                    continue
                values = module.__dict__  # nn.Module.__setattr__ would cost more than the call itself
                own = values.get("forward")
                wrapped = tap.wrapped(own)
                replaced.append((values, own))
                values["forward"] = wrapped
            yield
        finally:
            for values, own in replaced:
                if own is None:
                    values.pop("forward", None)
                else:
                    values["forward"] = own
            for handle in handles:
                handle.remove()
