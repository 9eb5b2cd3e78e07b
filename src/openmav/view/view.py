"""What a panel shows: one frozen View holds all that is known and all that the user selected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from openmav.protocol.snapshot import Snapshot
from openmav.record import Array, Branch, ModelInfo, Step
from openmav.record.nonfinite import nonfinite
from openmav.record.sampling_preview import SamplingPreview
from openmav.view.options import AppOptions
from openmav.view.pinned import Pinned


@dataclass(frozen=True)
class Selection:
    """What a click selects; None leaves it as it is."""

    step: int | None = None
    layer: int | None = None
    head: int | None = None
    candidate: int | None = None  # row in the shown step's candidates
    branch: str | None = None  # to compare with
    intervention: str | None = None  # to begin with, in the form of interventions


@dataclass(frozen=True)
class View(Snapshot):
    """One moment of a run and the user's place in it; every change makes a new View.

    `cursor` is the index of the shown step, -1 where there is none. `scroll` counts the layer rows hidden above.
    """

    pinned: Pinned | None = None  # what is shown is compared with it
    other: str | None = None  # the branch that the user compares with; None: the one that this one left
    watches: tuple[str, ...] = ()  # values and conditions that the user watches
    cursor: int = -1
    following: bool = True  # the cursor goes along with the newest step
    layer: int = -1  # -1 until a model is known, then the last
    head: int = 0
    candidate: int | None = None  # row in the shown step's candidates
    scroll: int = 0
    starter: str = ""  # an intervention that was clicked, until its form is open
    search: str = ""  # what the user searches the generated text for; "" for nothing
    modes: Mapping[str, str] = field(default_factory=dict)  # what the user chose to see in a panel: {panel: one of its MODES}
    draw_seconds: float | None = None  # what the app took lately to make all lines of a frame
    memory: Mapping[str, int] = field(default_factory=dict)  # resident bytes of the processes "app" and "engine", where known
    size: tuple[int, int] | None = None  # cells of the box that a panel's data is for; None: all tokens are needed
    maximised: bool = False  # the panel that it is drawn for has the whole screen: it tells more
    shown: frozenset[str] = frozenset()  # the panels that are shown beside it, itself included
    options: AppOptions = field(default_factory=AppOptions)
    layout: str = ""  # the layout that was shown last
    rearranged: bool = False  # its panels are no longer all in their places
    arrives: float | None = None  # tokens per second as they reach the screen, while they come
    theme: str = "dark"  # the name of the palette that it is drawn with; "mono" has no colour

    # ---- reading ----

    @property
    def step(self) -> Step | None:
        """The step under the cursor."""
        return self.steps[self.cursor] if 0 <= self.cursor < len(self.steps) else None

    @property
    def layers(self) -> int:
        return self.info.layers if self.info else 0

    @property
    def heads(self) -> int:
        return self.info.heads if self.info else 0

    def values(self, measure: str) -> Array | None:
        """The measure's array of the shown step; None where there is none."""
        return self.step.values.get(measure) if self.step else None

    @property
    def reference(self) -> Step | None:
        """The pinned step that the shown one is compared with."""
        return None if self.pinned is None else self.pinned.step(self.cursor)

    @property
    def pending(self) -> SamplingPreview | None:
        """What the sampling that holds from the next token on would leave of the newest one's candidates, where that one is shown.

        None where it was chosen with that sampling, or where the preview is not there.
        """
        preview, step = self.preview, self.step
        if preview is None or step is None or self.cursor < len(self.steps) - 1 or self.sampling == step.sampling:
            return None
        return preview if preview.sampling == self.sampling and _is_of(preview, step) else None

    def sampling_values(self, measure: str) -> Array | None:
        """As `values`, of a measure of what sampling does: as it will be with the pending sampling, where there is one."""
        return self.values(measure) if self.pending is None else self.pending.values.get(measure)

    def why_missing(self, measure: str, layer: int) -> str | None:
        return self.info.why_missing(measure, layer) if self.info else None

    @property
    def compared(self) -> Branch | None:
        """The branch that the current one is compared with: the chosen one, else its parent, else any; None if there is no other."""
        for name in (self.other, self.parent, *self.branches):
            if name in self.branches:
                return self.branches[str(name)]
        return None

    def all_branches(self) -> dict[str, Branch]:
        """All branches by name, the current one included."""
        if self.prompt is None:
            return dict(self.branches)
        return {self.branch: Branch(self.branch, self.prompt, tuple(self.steps), self.parent, self.at), **self.branches}

    def alarms(self) -> tuple[str, ...]:
        """Where the shown step holds NaN or infinity that is the model's own: names of measures, and "logits"."""
        return () if self.step is None else nonfinite(self.step, self.info)

    def mode(self, panel: str, known: Sequence[str]) -> str:
        """Which of its `known` kinds a panel shows; the first where the user chose none."""
        chosen = self.modes.get(panel)
        return chosen if chosen is not None and chosen in known else known[0]

    # ---- moving ----

    def updated(self, now: Snapshot) -> View:
        """The same place in a newer state: a cursor that follows goes to the newest step, any other stays on its token."""
        last = len(now.steps) - 1
        view = self if self.info is None or now.info is None or _is_same_model(now.info, self.info) else self._of_another_model()
        cursor = last if view.following else min(self.cursor, last)
        layer = view.layer if view.layer >= 0 or now.info is None else now.info.layers - 1
        kept = self.step is not None and 0 <= cursor == self.cursor and _same(now.steps[cursor], self.step)
        candidate = self.candidate if kept else None
        return replace(
            view,
            **{one.name: getattr(now, one.name) for one in fields(Snapshot)},
            cursor=cursor,
            following=view.following or (cursor == last and candidate is None),
            layer=layer,
            candidate=candidate,
        )

    def _of_another_model(self) -> View:
        """Nothing selected or pinned: that was of the model before."""
        return replace(self, layer=-1, head=0, scroll=0, candidate=None, pinned=None, following=True, other=None)

    def at_step(self, index: int) -> View:
        """The cursor on a step, as near as there is one."""
        last = len(self.steps) - 1
        cursor = max(min(index, last), min(0, last))
        return replace(self, cursor=cursor, following=cursor == last, candidate=self.candidate if cursor == self.cursor else None)

    def at_layer(self, layer: int, rows: int = 0) -> View:
        """Another layer selected, and scrolled into sight where `rows` layers fit."""
        if self.layers == 0:
            return self
        layer = max(0, min(layer, self.layers - 1))
        row = self.layers - 1 - layer
        scroll = self.scroll
        if rows > 0:
            scroll = min(max(scroll, row - rows + 1), row)
        return replace(self, layer=layer, scroll=scroll)

    def at_head(self, head: int) -> View:
        return replace(self, head=max(0, min(head, self.heads - 1))) if self.heads else self

    def selecting(self, selection: Selection) -> View:
        """The view with what a click selected."""
        view = self if selection.layer is None else self.at_layer(selection.layer)
        view = view if selection.head is None else view.at_head(selection.head)
        view = view if selection.step is None else view.at_step(selection.step)
        view = view if selection.candidate is None else view.at_candidate(selection.candidate)
        view = view if selection.branch is None else replace(view, other=selection.branch)
        return view if selection.intervention is None else replace(view, starter=selection.intervention)

    def at_candidate(self, row: int) -> View:
        """A candidate of the shown step selected; that holds the cursor where it is."""
        if self.step is None:
            return self
        return replace(self, candidate=max(0, min(row, len(self.step.candidates) - 1)), following=False)

    def candidate_beside(self, by: int) -> View:
        """The candidate `by` places below the selected one, else below the token that stands there; up from the first is the last."""
        if self.step is None:
            return self
        ids = self.step.candidates.token_ids.tolist()
        row = ids.index(self.step.token_id) if self.candidate is None else self.candidate
        return self.at_candidate(len(ids) - 1 if self.candidate is None and row + by < 0 else row + by)

    def in_next_mode(self, panel: str, known: Sequence[str]) -> View:
        """The panel's next kind; after the last, the first."""
        following = known[(known.index(self.mode(panel, known)) + 1) % len(known)]
        return replace(self, modes={**self.modes, panel: following})

    def with_layer_rows(self, before: int, rows: int) -> View:
        """So many layer rows in place of `before` (0: there were none): a selected layer that was in sight stays there."""
        row = self.layers - 1 - self.layer
        seen = before == 0 or self.scroll <= row < self.scroll + before
        return (self.at_layer(self.layer, rows) if seen else self).scrolled(0, rows)

    def scrolled(self, by: int, rows: int) -> View:
        """Layer rows moved, as far as there are any for `rows` at a time."""
        return replace(self, scroll=max(0, min(self.scroll + by, self.layers - rows)))


def _is_same_model(a: ModelInfo, b: ModelInfo) -> bool:
    """Its notes and what is missing may differ."""
    return (a.name, a.layers, a.heads, a.vocab) == (b.name, b.layers, b.heads, b.vocab)


def _is_of(preview: SamplingPreview, step: Step) -> bool:
    """Whether the preview is of this step: of its token and its distribution."""
    mine = step.candidates
    return (
        (preview.index, preview.token_id) == (step.index, step.token_id)
        and np.array_equal(preview.token_ids, mine.token_ids)
        and np.allclose(preview.raw, mine.probs, rtol=1e-3, atol=1e-6, equal_nan=True)
    )


def _same(a: Step, b: Step) -> bool:
    """Whether both are one token with one list of candidates, whatever else was found out about it."""
    return a is b or (a.token_id == b.token_id and np.array_equal(a.candidates.token_ids, b.candidates.token_ids))
