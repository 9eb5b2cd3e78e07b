"""How one token becomes a Step: its forward pass, the choice of the token, and what the measures make of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from openmav.backends.base import Frame, Progress
from openmav.generation.branches import BranchTree
from openmav.generation.cache_replay import CacheReplayer
from openmav.generation.detokenize import Detokenizer
from openmav.generation.measure_runner import MeasureRunner, PendingStep
from openmav.generation.runs import ModelRuns
from openmav.generation.stopping import StoppingCriteria
from openmav.measures.base import Context
from openmav.record import Baseline, Prompt, Step
from openmav.record.comparison import Comparison

if TYPE_CHECKING:
    from openmav.generation.sampler import Choice, Sampler, State


class FollowsText(Protocol):
    """What goes along with a text and adds to each of its steps; see comparison.Follower."""

    @property
    def comparison(self) -> Comparison: ...

    @property
    def needs(self) -> frozenset[str]:
        """Measures whose sites it uses."""

    def compare(self, step: Step, frame: Frame, prompt: Prompt, before: Sequence[Step]) -> Step: ...

    def close(self) -> None: ...


class StepMaker:
    """Makes the steps of a text; `text` knows its visible characters, `newest` is what the newest step was made from."""

    def __init__(
        self, tree: BranchTree[State], runs: ModelRuns, sampler: Sampler, runner: MeasureRunner, stopping: StoppingCriteria
    ) -> None:
        self.tree, self.runs, self.sampler, self.runner, self.stopping = tree, runs, sampler, runner, stopping
        self.progress: Progress | None = None  # called for what takes longer than a token
        self.newest: tuple[Frame, Context] | None = None
        self.follower: FollowsText | None = None
        self.text = self._read_text()

    @property
    def token_ids(self) -> list[int]:
        """The generated ones."""
        return [step.token_id for step in self.tree.steps]

    def make(self, forced: int | None, seconds: float = 0.0, most: int | None = 1) -> list[Step]:
        """The next steps of the text: one at least, `most` at most, and no more once `seconds` have passed or the text has ended.

        What fails amid them leaves all as it is with the steps that there are.
        """
        ids, before, end = self.token_ids, len(self.tree.steps), time.perf_counter() + seconds
        drawn: list[PendingStep] = []
        states: list[State] = []  # of the sampler, before each
        try:
            with self.runs.current.ready():
                while not drawn or (drawn[-1].reason is None and len(drawn) != most and time.perf_counter() < end):
                    states.append(self.sampler.state)
                    drawn.append(self.pending(ids, forced, forced=forced is not None))
                    ids.append(drawn[-1].drawn.token_id)
            for one, state in zip(drawn, states, strict=True):
                self.tree.add(self.finish(one, ids), state, one.reason)
        except BaseException:
            finished = len(self.tree.steps) - before
            if finished < len(states):
                self.sampler.state = states[finished]
            self.truncate(len(self.tree.steps))
            raise
        return self.tree.steps[before:]

    def pending(self, ids: Sequence[int], token_id: int | None, *, forced: bool = False) -> PendingStep:
        """The token after the generated `ids`: `token_id`, or one that is drawn. `text` includes it then."""
        prompt = len(self.tree.prompt.token_ids)
        frame = self._frame(self.runs.current, ids)
        started = time.perf_counter()
        sampler = self.sampler
        drawn = sampler.draw(frame.raw, self._read_by(sampler, ids), token_id, self.stopping.allowed(ids))
        chosen = time.perf_counter()
        reason = self.stopping.by_token(prompt, [*ids, drawn.token_id])
        text = self.text.add(drawn.token_id, last=reason is not None)
        reason = reason or self.stopping.by_text(self.tree.steps[: len(ids)], text)
        seconds = (chosen - started, time.perf_counter() - chosen)
        place = (len(ids), prompt + len(ids))
        return PendingStep(frame, drawn, sampler.sampling, *place, text, forced, self.runs.interventions, seconds, reason)

    def finish(self, pending: PendingStep, ids: Sequence[int]) -> Step:
        """All of it as a Step, with the baseline model's numbers at its place among the generated `ids` where the model is modified."""
        began = time.perf_counter()
        choice = self.sampler.describe(pending.frame.raw, pending.drawn)
        context = self.runner.context(pending.frame, choice, pending.sampling)
        step = self.runner.freeze(pending, choice, context, time.perf_counter() - began)
        if self.follower is not None:
            step = self.follower.compare(step, pending.frame, self.tree.prompt, self.tree.steps[: pending.index])
        self.newest = pending.frame, context
        if not self.runs.modified:
            return step
        ids = ids[: pending.index]
        frame = self._frame(self.runs.baseline, ids)
        return self.runner.with_baseline(step, frame, lambda: self.choose(frame, ids, step.token_id), self.sampler.sampling)

    def choose(self, frame: Frame, ids: Sequence[int], token_id: int | None, sampler: Sampler | None = None) -> Choice:
        """What comes after the generated `ids`, by the current sampler or by another one."""
        sampler = sampler or self.sampler
        return sampler.choose(frame.raw, self._read_by(sampler, ids), token_id, self.stopping.allowed(ids))

    def _read_by(self, sampler: Sampler, ids: Sequence[int]) -> Sequence[int]:
        """The text after the generated `ids`, for a sampler whose stages look at it."""
        return (*self.tree.prompt.token_ids, *ids) if sampler.chain else ()

    def beside(self, ids: Sequence[int], token_id: int) -> tuple[Frame, Baseline]:
        """The forward pass after the generated `ids` and what is said there of `token_id`, without measures; the text stays."""
        frame = self._frame(self.runs.current, ids)
        choice = self.choose(frame, ids, token_id)
        return frame, Baseline(self.runner.candidates(frame, choice), choice.logprob, choice.entropy, {}, {})

    def prefill(self, progress: Progress | None) -> None:
        """Read the prompt."""
        self.runs.current.prefill(self.tree.prompt.token_ids, self.runner.sites, progress)

    def truncate(self, length: int) -> None:
        """The text with this many generated tokens."""
        self.text.truncate(len(self.tree.prompt.token_ids) + length)

    def undo(self, count: int) -> int:
        """Undo the last `count` tokens, at most all; how many that was."""
        undone = self.tree.undo(count, self.sampler.state)
        if undone:
            self.truncate(len(self.tree.steps))
            self.arrive()
        return undone

    def redo(self, count: int) -> list[Step]:
        """Redo the next `count` undone tokens, at most all; their steps."""
        again = self.tree.redo(count)
        for step in again:
            self.text.add(step.token_id)
        if again:
            self.arrive()
        return again

    def reread(self) -> None:
        """The tree is on another text."""
        self.newest, self.text = None, self._read_text()

    def arrive(self) -> None:
        """The sampler as it was at this place of the text."""
        self.sampler.state, self.newest = self.tree.sampler_state, None

    def _read_text(self) -> Detokenizer:
        text = Detokenizer(self.runs.backend.decode)
        for token_id in (*self.tree.prompt.token_ids, *self.token_ids):
            text.add(token_id)
        return text

    def _frame(self, replayer: CacheReplayer, ids: Sequence[int]) -> Frame:
        """The forward pass that predicts what comes after the generated `ids`."""
        return replayer.frame(self.tree.prompt.token_ids, ids, self.runner.sites, self.progress)
