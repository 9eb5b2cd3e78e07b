"""A source whose model can be replaced while it is shown: the next one loads in a process of its own beside the one that is there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from openmav.engine import EngineSource
from openmav.protocol.commands import Command, SetBreakpoints, SetPace, Want
from openmav.protocol.snapshot import Snapshot
from openmav.settings import Settings

KEPT = (Want, SetPace)  # commands that hold for the next model as well


class SwitchingSource:
    """The engine that is shown, and one that loads. Satisfies openmav.protocol.source.Source; `settings` are those of the shown one."""

    def __init__(self, settings: Settings, start: Callable[[Settings], EngineSource]) -> None:
        self.settings = settings
        self._start = start
        self._engine = start(settings)
        self._next: tuple[EngineSource, Settings] | None = None
        self._notice = ""
        self._offset = 0  # so that versions grow from one engine to the next, and with each notice
        self._shown: tuple[Snapshot, Snapshot] | None = None  # an engine's, and what was made of it
        self._kept: dict[type[Command], Command] = {}
        self._changed: Callable[[], None] | None = None

    # ---- the engine that is shown ----

    @property
    def can(self) -> frozenset[str]:
        return self._engine.can

    @property
    def pid(self) -> int | None:
        return self._engine.pid

    @property
    def exit_code(self) -> int:
        return self._engine.exit_code

    @property
    def details(self) -> str:
        return self._engine.details

    def name_panel(self, name: str) -> None:
        self._engine.name_panel(name)

    def snapshot(self) -> Snapshot:
        """The shown engine's, with a line about the model that loads; the next engine's once its model is there."""
        self._look()
        return self._with_notice(self._engine.snapshot())

    def latest(self) -> Snapshot:
        return self._with_notice(self._engine.latest())

    def observe(self, changed: Callable[[], None] | None) -> Snapshot:
        """As EngineSource.observe. A model that loads is given up: what is observed stays one run."""
        self._drop_next()
        self._notice = ""
        return self._engine.observe(changed)

    def send(self, command: Command) -> None:
        if self._next is None:
            self._say("")
        if isinstance(command, KEPT):
            self._kept[type(command)] = command
        self._engine.send(command)

    def close(self) -> None:
        self._drop_next()
        self._engine.close()

    # ---- the next one ----

    def load_model(self, name: str) -> str:
        """Begins to load a model with the prompt that is shown, and no interventions; a line about it.

        The shown one stays until it is there, and where it can't be loaded. Raises UsageError for no name.
        """
        now, settings = self._engine.snapshot(), self.settings
        prompt = settings.prompt if settings.chat or now.prompt is None else now.prompt.text
        settings = replace(settings, model=name, prompt=prompt, interventions=(), breakpoints=())
        self._drop_next()
        self._next = self._start(settings), settings
        return f"loading {name}"

    def _look(self) -> None:
        """Shows the next engine once its model is there, or says why it can't be loaded, or how far it is."""
        if self._next is None:
            return
        engine, settings = self._next
        now = engine.snapshot()
        if now.status == "failed":
            self._drop_next()
            self._say(f"cannot load {settings.model}: {now.error}; the model that is shown stays")
        elif now.info is not None:
            self._show_next()
        else:
            self._say(f"loading {settings.model}: {now.progress or 'starting'}; the model that is shown stays until then")

    def _show_next(self) -> None:
        assert self._next is not None
        old, before = self._engine, self._engine.snapshot()
        self._engine, self.settings = self._next
        self._next = None
        self._offset += before.version + 1
        for command in self._kept.values():
            self._engine.send(replace(command, at=None) if isinstance(command, Want) else command)
        if before.breakpoints:
            self._engine.send(SetBreakpoints(before.breakpoints))
        self._say("")
        threading.Thread(target=old.close, daemon=True, name="mav old engine").start()

    def _drop_next(self) -> None:
        if self._next is not None:
            engine, _ = self._next
            self._next = None
            engine.close()

    def _say(self, notice: str) -> None:
        if notice != self._notice:
            self._notice = notice
            self._offset += 1

    def _with_notice(self, now: Snapshot) -> Snapshot:
        version = now.version + self._offset
        if self._shown is None or self._shown[0] is not now or self._shown[1].version != version:
            self._shown = now, replace(now, version=version, notice=self._notice or now.notice)
        return self._shown[1]
