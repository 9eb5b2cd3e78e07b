"""How a command-line option is declared.

A command's options are a table of flags and a frozen dataclass of the same names. A `Flagged` command imports either when it is needed:
those of all commands took a third of the time of `mav --version`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click


class Flag(click.Option):
    """An option that knows its section of the help, and a default that depends on other things (`otherwise`)."""

    def __init__(self, *args: Any, section: str, otherwise: str | None = None, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.section = section
        self.otherwise = otherwise

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        shown = self.otherwise
        if shown is None and not self.is_flag and isinstance(self.default, (str, int, float)):
            shown = f"{self.default:g}" if isinstance(self.default, float) else str(self.default)
        note = f" [default: {shown}]" if shown else ""
        return ", ".join(self.opts) + (f" {self.metavar}" if self.metavar else ""), f"{self.help}{note}"


@dataclass(frozen=True, eq=False)
class Spec:
    """A row of a table of flags: its name, and the arguments of its click option. `into`: the field, where it is not the flag's name."""

    name: str
    attributes: dict[str, Any]
    into: str = ""

    @property
    def field(self) -> str:
        return self.into or self.name.removeprefix("--").replace("-", "_")


def flag(section: str, name: str, help: str, *, into: str = "", **attributes: Any) -> Spec:
    return Spec(name, {"section": section, "help": help, **attributes}, into)


class Flagged(click.Command):
    """A command that is called with its options: an object of `kind`, a class in values.py. `flags`: a module here, and its table."""

    def __init__(self, *args: Any, flags: str, kind: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.flags, self.kind = flags, kind
        self._made: list[click.Parameter] = []

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if not self._made:
            module, table = self.flags.split(".")
            specs: tuple[Spec, ...] = getattr(import_module(f"openmav.cli.options.{module}"), table)
            self._made = [Flag((spec.name, spec.field), **spec.attributes) for spec in specs]
        *own, asks_for_help = super().get_params(ctx)
        return [*own, *self._made, asks_for_help]

    def invoke(self, ctx: click.Context) -> Any:
        from openmav.cli.options import values

        assert self.callback is not None
        return ctx.invoke(self.callback, getattr(values, self.kind)(**ctx.params))
