"""One text through a model: a KV cache of its own, and what is captured of its forward passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from openmav.backends.base import Frame, Progress
from openmav.backends.transformers.capture import attention
from openmav.backends.transformers.capture.hooks import Capture
from openmav.backends.transformers.decoding import kv_cache
from openmav.backends.transformers.decoding.decoder import Decoder
from openmav.backends.transformers.interventions.hook_edits import InterventionHooks, PlacedEdit
from openmav.backends.transformers.loading import quantised
from openmav.backends.transformers.loading.context import largest

if TYPE_CHECKING:
    from torch import Tensor

    from openmav.backends.transformers.capture.borrowed import Borrowed, BorrowedHead
    from openmav.backends.transformers.examined import Examined


class TextRun:
    """One sequence through a model.

    `edits` are applied in each of its forward passes; None: the model runs as it is. `head` goes into each frame.
    """

    def __init__(
        self, examined: Examined, borrowed: Borrowed, head: BorrowedHead | None, edits: Sequence[PlacedEdit] | None = None
    ) -> None:
        checked = examined.checked
        self.examined = examined
        self.capture = Capture(examined.anatomy, checked.mlp_internals, from_outputs=checked.from_outputs, more_keys=checked.more_keys)
        self.decoder = Decoder(examined.model)
        self._borrowed = borrowed
        self.head = head
        self._hooks = None if edits is None else InterventionHooks(edits, lambda: self.length)
        self._gradients_off = quantised.gradients_off(examined.model)
        self._arguments = dict(checked.arguments)
        heads = largest(examined.model.config.get_text_config(decoder=True), "num_attention_heads")
        self.always = (examined.anatomy.carry, examined.anatomy.idle, heads)  # of each frame

    @property
    def length(self) -> int:
        """Tokens that the cache holds."""
        return len(self.decoder.ids)

    def prefill(self, ids: Sequence[int], want: frozenset[str], progress: Progress | None = None) -> Frame:
        """Read a prompt, in chunks; the frame is of its last token."""
        total = len(ids)

        def between(read: int) -> None:
            if progress is not None:
                progress(f"reading the prompt, {read} of {total} tokens", read / total)

        if not self.examined.checked.last_alone or total == 1:
            return self._forward(want, lambda: self.decoder.prefill(ids, self._arguments, between))
        with self._running():  # the last token alone, so that no [queries, keys] matrix of attention is kept
            self.decoder.prefill(ids[:-1], {}, between)
        return self.decode_one_token(ids[-1], want)

    def decode_one_token(self, token_id: int, want: frozenset[str]) -> Frame:
        """Feed one token after those in the cache."""
        return self._forward(want, lambda: self.decoder.decode_one_token(token_id, self._arguments))

    def _forward(self, want: frozenset[str], forward: Callable[[], Any]) -> Frame:
        """Run the model with hooks on the requested sites; the frame's time is the whole forward pass, hooks included."""
        capture = self.capture
        capture.want(want)
        capture.begin()
        rows = capture.rows if capture.wants_rows else None
        began = time.perf_counter()
        with self._running(), capture.on(), attention.recording_rows(rows):
            logits: Tensor = forward().logits[0, -1].float().cpu()
            seconds = time.perf_counter() - began
            sites, bytes_of = capture.sites(), self._cache_bytes()
            return Frame(logits, sites, seconds, self.length, self.head, bytes_of, *self.always, capture.other_keys)

    def _cache_bytes(self) -> Callable[[], int]:
        """Called at any time, the bytes that the cache holds now."""
        cache = self.decoder.cache
        if self.examined.cuts and cache is not None:
            return partial(kv_cache.cached_bytes_at, cache, self.length)
        return partial(int, kv_cache.cached_bytes(cache) + self.decoder.state_bytes)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Within this block the model runs."""
        with self._borrowed.on(), self._gradients_off():
            if self._hooks is None:
                yield
            else:
                with self._hooks.on():
                    yield

    def rewind(self, length: int) -> None:
        """See backends.base.Backend."""
        if length < self.length:
            with self._running():
                self.decoder.rewind(length)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """See backends.base.Backend."""
        try:
            with self.decoder.aside():
                yield
        finally:
            if self.examined.reads_again and self.length:
                with self._running():
                    self.decoder.read_again(list(self.decoder.ids))

    def close(self) -> None:
        """Forget the text and what was captured of it."""
        self.capture.close()
        self.decoder = Decoder(self.examined.model)
