"""Generating: run, pause, step, undo, redo, and forcing a candidate."""

from __future__ import annotations

from dataclasses import replace

from openmav.apps.tui.controllers.context import LOADING, Context
from openmav.protocol.commands import Advance, Back, Force, Forward, Pause, Resume, SetPace

PACES = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # seconds per token
NO_MORE = "this source generates no tokens; the left and right keys move through them"
LOADING_RUNS = f"{LOADING}; tokens come as soon as it is there"


class RunController:
    """Starts, pauses and steps the run."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pausing = False  # interrupted once: the pause may not have arrived yet

    def toggle(self) -> None:
        context, running = self._context, self._context.view.running
        if not context.takes(Resume):
            context.notify(NO_MORE)
        elif context.send(Pause() if running else Resume()):
            self._pausing = False
            context.notify(LOADING_RUNS if context.view.status == "loading" else "")
            if not running:
                context.show(context.newest)
            context.poll()

    def next_token(self) -> None:
        context = self._context
        context.follow()
        if not context.send(Advance(1)):
            context.notify(NO_MORE)
        elif context.view.status == "loading":
            context.notify(LOADING_RUNS)
        context.poll()

    def undo(self) -> None:
        context = self._context
        if not context.takes(Back):
            context.notify("this source does not support undoing tokens; the left and right keys move through them")
        elif not context.view.steps:
            context.notify("there is no token to undo")
        elif context.send(Back(1)):
            context.follow()
            context.poll()

    def redo(self) -> None:
        context = self._context
        if not context.takes(Forward):
            context.notify("this source does not support redoing tokens; the left and right keys move through them")
        elif not context.view.undone:
            context.notify(f"there is nothing to redo; {context.key('undo')} undoes a token")
        elif context.send(Forward(1)):
            context.follow()
            context.poll()

    def force_candidate(self) -> None:
        """Forces the selected candidate in place of the shown token, and pauses; generates a token if none is selected."""
        context = self._context
        step, row = context.view.step, context.view.candidate
        if step is None or row is None:
            self.next_token()
            return
        if not context.send(Force(int(step.candidates.token_ids[row]), step.index, context.view.branch)):
            context.notify("this source does not support forcing tokens")
            return
        context.view = replace(context.view, candidate=None, following=True)
        context.poll()

    def pace(self, by: int) -> None:
        """The minimum of seconds per token, while it runs: the next longer (`by` 1) or shorter (-1) of PACES."""
        context, now = self._context, self._context.view.pace
        if not context.takes(SetPace):
            context.notify("this source generates no tokens")
            return
        others = [seconds for seconds in PACES if (seconds > now if by > 0 else seconds < now)]
        if not others:
            context.notify(f"each token stays for {now:g} s: the longest" if by > 0 else "tokens come as fast as the model makes them")
            return
        seconds = min(others) if by > 0 else max(others)
        context.send(SetPace(seconds))
        context.view = replace(context.view, pace=seconds)  # shown at once; the source's next snapshot has it too
        context.notify(f"each token stays for {seconds:g} s at least" if seconds else "tokens come as fast as the model makes them")

    def interrupt(self) -> None:
        """Stops generating first, then quits."""
        context, pausing = self._context, self._pausing
        self._pausing = True
        if context.view.running and not pausing and context.send(Pause()):
            context.notify(f"paused; {context.key('interrupt')} again quits")
            context.poll()
        else:
            context.quit()
