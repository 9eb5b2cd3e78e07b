"""The guided tour: the app on a real model, with a box that explains, asks for a key, and says what happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import Screen

from openmav.apps.tui.app import MavApp
from openmav.apps.tui.controllers.measures import MeasureRequests
from openmav.apps.tui.keys import TOUR_KEYS, keys_of
from openmav.apps.tui.layout import SMALL, body_rows
from openmav.apps.tui.textual_bindings import bindings
from openmav.apps.tui.tour.answers import Progress
from openmav.apps.tui.tour.box import TourBox
from openmav.apps.tui.tour.steps import TOUR_STEPS, TourStep
from openmav.apps.tui.widgets.bars import Notice
from openmav.panels import needs
from openmav.protocol.commands import Advance, Pause, SetSampling, Want
from openmav.protocol.source import Source
from openmav.view.options import AppOptions

UNDECIDED, PATIENCE = (0.25, 0.7), 40  # the first candidate's share in an open choice; tokens after which the tour looks for it no longer
LEAST_BODY = 8  # rows of panels beside the box; below that, one panel at a time


def _free(own: Mapping[str, str]) -> dict[str, str]:
    """The tour's own keys, moved to others where the user assigned them to something else."""
    taken = {key.strip() for keys in own.values() for key in keys.split(",")}
    return {row.id: next(key for key in row.keys.split(",") if key not in taken) for row in TOUR_KEYS}


class TourMeasures(MeasureRequests):
    """Requests all that any step shows, from the first token on: a step reached while paused has its numbers at once."""

    def wanted(self, requested: Want | None) -> Want:
        measures = needs((*self.panels.modules, *(panel for step in TOUR_STEPS for panel in step.panels)))
        return Want(measures) if requested is None or not measures <= requested.measures else requested


class TourApp(MavApp):
    """MavApp with a tour. All keys do what they always do, also those that the user remapped."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(TOUR_KEYS)

    def __init__(self, source: Source, options: AppOptions, at: int = 0) -> None:
        super().__init__(source, replace(options, keys={**options.keys, **_free(options.keys)}))
        self.at = at
        self.panels.focused, self.context.view = TOUR_STEPS[at].focus, replace(self.view, modes=TOUR_STEPS[at].modes)
        self.answer: str | None = None  # the result of this step, once there is one
        self.begun = self.view
        self._visited: set[int] = set()  # tokens that were looked at in this step
        self._supplied = not at  # this step has the tokens that it needs
        self._requested: int | None = None  # tokens that there were when others were requested; None: none are on their way
        self._expected = 0  # tokens that there are once those have come
        self._tempered = False  # this step began with a change of the temperature
        self._arrived = 0  # tokens that there were when the step was reached

    def make_measures(self) -> MeasureRequests:
        return TourMeasures(self.context, self.panels)

    def compose(self) -> ComposeResult:
        for widget in super().compose():
            if isinstance(widget, Notice):
                yield TourBox()
            yield widget

    def _arrive(self) -> None:
        """Shows the panels of a step; what is done from now on counts."""
        step = TOUR_STEPS[self.at]
        self.answer, self.panels.maximised, self.panels.focused = None, False, step.focus
        self.context.view = replace(self.view, modes=step.modes, candidate=None, layer=self.view.layers - 1, head=0, scroll=0)
        sampling = replace(self.view.sampling, temperature=step.temperature)
        self._tempered = sampling != self.view.sampling and self.context.send(SetSampling(sampling))
        if self._tempered:
            self.context.view = replace(self.view, sampling=sampling)
        self.begun, self.context.note = self.view, ""
        self._visited, self._supplied, self._arrived = set(), False, len(self.view.steps)
        self.panels.show(step.panels, kinds={})
        self.controllers.changes.forget()

    def action_tour(self, by: int) -> None:
        if 0 <= self.at + by < len(TOUR_STEPS):
            if self.view.running:
                self.context.send(Pause())
            self.at += by
            self.context.follow()
            self._arrive()

    def _supply(self, step: TourStep) -> None:
        """Has the model generate the tokens that a step needs; they don't count as what the step asks for."""
        if self._supplied:
            return
        view, have = self.view, len(self.view.steps)
        self.begun, self._visited = replace(view, steps=view.steps[: max(self._expected, self._arrived)]), set()
        if view.status not in ("paused", "ended") or (self._requested is not None and have <= self._requested):
            return
        missing = self._missing(step) if view.status == "paused" else 0
        self._supplied, self._requested = not missing, have if missing else None
        if missing:
            self._expected = have + missing
            self.context.send(Advance(missing))

    def _missing(self, step: TourStep) -> int:
        """Tokens that are to be generated before the step begins, as far as is known now."""
        steps = self.view.steps
        if len(steps) < step.tokens:
            return step.tokens - len(steps)
        if not step.undecided or not steps or len(steps) - self._arrived > PATIENCE:
            return 0
        return int(not UNDECIDED[0] <= max(steps[-1].candidates.probs.tolist(), default=UNDECIDED[0]) <= UNDECIDED[1])

    def _check(self) -> None:
        """Sets the result once what the step asks for has been done."""
        step = TOUR_STEPS[self.at]
        self._supply(step)
        self._visited |= {self.view.cursor} if self.view.cursor >= 0 else set()
        progress = Progress(self.begun, self.view, tuple(self.panels.modules), frozenset(self._visited))
        if step.done(progress):
            self.answer = step.answer(progress)

    def rows_taken(self, base: Screen, width: int) -> int:
        self._check()
        return super().rows_taken(base, width) + base.query_one(TourBox).show(
            self.view, self.at, self.answer, width, keys_of(self.view.options.keys), self._remarks()
        )

    def _remarks(self) -> list[str]:
        """What the step's text does not say: tokens that were generated for it, and a panel of it that was closed."""
        step, keys = TOUR_STEPS[self.at], keys_of(self.view.options.keys)
        made = len(self.begun.steps) - self._arrived if step.undecided and self._supplied else 0
        more = [f"(For this the model has generated {made} more {'token' if made == 1 else 'tokens'}.)"] if made > 0 else []
        closed = self.answer is None and not {*step.panels} <= self.panels.modules.keys()
        if self._tempered and not step.temperature:
            more.append("(The temperature is 0 again: the most likely token.)")
        return more + [f"A panel of this step is closed: {keys['change_undo']} brings it back."] * closed

    @property
    def farewell(self) -> str:
        """A line for who leaves before the end; "": none."""
        there = f"step {self.at + 1} of {len(TOUR_STEPS)}"
        return f"mav: you were at {there}; mav tour --step {self.at + 1} goes on there" if 0 < self.at < len(TOUR_STEPS) - 1 else ""

    def shows_one_panel(self, taken: int) -> bool:
        """The box takes much of a small screen: panels stay side by side as long as there is room."""
        return self.extent.width < SMALL[0] or body_rows(self.extent.height, taken) < LEAST_BODY
