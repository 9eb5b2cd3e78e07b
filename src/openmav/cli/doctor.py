"""`mav doctor`: prints what is installed, and with --model what was found in a model and whether its numbers hold."""

from __future__ import annotations

from openmav.analysis.doctor import Section
from openmav.backends.base import LoadOptions, ModelCheck
from openmav.cli.load_limit import load_limit
from openmav.cli.options.values import DoctorOptions
from openmav.cli.output import ProgressLine, echo
from openmav.settings.workers import parse_workers
from openmav.system.logs import redirect

WIDTH = 20  # of the first column


def doctor_command(options: DoctorOptions) -> int:
    """Print the sections; 1 if a check fails, else 0.

    Raises MavError where the model can't be loaded.
    """
    redirect(descriptors=True)
    from openmav.analysis.doctor.environment import environment

    for section in environment():
        show(section)
    if options.model is None:
        return 0
    from openmav.analysis.doctor.model import examine

    progress = ProgressLine()
    try:
        loading = LoadOptions(
            options.device, options.dtype, options.trust_remote_code, options.threads, options.gpu_layers, parse_workers(options.rpc)
        )
        sections = examine(options.model, options.backend, loading, progress, load_limit(options.load_timeout))
    finally:
        progress.clear()
    for section in sections:
        show(section)
    return 0 if all(section.good for section in sections) else 1


def show(section: Section) -> None:
    """A title and its lines; nothing for an empty section."""
    if not section.lines and not section.checks:
        return
    echo(section.title)
    for what, value in section.lines:
        echo(f"  {what:<{WIDTH}}  {value}")
    for check in section.checks:
        echo("  " + line_of(check))
    echo()


def line_of(check: ModelCheck) -> str:
    """A check in words: its verdict, its figure and its limit."""
    if check.figure is None:
        return f"--    {check.name:<44}  not available in this model"
    verdict = "ok" if check.good else "FAIL"
    figure, limit = (f"{number:.1e}" if number else "0" for number in (check.figure, check.limit))
    return f"{verdict:<4}  {check.name:<44}  {figure:>8}   at most {limit} {check.of}"
