"""Several texts of one model, a token of each in one forward pass.

Each prompt is read alone, exactly as in a run of its own. After that a pass takes one token of every text: the linear layers read
their weights once for all of them, and attention runs text by text on that text's own keys, so nothing is padded with tokens and
nothing is masked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from openmav.backends.base import Frame, Progress
from openmav.backends.transformers.capture import attention
from openmav.backends.transformers.capture.batch_capture import BatchCapture
from openmav.backends.transformers.decoding import kv_cache
from openmav.backends.transformers.decoding.decoder import traits_of
from openmav.backends.transformers.decoding.row_products import RowProducts
from openmav.backends.transformers.head import exact_head
from openmav.backends.transformers.loading import quantised
from openmav.settings.sites import ROW_SITES

if TYPE_CHECKING:
    from torch import Tensor

    from openmav.backends.transformers.capture.borrowed import Borrowed
    from openmav.backends.transformers.text_run import TextRun

ROUTER = frozenset({"router.experts", "router.weights"})
TRIED = 2  # tokens of each text that are compared bit for bit before a batch is trusted


class BatchedText:
    """One text of a batch: satisfies backends.base.RunsText, but that no token is undone."""

    def __init__(self, run: TextRun) -> None:
        self.run = run
        self.length = 0
        self.ready: tuple[int, Frame] | None = None  # a token, and the pass that read it

    def prefill(self, ids: Sequence[int], want: frozenset[str], progress: Progress | None = None) -> Frame:
        """See backends.base.Backend."""
        frame = self.run.prefill(ids, want, progress)
        self.length = len(ids)
        return frame

    def decode_one_token(self, token_id: int, want: frozenset[str]) -> Frame:
        """The frame of the batch's pass, which has read this token already."""
        assert self.ready is not None
        token, frame = self.ready
        assert token == token_id
        self.length, self.ready = self.length + 1, None
        return frame

    def rewind(self, length: int) -> None:
        """See backends.base.Backend; in a batch no token of a text is undone."""
        if length < self.length:
            raise NotImplementedError("no token of a batch is undone")

    def aside(self) -> AbstractContextManager[None]:
        """See backends.base.Backend."""
        return nullcontext()

    def close(self) -> None:
        self.run.close()


class BatchRun:
    """Satisfies backends.base.Batch."""

    def __init__(self, runs: Sequence[TextRun], borrowed: Borrowed) -> None:
        self.texts = [BatchedText(run) for run in runs]
        examined = runs[0].examined
        self._model, self._anatomy = examined.model, examined.anatomy
        self._capture = BatchCapture(examined.anatomy, examined.checked.mlp_internals)
        self._borrowed = borrowed
        self._gradients_off = quantised.gradients_off(examined.model)
        self._always = runs[0].always
        self._head = runs[0].head
        self._rows: list[BatchedText] = []  # of the cache
        self._inputs: dict[str, Any] = {}
        self._cache: Any = None

    def decode(self, tokens: Sequence[tuple[BatchedText, int]], want: frozenset[str]) -> None:
        """See backends.base.Batch."""
        with self._borrowed.on(), self._gradients_off():
            self._arrange([text for text, _ in tokens])
            following = {id(text): token for text, token in tokens}
            fed = [following.get(id(text), 0) for text in self._rows]
            self._pass(fed, want)

    def _arrange(self, texts: Sequence[BatchedText]) -> None:
        """The cache with these texts; those that have ended stay in it while they are fewer than half of its rows."""
        if not self._rows:
            self._join(texts)
        elif 2 * len(texts) <= len(self._rows):
            kept = [at for at, text in enumerate(self._rows) if any(text is one for one in texts)]
            self._rows = [self._rows[at] for at in kept]
            self._cache.batch_select_indices(torch.tensor(kept, device=self._cache.layers[0].keys.device))

    def _join(self, texts: Sequence[BatchedText]) -> None:
        """One cache of those of the prompts, each at the right end of its row."""
        decoders = [text.run.decoder for text in texts]
        self._rows, self._inputs, self._cache = list(texts), dict(decoders[0].kwargs), decoders[0].cache
        columns = [decoder.cache.layers for decoder in decoders]
        for at, layer in enumerate(self._cache.layers):
            parts = [(layers[at].keys, layers[at].values) for layers in columns]
            layer.__init__()  # the same kind of layer, empty
            layer.update(*(_right_aligned([part[which] for part in parts]) for which in (0, 1)))
        for text in texts:
            text.run.close()

    def _pass(self, fed: Sequence[int], want: frozenset[str]) -> None:
        capture, length = self._capture, self._cache.get_seq_length()
        capture.want(want)
        capture.begin()
        device = self._inputs["position_ids"].device
        positions = torch.tensor([[text.length] for text in self._rows], device=device)
        named = {
            name: value for name, value in self._inputs.items() if value is not None and name not in ("position_ids", "past_key_values")
        }
        named |= {"position_ids": positions, "past_key_values": self._cache}
        rows = [attention.Rows(with_scores="attention.scores" in want) for _ in self._rows]
        starts = [length - text.length for text in self._rows]
        began = time.perf_counter()
        with capture.on(), attention.batched(starts, rows if want & ROW_SITES else None), RowProducts():
            output = self._model(input_ids=torch.tensor([[token] for token in fed], device=device), **named, return_dict=True)
            logits: Tensor = output.logits[:, -1].float().cpu()
        seconds = (time.perf_counter() - began) / len(self._rows)
        a_token = kv_cache.cached_bytes_at(self._cache, 1) // len(self._rows)
        for at, (text, token) in enumerate(zip(self._rows, fed, strict=True)):
            sites, tokens = capture.sites_of(at, rows[at]), text.length + 1
            text.ready = token, Frame(logits[at], sites, seconds, tokens, self._head, partial(int, a_token * tokens), *self._always)

    def close(self) -> None:
        """Forget the texts and what was captured of them."""
        self._capture.close()
        self._rows, self._cache = [], None
        for text in self.texts:
            text.close()


