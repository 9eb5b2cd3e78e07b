"""`MAV` shows a model while it generates; `from openmav.mav import MAV` is kept from older versions of mav."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from openmav.apps.live import show, start_engine
from openmav.apps.text.plain import Plain
from openmav.errors import EngineError, LoadError
from openmav.generation.session import Session
from openmav.library import attach, open_session, watch
from openmav.plugins.registry import need_known
from openmav.settings import AUTO, DEMO, Aggregation, Settings
from openmav.settings.sampling import SamplingOptions
from openmav.system.terminal import is_terminal, neutral, write
from openmav.view.options import PANELS, AppOptions, Scale

__all__ = ["MAV", "watch"]


def MAV(  # noqa: N802 - the name that older versions gave it
    model: str | None = DEMO,
    prompt: str | None = None,
    max_new_tokens: int | None = None,
    *,
    limit_chars: int = 0,
    temp: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    aggregation: Aggregation = "l2",
    refresh_rate: float = 0.1,
    interactive: bool = False,
    selected_panels: Sequence[str] = PANELS,
    num_grid_rows: int | None = None,
    max_bar_length: int | None = None,
    device: str = "auto",
    scale: Scale = "linear",
    backend: str = AUTO,
    seed: int | None = None,
    model_obj: Any = None,
    tokenizer_obj: Any = None,
) -> None:
    """Show a model while it generates: the app in a terminal, until the user quits it; the text alone anywhere else, and for
    a model in memory.

    `model_obj` and `tokenizer_obj` are a transformers model in memory, such as one in training, and its tokenizer; it is
    left as it was. The other arguments are the command's flags.

    Raises UsageError for what makes no sense, LoadError for a model that cannot be loaded, EngineError where it fails.
    """
    settings = Settings(
        model=(type(model_obj).__name__ if model_obj is not None else DEMO) if model is None else model,
        prompt=prompt,
        backend=backend,
        device=device,
        max_new_tokens=max_new_tokens,
        sampling=SamplingOptions(temp, top_k, top_p, min_p, repetition_penalty, seed),
        aggregation=aggregation,
        interactive=interactive,
        refresh_rate=refresh_rate,
    )
    panels = need_known("panels", selected_panels)
    options = AppOptions(scale, max_bar_length, limit_chars, panels, num_grid_rows, aggregation)
    if is_terminal(sys.stdin) and is_terminal(sys.stdout) and model_obj is None:
        _show_app(settings, options)
    else:
        _print(open_session(settings) if model_obj is None else attach(model_obj, tokenizer_obj, settings))


def _show_app(settings: Settings, options: AppOptions) -> None:
    source = start_engine(settings)
    last = show(source, options)
    if last.error is not None:
        raise LoadError(last.error) if source.exit_code == LoadError.exit_code else EngineError(last.error)


def _print(session: Session) -> None:
    out = partial(write, sys.stdout)
    face = Plain(out, lambda line: out(f"{neutral(line)}\n"), terminal=is_terminal(sys.stdout))
    began = time.perf_counter()
    with contextlib.closing(session):
        for step in session:
            face.step(step)
        face.end(session.reason or ("break" if session.hit else "length"), session.steps, time.perf_counter() - began, session.hit)
