"""What an app looks at: a Source yields what has happened so far and takes commands where it can.

An app polls `snapshot()` from its own clock; nothing here blocks it. Sources: an engine (the model in a process of its own),
a recording, a list of steps in a test.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeAlias, get_args

from openmav.explained import InputAttribution
from openmav.record import TRUNK, Branch, EndReason, ModelInfo, Prompt, Step, large, without_large
from openmav.sampling import Sampling

BUDGET = 256 * 2**20  # bytes that a history keeps of large entries
Status: TypeAlias = Literal["loading", "prefill", "running", "paused", "ended", "failed"]


# ---- commands: what an app may ask of a source -------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """Generate until the end or until paused."""


@dataclass(frozen=True)
class Pause:
    """Stop after the token that is being computed."""


@dataclass(frozen=True)
class Advance:
    """Generate `count` tokens, then pause."""

    count: int = 1


@dataclass(frozen=True)
class Back:
    """Take back the last `count` tokens, then pause."""

    count: int = 1


@dataclass(frozen=True)
class Forward:
    """Put the next `count` tokens that were taken back in force again, as they were, then pause."""

    count: int = 1


@dataclass(frozen=True)
class Force:
    """Put this token after the current ones instead of drawing one."""

    token_id: int


@dataclass(frozen=True)
class Type:
    """Put these words after the current tokens, then pause."""

    text: str


@dataclass(frozen=True)
class Switch:
    """Go to another branch of the text, to where it was left, and pause."""

    branch: str


@dataclass(frozen=True)
class Rename:
    """Give a branch another name."""

    branch: str
    name: str


@dataclass(frozen=True)
class EditPrompt:
    """Begin again with another prompt, on a branch of its own."""

    text: str


@dataclass(frozen=True)
class Intervene:
    """Do exactly this to the model, on all tokens of the text; nothing where empty."""

    specs: tuple[str, ...] = ()


@dataclass(frozen=True)
class SetBreakpoints:
    """Pause where one of these conditions holds, and nowhere else. A run that goes on goes past the token where it paused."""

    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Want:
    """Compute exactly these measures: for the newest token as far as it was looked at for them, and from the next one on.

    `layer` is the one that the reader looks at: measures that cost too much for all layers are computed for that one; None: for
    all of them, -1: for none yet. `at`: an earlier token that the reader looks at and that lacks some of it: it is looked at again;
    while nothing runs, so are the others around it.
    """

    measures: frozenset[str]
    layer: int | None = None
    at: int | None = None


@dataclass(frozen=True)
class SetSampling:
    """From the next token on, choose like this."""

    sampling: Sampling


@dataclass(frozen=True)
class Attribute:
    """Find out which tokens a prediction depends on, and pause; the fields as in Session.explain. Any other command stops it."""

    method: str
    index: int | None = None
    token_id: int | None = None
    minus: int | None = None


Generating: TypeAlias = Run | Pause | Advance | Back | Forward | Force | Type | Switch | Rename
Command: TypeAlias = Generating | EditPrompt | Intervene | SetBreakpoints | Want | SetSampling | Attribute


COMMANDS = frozenset(kind.__name__ for kind in get_args(Command))  # of a source that takes them all


# ---- what an app sees ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Snapshot:
    """All that is known at one moment. `version` grows with every change, so equal versions need no redraw."""

    version: int = 0
    status: Status = "loading"
    progress: str = ""  # what is going on while loading or reading the prompt
    fraction: float | None = None  # of it, 0..1, where known
    info: ModelInfo | None = None
    prompt: Prompt | None = None
    sampling: Sampling = field(default_factory=Sampling)
    steps: Sequence[Step] = ()
    reason: EndReason | None = None  # why it ended
    error: str | None = None  # one line, when failed
    notice: str = ""  # one line about the last command, such as why it could not be done
    branch: str = TRUNK  # the one in force, whose tokens `steps` are
    parent: str | None = None  # the branch that it left,
    at: int = 0  # at this token
    ahead: int = 0  # tokens that were taken back and can be gone forward to
    attribution: InputAttribution | None = None  # the last one that was asked for
    branches: Mapping[str, Branch] = field(default_factory=dict)  # the others, by name
    interventions: tuple[str, ...] = ()  # what is done to the model, as interventions.parse reads it
    breakpoints: tuple[str, ...] = ()  # conditions that pause the run


class Source(Protocol):
    """What every source offers. `can` names the commands that it takes, such as {"Run", "Pause"}."""

    @property
    def can(self) -> frozenset[str]: ...

    def snapshot(self) -> Snapshot: ...

    def send(self, command: Command) -> None: ...

    def close(self) -> None: ...


class History:
    """A Snapshot that one thread keeps up to date and another reads. The steps of an older snapshot never change.

    Large entries of the steps (attention rows over a long text) take at most about `budget` bytes: beyond that, the oldest steps
    lose theirs.
    """

    def __init__(self, first: Snapshot | None = None, budget: int = BUDGET) -> None:
        self._lock = threading.Lock()
        self._now = first or Snapshot()
        self._steps: list[Step] = list(self._now.steps)
        self._budget = budget
        self._large: deque[tuple[int, int]] = deque()  # (index, bytes) of the steps that hold large entries, in order
        self._bytes = 0
        self._changed = False  # the steps, since the last snapshot

    def snapshot(self) -> Snapshot:
        """The latest state; costs one copy of the list of steps where it has changed."""
        with self._lock:
            if self._changed:
                self._now, self._changed = replace(self._now, steps=tuple(self._steps)), False
            return self._now

    def update(self, **changes: object) -> None:
        with self._lock:
            self._now = replace(self._now, version=self._now.version + 1, **changes)  # type: ignore[arg-type]

    def append(self, step: Step) -> None:
        """A step at its index; whatever stood there or after it is gone."""
        self.extend((step,))

    def extend(self, steps: Sequence[Step]) -> None:
        """Steps one after the other, the first of them at its index; whatever stood there or after it is gone."""
        with self._lock:
            for step in steps:
                self._cut(step.index)
                self._steps.append(step)
                self._make_room(step.index)
            self._now = replace(self._now, version=self._now.version + 1)

    def again(self, step: Step) -> None:
        """A step in its own place, with other values; nothing where another token stands there by now."""
        with self._lock:
            if step.index < len(self._steps) and self._steps[step.index].token_id == step.token_id:
                self._steps[step.index] = step
                self._make_room(step.index)
                self._now = replace(self._now, version=self._now.version + 1)

    def truncate(self, length: int) -> None:
        with self._lock:
            self._cut(length)
            self._now = replace(self._now, version=self._now.version + 1)

    def keep(self, branch: Branch, shared: int) -> None:
        """A branch that is left: the first `shared` steps in force are its own too, `branch` holds those after them."""
        with self._lock:
            whole = replace(branch, steps=(*self._steps[:shared], *branch.steps))
            self._now = replace(self._now, version=self._now.version + 1, branches={**self._now.branches, branch.name: whole})

    def stand(self, branch: str, parent: str | None, at: int, ahead: int) -> None:
        """On this branch, which is not among the others then."""
        with self._lock:
            others = {name: kept for name, kept in self._now.branches.items() if name != branch}
            self._now = replace(self._now, branch=branch, parent=parent, at=at, ahead=ahead, branches=others)

    def rename(self, old: str, new: str) -> None:
        with self._lock:
            kept = {}
            for branch in self._now.branches.values():
                name, parent = (new if name == old else name for name in (branch.name, branch.parent))
                kept[str(name)] = replace(branch, name=str(name), parent=parent)
            self._now = replace(self._now, version=self._now.version + 1, branches=kept)

    def _cut(self, length: int) -> None:
        del self._steps[length:]
        self._changed = True
        while self._large and self._large[-1][0] >= length:
            self._bytes -= self._large.pop()[1]

    def _make_room(self, index: int) -> None:
        """Counts the large entries of a step, and lets go of those of the oldest others where they are too many together."""
        self._changed = True
        size = sum(large(self._steps[index]).values())
        if self._large and self._large[-1][0] >= index:  # an earlier step, looked at again
            self._large = deque(sorted([*(one for one in self._large if one[0] != index), (index, size)]))
            self._bytes = sum(held for _, held in self._large)
        elif size:
            self._large.append((index, size))
            self._bytes += size
        while self._bytes > self._budget and len(self._large) > 1:
            at = 1 if self._large[0][0] == index else 0
            oldest, freed = self._large[at]
            del self._large[at]
            self._steps[oldest] = without_large(self._steps[oldest])
            self._bytes -= freed
