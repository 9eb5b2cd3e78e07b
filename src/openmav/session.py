"""The loop: read a prompt, then choose, freeze and feed one token after another; take tokens back, branch, touch the model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from openmav import interventions, registry
from openmav.backends._base import HEAD_SITES, Backend, Frame, Intervening, LoadOptions, Progress
from openmav.branches import Paths
from openmav.breakpoints import Breakpoints, Hit
from openmav.detokenize import Detokenizer, Pieces
from openmav.endings import Ending
from openmav.errors import UsageError
from openmav.explained import InputAttribution
from openmav.explaining import Asked, explain
from openmav.looking import Looking
from openmav.measures._base import Context
from openmav.prompts import notes_on, read_prompt, typed
from openmav.record import Before, Branch, EndReason, ModelInfo, Prompt, Step, Timing, measure_of
from openmav.sampling import Sampling
from openmav.settings import Settings
from openmav.tape import Tape

if TYPE_CHECKING:
    from openmav.sampler import Choice


def open_session(settings: Settings, progress: Progress | None = None) -> Session:
    """Load the model that the settings name and check the prompt against it; nothing is computed yet.

    Raises LoadError where the model can't be loaded, UsageError where the prompt does not fit it or the constraint makes no sense.
    """
    settings.constraint.grammar()
    for file in settings.measure_files:
        registry.load("measures", registry.add_file("measures", file))
    module = registry.load("backends", settings.backend)
    options = LoadOptions(settings.device, settings.dtype, settings.trust_remote_code, settings.threads)
    return Session(module.load(settings.model, options, progress), settings)


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
        seen, step = frame.sites.keys() | HEAD_SITES, self.steps[-1]
        possible = {name: module for name, module in self._looking.measures.items() if seen >= set(module.NEEDS)}
        if context.layer == self._looking.layer and possible.keys() <= step.values.keys():
            return None
        self._last = frame, replace(context, layer=self._looking.layer)
        values = {**step.values, **self._looking.measure(*self._last, possible)}
        self.steps[-1] = replace(step, values=values, pieces=self._looking.texts(values))
        return self.steps[-1]

    def lacks(self) -> bool:
        """Whether the newest step has no value for something that is wanted now."""
        return bool(self.steps) and not self._looking.measures.keys() <= {measure_of(name) for name in self.steps[-1].values}

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
        return self._step(None)

    def force(self, token_id: int) -> Step:
        """Put this token next instead of drawing one."""
        self._ending.need_allowed([step.token_id for step in self.steps], token_id)
        return self._step(token_id)

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

    def _step(self, forced: int | None) -> Step:
        if self.reason is not None:
            raise UsageError(f"the text has ended ({self.reason}); take a token back to go on")
        state = self._sampler.state
        step = self._make(forced, forced is not None)
        path = self._paths.now
        if path.ahead and path.ahead[0].token_id != step.token_id:
            self._paths.fork()
            path = self._paths.now
        del path.ahead[:1]
        path.states[len(path.steps) : len(path.steps) + 1] = [state]
        path.steps.append(step)
        self.hit = self.breakpoints.hit(step, self.info, self.steps) if len(self.breakpoints) else None
        return step

    def _make(self, token_id: int | None, forced: bool) -> Step:
        """The step after those there are: of this token, or of one that is drawn."""
        ids = [step.token_id for step in self.steps]
        frame = self._frame(self._touched or self._tape, ids)
        began = time.perf_counter()
        choice = self._choose(frame, ids, token_id)
        chosen = time.perf_counter()
        context = self._looking.context(frame, choice, self.sampling)
        values = self._looking.measure(frame, context)
        self.reason = self._ending.by_token(len(self.prompt.token_ids), [*ids, choice.token_id])
        step = self._freeze(frame, choice, values, forced, (began, chosen))
        self._last = frame, context
        return step if self._touched is None else self._beside(step, ids)

    def _freeze(self, frame: Frame, choice: Choice, values: Mapping[str, np.ndarray], forced: bool, clock: tuple[float, float]) -> Step:
        """All of it as a Step. `clock`: when choosing began, and when it ended."""
        (began, chosen), token_id, index = clock, choice.token_id, len(self.steps)
        text = self._text.add(token_id, last=self.reason is not None)
        self.reason = self.reason or self._ending.by_text(self.steps, text)
        return Step(
            index=index,
            position=len(self.prompt.token_ids) + index,
            token_id=token_id,
            token=self._looking.pieces[token_id],
            text=text,
            logprob=choice.logprob,
            entropy=choice.entropy,
            candidates=self._looking.candidates(frame, choice),
            values=values,
            special=self.backend.is_special(token_id),
            forced=forced,
            pieces=self._looking.texts(values),
            sampling=self.sampling,
            interventions=self.interventions,
            rank=choice.rank,
            timing=Timing(frame.model_seconds, time.perf_counter() - chosen, chosen - began),
        )

    def _choose(self, frame: Frame, ids: Sequence[int], token_id: int | None) -> Choice:
        """What comes after the generated `ids`."""
        text = (*self.prompt.token_ids, *ids) if self._sampler.chain else ()
        return self._sampler.choose(frame.logits, text, token_id, self._ending.allowed(ids))

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
            step = self._make(old.token_id, old.forced)
        except BaseException:
            self._text.truncate(kept)
            self._text.add(old.token_id)
            self.steps.append(old)
            self.reason = reason
            raise
        self.steps.append(replace(step, sampling=old.sampling))
        return self.steps[-1]

    def _beside(self, step: Step, ids: Sequence[int]) -> Step:
        """The step with what the untouched model says at its place."""
        frame = self._frame(self._tape, ids)
        began = time.perf_counter()
        choice = self._choose(frame, ids, step.token_id)
        values = self._looking.measure(frame, self._looking.context(frame, choice, self.sampling))
        shown = self._looking.candidates(frame, choice, step.candidates.token_ids.tolist())
        before = Before(shown, choice.logprob, choice.entropy, values, self._looking.texts(values))
        spent = time.perf_counter() - began
        timing = replace(step.timing, model=step.timing.model + frame.model_seconds, capture=step.timing.capture + spent)
        return replace(step, before=before, timing=timing)

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
