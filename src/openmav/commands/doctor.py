"""`mav doctor`: prints what is installed, and with --model what was found in a model and whether its numbers hold."""

from __future__ import annotations

import click

from openmav.backends._base import Check, LoadOptions
from openmav.commands.stream import ProgressLine
from openmav.doctor import Section
from openmav.logs import redirect

WIDTH = 20  # of the first column


def doctor_command(model: str | None, backend: str, device: str, dtype: str, trust_remote_code: bool) -> int:
    """Print the sections; 1 if a check fails, else 0.

    Raises MavError where the model can't be loaded.
    """
    redirect(descriptors=True)
    from openmav.doctor.environment import environment

    for section in environment():
        show(section)
    if model is None:
        return 0
    from openmav.doctor.model import examine

    progress = ProgressLine()
    sections = examine(model, backend, LoadOptions(device, dtype, trust_remote_code), progress)
    progress.clear()
    for section in sections:
        show(section)
    return 0 if all(section.good for section in sections) else 1


def show(section: Section) -> None:
    """A title and its lines; nothing for an empty section."""
    if not section.lines and not section.checks:
        return
    click.echo(section.title)
    for what, value in section.lines:
        click.echo(f"  {what:<{WIDTH}}  {value}")
    for check in section.checks:
        click.echo("  " + line_of(check))
    click.echo()


def line_of(check: Check) -> str:
    """A check in words: its verdict, its figure and its limit."""
    if check.figure is None:
        return f"--    {check.name:<44}  not available in this model"
    verdict = "ok" if check.good else "FAIL"
    figure, limit = (f"{number:.1e}" if number else "0" for number in (check.figure, check.limit))
    return f"{verdict:<4}  {check.name:<44}  {figure:>8}   at most {limit} {check.of}"
