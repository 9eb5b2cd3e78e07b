"""One text through a model of llama.cpp: a cache of its own that grows with the text, and what is captured of its passes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmav.backends.base import Frame, Head, Progress
from openmav.backends.llamacpp import frames
from openmav.backends.llamacpp.context import Context
from openmav.backends.llamacpp.examined import Examined
from openmav.backends.llamacpp.passes import Changes, Passes
from openmav.backends.shared.array_frame import ArrayFrame
from openmav.errors import UsageError
from openmav.system.signals import uninterrupted

FIRST, ROOM = 512, 256  # tokens that a cache has room for at least, and beyond a prompt
EVERY = 32  # tokens between two copies of a state that can't be cut
MEMORY = 1 << 28  # bytes of such copies


class Run:
    """One sequence. `changes` is what is changed in each of its passes; None: the model runs as it is."""

    def __init__(self, examined: Examined, head: Head | None, changes: Changes | None = None) -> None:
        self.examined = examined
        self.head = head
        self.changes = changes
        self.ids: list[int] = []
        self._passes: Passes | None = None
        self._states: dict[int, NDArray[np.uint8]] = {}  # by length, where the cache can't be cut

    @property
    def length(self) -> int:
        return len(self.ids)

    def prefill(self, ids: Sequence[int], want: frozenset[str], progress: Progress | None = None) -> Frame:
        """See backends.base.Backend. All but the last token in chunks, then the last one as each later token."""
        if not ids:
            raise UsageError("there are no tokens to read")
        began, total = time.perf_counter(), len(ids)
        self._empty(total)
        context = self._context(total)
        self._read(ids[:-1], context.chunk, total, progress)
        self._remember()
        frame = self.decode_one_token(ids[-1], want)
        frame.model_seconds = time.perf_counter() - began
        if progress is not None:
            progress(f"reading the prompt, {total} of {total} tokens", 1.0)
        return frame

    def _read(self, ids: Sequence[int], chunk: int, total: int, progress: Progress | None = None) -> None:
        for at in range(0, len(ids), chunk):
            if progress is not None:
                progress(f"reading the prompt, {self.length} of {total} tokens", self.length / total)
            some = ids[at : at + chunk]
            with uninterrupted():
                self._made().run(some, self.length, outputs="none")
                self.ids += some

    def decode_one_token(self, token_id: int, want: frozenset[str]) -> Frame:
        """See backends.base.Backend."""
        self._context(self.length + 1)
        sites = self.examined.readable & want
        began = time.perf_counter()
        with uninterrupted():
            values = self._made().run([token_id], self.length, sites)
            logits: Any = self._made().context.logits()
            seconds = time.perf_counter() - began
            self.ids.append(token_id)
        if self._states and self.length % EVERY == 0:
            self._remember()
        bytes_of = partial(int, self.examined.cache_bytes(self.length))
        rows: Any = frames.sites(self.examined, values, want, self.length, self._made())
        return ArrayFrame(logits, rows, seconds, self.length, self.head, bytes_of, heads=self.examined.heads)

    # ---- the cache -------------------------------------------------------------------------------------------------------

    def _made(self) -> Passes:
        assert self._passes is not None
        return self._passes

    def _context(self, tokens: int) -> Context:
        """A context with room for so many tokens; its cache holds what the one before held."""
        if self._passes is not None and tokens <= self._passes.context.size:
            return self._passes.context
        limit = self.examined.settings.limit
        old = self._passes.context if self._passes is not None else None
        size = max(FIRST, tokens + ROOM, 2 * old.size if old is not None else 0)
        context = Context(self.examined.weights, self.examined.settings, size if limit is None else max(tokens, min(size, limit)))
        if old is not None:
            if self.length:
                context.restore(old.state())
            old.close()
        self._passes = self.examined.passes(context, self.changes)
        return context

    def _empty(self, tokens: int) -> None:
        self.ids, self._states = [], {}
        if self._passes is not None and tokens <= self._passes.context.size:
            self._passes.context.clear()
        elif self._passes is not None:
            self._passes.context.close()
            self._passes = None

    def rewind(self, length: int) -> None:
        """See backends.base.Backend."""
        if length >= self.length:
            return
        if self.examined.cuts and self._made().context.cut(length):
            del self.ids[length:]
            return
        ids = self.ids[:length]
        kept = max((at for at in self._states if at <= length), default=None)
        if kept is None:
            self._empty(len(ids))
            self._read(ids, self._context(max(1, length)).chunk, length)
            return
        self._made().context.restore(self._states[kept])
        self.ids = ids[:kept]
        for token in ids[kept:]:
            with uninterrupted():
                self._made().run([token], self.length)
                self.ids.append(token)
        self._states = {at: state for at, state in self._states.items() if at <= length}

    def _remember(self) -> None:
        if self.examined.cuts or not self.ids:
            return
        self._states[self.length] = self._made().context.state()
        while len(self._states) > 2 and sum(map(len, self._states.values())) > MEMORY:
            del self._states[sorted(self._states)[1]]

    @contextmanager
    def aside(self) -> Iterator[None]:
        """See backends.base.Backend."""
        ids, states = list(self.ids), dict(self._states)
        state = self._made().context.state() if ids else None
        try:
            yield
        finally:
            self.ids, self._states = ids, states
            if state is not None:
                self._context(len(ids)).restore(state)
            elif self._passes is not None:
                self._passes.context.clear()

    def change_to(self, changes: Changes) -> None:
        """Other changes from the next pass on."""
        self.changes = changes
        if self._passes is not None:
            self._passes.change_to(changes)

    def close(self) -> None:
        if self._passes is not None:
            self._passes.context.close()
        self._passes, self.ids, self._states = None, [], {}
