"""The loop: read a prompt, then choose, freeze and feed one token after another; take tokens back, branch, touch the model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from openmav import interventions
from openmav.backends._base import Backend, Frame, Intervening, Progress
from openmav.branches import Paths
from openmav.breakpoints import Breakpoints, Hit
from openmav.detokenize import Detokenizer, Pieces
from openmav.endings import Ending
from openmav.errors import UsageError
from openmav.explained import InputAttribution
from openmav.explaining import Asked, explain
from openmav.looking import Drawn, Looking
from openmav.measures._base import Context
from openmav.prompts import notes_on, read_prompt, typed
from openmav.record import Branch, EndReason, ModelInfo, Prompt, Step
from openmav.sampling import Sampling
from openmav.settings import Settings
from openmav.tape import Tape

if TYPE_CHECKING:
    from torch import Tensor

    from openmav.sampler import Choice, Sampler

BURST = 0.03  # seconds: shorter than an eye or a key notices


class Session:
    """One model and the ways that its text went. Iterate over it, or call `step` for each token.

    `steps` are the tokens of the branch in force, `reason` says why it ended and is None while it goes on. Whichever way one came
    to a text, its numbers are the same, bit for bit. `hit` is the breakpoint that held at the newest token: iterating stops there,
    and goes on when it is begun again.
    """

    def __init__(self, backend: Backend, settings: Settings) -> None:
        from openmav.sampler import Sampler

        self.backend = backend
        self.settings = settings
        self.interventions: tuple[str, ...] = ()
        self.reason: EndReason | None = None
        self.hit: Hit | None = None
        self.progress: Progress | None = None  # told of what takes longer than a token
        self._paths = Paths(read_prompt(backend, settings))
        self._sampler = Sampler(settings.sampling)
        self._ending = Ending(backend, settings)
        self._tape = Tape(backend)
        self._touched: Tape | None = None  # of the model that something is done to
        self._last: tuple[Frame, Context] | None = None  # what the newest step was made from
        pieces = Pieces(backend.decode, (backend.encode("a") or self.prompt.token_ids)[-1])
        self._looking = Looking(backend, settings, pieces)
        self.break_at(settings.breakpoints)
        self._text = self._read_text()
        self.intervene(settings.interventions)

    @property
    def prompt(self) -> Prompt:
        return self._paths.now.prompt

    @property
    def info(self) -> ModelInfo:
        """The model, with what is said of it, of the prompt and of what is asked of the text."""
        notes = (*self.backend.info.notes, *notes_on(self.prompt), *self._ending.notes)
        return replace(self.backend.info, missing=self._looking.missing, notes=notes)

    @property
    def steps(self) -> list[Step]:
        return self._paths.now.steps

    # ---- what is asked for -----------------------------------------------------------------------------------------------

    def want(self, measures: Sequence[str], layer: int | None = None) -> None:
        """From the next step on, compute exactly these measures; those that cost too much for all layers, for `layer` only.

        Raises UsageError for an unknown one.
        """
        self._looking.want(measures, layer)

    def break_at(self, texts: Sequence[str]) -> None:
        """From the next step on, stop where one of these conditions holds. Raises UsageError for what is no condition, or does not fit."""
        self.breakpoints = Breakpoints(texts, self.backend.info)
        self._looking.need(self.breakpoints.needs)

    def look_again(self) -> Step | None:
        """The newest step with what is wanted now, as far as its forward pass was captured for it; None where nothing is new."""
        if self._last is None:
            return None
        frame, context = self._last
        again = self._looking.again(frame, context, self.steps[-1])
        if again is None:
            return None
        context, self.steps[-1] = again
        self._last = frame, context
        return self.steps[-1]

    def lacks(self) -> bool:
        """Whether the newest step has no value for something that is wanted now."""
        return bool(self.steps and self._looking.lacking(self.steps[-1]))

    def look_back(self, index: int, dropped: bool = True) -> Step | None:
        """Step `index` with all that is wanted now: its forward pass runs once more, bit for bit, and nothing else changes.

        None where it lacks nothing (but what was `dropped`, if that is False), or where something else was done to the model then.
        """
        step, looking = self.steps[index], self._looking
        if step.interventions != self.interventions or not looking.lacking(step, dropped):
            return None
        ids = [one.token_id for one in self.steps[:index]]
        frame = (self._touched or self._tape).aside(self.prompt.token_ids, ids, looking.sites)
        choice = self._choose(frame, ids, step.token_id, self._sampler.with_(step.sampling))
        self.steps[index] = looking.completed(step, frame, choice)
        return self.steps[index]

    @property
    def sampling(self) -> Sampling:
        return self._sampler.sampling

    @sampling.setter
    def sampling(self, sampling: Sampling) -> None:
        self._sampler.use(sampling)

    @property
    def text(self) -> str:
        """What has been generated."""
        return "".join(step.text for step in self.steps)

    @property
    def token_ids(self) -> list[int]:
        """Prompt and generated tokens."""
        return [*self.prompt.token_ids, *(step.token_id for step in self.steps)]

    # ---- the loop --------------------------------------------------------------------------------------------------------

    def prefill(self, progress: Progress | None = None) -> None:
        """Read the prompt; done by the first step where nobody has done it."""
        tape = self._touched or self._tape
        tape.prefill(self.prompt.token_ids, self._looking.sites, progress)

    def step(self) -> Step:
        """Generate one token. Raises UsageError after the end."""
        return self._go(None)[0]

    def force(self, token_id: int) -> Step:
        """Put this token next instead of drawing one."""
        self._ending.need_allowed([step.token_id for step in self.steps], token_id)
        return self._go(token_id)[0]

    def type(self, text: str) -> Iterator[Step]:
        """Put these words next, token by token, as far as the text does not end. Raises UsageError for no text."""
        for token_id in typed(self.backend, text):
            if self.reason is None:
                yield self.force(token_id)

    def __iter__(self) -> Iterator[Step]:
        while self.reason is None:
            yield self.step()
            if self.hit is not None:
                return

    def burst(self, seconds: float = BURST, most: int | None = None) -> list[Step]:
        """As many tokens as are drawn within `seconds`, one at least and `most` at most: the same as by `step`, and sooner.

        What was captured is measured once all are drawn: a model's forward pass leaves the measures' code and data in no cache of
        the processor, so that the first of them costs several times the next. One by one where a step must be known before the
        next is drawn: with breakpoints, interventions, stop texts, or tokens ahead. Raises UsageError after the end.
        """
        singly = len(self.breakpoints) or self._touched is not None or self.settings.stop or self.ahead
        return self._go(None, seconds, 1 if singly else most)

    def _go(self, forced: int | None, seconds: float = 0.0, most: int | None = 1) -> list[Step]:
        if self.reason is not None:
            raise UsageError(f"the text has ended ({self.reason}); take a token back to go on")
        ids, before, end = [step.token_id for step in self.steps], len(self.steps), time.perf_counter() + seconds
        drawn: list[Drawn] = []
        states: list[Tensor] = []
        with self._whole(states):
            while not drawn or (self.reason is None and len(drawn) != most and time.perf_counter() < end):
                states.append(self._sampler.state)
                drawn.append(self._draw(ids, forced, forced is not None))
                ids.append(drawn[-1].choice.token_id)
            for one, state in zip(drawn, states, strict=True):
                self._paths.add(self._freeze(one, ids), state)
        self.hit = self.breakpoints.hit(self.steps[-1], self.info, self.steps) if len(self.breakpoints) else None
        return self.steps[before:]

    @contextmanager
    def _whole(self, states: Sequence[Tensor]) -> Iterator[None]:
        """What fails amid new tokens leaves all as it stands with the steps that there are; `states`: the generator's before each."""
        before = len(self.steps)
        try:
            yield
        except BaseException:
            made = len(self.steps) - before
            if made < len(states):
                self._sampler.state = states[made]
            self._text.truncate(len(self.prompt.token_ids) + len(self.steps))
            self.reason = None
            raise

    def _draw(self, ids: Sequence[int], token_id: int | None, forced: bool) -> Drawn:
        """What comes after the generated `ids`: this token, or one that is drawn. The text has it then, and may have ended."""
        prompt = len(self.prompt.token_ids)
        frame = self._frame(self._touched or self._tape, ids)
        began = time.perf_counter()
        choice = self._choose(frame, ids, token_id)
        chosen = time.perf_counter()
        context = self._looking.context(frame, choice, self.sampling)
        self.reason = self._ending.by_token(prompt, [*ids, choice.token_id])
        text = self._text.add(choice.token_id, last=self.reason is not None)
        self.reason = self.reason or self._ending.by_text(self.steps, text)
        seconds = (chosen - began, time.perf_counter() - chosen)
        return Drawn(frame, choice, context, len(ids), prompt + len(ids), text, forced, self.interventions, seconds)

    def _freeze(self, drawn: Drawn, ids: Sequence[int]) -> Step:
        """All of it as a Step, and what the untouched model says at its place among the generated `ids`."""
        step = self._looking.freeze(drawn)
        self._last = drawn.frame, drawn.context
        if self._touched is None:
            return step
        ids = ids[: drawn.index]
        frame = self._frame(self._tape, ids)
        return self._looking.beside(step, frame, lambda: self._choose(frame, ids, step.token_id), self.sampling)

    def _choose(self, frame: Frame, ids: Sequence[int], token_id: int | None, sampler: Sampler | None = None) -> Choice:
        """What comes after the generated `ids`, by the sampler in force or by another one."""
        sampler = sampler or self._sampler
        text = (*self.prompt.token_ids, *ids) if sampler.chain else ()
        return sampler.choose(frame.logits, text, token_id, self._ending.allowed(ids))

    def _frame(self, tape: Tape, ids: Sequence[int]) -> Frame:
        """The forward pass that tells what comes after the generated `ids`."""
        return tape.frame(self.prompt.token_ids, ids, self._looking.sites, self.progress)

    # ---- the ways of the text --------------------------------------------------------------------------------------------

    @property
    def ahead(self) -> int:
        """Tokens that were taken back and can be gone forward to."""
        return len(self._paths.now.ahead)

    @property
    def branch(self) -> str:
        """The name of the branch in force."""
        return self._paths.now.name

    @property
    def branches(self) -> dict[str, Branch]:
        """All ways that the text went, by name; a step that was taken back is part of its branch."""
        return {path.name: path.branch() for path in (self._paths.now, *self._paths.kept.values())}

    def back(self, count: int = 1) -> None:
        """Take back the last `count` tokens, at most all; the next step is what it would have been then."""
        path, count = self._paths.now, min(max(0, count), len(self.steps))
        if count == 0:
            return
        self._mark_end()
        keep = len(path.steps) - count
        path.ahead[:0] = path.steps[keep:]
        del path.steps[keep:]
        self._text.truncate(len(self.prompt.token_ids) + keep)
        self._arrive()

    def forward(self, count: int = 1) -> list[Step]:
        """Put the next `count` tokens that were taken back in force again, as they were; these steps."""
        path = self._paths.now
        again = path.ahead[: max(0, count)]
        if again:
            del path.ahead[: len(again)]
            path.steps.extend(again)
            for step in again:
                self._text.add(step.token_id)
            self._arrive()
        return again

    def switch(self, name: str) -> None:
        """Go to another branch, to where it was left. Raises UsageError for an unknown one."""
        self._mark_end()
        before = self.prompt
        self._paths.switch(name)
        self._text = self._read_text()
        self._arrive()
        if self.prompt is not before:
            self._touch_or_leave()

    def rename(self, old: str, new: str) -> None:
        """Raises UsageError for an unknown branch, an empty name or one that is taken."""
        self._paths.rename(old, new)

    def edit_prompt(self, text: str) -> None:
        """Begin again with another prompt, on a branch of its own, with the seed's first draw.

        Raises UsageError where the prompt is empty or too long.
        """
        prompt = read_prompt(self.backend, replace(self.settings, prompt=text))
        self._mark_end()
        self._paths.root(prompt)
        self._sampler.restart()
        self._text = self._read_text()
        self.reason = self._last = self.hit = None
        self._touch_or_leave()

    def _mark_end(self) -> None:
        """Keeps what a path needs to be gone on with from its end."""
        path = self._paths.now
        if not path.ahead:
            path.tip, path.reason = self._sampler.state, self.reason

    def _arrive(self) -> None:
        """The generator and the end as they are at this place of the path."""
        path = self._paths.now
        state = path.states[len(path.steps)] if path.ahead else path.tip
        assert state is not None, "a path is left, or gone back on, by _mark_end"
        self._sampler.state = state
        self.reason = None if path.ahead else path.reason
        self._last = self.hit = None

    def _read_text(self) -> Detokenizer:
        text = Detokenizer(self.backend.decode)
        for token_id in self.token_ids:
            text.add(token_id)
        return text

    # ---- a touched model -------------------------------------------------------------------------------------------------

    def intervene(self, specs: Sequence[str]) -> Step | None:
        """From now on do exactly this to the model, on all tokens of the text; the newest step, made again in this light.

        Nothing of it is left where `specs` is empty: the logits are those of before, bit for bit. Raises UsageError for what
        cannot be done, and then all stays as it was.
        """
        before = self.interventions
        self.interventions = tuple(str(interventions.parse(spec)) for spec in specs)
        try:
            self._touch()
        except Exception:
            self.interventions = before
            raise
        return self.retake() if self.interventions != before else None

    def _touch(self) -> None:
        """A cache of its own for the model as it is touched now; values from other runs are of this prompt."""
        touched = None
        if self.interventions:
            if not isinstance(self.backend, Intervening):
                raise UsageError(f"the backend '{self.backend.info.backend}' cannot touch its model")
            parsed = [interventions.parse(spec) for spec in self.interventions]
            touched = Tape(self.backend.intervened(parsed, self.prompt.token_ids))
        if self._touched is not None:
            self._touched.backend.close()
        self._touched = touched

    def _touch_or_leave(self) -> None:
        """Touches the model for another prompt; what cannot be done there is taken off, and a UsageError says so."""
        try:
            self._touch()
        except UsageError as error:
            done, self.interventions = ", ".join(self.interventions), ()
            self._touch()
            raise UsageError(f"{done}: taken off, since with this prompt {error}") from error

    def retake(self) -> Step | None:
        """The newest step made again with all that is wanted now; the token stays. None where there is none."""
        if not self.steps:
            return None
        old, reason = self.steps.pop(), self.reason
        kept = len(self.prompt.token_ids) + len(self.steps)
        self._text.truncate(kept)
        try:
            ids = [step.token_id for step in self.steps]
            step = self._freeze(self._draw(ids, old.token_id, old.forced), ids)
        except BaseException:
            self._text.truncate(kept)
            self._text.add(old.token_id)
            self.steps.append(old)
            self.reason = reason
            raise
        self.steps.append(replace(step, sampling=old.sampling))
        return self.steps[-1]

    # ---- why ---------------------------------------------------------------------------------------------------------------

    def explain(self, method: str, index: int | None = None, token_id: int | None = None, minus: int | None = None) -> InputAttribution:
        """Which tokens a prediction depends on, see openmav.explaining; `progress` may raise to stop it. Raises UsageError."""
        asked = Asked(method, index, token_id, minus)
        return explain(self.backend, self._looking.pieces, self.prompt, self.steps, asked, self.progress)

    def close(self) -> None:
        """Free the model, or give it back as it was."""
        if self._touched is not None:
            self._touched.backend.close()
        self.backend.close()
