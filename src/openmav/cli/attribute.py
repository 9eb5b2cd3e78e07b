"""`mav attribute`: which tokens of a prompt the next token depends on, once, as text or JSON."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

from openmav.backends.loading.choice import TRANSFORMERS
from openmav.cli.load_limit import load_limit
from openmav.cli.options.settings import model_settings
from openmav.cli.options.values import AttributeOptions
from openmav.cli.output import Output, ProgressLine, ReaderGoneError
from openmav.record.attribution_result import InputAttribution
from openmav.record.codec import plain
from openmav.settings import AUTO, Settings
from openmav.system.logs import redirect, stdout
from openmav.system.signals import check

WIDTH = 100  # cells where there is no terminal
ROWS = 40


def attribute_command(options: AttributeOptions) -> int:
    """Compute it and print it; the exit code.

    Raises MavError where the model can't be loaded or can't be asked, or for a target that is not one token.
    """
    settings = model_settings(options)
    if settings.backend == AUTO:
        settings = replace(settings, backend=TRANSFORMERS)  # llama.cpp has no gradients
    redirect(descriptors=True)
    out = Output(stdout())
    result, model = _explain(settings, options)
    try:
        out.write(as_json(result) if options.json else _as_text(result, model, out.terminal))
    except ReaderGoneError:
        return 0
    return 0


def _explain(settings: Settings, options: AttributeOptions) -> tuple[InputAttribution, str]:
    """The answer, and the model in words."""
    from openmav.generation.opening import open_session
    from openmav.generation.tokenize import one_token

    progress = ProgressLine()

    def tell(what: str, share: float | None = None) -> None:
        check()
        progress(what, share)

    try:
        with load_limit(settings.load_timeout):
            session = open_session(settings, tell)
    except BaseException:
        progress.clear()
        raise
    try:
        session.progress = tell
        target, minus = (None if text is None else one_token(session.backend, text) for text in (options.target, options.minus))
        session.step()
        result = session.explain(options.method, 0, target, minus)
        effort = f"{result.passes} {'texts' if result.passes > 1 else 'text'} through the model in {result.seconds:.1f} s"
        return result, f"{session.info.name} · {session.info.dtype} · {effort}"
    finally:
        progress.clear()
        session.close()


def as_json(result: InputAttribution) -> str:
    """One object; NaN is null."""
    columns = zip(result.token_ids, result.tokens, result.scores)
    tokens = [{"position": at, "token_id": i, "token": token, "score": float(score)} for at, (i, token, score) in enumerate(columns)]
    facts = {name: getattr(result, name) for name in ("method", "unit", "target_id", "target", "minus_id", "minus", "reference", "passes")}
    sums = {name: float(getattr(result, name)) for name in ("output", "sum", "total", "error", "drift", "seconds")}
    return json.dumps(plain({**facts, **sums, "tokens": tokens}), ensure_ascii=False, allow_nan=False) + "\n"


def _as_text(result: InputAttribution, model: str, terminal: bool) -> str:
    """The panel's picture, in colours where there are any."""
    from rich.console import Console
    from rich.segment import Segment, Segments

    from openmav.paint import one_line
    from openmav.panels import draw, input_attribution
    from openmav.view import View

    coloured = terminal and not os.environ.get("NO_COLOR")
    width = shutil.get_terminal_size((WIDTH, ROWS)).columns if terminal else WIDTH
    view = View(attribution=result, theme="dark" if coloured else "mono")
    console = Console(
        width=width, color_system="auto" if coloured else None, force_terminal=terminal, legacy_windows=False, highlight=False
    )
    with console.capture() as capture:
        drawn = draw(input_attribution, view, width, ROWS)
        console.print(drawn.title, markup=False)
        for line in drawn.lines:
            console.print(Segments([*line, Segment.line()]), end="")
        console.print(one_line(drawn.note), markup=False)
        console.print(one_line(model), markup=False)
    return "\n".join(line.rstrip() for line in capture.get().split("\n"))
