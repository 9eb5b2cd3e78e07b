"""What is measured in a forward pass: the wanted measures, the sites that they need, and how their values become a Step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from openmav.backends.base import Backend, Frame
from openmav.backends.sites import HEAD_SITES, SITES
from openmav.errors import MeasureError, UsageError
from openmav.generation.detokenize import TokenStrings
from openmav.generation.own_measure import compute_or_give_up
from openmav.measures.base import Context, array_of
from openmav.plugins import registry
from openmav.record import RANK_EDGES, Baseline, Candidates, EndReason, Step, Timing, freeze_values, frozen, lacking, measure_of
from openmav.settings import Settings
from openmav.settings.sampling import Sampling

if TYPE_CHECKING:
    from openmav.generation.sampler import Choice, DrawnToken


@dataclass(frozen=True)
class PendingStep:
    """A token that was chosen, and all that its Step will be made from."""

    frame: Frame
    drawn: DrawnToken
    sampling: Sampling
    index: int
    position: int
    text: str  # what it adds to the visible text
    forced: bool
    interventions: tuple[str, ...]
    seconds: tuple[float, float]  # of choosing, and of what came after it
    reason: EndReason | None = None  # why the text ends with it


class MeasureRunner:
    """Measures frames of one model. `sites` are what the wanted measures need, `layer` is the one that the user looks at."""

    def __init__(self, backend: Backend, settings: Settings, strings: TokenStrings) -> None:
        self.missing = missing_of_measures(backend)
        self.strings = strings
        self._is_special = backend.is_special
        self._aggregation = settings.aggregation
        self._least = self._candidates = settings.candidates
        self._vocab = backend.info.vocab
        self._layers = backend.info.layers
        self.broken: dict[str, str] = {}  # measures of somebody's own that failed, and why: they are not asked again
        self.name_measure: Callable[[str], None] | None = None  # told of each call of a measure of somebody's own
        self._needed: frozenset[str] = frozenset()
        self.want(settings.measures)

    def want(self, measures: Sequence[str], layer: int | None = None, candidates: int = 0) -> None:
        """From the next step on, compute exactly these measures; those that cost too much for all layers, for `layer` only.

        `candidates`: keep so many, where that is more than the settings say. Raises UsageError for an unknown measure.
        """
        self._set(tuple(measures), layer, self._needed)
        self._candidates = max(self._least, min(candidates, RANK_EDGES[-1], self._vocab))

    def need(self, measures: frozenset[str]) -> None:
        """Compute these as well, whatever else is wanted. Raises UsageError for an unknown one."""
        self._set(self._wanted, self.layer, measures)

    def _set(self, wanted: tuple[str, ...], layer: int | None, needed: frozenset[str]) -> None:
        """All or nothing. Raises UsageError."""
        result = {name: registry.load("measures", name) for name in (*wanted, *sorted(needed - {*wanted})) if name not in self.broken}
        for name, module in result.items():
            for site in frozenset(module.NEEDS) - SITES - HEAD_SITES:
                raise UsageError(f"measure '{name}' needs the site '{site}', which there is not. Known: {', '.join(sorted(SITES))}")
        self._wanted, self.layer, self._needed = wanted, layer, needed
        self.measures: dict[str, ModuleType] = result
        self.sites = frozenset(site for module in result.values() for site in module.NEEDS)

    def context(self, frame: Frame, choice: Choice, sampling: Sampling) -> Context:
        """What measures may see of a forward pass besides its sites."""
        return Context(
            logits=cast(Any, frame.raw),
            probs=choice.probs,
            sampled_probs=choice.sampled_probs,
            top_ids=choice.top_ids,
            token_id=choice.token_id,
            aggregation=self._aggregation,
            stages=choice.stages,
            sampling=sampling,
            layer=self.layer,
        )

    def measure(self, frame: Frame, context: Context, measures: Mapping[str, ModuleType] | None = None) -> Mapping[str, np.ndarray]:
        """The arrays of these measures; of all that are wanted where none are named."""
        values: dict[str, np.ndarray] = {}
        for name, module in list((self.measures if measures is None else measures).items()):
            try:
                result = self._compute(name, module, frame, context)
            except MeasureError as error:
                self._give_up(name, str(error))
                continue
            values |= result if isinstance(result, Mapping) else {name: result}
        return freeze_values(values)

    def _compute(self, name: str, module: ModuleType, frame: Frame, context: Context) -> np.ndarray | Mapping[str, np.ndarray]:
        """What the measure gives. A command is told of one that does not come with mav, and does not wait for it for ever.

        Raises MeasureError.
        """
        if module.__name__.startswith("openmav.measures."):
            return module.compute(frame, context)  # type: ignore[no-any-return]
        context = context.with_tensors()
        if self.name_measure is None:
            return module.compute(frame, context)  # type: ignore[no-any-return]
        self.name_measure(name)
        try:
            return compute_or_give_up(name, module, frame, context)
        finally:
            self.name_measure("")

    def _give_up(self, name: str, why: str) -> None:
        """From now on without this measure; its panel says why."""
        self.broken[name] = why
        self.missing = {**self.missing, name: dict.fromkeys(range(self._layers), why)}
        self.measures = {known: module for known, module in self.measures.items() if known != name}

    def freeze(self, pending: PendingStep, choice: Choice, context: Context, describing: float) -> Step:
        """All that is wanted of a token, as a Step; `describing` are the seconds that `choice` took beyond choosing."""
        began = time.perf_counter()
        frame, values, (choosing, after) = pending.frame, self.measure(pending.frame, context), pending.seconds
        return Step(
            index=pending.index,
            position=pending.position,
            token_id=choice.token_id,
            token=self.strings[choice.token_id],
            text=pending.text,
            logprob=choice.logprob,
            entropy=choice.entropy,
            candidates=self.candidates(frame, choice),
            values=values,
            special=self._is_special(choice.token_id),
            forced=pending.forced,
            pieces=self.texts(values),
            sampling=context.sampling,
            interventions=pending.interventions,
            rank=choice.rank,
            timing=Timing(frame.model_seconds, after + time.perf_counter() - began, choosing + describing),
        )

    def with_baseline(self, step: Step, frame: Frame, choose: Callable[[], Choice], sampling: Sampling) -> Step:
        """The step with the baseline model's numbers at its place: its forward pass, and what chooses the step's token there."""
        began = time.perf_counter()
        choice = choose()
        values = self.measure(frame, self.context(frame, choice, sampling))
        shown = self.candidates(frame, choice, step.candidates.token_ids.tolist())
        before = Baseline(shown, choice.logprob, choice.entropy, values, self.texts(values))
        spent = time.perf_counter() - began
        timing = replace(step.timing, model=step.timing.model + frame.model_seconds, capture=step.timing.capture + spent)
        return replace(step, before=before, timing=timing)

    def again(self, frame: Frame, context: Context, step: Step) -> tuple[Context, Step] | None:
        """The step with what is wanted now, as far as its forward pass was captured for it; None where nothing is new."""
        seen = frame.sites.keys() | HEAD_SITES
        possible = {name: module for name, module in self.measures.items() if seen >= set(module.NEEDS)}
        few = self._has_few(step)
        if context.layer == self.layer and possible.keys() <= step.values.keys() and not few:
            return None
        context = replace(context, layer=self.layer)
        values = {**step.values, **self.measure(frame, context, possible)}
        candidates = self.candidates(frame, context) if few else step.candidates
        return context, replace(step, values=values, pieces=self.texts(values), candidates=candidates)

    def lacks(self, step: Step, dropped: bool = True) -> bool:
        """Whether a step lacks something of all that is wanted now; see record.lacking."""
        return self._has_few(step) or bool(self._lacking(step, dropped))

    def _lacking(self, step: Step, dropped: bool = True) -> set[str]:
        return lacking(step, self.measures, self.layer, self.missing, dropped)

    def _has_few(self, step: Step) -> bool:
        """Whether it has fewer candidates than are wanted."""
        return len(step.candidates) < self._candidates > self._least

    def completed(self, step: Step, frame: Frame, choice: Choice) -> Step:
        """The step with what it lacks of all that is wanted now, from its forward pass run once more."""
        missing = self._lacking(step)
        result = self.measure(frame, self.context(frame, choice, step.sampling), {name: self.measures[name] for name in missing})
        values = {**step.values, **result}
        kept = tuple(name for name in step.dropped if measure_of(name) not in missing)
        candidates = self.candidates(frame, choice) if self._has_few(step) else step.candidates
        return replace(step, values=values, pieces=self.texts(values), dropped=kept, candidates=candidates)

    def texts(self, values: Mapping[str, np.ndarray]) -> dict[int, str]:
        """The pieces of all tokens that the values name, for an app that has no tokenizer."""
        ids = {i for name, array in values.items() if name.endswith(".token_ids") for i in array.ravel().tolist()}
        return {i: self.strings[i] for i in ids if i >= 0}

    def candidates(self, frame: Frame, choice: Choice | Context, others: Sequence[int] = ()) -> Candidates:
        """The most likely tokens, the chosen one, and `others`, those in the order of their logits."""
        chosen = choice.top_ids[: self._candidates].tolist()
        more = {choice.token_id, *others} - {*chosen}
        chosen += sorted(more, key=lambda token_id: -float(frame.raw[token_id]))
        ids = np.array(chosen, dtype=np.int64)
        columns = (frame.raw, choice.probs, choice.sampled_probs)
        logits, probs, sampled = (frozen(array_of(column)[ids]) for column in columns)
        return Candidates(frozen(ids), tuple(self.strings[i] for i in chosen), logits, probs, sampled)


def missing_of_measures(backend: Backend) -> dict[str, dict[int, str]]:
    """What the backend lacks, said by measure: a measure has no value where one of its sites has none."""
    result: dict[str, dict[int, str]] = {}
    for name in registry.names("measures"):
        try:
            needs = registry.load("measures", name).NEEDS
        except UsageError:  # a user's own: the error is raised where it is requested
            continue
        for site in needs:
            if backend.missing.get(site):
                result.setdefault(name, {}).update(backend.missing[site])
    return result
