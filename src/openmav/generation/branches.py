"""Where the text is: one state machine over its branches, each with all that is needed to continue from any of its tokens.

A text is a tree. Undone tokens stay on their branch until other ones take their place; then they stay on that branch and a new one
begins. The machine knows no model: a sampler's state is whatever object the caller passes in, and is returned at the same place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from openmav.errors import UsageError
from openmav.plugins.registry import unknown
from openmav.record import TRUNK, Branch, EndReason, Prompt, Step

State = TypeVar("State")


@dataclass
class _Line(Generic[State]):
    """One branch. `steps` are the text, `undone` the steps after them that can be redone.

    `states` holds the sampler's state before each step of both; `tip` is its state after the last of them, known once the branch
    has been left or undone. `reason` says why the text ended after the last of them; None: it goes on.
    """

    name: str
    prompt: Prompt
    parent: str | None = None
    at: int = 0
    steps: list[Step] = field(default_factory=list)
    undone: list[Step] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    tip: State | None = None
    reason: EndReason | None = None


class BranchTree(Generic[State]):
    """All branches of a text, and the place on one of them where it goes on. Methods that leave a place take the sampler's state there."""

    def __init__(self, prompt: Prompt, reason: EndReason | None = None) -> None:
        self._line: _Line[State] = _Line(TRUNK, prompt, reason=reason)
        self._others: dict[str, _Line[State]] = {}
        self._created = 0

    # ---- where the text is ----

    @property
    def name(self) -> str:
        """Of the current branch."""
        return self._line.name

    @property
    def prompt(self) -> Prompt:
        return self._line.prompt

    @property
    def steps(self) -> list[Step]:
        """Those of the text, without the undone ones."""
        return self._line.steps

    @property
    def parent(self) -> str | None:
        """The branch that the current one left, at step `at`; None: it began with its prompt."""
        return self._line.parent

    @property
    def at(self) -> int:
        return self._line.at

    @property
    def undone(self) -> int:
        """Steps that can be redone."""
        return len(self._line.undone)

    @property
    def reason(self) -> EndReason | None:
        """Why the text has ended here; None: it goes on."""
        return None if self._line.undone else self._line.reason

    @property
    def sampler_state(self) -> State:
        """The state with which the step after this place was, or will be, drawn; known where the text was undone, redone or switched."""
        line = self._line
        state = line.states[len(line.steps)] if line.undone else line.tip
        assert state is not None, "whoever leaves a place passes in the state there"
        return state

    @property
    def names(self) -> list[str]:
        return sorted({*self._others, self.name}, key=lambda name: (name != TRUNK, len(name), name))

    def branches(self) -> dict[str, Branch]:
        """All of them by name, the current one first; undone steps are part of their branch."""
        lines = (self._line, *self._others.values())
        return {line.name: Branch(line.name, line.prompt, (*line.steps, *line.undone), line.parent, line.at) for line in lines}

    # ---- moves ----

    def add(self, step: Step, state: State, reason: EndReason | None = None) -> None:
        """The next step, drawn with the sampler in `state`; `reason`: why the text ends with it.

        An undone step with the same token is replaced; where another token was undone, a new branch begins here.
        """
        if self._line.undone and self._line.undone[0].token_id != step.token_id:
            self._fork()
        line = self._line
        del line.undone[:1]
        line.states[len(line.steps) : len(line.steps) + 1] = [state]
        line.steps.append(step)
        if not line.undone:
            line.reason = reason

    def go_on(self) -> None:
        """The text goes on after what ended it."""
        self._line.reason = None

    def undo(self, count: int, state: State) -> int:
        """Undo the last `count` steps, at most all; how many that was."""
        line, count = self._line, min(max(0, count), len(self._line.steps))
        if count:
            self._leave(state)
            keep = len(line.steps) - count
            line.undone[:0] = line.steps[keep:]
            del line.steps[keep:]
        return count

    def redo(self, count: int) -> list[Step]:
        """Redo the next `count` undone steps, at most all; these steps."""
        line = self._line
        again = line.undone[: max(0, count)]
        del line.undone[: len(again)]
        line.steps.extend(again)
        return again

    def switch(self, name: str, state: State) -> None:
        """Go to another branch, to the place where it was left. Raises UsageError for an unknown one."""
        self._need(name)
        self._leave(state)
        if name != self.name:
            self._others[self.name] = self._line
            self._line = self._others.pop(name)

    def start(self, prompt: Prompt, state: State, reason: EndReason | None = None) -> None:
        """A new branch with another prompt and no steps; `reason`: why no text can follow that prompt."""
        self._leave(state)
        self._others[self.name] = self._line
        self._line = _Line(self._new_name(), prompt, reason=reason)

    def rename(self, old: str, new: str) -> None:
        """Raises UsageError for an unknown branch, an empty name or one that is taken."""
        self._need(old)
        if not new.strip():
            raise UsageError("a branch needs a name")
        if new != old and new in self.names:
            raise UsageError(f"there is a branch '{new}' already; give another name")
        for line in (self._line, *self._others.values()):
            line.name = new if line.name == old else line.name
            line.parent = new if line.parent == old else line.parent
        self._others = {line.name: line for line in self._others.values()}

    # ---- inside ----

    def _leave(self, state: State) -> None:
        """Keep what the end of a branch needs to be continued; elsewhere the states are known already."""
        if not self._line.undone:
            self._line.tip = state

    def _fork(self) -> None:
        """The undone steps stay on their branch, as part of its text, and a new branch goes on from here."""
        left, at = self._line, len(self._line.steps)
        self._line = _Line(self._new_name(), left.prompt, left.name, at, left.steps[:], [], left.states[:at])
        left.steps, left.undone = [*left.steps, *left.undone], []
        self._others[left.name] = left

    def _need(self, name: str) -> None:
        if name not in self.names:
            raise UsageError(unknown("branch", name, self.names))

    def _new_name(self) -> str:
        self._created += 1
        while f"branch {self._created}" in self.names:
            self._created += 1
        return f"branch {self._created}"
