"""Any causal language model that Hugging Face transformers can run: a hub name, a folder, or a model in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from openmav.backends import _explain
from openmav.backends._base import Check, Frame, LoadOptions, Progress
from openmav.backends._edits import Site, edits, site_of
from openmav.backends._hf import anatomy, attention, head, loading, naming, placing, quantised, report, variants, verify
from openmav.backends._hf import cache as caches
from openmav.backends._hf.decoding import Decoder
from openmav.backends._hf.explain import ModelPasses
from openmav.backends._hf.hooks import Capture
from openmav.backends._hf.spelling import spelling
from openmav.backends._hf.tokens import Tokens
from openmav.backends._hf.touchable import Touchable
from openmav.backends._hf.touching import Hands, Touch
from openmav.errors import UsageError
from openmav.explained import Explanation
from openmav.interventions import Intervention
from openmav.record import ModelInfo

if TYPE_CHECKING:
    from transformers import PreTrainedModel

READ_AGAIN = "this model's state cannot be cut: going back takes a snapshot of it and reads the tokens after that again, to the same bits"


def load(name: str, options: LoadOptions, progress: Progress | None = None) -> TransformersBackend:
    """Load a model by hub name, folder or "demo".

    Raises LoadError with one line that says why it can't be loaded and what to do.
    """
    model, tokenizer, notes = loading.load(name, options, progress)
    return TransformersBackend(model, tokenizer, naming.short_name(name), notes)


def wrap(model: PreTrainedModel, tokenizer: Any, name: str | None = None) -> TransformersBackend:
    """A backend around a model that is in memory already, such as in a training loop; the tokenizer may be None for work on ids."""
    return TransformersBackend(model, tokenizer, name or type(model).__name__, quantised.notes(model.config))


class TransformersBackend:
    """Satisfies backends._base.Backend, Inspectable and Intervening."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any, name: str, notes: tuple[str, ...] = ()) -> None:
        self.model = model
        self._was_training = model.training
        self._gradients_off = quantised.gradients_off(model)
        model.eval()
        self._tokens = None if tokenizer is None else Tokens(tokenizer)
        self._own_attention = model.config._attn_implementation
        self.anatomy = anatomy.find(model)
        self.checked = verify.check(model, self.anatomy)
        self._arguments = dict(self.checked.arguments)
        self.missing = _merged(self.anatomy.missing, self.checked.missing)
        self._capture = Capture(self.anatomy, self.checked.inside, from_outputs=self.checked.from_outputs)
        self._decoder = Decoder(model)
        self._decoder.prepare(verify.sample_ids(model)[:1])
        self.cuts = self._decoder.exact_crop  # whether going back is a cut of the cache
        self._touchable = Touchable(model, self.anatomy, self.checked.inside, self.missing, from_outputs=self.checked.from_outputs)
        self.end_ids = _end_ids(model, tokenizer)
        self.info = self._describe(name, notes)

    def _describe(self, name: str, notes: tuple[str, ...]) -> ModelInfo:
        config = self.model.config.get_text_config(decoder=True)
        heads = int(getattr(config, "num_attention_heads", 0) or 0)
        return ModelInfo(
            name=name,
            backend="transformers",
            dtype=str(self.model.dtype).removeprefix("torch."),
            device=placing.describe(self.model),
            layers=len(self.anatomy.layers),
            heads=heads,
            vocab=int(config.vocab_size),
            context=getattr(config, "max_position_embeddings", None),
            kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
            width=int(getattr(config, "hidden_size", 0)),
            parameters=int(self.model.num_parameters()),
            notes=(*notes, *self.anatomy.notes, *self.checked.notes, *(() if self.cuts else (READ_AGAIN,))),
        )

    # ---- text ------------------------------------------------------------------------------------------------------------

    @property
    def tokens(self) -> Tokens:
        if self._tokens is None:
            raise UsageError("this model was given without a tokenizer; pass one, or work on token ids")
        return self._tokens

    def encode(self, text: str, *, chat: bool = False) -> list[int]:
        return self.tokens.encode(text, chat)

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokens.decode(ids)

    def is_special(self, token_id: int) -> bool:
        return self._tokens is not None and token_id in self._tokens.special_ids

    # ---- the way of one token ------------------------------------------------------------------------------------------

    @property
    def length(self) -> int:
        return len(self._decoder.ids)

    def prefill(self, ids: Sequence[int], want: frozenset[str], progress: Progress | None = None) -> Frame:
        """Read a prompt, in chunks; the frame is of its last token."""
        total = len(ids)

        def between(read: int) -> None:
            if progress is not None:
                progress(f"reading the prompt, {read} of {total} tokens", read / total)

        if not self.checked.from_outputs or total == 1:
            return self._forward(want, lambda: self._decoder.prefill(ids, self._arguments, between))
        with self._running():  # the last token alone, so that no [queries, keys] matrix of attention is kept
            self._decoder.prefill(ids[:-1], {}, between)
        return self.decode_one_token(ids[-1], want)

    def decode_one_token(self, token_id: int, want: frozenset[str]) -> Frame:
        return self._forward(want, lambda: self._decoder.decode_one_token(token_id, self._arguments))

    def _forward(self, want: frozenset[str], forward: Callable[[], Any]) -> Frame:
        """Run the model with hooks on the wanted sites; the frame's time is the whole forward pass, hooks included."""
        self._capture.want(want)
        self._capture.begin()
        rows = self._capture.rows if self._capture.wants_rows else None
        began = time.perf_counter()
        with self._running(), attention.listening(rows):
            logits: Tensor = forward().logits[0, -1].float().cpu()
            seconds = time.perf_counter() - began
            return Frame(logits, self._capture.sites(), seconds, self.length, self.checked.head, self._held())

    def _held(self) -> Callable[[], int]:
        """Asked at any time, the bytes that the cache holds now."""
        cache = self._decoder.cache
        if self.cuts and cache is not None:
            return partial(caches.held_at, cache, self.length)
        return partial(int, caches.held_bytes(cache))

    def _running(self) -> AbstractContextManager[object]:
        """Within this block the model runs."""
        return self._gradients_off()

    def spelling(self) -> Sequence[bytes]:
        """See backends._base.Spelling."""
        return spelling(self.tokens.tokenizer, self.info.vocab)

    def explain(
        self, method: str, ids: Sequence[int], target_id: int | None, minus_id: int | None, progress: Progress | None = None
    ) -> tuple[Explanation, int]:
        """See backends._base.Explaining. Capture is off for these passes; the next token's puts it on again."""
        self._capture.want(frozenset())
        tokenizer = None if self._tokens is None else self._tokens.tokenizer
        return _explain.explain(ModelPasses(self.model, tokenizer), method, ids, target_id, minus_id, progress)

    def found(self) -> list[tuple[str, str]]:
        """See backends._base.Inspectable."""
        back = "the cache is cut" if self.cuts else "from a snapshot of the state, and the tokens after it are read again"
        return [*report.found(self.model, self.anatomy, self.checked), ("taking tokens back", back)]

    def checks(self) -> list[Check]:
        """See backends._base.Inspectable: mav's attention against eager's, where it is used."""
        errors, dtype = {} if self.checked.from_outputs else self.checked.errors, self.model.dtype
        rows = Check("attention rows = eager's", errors.get("attention rows"), verify.rows_tolerance(dtype), "of a whole row")
        logits = Check("attention logits = eager's", errors.get("attention logits"), head.tolerance(dtype), "of the largest logit")
        return [rows, logits]

    # ---- touched ---------------------------------------------------------------------------------------------------------

    def intervened(self, interventions: Sequence[Intervention], prompt_ids: Sequence[int]) -> TransformersBackend:
        """See backends._base.Intervening."""
        return Touched(self, self._touches(interventions, prompt_ids))

    def _touches(self, interventions: Sequence[Intervention], prompt_ids: Sequence[int]) -> list[Touch]:
        return [Touch(edit, self._touchable.places(edit.site)) for edit in edits(interventions, prompt_ids, self)]

    def why_not(self, intervention: Intervention) -> str | None:
        """See backends._base.Intervening."""
        try:
            self._touchable.places(site_of(intervention))
        except UsageError as error:
            return str(error)
        return None

    def variants(self, interventions: Sequence[Intervention], prompt_ids: Sequence[int]) -> Iterator[Tensor]:
        """See backends._base.Intervening."""
        touches = self._touches(interventions, prompt_ids)
        alone = Touched(self, []).prefill(prompt_ids, frozenset()).logits
        for logits in variants.logits_of(self.model, touches, prompt_ids, alone):
            if logits is None:
                yield from (Touched(self, [touch]).prefill(prompt_ids, frozenset()).logits for touch in touches)
            else:
                yield logits

    def width_of(self, site: Site) -> int:
        """See backends._edits.Model."""
        self._touchable.places(site)
        return self.info.width

    def values_of(self, sites: Sequence[Site], ids: Sequence[int]) -> dict[Site, Tensor]:
        """See backends._edits.Model."""
        return self._touchable.values_of(sites, ids)

    # ---- the end ---------------------------------------------------------------------------------------------------------

    def rewind(self, length: int) -> None:
        if length < self.length:
            with self._running():
                self._decoder.rewind(length)

    def aside(self) -> AbstractContextManager[None]:
        return self._decoder.aside()

    def close(self) -> None:
        """Hooks off, attention and training flag as they were; the model is its owner's again."""
        self._capture.close()
        self._decoder = Decoder(self.model)
        loading.use_attention(self.model, self._own_attention)
        self.model.train(self._was_training)


