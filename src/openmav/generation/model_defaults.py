"""What a model's own generation config adds to what the user requested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from openmav.backends.base import Backend, Configured, Processing
from openmav.record import Prompt
from openmav.settings import Settings
from openmav.settings.generation_defaults import GenerationDefaults
from openmav.settings.sampling import Sampling, SamplingOptions

if TYPE_CHECKING:
    from transformers import LogitsProcessorList


class ModelDefaults:
    """`settings` are the user's with the model's `generation` defaults where the user left something open.

    mav's own defaults stand in where the model has none, or where they are to be ignored.
    """

    def __init__(self, backend: Backend, settings: Settings) -> None:
        ignored = settings.ignore_generation_config
        self._processing = backend if isinstance(backend, Processing) and not ignored else None
        self.generation = backend.generation_defaults() if isinstance(backend, Configured) and not ignored else GenerationDefaults()
        self._given = given_by(settings)
        self.sampling = settings.sampling.over(self.generation.sampling)
        self.settings = replace(settings, sampling=self.sampling, stop=settings.stop or self.generation.stop)

    def completed(self, sampling: Sampling) -> Sampling:
        """The same sampling with the stages that the model's config adds."""
        return sampling.over(self.generation.sampling)

    def processors(self, sampling: Sampling, prompt_ids: Sequence[int]) -> LogitsProcessorList | None:
        """The logits processors for a text after this prompt; None where nothing is to be done."""
        from openmav.generation.sampler import build_chain

        if self._processing is None:
            return build_chain(sampling)
        limit = self.generation.limit(self.settings.max_new_tokens, len(prompt_ids))
        return self._processing.logits_processors(sampling, prompt_ids, limit)

    def notes(self, sampling: Sampling, prompt: Prompt) -> list[str]:
        """What the user should know of the model's config, a line each."""
        return self.generation.notes(self._given, sampling, len(prompt.token_ids))


def given_by(settings: Settings) -> frozenset[str]:
    """What the user set of all that a model's generation config may set, under the names there."""
    sampling = settings.sampling
    given = set(sampling.given if isinstance(sampling, SamplingOptions) else SamplingOptions.__dataclass_fields__)
    given |= {"do_sample"} if "temperature" in given else set()
    given |= {"max_new_tokens"} if settings.max_new_tokens is not None else set()
    return frozenset(given | ({"stop_strings"} if settings.stop else set()))