def why_not(runs: Callable[[], TextRun], borrowed: Borrowed, prompts: Sequence[Sequence[int]], want: frozenset[str]) -> str:
    """Why these prompts are better run one by one; "" where a batch gives the bits of single runs, which is tried with a few tokens."""
    examined = runs().examined
    checked = examined.checked
    if not examined.cuts or examined.reads_again or traits_of(examined.model).slots:
        return "the model keeps more than keys and values of a text"
    if checked.from_outputs or checked.more_keys:
        return "the model's attention is its own"
    if want & ROUTER:
        return "the choice of experts is measured"
    batch, alone = BatchRun([runs() for _ in prompts], borrowed), [runs() for _ in prompts]
    try:
        first = [text.prefill(ids, frozenset()) for text, ids in zip(batch.texts, prompts, strict=True)]
        if not all(text.run.decoder.takes_rows for text in batch.texts):
            return "the model takes more than a token, its position and keys and values"
        for run, ids in zip(alone, prompts, strict=True):
            run.prefill(ids, frozenset())
        return _what_differs(batch, alone, [int(frame.logits.argmax()) for frame in first], want)
    finally:
        batch.close()
        for run in alone:
            run.close()


def _what_differs(batch: BatchRun, alone: Sequence[TextRun], tokens: Sequence[int], want: frozenset[str]) -> str:
    """Reads these tokens, and what follows them, both ways: logits and sites are all that any number is made from."""
    for _ in range(TRIED):
        batch.decode(list(zip(batch.texts, tokens, strict=True)), want)
        following = []
        for text, run, token in zip(batch.texts, alone, tokens, strict=True):
            one, other = text.decode_one_token(token, want), run.decode_one_token(token, want)
            if not torch.equal(one.logits, other.logits):
                largest = exact_head.difference(one.logits, other.logits)
                return f"a batch differs from single runs by {largest:.1e} of the largest logit"
            for site in sorted(other.sites):
                if not all(map(_same, one.sites[site], other.sites[site])):
                    return f"a batch differs from single runs at {site}"
            following.append(int(one.logits.argmax()))
        tokens = following
    return ""


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other if one is None or other is None else torch.equal(one, other)


def _right_aligned(parts: Sequence[Tensor]) -> Tensor:
    """[1, heads, tokens, size] of each text -> [texts, heads, most tokens, size]; zeros before shorter ones, which nothing reads."""
    longest = max(part.shape[-2] for part in parts)
    whole = parts[0].new_zeros((len(parts), parts[0].shape[1], longest, parts[0].shape[-1]))
    for at, part in enumerate(parts):
        whole[at, :, longest - part.shape[-2] :] = part[0]
    return whole
