"""A GGUF file, run by llama.cpp as it really runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from openmav.backends.base import Backend, LoadOptions, ModelCheck, Progress, TokenBytes
from openmav.backends.llamacpp import amx, checks, context, file, native, report
from openmav.backends.llamacpp import interventions as places
from openmav.backends.llamacpp.context import ContextSettings, Weights
from openmav.backends.llamacpp.run import Run
from openmav.backends.llamacpp.vocabulary import Vocabulary
from openmav.backends.llamacpp.workers import workers_of
from openmav.backends.loading import checkpoint
from openmav.backends.loading.gguf_metadata import GgufHeader
from openmav.backends.shared.edits import edits, refusal
from openmav.backends.shared.on_run import ModifiedBackend, OnRun
from openmav.backends.sites import Site
from openmav.record import ModelInfo
from openmav.record.attribution_result import Explanation
from openmav.settings import DEMO
from openmav.settings.generation_defaults import GenerationDefaults
from openmav.settings.interventions import Intervention
from openmav.system.signals import uninterrupted

if TYPE_CHECKING:
    from torch import Tensor


def load(name: str, options: LoadOptions, progress: Progress | None = None) -> LlamaCppBackend:
    """Load a GGUF file. Raises LoadError with one line that says why it can't be loaded and what to do."""
    library = native.load()
    layers = native.gpu_layers(library, options)
    source = file.find(name)
    if name == DEMO and options.dtype == "auto":  # a small cache, so that its numbers are those of transformers
        options = replace(options, dtype="float32")
    plain = amx.crashes(library, source.header)
    weights = Weights(library, source.path, progress, layers, packed=not plain, to=workers_of(library, options))
    return LlamaCppBackend(weights, source.header, checkpoint.short_name(name), options, (amx.NOTE,) if plain else ())


class LlamaCppBackend(OnRun):
    """Satisfies backends.base.Backend, Inspectable, Intervening and Explaining."""

    def __init__(self, weights: Weights, header: GgufHeader, name: str, options: LoadOptions, notes: tuple[str, ...] = ()) -> None:
        self.weights = weights
        limit, more = file.context_limit(header, weights.count("n_ctx_train"))
        settings = ContextSettings(context.cache_type(options.dtype), options.threads, limit)
        with uninterrupted():
            self.examined = checks.examine(weights, settings)
        self.vocabulary = Vocabulary(weights.native.llama, weights.vocab, header)
        self.end_ids = self.vocabulary.end_ids
        self._run = Run(self.examined, self.examined.head)
        self.info = self._describe(name, (*notes, *more))

    @property
    def missing(self) -> Mapping[str, Mapping[int, str]]:
        return self.examined.missing

    def _describe(self, name: str, notes: tuple[str, ...]) -> ModelInfo:
        weights, examined = self.weights, self.examined
        heads = examined.heads or weights.count("n_head")
        return ModelInfo(
            name=name,
            backend="llamacpp",
            dtype=weights.kind,
            device=weights.device,
            layers=examined.layers,
            heads=heads,
            vocab=weights.vocabulary,
            context=examined.settings.limit,
            kv_heads=weights.count("n_head_kv") or heads,
            width=examined.width,
            parameters=weights.count("n_params"),
            layer_heads=examined.layer_heads if len({*examined.layer_heads} - {0}) > 1 else (),
            notes=(*examined.notes, *notes),
        )

    # ---- text ------------------------------------------------------------------------------------------------------------

    def encode(self, text: str, *, chat: bool | str = False) -> list[int]:
        return self.vocabulary.encode(text, chat=chat)

    def decode(self, ids: Sequence[int]) -> str:
        return self.vocabulary.decode(ids)

    def is_special(self, token_id: int) -> bool:
        return self.vocabulary.is_special(token_id)

    def bytes_of(self, token_id: int) -> bytes | None:
        """See backends.base.NamedBytes."""
        return self.vocabulary.bytes_of(token_id)

    def spelling(self) -> TokenBytes:
        """See backends.base.Spelling."""
        return self.vocabulary.spelling()

    def generation_defaults(self) -> GenerationDefaults:
        """See backends.base.Configured."""
        return self.vocabulary.generation_defaults()

    def close(self) -> None:
        """Free the text and the model."""
        super().close()
        self.weights.free()

    def describe(self) -> list[tuple[str, str]]:
        """See backends.base.Inspectable."""
        return report.describe(self.examined)

    def checks(self) -> list[ModelCheck]:
        """See backends.base.Inspectable."""
        return report.checks(self.examined)

    # ---- interventions ---------------------------------------------------------------------------------------------------

    def intervened(self, interventions: Sequence[Intervention], prompt_ids: Sequence[int]) -> Backend:
        """See backends.base.Intervening."""
        return ModifiedBackend(self, self._changed(interventions, prompt_ids))

    def _changed(self, some: Sequence[Intervention], prompt_ids: Sequence[int]) -> Run:
        changes = places.changes_of(self.examined, edits(some, prompt_ids, self))
        return Run(self.examined, self.examined.head, changes)

    def why_not(self, intervention: Intervention) -> str | None:
        """See backends.base.Intervening."""
        return refusal(intervention, self)

    def variants(self, interventions: Sequence[Intervention], prompt_ids: Sequence[int]) -> Iterator[Tensor]:
        """See backends.base.Intervening; one after another, in one context."""
        run = Run(self.examined, None)
        try:
            for edit in edits(interventions, prompt_ids, self):
                run.change_to(places.changes_of(self.examined, [edit]))
                yield run.prefill(prompt_ids, frozenset()).logits
        finally:
            run.close()

    # ---- attribution -----------------------------------------------------------------------------------------------------

    def explain(
        self, method: str, ids: Sequence[int], target_id: int | None, minus_id: int | None, progress: Progress | None = None
    ) -> tuple[Explanation, int]:
        """See backends.base.Explaining; in a context of its own."""
        from openmav.backends.attribution import methods
        from openmav.backends.llamacpp.occlusion import Texts

        run = Run(self.examined, None)
        try:
            texts = Texts(lambda text: run.prefill(text, frozenset()).logits.clone(), self.vocabulary.reference)
            return methods.explain(texts, method, ids, target_id, minus_id, progress)
        finally:
            run.close()

    def width_of(self, site: Site) -> int:
        """See backends.shared.edits.Model."""
        return places.width_of(self.examined, site)

    def values_of(self, sites: Sequence[Site], ids: Sequence[int]) -> dict[Site, Tensor]:
        """See backends.shared.edits.Model."""
        return places.values_of(self.examined, sites, ids)