class Touched(TransformersBackend):
    """A backend over the model of another one, with a cache of its own and edits in each of its forward passes."""

    def __init__(self, owner: TransformersBackend, touches: Sequence[Touch]) -> None:
        vars(self).update(vars(owner))
        self._capture = Capture(self.anatomy, self.checked.inside, from_outputs=self.checked.from_outputs, hooked=True)
        self._decoder = Decoder(self.model)
        self._hands = Hands(touches, lambda: self.length)

    @contextmanager
    def _running(self) -> Iterator[None]:
        with self._gradients_off(), self._hands.on():
            yield

    def close(self) -> None:
        """The model stays its owner's."""
        self._capture.close()
        self._decoder = Decoder(self.model)


def _merged(*parts: Mapping[str, Mapping[int, str]]) -> dict[str, dict[int, str]]:
    """One mapping {site: {layer: reason}} of several."""
    found: dict[str, dict[int, str]] = {}
    for part in parts:
        for site, layers in part.items():
            found.setdefault(site, {}).update(layers)
    return found


def _end_ids(model: PreTrainedModel, tokenizer: Any) -> frozenset[int]:
    """All tokens that end a text: the model's generation settings may name several, the tokenizer one."""
    named = getattr(model.generation_config, "eos_token_id", None)
    ids = {named} if isinstance(named, int) else set(named or ())
    ids.add(getattr(tokenizer, "eos_token_id", None))
    return frozenset(int(i) for i in ids if i is not None)
