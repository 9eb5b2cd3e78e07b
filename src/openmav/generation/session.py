"""The loop: read a prompt, then choose, freeze and feed one token after another; undo and redo, branch, modify the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from openmav.backends.base import Backend, Frame, Progress
from openmav.conditions.breakpoints import Breakpoints, Hit
from openmav.errors import UsageError
from openmav.generation.ablation_sweep import sweep_sites
from openmav.generation.attribute import AttributionRequest, attribute
from openmav.generation.branches import BranchTree
from openmav.generation.detokenize import TokenStrings
from openmav.generation.measure_runner import MeasureRunner
from openmav.generation.model_defaults import ModelDefaults
from openmav.generation.preview import preview
from openmav.generation.recompute import Recomputer
from openmav.generation.retrace import Retrace
from openmav.generation.runs import ModelRuns
from openmav.generation.step_maker import FollowsText, StepMaker
from openmav.generation.stopping import StoppingCriteria
from openmav.generation.tokenize import notes_on, read_prompt, typed
from openmav.protocol.snapshot import RunState
from openmav.record import Baseline, Branch, EndReason, ModelInfo, Prompt, Step
from openmav.record.attribution_result import InputAttribution
from openmav.record.comparison import Comparison
from openmav.record.sampling_preview import SamplingPreview
from openmav.record.sweep_map import SweepMap
from openmav.settings import Settings
from openmav.settings.interventions import How
from openmav.settings.sampling import Sampling
from openmav.settings.sites import Swept

if TYPE_CHECKING:
    from openmav.generation.sampler import State

BURST = 0.03  # seconds: shorter than an eye or a key notices


class Session:
    """One model and the branches of its text. Iterate over it, or call `step` for each token.

    `steps` are the tokens of the current branch, `reason` says why it ended and is None while it goes on. Whichever way one came
    to a text, its numbers are the same, bit for bit. `hit` is the breakpoint that was hit at the newest token: iterating stops there,
    and goes on when it is begun again.
    """

    def __init__(self, backend: Backend, settings: Settings) -> None:
        from openmav.generation.sampler import Sampler

        self.backend = backend
        self._defaults = ModelDefaults(backend, settings)
        self.settings = settings = self._defaults.settings
        self.hit: Hit | None = None
        self.comparison: Comparison | None = None  # what the text is compared with
        prompt = read_prompt(backend, settings)
        self._stopping = StoppingCriteria(backend, settings, self._defaults.generation)
        self._tree: BranchTree[State] = BranchTree(prompt, self._stopping.begin(prompt.token_ids))
        self._sampler = Sampler(self._defaults.sampling, lambda sampling: self._defaults.processors(sampling, self.prompt.token_ids))
        self._runs = ModelRuns(backend)
        strings = TokenStrings.of(backend, prompt.token_ids)
        self._runner = MeasureRunner(backend, settings, strings)
        self._maker = StepMaker(self._tree, self._runs, self._sampler, self._runner, self._stopping)
        self.break_at(settings.breakpoints)
        self._recomputer = Recomputer(self._maker)
        self.intervene(settings.interventions)

    # ---- what is known ---------------------------------------------------------------------------------------------------

    @property
    def info(self) -> ModelInfo:
        """The model, with notes on it, on the prompt and on the constraints of the text."""
        prompt, info = self.prompt, self.backend.info
        notes = (*info.notes, *self._defaults.notes(self.sampling, prompt), *notes_on(prompt, self.backend, self.settings.chat))
        notes = (*notes, *self._stopping.notes, *self.broken.values())
        return replace(info, missing=self._runner.missing, notes=notes, generation_config=self._defaults.generation.used)

    def describe(self, state: RunState) -> RunState:
        """The state of a run with the facts that a session knows, but `info`, which costs more than the others."""
        return replace(
            state,
            prompt=self.prompt,
            sampling=self.sampling,
            reason=self.reason,
            branch=self.branch,
            parent=self._tree.parent,
            at=self._tree.at,
            undone=self.undone,
            interventions=self.interventions,
            breakpoints=self.breakpoints.texts,
            comparison=self.comparison,
        )

    @property
    def prompt(self) -> Prompt:
        return self._tree.prompt

    @property
    def steps(self) -> list[Step]:
        return self._tree.steps

    @property
    def reason(self) -> EndReason | None:
        return self._tree.reason

    @property
    def sites(self) -> frozenset[str]:
        """What the wanted measures need of a forward pass."""
        return self._runner.sites

    @property
    def frame(self) -> Frame | None:
        """The forward pass that predicted the newest step; None where there is none, as after an undo."""
        return None if self._maker.newest is None else self._maker.newest[0]

    @property
    def text(self) -> str:
        """What has been generated."""
        return "".join(step.text for step in self.steps)

    @property
    def token_ids(self) -> list[int]:
        """Prompt and generated tokens."""
        return [*self.prompt.token_ids, *self._maker.token_ids]

    @property
    def broken(self) -> Mapping[str, str]:
        """Measures that do not come with mav and failed, and why; the run goes on without them."""
        return self._runner.broken

    # ---- what is wanted --------------------------------------------------------------------------------------------------

    @property
    def progress(self) -> Progress | None:
        """Called for what takes longer than a token."""
        return self._maker.progress

    @progress.setter
    def progress(self, progress: Progress | None) -> None:
        self._maker.progress = progress

    @property
    def sampling(self) -> Sampling:
        return self._sampler.sampling

    @sampling.setter
    def sampling(self, sampling: Sampling) -> None:
        """The stages of the model's own settings stay."""
        self._sampler.use(self._defaults.completed(sampling))

    def preview_sampling(self, sampling: Sampling) -> SamplingPreview | None:
        """What each stage of another sampling would leave of the newest token's candidates; None where there is no token."""
        return preview(self._maker, self._defaults.completed(sampling))

    def name_measure(self, name: Callable[[str], None] | None) -> None:
        """From now on `name` gets the name of a measure that does not come with mav before each call of it, and "" after it.

        One that takes too long for a token is given up then, and stands in `broken`; without `name` it is waited for.
        """
        self._runner.name_measure = name

    def give_up_hanging_measures(self) -> None:
        """From now on as with `name_measure`, where nobody wants the names."""
        self.name_measure(lambda _name: None)

    def want(self, measures: Sequence[str], layer: int | None = None, candidates: int = 0) -> None:
        """From the next step on, compute exactly these measures; those that cost too much for all layers, for `layer` only.

        `candidates`: keep so many of each token, where that is more than `settings.candidates`; at most those that "distribution"
        ranks one by one. Raises UsageError for an unknown measure.
        """
        self._runner.want(measures, layer, candidates)

    def break_at(self, texts: Sequence[str]) -> None:
        """From the next step on, stop where one of these conditions is met.

        Raises UsageError for what is no condition, or does not fit the model.
        """
        breakpoints = Breakpoints(texts, self.backend.info)
        follower = self._maker.follower
        self._runner.need(breakpoints.needs | (follower.needs if follower is not None else frozenset()))
        self.breakpoints = breakpoints

    def follow(self, follower: FollowsText) -> None:
        """From the next step on, compare each token with what another session makes of it; closing this one closes that one."""
        self.comparison, self._maker.follower = follower.comparison, follower
        self.break_at(self.breakpoints.texts)

    def beside(self, ids: Sequence[int], token_id: int) -> tuple[Frame, Baseline]:
        """The forward pass after these generated tokens, instead of those of the text, and what is said there of `token_id`.

        The text stays as it is.
        """
        return self._maker.beside(ids, token_id)

    # ---- the loop --------------------------------------------------------------------------------------------------------

    def prefill(self, progress: Progress | None = None) -> None:
        """Read the prompt; the first step does it where nobody has."""
        self._maker.prefill(progress)

    def step(self) -> Step:
        """Generate one token. Raises UsageError after the end."""
        return self._generate(None)[0]

    def force(self, token_id: int) -> Step:
        """Append this token instead of drawing one."""
        self._stopping.need_allowed(self._maker.token_ids, token_id)
        return self._generate(token_id)[0]

    def type(self, text: str, *, past_end: bool = False) -> Iterator[Step]:
        """Append these words, token by token, as far as the text does not end; `past_end`: it goes on where it does.

        Raises UsageError for no text, and where the text can't go on.
        """
        for token_id in typed(self.backend, text):
            if past_end:
                self.go_on()
            if self.reason is None:
                yield self.force(token_id)

    def go_on(self) -> int | None:
        """Let a text that has ended go on, past its end token or stop text, and for as many tokens as were asked for at first.

        Returns how many may follow; None where it has not ended. Raises UsageError where the context is full, or a constraint
        lets nothing follow.
        """
        if self.reason is None:
            return None
        more = self._stopping.go_on(self.reason, len(self.prompt.token_ids), len(self.steps))
        self._tree.go_on()
        return more

    def __iter__(self) -> Iterator[Step]:
        while self.reason is None:
            yield self.step()
            if self.hit is not None:
                return

    def burst(self, seconds: float = BURST, most: int | None = None) -> list[Step]:
        """As many tokens as are drawn within `seconds`, one at least and `most` at most: the same as by `step`, and sooner.

        What was captured is measured once all are drawn: a model's forward pass leaves the measures' code and data in no cache of
        the processor, so that the first of them costs several times the next. One by one where a step must be known before the
        next is drawn: with breakpoints, interventions, stop texts, or undone tokens. Raises UsageError after the end.
        """
        singly = len(self.breakpoints) or self._runs.modified or self.settings.stop or self.undone
        return self._generate(None, seconds, 1 if singly else most)

    def _generate(self, forced: int | None, seconds: float = 0.0, most: int | None = 1) -> list[Step]:
        if self.reason is not None:
            raise UsageError(f"the text has ended ({self.reason}); undo a token to go on")
        steps = self._maker.make(forced, seconds, most)
        self.hit = self.breakpoints.hit(self.steps[-1], self.info, self.steps) if len(self.breakpoints) else None
        return steps

    # ---- branches --------------------------------------------------------------------------------------------------------

    @property
    def undone(self) -> int:
        """Tokens that were undone and can be redone."""
        return self._tree.undone

    ahead = undone  # alias: the name before 1.0

    @property
    def branch(self) -> str:
        """The name of the current branch."""
        return self._tree.name

    @property
    def branches(self) -> dict[str, Branch]:
        """All branches of the text by name; an undone step is part of its branch."""
        return self._tree.branches()

    def back(self, count: int = 1) -> None:
        """Undo the last `count` tokens, at most all; the next step is what it would have been then."""
        if self._maker.undo(count):
            self.hit = None

    def forward(self, count: int = 1) -> list[Step]:
        """Redo the next `count` undone tokens; these steps, as they were."""
        again = self._maker.redo(count)
        self.hit = None if again else self.hit
        return again

    def switch(self, name: str) -> None:
        """Go to another branch, to where it was left. Raises UsageError for an unknown one."""
        before = self.prompt
        self._tree.switch(name, self._sampler.state)
        self._stopping.begin(self.prompt.token_ids)
        self._maker.reread()
        self._maker.arrive()
        self.hit = None
        if self.prompt is not before:
            self._sampler.use(self.sampling)
            self._runs.change_prompt(self.prompt.token_ids)

    def retrace(self) -> Retrace:
        """What makes the branches of a recording again, from this session's beginning on."""
        return Retrace(self)

    def rename(self, old: str, new: str) -> None:
        """Raises UsageError for an unknown branch, an empty name or one that is taken."""
        self._tree.rename(old, new)

    def edit_prompt(self, text: str) -> None:
        """Begin again with another prompt, on a branch of its own, with the seed's first draw.

        Raises UsageError where the prompt is empty or too long.
        """
        prompt = read_prompt(self.backend, replace(self.settings, prompt=text))
        self._tree.start(prompt, self._sampler.state, self._stopping.begin(prompt.token_ids))
        self._sampler.use(self.sampling)
        self._sampler.restart()
        self._maker.reread()
        self.hit = None
        self._runs.change_prompt(prompt.token_ids)

    # ---- the model modified, steps computed again, attribution -----------------------------------------------------------

    @property
    def interventions(self) -> tuple[str, ...]:
        """As openmav.settings.interventions.parse reads them; none for the model as it was loaded."""
        return self._runs.interventions

    def intervene(self, specs: Sequence[str]) -> Step | None:
        """From now on exactly these interventions, on all tokens of the text; the newest step, made again with them.

        Nothing of it is left where `specs` is empty: the logits are those of before, bit for bit. Raises UsageError for what
        cannot be done, and then all stays as it was.
        """
        return self.retake() if self._runs.intervene(specs, self.prompt.token_ids) else None

    def lacks(self) -> bool:
        """Whether the newest step has no value for something that is wanted now."""
        return self._recomputer.lacks()

    def look_again(self) -> Step | None:
        """The newest step with what is wanted now, as far as its forward pass was captured for it; None where nothing is new."""
        return self._recomputer.newest()

    def look_back(self, index: int, dropped: bool = True) -> Step | None:
        """Step `index` with all that is wanted now: its forward pass runs once more, bit for bit, and nothing else changes.

        None where it lacks nothing (but what was `dropped`, if that is False), or where it was made with other interventions.
        """
        return self._recomputer.earlier(index, dropped)

    def retake(self) -> Step | None:
        """The newest step made again with all that is wanted now; the token stays. None where there is none."""
        return self._recomputer.retake()

    def explain(self, method: str, index: int | None = None, token_id: int | None = None, minus: int | None = None) -> InputAttribution:
        """Which tokens a prediction depends on, see openmav.generation.attribute; `progress` may raise to stop it. Raises UsageError."""
        request = AttributionRequest(method, index, token_id, minus)
        return attribute(self.backend, self._runner.strings, self.prompt, self.steps, request, self.progress)

    def sweep_sites(self, index: int, what: Swept = "heads", how: How = "zero") -> Iterator[SweepMap]:
        """Each site of the baseline model ablated alone, and the change of the logit of the token at `index`; the map as it grows."""
        return sweep_sites(self.backend, self.prompt, self.steps, index, what, how)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Free what was computed. A model in memory needs no closing: it is as its owner left it whenever no token is being made."""
        self._runs.close()
        if self._maker.follower is not None:
            self._maker.follower.close()
