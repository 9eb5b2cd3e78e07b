"""The library's front door: `watch` gives a session to iterate over, `MAV` shows one.

`from openmav.mav import MAV` is kept from older versions of mav.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import Any

from openmav.apps.live import show, start_engine
from openmav.apps.options import PANELS, AppOptions, Scale
from openmav.apps.plain import Plain
from openmav.errors import EngineError, LoadError, UsageError
from openmav.opening import open_session
from openmav.registry import need_known
from openmav.sampling import Sampling
from openmav.session import Session
from openmav.settings import CORE_MEASURES, DEMO, Aggregation, Settings
from openmav.terminal import is_terminal


def watch(
    prompt: str | None = None,
    model: Any = DEMO,
    tokenizer: Any = None,
    *,
    max_new_tokens: int = 200,
    temp: float = 0.0,
    top_k: int = 50,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    seed: int = 42,
    measures: Sequence[str] = CORE_MEASURES,
    aggregation: Aggregation = "l2",
    **settings: Any,
) -> Session:
    """A session that yields a Step for each token; nothing is generated before it is iterated over.

    `model` is a name of the hub, a folder, "demo", or a transformers model in memory, which then needs its `tokenizer`.
    Further keywords are those of Settings: backend, device, dtype, chat, stop, candidates, breakpoints, threads, trust_remote_code.

    Raises UsageError for what makes no sense, LoadError for a model that cannot be loaded.
    """
    sampling = Sampling(temp, top_k, top_p, min_p, repetition_penalty, seed)
    name = model if isinstance(model, str) else type(model).__name__
    chosen = Settings(
        model=name,
        prompt=prompt,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        measures=tuple(measures),
        aggregation=aggregation,
        **settings,
    )
    return open_session(chosen) if isinstance(model, str) else _around(model, tokenizer, chosen)


def MAV(  # noqa: N802 - the name that older versions gave it
    model: str | None = DEMO,
    prompt: str | None = None,
    max_new_tokens: int = 200,
    *,
    limit_chars: int = 400,
    temp: float = 0.0,
    top_k: int = 50,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    aggregation: Aggregation = "l2",
    refresh_rate: float = 0.1,
    interactive: bool = False,
    selected_panels: Sequence[str] = PANELS,
    num_grid_rows: int | None = None,
    max_bar_length: int | None = None,
    device: str = "auto",
    scale: Scale = "linear",
    backend: str = "transformers",
    seed: int = 42,
    model_obj: Any = None,
    tokenizer_obj: Any = None,
) -> None:
    """Show a model while it generates: the app in a terminal, until the reader quits it; the text alone anywhere else, and for
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
        sampling=Sampling(temp, top_k, top_p, min_p, repetition_penalty, seed),
        aggregation=aggregation,
        interactive=interactive,
        refresh_rate=refresh_rate,
    )
    options = AppOptions(scale, max_bar_length, limit_chars, tuple(selected_panels), num_grid_rows, aggregation)
    need_known("panels", options.panels)
    if is_terminal(sys.stdin) and is_terminal(sys.stdout) and model_obj is None:
        _show_app(settings, options)
    else:
        _print(open_session(settings) if model_obj is None else _around(model_obj, tokenizer_obj, settings))


def _show_app(settings: Settings, options: AppOptions) -> None:
    source = start_engine(settings)
    last = show(source, options)
    if last.error is not None:
        raise LoadError(last.error) if source.exit_code == LoadError.exit_code else EngineError(last.error)


def _print(session: Session) -> None:
    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    face = Plain(write, lambda line: write(f"{line}\n"), terminal=is_terminal(sys.stdout))
    began = time.perf_counter()
    with contextlib.closing(session):
        for step in session:
            face.step(step)
        face.end(session.reason or ("break" if session.hit else "length"), session.steps, time.perf_counter() - began, session.hit)


def _around(model: Any, tokenizer: Any, settings: Settings) -> Session:
    """A session with a model that its owner has in memory."""
    if tokenizer is None:
        raise UsageError("a model in memory needs its tokenizer; pass both")
    from openmav.backends.transformers import wrap

    return Session(wrap(model, tokenizer, settings.model), settings)
