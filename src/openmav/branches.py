"""The ways that a text went: one in force, the others kept, each with all that is needed to go on from any of its tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from openmav.errors import UsageError
from openmav.record import TRUNK, Branch, EndReason, Prompt, Step
from openmav.registry import unknown

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Path:
    """One way. `steps` are in force, `ahead` were taken back and nothing has come in their place.

    `states` holds the random generator's state before each step of both; `tip` is its state after the last of them, and `reason`
    why the text ended there: both only while the path is not at its end, or not in force.
    """

    name: str
    prompt: Prompt
    parent: str | None = None
    at: int = 0
    steps: list[Step] = field(default_factory=list)
    ahead: list[Step] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)
    tip: Tensor | None = None
    reason: EndReason | None = None

    def branch(self) -> Branch:
        """What a reader sees of it."""
        return Branch(self.name, self.prompt, (*self.steps, *self.ahead), self.parent, self.at)


class Paths:
    """The path in force, and those that were left."""

    def __init__(self, prompt: Prompt) -> None:
        self.now = Path(TRUNK, prompt)
        self.kept: dict[str, Path] = {}
        self._made = 0

    @property
    def names(self) -> list[str]:
        return sorted({*self.kept, self.now.name}, key=lambda name: (name != TRUNK, len(name), name))

    def add(self, step: Step, state: Tensor) -> None:
        """The next token of the path in force, or of a new one where another one lies ahead; `state` is the generator's before it."""
        if self.now.ahead and self.now.ahead[0].token_id != step.token_id:
            self.fork()
        path = self.now
        del path.ahead[:1]
        path.states[len(path.steps) : len(path.steps) + 1] = [state]
        path.steps.append(step)

    def fork(self) -> Path:
        """The tokens ahead stay on a branch of their own, and a new one goes on from here; the one that is left."""
        left, at = self.now, len(self.now.steps)
        self.now = Path(self._new_name(), left.prompt, left.name, at, left.steps[:], [], left.states[:at])
        left.steps, left.ahead = [*left.steps, *left.ahead], []
        self.kept[left.name] = left
        return left

    def root(self, prompt: Prompt) -> None:
        """Another prompt, with nothing after it yet."""
        self.kept[self.now.name] = self.now
        self.now = Path(self._new_name(), prompt)

    def switch(self, name: str) -> None:
        """Raises UsageError for an unknown branch."""
        self._need(name)
        if name != self.now.name:
            self.kept[self.now.name] = self.now
            self.now = self.kept.pop(name)

    def rename(self, old: str, new: str) -> None:
        """Raises UsageError for an unknown branch, an empty name or one that is taken."""
        self._need(old)
        if not new.strip():
            raise UsageError("a branch needs a name")
        if new != old and new in self.names:
            raise UsageError(f"there is a branch '{new}' already; give another name")
        for path in (self.now, *self.kept.values()):
            path.name = new if path.name == old else path.name
            path.parent = new if path.parent == old else path.parent
        self.kept = {path.name: path for path in self.kept.values()}

    def _need(self, name: str) -> None:
        if name not in self.names:
            raise UsageError(unknown("branch", name, self.names))

    def _new_name(self) -> str:
        self._made += 1
        while f"branch {self._made}" in self.names:
            self._made += 1
        return f"branch {self._made}"
