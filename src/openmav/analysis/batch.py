"""Many prompts through one model: several at a time where that gives the numbers of single runs, else one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import cast

from openmav.backends.base import Backend, Batching
from openmav.backends.shared.second_cache import SecondCache
from openmav.errors import UsageError
from openmav.generation.session import Session
from openmav.settings import Settings

TRIED = 4  # prompts that are run both ways before a batch is trusted


@dataclass(frozen=True)
class Outcome:
    """What became of the prompt with this number: a session whose text has ended, or why it could not be run."""

    number: int
    session: Session | None
    error: str = ""


class PromptBatch:
    """Iterating runs the prompts, {number: text}, and yields the outcome of each as it ends, `size` at a time at most.

    `why_not` says why they run one by one; "" where they don't. `on_tokens` is called after each forward pass with the tokens it made.
    """

    def __init__(self, backend: Backend, settings: Settings, prompts: dict[int, str], size: int) -> None:
        self._backend, self._settings = backend, settings
        self._prompts, self._size = prompts, size
        self.on_tokens: Callable[[int], None] = lambda count: None
        self.why_not = self._why_not()

    def _why_not(self) -> str:
        if self._size == 1 or len(self._prompts) == 1:
            return "one is asked for at a time"
        if not isinstance(self._backend, Batching):
            return f"the backend {self._backend.info.backend} runs one text at a time"
        sessions = (self._opened(self._backend, number).session for number in self._prompts)
        tried = list(islice((session for session in sessions if session is not None), TRIED))
        if len(tried) < 2:
            return "there is one prompt"
        return self._backend.why_not_batched([one.prompt.token_ids for one in tried], tried[0].sites)

    def __iter__(self) -> Iterator[Outcome]:
        numbers, size = list(self._prompts), 1 if self.why_not else self._size
        for at in range(0, len(numbers), size):
            yield from self._alone(numbers[at]) if size == 1 else self._together(numbers[at : at + size])

    def _opened(self, backend: Backend, number: int) -> Outcome:
        try:
            session = Session(backend, replace(self._settings, prompt=self._prompts[number]))
            session.give_up_hanging_measures()
            return Outcome(number, session)
        except UsageError as error:
            return Outcome(number, None, str(error))

    def _alone(self, number: int) -> Iterator[Outcome]:
        outcome = self._opened(self._backend, number)
        if outcome.session is not None:
            for _ in outcome.session:
                self.on_tokens(1)
        yield outcome

    def _together(self, numbers: Sequence[int]) -> Iterator[Outcome]:
        """All of them in lockstep, each with a session of its own."""
        batch = cast(Batching, self._backend).batch(len(numbers))
        try:
            opened = [
                (text, self._opened(cast(Backend, SecondCache(self._backend, text)), number))
                for text, number in zip(batch.texts, numbers, strict=True)
            ]
            yield from (outcome for _, outcome in opened if outcome.session is None)
            live = [(text, outcome, outcome.session) for text, outcome in opened if outcome.session is not None]
            first = True
            while live:
                if not first:
                    batch.decode([(text, session.steps[-1].token_id) for text, _, session in live], live[0][2].sites)
                first = False
                for _, _, session in live:
                    session.step()
                self.on_tokens(len(live))
                yield from (outcome for _, outcome, session in live if session.reason is not None)
                live = [one for one in live if one[2].reason is None]
        finally:
            batch.close()
