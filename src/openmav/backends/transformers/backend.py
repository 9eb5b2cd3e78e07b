"""Any causal language model that Hugging Face transformers can run: a hub name, a folder, or a model in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from openmav.backends.attribution import methods
from openmav.backends.base import Backend, LoadOptions, ModelCheck, Progress, TokenBytes
from openmav.backends.loading import checkpoint
from openmav.backends.shared.edits import edits, refusal
from openmav.backends.shared.on_run import ModifiedBackend, OnRun
from openmav.backends.sites import Site
from openmav.backends.transformers import batch_run
from openmav.backends.transformers.attribution_passes import ModelPasses
from openmav.backends.transformers.batch_run import BatchRun
from openmav.backends.transformers.capture.borrowed import Borrowed, BorrowedHead, random_state_kept
from openmav.backends.transformers.checks import passes
from openmav.backends.transformers.decoding.generation_config import Generation, end_ids, note_on_ends
from openmav.backends.transformers.discovery import report
from openmav.backends.transformers.examined import examine
from openmav.backends.transformers.head import exact_head
from openmav.backends.transformers.interventions import batched_ablation
from openmav.backends.transformers.interventions.hook_edits import PlacedEdit
from openmav.backends.transformers.interventions.site_finder import SiteFinder
from openmav.backends.transformers.loading import image_text, loader, placement, quantised
from openmav.backends.transformers.loading.context import context_of, largest
from openmav.backends.transformers.loading.wrappers import unwrapped
from openmav.backends.transformers.text_run import TextRun
from openmav.backends.transformers.tokens.token_bytes import spelling
from openmav.backends.transformers.tokens.tokens import Tokens
from openmav.errors import UsageError
from openmav.record import ModelInfo
from openmav.record.attribution_result import Explanation
from openmav.settings.generation_defaults import GenerationDefaults
from openmav.settings.interventions import Intervention
from openmav.settings.sampling import Sampling

if TYPE_CHECKING:
    from transformers import LogitsProcessorList, PreTrainedModel

READ_AGAIN = "this model's state cannot be cut: going back takes a snapshot of it and reads the tokens after that again, to the same bits"
HIDDEN = "this model keeps state that was not found outside of its cache: going back reads all tokens again, and nothing can run beside it"


def load(name: str, options: LoadOptions, progress: Progress | None = None) -> TransformersBackend:
    """Load a model by hub name, folder or "demo".

    Raises LoadError with one line that says why it can't be loaded and what to do.
    """
    with random_state_kept():
        model, tokenizer, notes = loader.load(name, options, progress)
    with loader.explained(name):
        return TransformersBackend(model, tokenizer, checkpoint.short_name(name), notes, options.threads)


def wrap(model: nn.Module, tokenizer: Any, name: str | None = None) -> TransformersBackend:
    """A backend around a model that is in memory already, such as in a training loop; the tokenizer may be None for work on ids.

    Raises UsageError for what is no transformers model or is wrapped in a way that can't be followed, LoadError for what can't be shown.
    """
    inner, notes = unwrapped(model)
    return TransformersBackend(inner, tokenizer, name or type(inner).__name__, (*notes, *quantised.notes(inner.config)))


class TransformersBackend(OnRun):
    """Satisfies backends.base.Backend, Inspectable and Intervening."""

    _run: TextRun

    def __init__(self, model: PreTrainedModel, tokenizer: Any, name: str, notes: tuple[str, ...] = (), threads: int | None = None) -> None:
        image_text.refuse_other(model)
        self.model = model
        self._borrowed = Borrowed(model, threads)
        self._tokens = None if tokenizer is None else Tokens(tokenizer)
        with self._borrowed.opened():
            self.examined = examine(model)
            self.anatomy, self.checked, self.missing = self.examined.anatomy, self.examined.checked, self.examined.missing
            self._site_finder = SiteFinder(
                model, self.anatomy, self.checked.mlp_internals, self.missing, from_outputs=self.checked.from_outputs
            )
        exact = self.checked.head
        self._head = None if exact is None else BorrowedHead(exact, self._borrowed)
        self._run = self._new_run()
        self.end_ids = end_ids(model, tokenizer)
        self._generation: Generation | None = None
        self._spelling: TokenBytes | None = None
        self.info = self._describe(name, notes)

    def _new_run(self, edits: Sequence[PlacedEdit] | None = None) -> TextRun:
        return TextRun(self.examined, self._borrowed, self._head, edits)

    def _describe(self, name: str, notes: tuple[str, ...]) -> ModelInfo:
        config = self.model.config.get_text_config(decoder=True)
        heads = largest(config, "num_attention_heads")
        ends = note_on_ends(self.end_ids, int(config.vocab_size))
        return ModelInfo(
            name=name,
            backend="transformers",
            dtype=str(self.model.dtype).removeprefix("torch."),
            device=placement.describe(self.model),
            layers=len(self.anatomy.layers),
            heads=heads,
            vocab=int(config.vocab_size),
            context=context_of(config),
            kv_heads=largest(config, "num_key_value_heads") or heads,
            width=largest(config, "hidden_size"),
            parameters=int(self.model.num_parameters()),
            layer_heads=self.checked.heads if len({*self.checked.heads} - {0}) > 1 else (),
            notes=(
                *notes,
                *ends,
                *self.checked.notes,
                *self.anatomy.notes,
                *(() if self.examined.cuts else (HIDDEN if self.examined.reads_again else READ_AGAIN,)),
            ),
        )

    def ready(self) -> AbstractContextManager[None]:
        """See backends.base.Preparing."""
        return self._borrowed.ready()

    # ---- text ------------------------------------------------------------------------------------------------------------

    @property
    def tokens(self) -> Tokens:
        if self._tokens is None:
            raise UsageError("this model was given without a tokenizer; pass one, or work on token ids")
        return self._tokens

    def encode(self, text: str, *, chat: bool | str = False) -> list[int]:
        ids = self.tokens.encode(text, chat)
        for token_id in ids:
            if not 0 <= token_id < self.info.vocab:  # added to the tokenizer after training, and the model was not resized
                what = f"the tokenizer gives {self.decode([token_id])!r} the id {token_id}"
                raise UsageError(
                    f"{what}, and this model has tokens 0 to {self.info.vocab - 1}; leave it out, or resize the model's embeddings"
                )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokens.decode(ids)

    def is_special(self, token_id: int) -> bool:
        return self._tokens is not None and token_id in self._tokens.special_ids

    # ---- the model's generation config -----------------------------------------------------------------------------------

    @property
    def _own_generation(self) -> Generation:
        if self._generation is None:
            self._generation = Generation(self.model, self.end_ids, self.info.vocab)
        return self._generation

    def generation_defaults(self) -> GenerationDefaults:
        """See backends.base.Configured."""
        return self._own_generation.defaults

    def logits_processors(self, sampling: Sampling, prompt_ids: Sequence[int], max_new_tokens: int) -> LogitsProcessorList | None:
        """See backends.base.Configured."""
        return self._own_generation.processors(sampling, prompt_ids, max_new_tokens)

    # ---- what is known of the model --------------------------------------------------------------------------------------

    def spelling(self) -> TokenBytes:
        """See backends.base.Spelling."""
        if self._spelling is None:  # every token of the vocabulary is decoded for it
            self._spelling = spelling(self.tokens.tokenizer, self.tokens.special_ids, self.tokens.decode, self.info.vocab)
        return self._spelling

    def bytes_of(self, token_id: int) -> bytes | None:
        """See backends.base.NamedBytes."""
        return self.tokens.bytes_of(token_id)

    def explain(
        self, method: str, ids: Sequence[int], target_id: int | None, minus_id: int | None, progress: Progress | None = None
    ) -> tuple[Explanation, int]:
        """See backends.base.Explaining. Capture is off for these passes; the next token's puts it on again."""
        self._run.capture.want(frozenset())
        tokenizer = None if self._tokens is None else self._tokens.tokenizer
        with self._borrowed.on():
            return methods.explain(ModelPasses(self.model, tokenizer), method, ids, target_id, minus_id, progress)

    def describe(self) -> list[tuple[str, str]]:
        """See backends.base.Inspectable."""
        back = "the cache is cut" if self.examined.cuts else "from a snapshot of the state, and the tokens after it are read again"
        back = "all tokens are read again" if self.examined.reads_again else back
        return [*report.describe(self.model, self.anatomy, self.checked), ("taking tokens back", back)]

    def checks(self) -> list[ModelCheck]:
        """See backends.base.Inspectable: mav's attention against eager's, where it is used."""
        errors, dtype = {} if self.checked.from_outputs else self.checked.errors, self.model.dtype
        rows = ModelCheck("attention rows = eager's", errors.get("attention rows"), passes.rows_tolerance(dtype), "of a whole row")
        logits = ModelCheck(
            "attention logits = eager's", errors.get("attention logits"), exact_head.tolerance(dtype), "of the largest logit"
        )
        return [rows, logits]

    # ---- interventions ---------------------------------------------------------------------------------------------------------

    def intervened(self, interventions: Sequence[Intervention], prompt_ids: Sequence[int]) -> Backend:
        """See backends.base.Intervening."""
        if self.examined.reads_again:
            raise UsageError("this model keeps state that was not found outside of its cache, so no other run can stand beside it")
        return ModifiedBackend(self, self._new_run(self._placed_edits(interventions, prompt_ids)))

    def _placed_edits(self, interventions: Sequence[Intervention], prompt_ids: Sequence[int]) -> list[PlacedEdit]:
        with self._borrowed.on():
            return [PlacedEdit(edit, self._site_finder.places(edit.site)) for edit in edits(interventions, prompt_ids, self)]

    def batch(self, count: int) -> BatchRun:
        """See backends.base.Batching."""
        return BatchRun([self._new_run() for _ in range(count)], self._borrowed)

    def why_not_batched(self, prompts: Sequence[Sequence[int]], want: frozenset[str]) -> str:
        """See backends.base.Batching."""
        return batch_run.why_not(self._new_run, self._borrowed, prompts, want)

    def why_not(self, intervention: Intervention) -> str | None:
        """See backends.base.Intervening."""
        return refusal(intervention, self)

    def variants(self, interventions: Sequence[Intervention], prompt_ids: Sequence[int]) -> Iterator[Tensor]:
        """See backends.base.Intervening."""
        placed = self._placed_edits(interventions, prompt_ids)
        alone = self._new_run([]).prefill(prompt_ids, frozenset()).logits
        for logits in self._borrowed.each(batched_ablation.logits_of(self.model, placed, prompt_ids, alone)):
            if logits is None:
                yield from (self._new_run([one]).prefill(prompt_ids, frozenset()).logits for one in placed)
            else:
                yield logits

    def width_of(self, site: Site) -> int:
        """See backends.shared.edits.Model."""
        with self._borrowed.on():
            self._site_finder.places(site)
        return self.info.width

    def values_of(self, sites: Sequence[Site], ids: Sequence[int]) -> dict[Site, Tensor]:
        """See backends.shared.edits.Model."""
        with self._borrowed.on():
            return self._site_finder.values_of(sites, ids)
