"""The two models of a session: as it was loaded, and as interventions modify it; each with a cache of its own."""

from __future__ import annotations

from collections.abc import Sequence

from openmav.backends.base import Backend, Intervening
from openmav.errors import UsageError
from openmav.generation.cache_replay import CacheReplayer
from openmav.settings import interventions


class ModelRuns:
    """`baseline` replays the model as it was loaded, `current` the modified one while there are interventions."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.baseline = CacheReplayer(backend)
        self.interventions: tuple[str, ...] = ()
        self._modified: CacheReplayer | None = None

    @property
    def current(self) -> CacheReplayer:
        """What the text's tokens come from."""
        return self._modified or self.baseline

    @property
    def modified(self) -> bool:
        return self._modified is not None

    def intervene(self, specs: Sequence[str], prompt_ids: Sequence[int]) -> bool:
        """From now on exactly these interventions, on all tokens of the text; whether they are others than before.

        Raises UsageError for what cannot be done, and then all stays as it was.
        """
        before = self.interventions
        self.interventions = tuple(str(interventions.parse(spec)) for spec in specs)
        try:
            self._modify(prompt_ids)
        except Exception:
            self.interventions = before
            raise
        return self.interventions != before

    def change_prompt(self, prompt_ids: Sequence[int]) -> None:
        """The same interventions for another prompt. What cannot be done there is removed, and a UsageError says so."""
        try:
            self._modify(prompt_ids)
        except UsageError as error:
            removed, self.interventions = ", ".join(self.interventions), ()
            self._modify(prompt_ids)
            raise UsageError(f"{removed}: removed, since with this prompt {error}") from error

    def close(self) -> None:
        """Free what was computed, of both models."""
        if self._modified is not None:
            self._modified.backend.close()
        self.backend.close()

    def _modify(self, prompt_ids: Sequence[int]) -> None:
        """A cache of its own for the model as it is modified now; values from other runs are of this prompt."""
        modified = None
        if self.interventions:
            if not isinstance(self.backend, Intervening):
                raise UsageError(f"the backend '{self.backend.info.backend}' does not support interventions")
            parsed = [interventions.parse(spec) for spec in self.interventions]
            modified = CacheReplayer(self.backend.intervened(parsed, prompt_ids))
        if self._modified is not None:
            self._modified.backend.close()
        self._modified = modified
