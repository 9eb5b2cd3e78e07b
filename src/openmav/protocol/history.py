"""The steps of a run as they come, with the facts about it: one thread writes, another reads snapshots."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from openmav.protocol.snapshot import RunState, Snapshot
from openmav.record import Branch, Step, large, without_large

BUDGET = 256 * 2**20  # bytes that a history keeps of large entries


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

    def set_state(self, state: RunState, length: int | None) -> None:
        """Other facts, and the first `length` steps only (None: all); the current branch is not among the others then."""
        with self._lock:
            if length is not None:
                self._cut(length)
            others = {name: kept for name, kept in self._now.branches.items() if name != state.branch}
            self._now = replace(self._now.with_state(state), branches=others)

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
        """A branch that is left: the first `shared` steps of the text are its own too, `branch` holds those after them."""
        with self._lock:
            whole = replace(branch, steps=(*self._steps[:shared], *branch.steps))
            self._now = replace(self._now, version=self._now.version + 1, branches={**self._now.branches, branch.name: whole})

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
            self._bytes = sum(kept for _, kept in self._large)
        elif size:
            self._large.append((index, size))
            self._bytes += size
        while self._bytes > self._budget and len(self._large) > 1:
            at = 1 if self._large[0][0] == index else 0
            oldest, freed = self._large[at]
            del self._large[at]
            self._steps[oldest] = without_large(self._steps[oldest])
            self._bytes -= freed
