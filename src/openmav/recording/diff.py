"""Where two recordings differ: facts of the runs, tokens, every number. Timings and dates are no difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmav.record import Branch, ModelInfo, Step, measure_of
from openmav.record.codec import STEP, encode_step, plain
from openmav.record.sweep import Reading
from openmav.recording.export.run import Run, run_of
from openmav.recording.facts import prompt_content
from openmav.recording.reader import Recording
from openmav.recording.run_sweeps import sweeps_of
from openmav.recording.sweep import RecordedSweep, read_sweep

PACE = ("refresh_rate", "interactive", "load_timeout", "threads")  # settings that change when a token comes, and no number
BY_TOKEN = ("distribution", "sampling_stages", "candidates")  # entries whose rows are no layers
NOT_COMPARED = ("index", "timing", "token_id", "token", "text")  # of a step; its texts are those of its token
BEFORE_THE_TOKEN = ("entropy", "values")  # what a step has of the model whichever token was chosen


@dataclass(frozen=True)
class Fact:
    """A fact of the run that is not the same in both."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True)
class TextDifference:
    """A branch whose tokens are not the same: how many each has (-1: it lacks the branch), and the first one that is another."""

    branch: str
    tokens_a: int
    tokens_b: int
    index: int | None = None
    token_a: str = ""
    token_b: str = ""


@dataclass
class NumberDifference:
    """An entry of the steps that is not the same in both, by its name there.

    `largest` is the largest absolute difference of a number (infinity for another shape, or a NaN on one side), at token `index` of
    `branch`; `layer` where it has one a layer; `steps`: in so many; `missing`: "a" or "b" where one of them does not have it.
    """

    name: str
    largest: float = 0.0
    branch: str = ""
    index: int = 0
    layer: int | None = None
    steps: int = 0
    missing: str = ""


@dataclass(frozen=True)
class First:
    """The first token, and its first layer, at which a number is another. `layer` None: in the logits or what follows from them."""

    branch: str
    index: int
    layer: int | None
    name: str
    difference: float


@dataclass
class Difference:
    """All of it. `compared` counts the tokens that both have, `sites` those of their sweeps."""

    facts: list[Fact] = field(default_factory=list)
    texts: list[TextDifference] = field(default_factory=list)
    numbers: list[NumberDifference] = field(default_factory=list)
    first: First | None = None
    compared: int = 0
    sites: int = 0

    @property
    def same(self) -> bool:
        return not (self.facts or self.texts or self.numbers)

    def content(self) -> dict[str, Any]:
        """Plain values for JSON; null for infinity."""
        return {"same": self.same, **plain(asdict(self))}


@np.errstate(all="ignore")  # a damaged file may have any bits for a number, signalling NaNs too
def compare(a: Recording, b: Recording, tolerance: float = 0.0) -> Difference:
    """Numbers that differ by no more than `tolerance` are the same. Raises UsageError for a recording that holds no run."""
    one, two = run_of(a), run_of(b)
    sweeps = {side: sweep for side, recording in (("a", a), ("b", b)) if (sweep := read_sweep(recording)) is not None}
    result = Difference()
    for name, (left, right) in _pairs(_facts(a, one), _facts(b, two)).items():
        if left != right:
            result.facts.append(Fact(name, left, right))
    branches_a, branches_b = ({branch.name: branch for branch in run.branches} for run in (one, two))
    numbers: dict[str, NumberDifference] = {}
    for name, (left, right) in _pairs(branches_a, branches_b).items():
        if left is None or right is None:
            lengths = [len(branch.steps) if branch is not None else -1 for branch in (left, right)]
            result.texts.append(TextDifference(name, lengths[0], lengths[1]))
            continue
        _compare_branch(left, right, one.info, tolerance, result, numbers)
    numbers |= {entry.name: entry for entry in _sweep_numbers(sweeps, tolerance)}
    for left, right in zip(sweeps_of(one.now), sweeps_of(two.now)):
        apart = gap(np.where(left.known, left.changes, np.nan), np.where(right.known, right.changes, np.nan))
        if apart.max(initial=0.0) > tolerance:
            layer = int(np.unravel_index(apart.argmax(), apart.shape)[0]) if apart.ndim else None
            name = f"sweep {left.number} of the run"
            numbers[name] = NumberDifference(name, float(apart.max()), index=left.index, layer=layer, steps=int((apart > tolerance).sum()))
    result.sites = min((len(sweep.effects) for sweep in sweeps.values()), default=0)
    result.numbers = sorted(numbers.values(), key=lambda entry: entry.name)
    return result


def gap(a: Any, b: Any) -> NDArray[np.float64]:
    """The absolute difference of each number; 0 for two NaN, infinity for one; infinity alone where the shapes differ."""
    one, two = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if one.shape != two.shape:
        return np.array(np.inf)
    with np.errstate(invalid="ignore"):
        difference = np.where((one == two) | (np.isnan(one) & np.isnan(two)), 0.0, np.abs(one - two))
    return np.nan_to_num(difference, nan=np.inf)


def step_gaps(a: Step, b: Step) -> Iterator[tuple[str, NDArray[np.float64] | None]]:
    """(entry of the step, difference of its numbers); None where one of both lacks it, or where it is not of numbers and differs."""
    names = [entry.name for entry in STEP if entry.name not in NOT_COMPARED]
    names = names if a.token_id == b.token_id else list(BEFORE_THE_TOKEN)
    entries = tuple(entry for entry in STEP if entry.name in names)
    one, two = encode_step(a, entries), encode_step(b, entries)
    if a.sampling != b.sampling:
        yield "sampling", None
    yield from _gaps({**one, "sampling": None}, {**two, "sampling": None}, "")


def _gaps(a: Any, b: Any, path: str) -> Iterator[tuple[str, NDArray[np.float64] | None]]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for name, (left, right) in _pairs(a, b).items():
            yield from _gaps(left, right, f"{path}.{name}" if path else str(name))
    elif all(isinstance(one, (int, float, np.ndarray)) for one in (a, b)):
        yield path.replace("values.", ""), gap(a, b)
    elif plain(a) != plain(b):
        yield path.replace("values.", ""), None


def _compare_branch(
    a: Branch, b: Branch, info: ModelInfo, tolerance: float, result: Difference, numbers: dict[str, NumberDifference]
) -> None:
    common = min(len(a.steps), len(b.steps))
    parts = next((i for i in range(common) if a.steps[i].token_id != b.steps[i].token_id), None)
    if parts is not None:
        token_a, token_b = a.steps[parts].token, b.steps[parts].token
        result.texts.append(TextDifference(a.name, len(a.steps), len(b.steps), parts, token_a, token_b))
    elif len(a.steps) != len(b.steps):
        result.texts.append(TextDifference(a.name, len(a.steps), len(b.steps)))
    own = range(a.at if a.at == b.at else 0, common if parts is None else parts + 1)
    for index in own:
        _compare_step(a.name, a.steps[index], b.steps[index], info, tolerance, result, numbers)
    result.compared += len(own)


def _compare_step(
    branch: str, a: Step, b: Step, info: ModelInfo, tolerance: float, result: Difference, numbers: dict[str, NumberDifference]
) -> None:
    parting: list[tuple[float, str, float]] = []
    for name, gaps in step_gaps(a, b):
        if gaps is not None and not (gaps > tolerance).any():
            continue
        entry = numbers.setdefault(name, NumberDifference(name))
        entry.steps += 1
        if gaps is None:
            entry.missing = _missing(a, b).get(name, "")
            entry.branch, entry.index = (branch, a.index) if entry.steps == 1 else (entry.branch, entry.index)
            continue
        layers = np.flatnonzero((gaps > tolerance).reshape(len(gaps), -1).any(axis=1)) if _by_layer(name, gaps, info) else None
        parting.append((float(layers[0]) if layers is not None else np.inf, name, float(gaps.max())))
        if float(gaps.max()) > entry.largest:
            entry.layer = int(np.unravel_index(gaps.argmax(), gaps.shape)[0]) if layers is not None else None
            entry.largest, entry.branch, entry.index = float(gaps.max()), branch, a.index
    if parting and result.first is None:
        layer, name, largest = min(parting)
        result.first = First(branch, a.index, int(layer) if layer < np.inf else None, name, largest)


def _sweep_numbers(sweeps: Mapping[str, RecordedSweep], tolerance: float) -> Iterator[NumberDifference]:
    """One entry for sites that only one of both has, one for each number of a site; `steps` counts sites."""
    effects = [{one.intervention.place: one for one in sweeps[side].effects} if side in sweeps else {} for side in ("a", "b")]
    alone = set(effects[0]) ^ set(effects[1])
    if alone:
        yield NumberDifference("sweep", steps=len(alone), missing="b" if alone <= set(effects[0]) else "a")
    for name in [one.name for one in fields(Reading)]:
        entry = NumberDifference(f"sweep.{name}")
        for place in [place for place in effects[0] if place in effects[1]]:
            x, y = (getattr(side[place].after, name) for side in effects)
            off = float(gap(np.nan if x is None else x, np.nan if y is None else y))
            entry.steps += off > tolerance
            if off > max(tolerance, entry.largest):
                entry.largest, entry.layer = off, effects[0][place].layer
        if entry.steps:
            yield entry


def _missing(a: Step, b: Step) -> dict[str, str]:
    """{entry of `values`: which of both does not have it}."""
    return {**{name: "b" for name in a.values if name not in b.values}, **{name: "a" for name in b.values if name not in a.values}}


def _by_layer(name: str, gaps: NDArray[np.float64], info: ModelInfo) -> bool:
    measure = measure_of(name.removeprefix("before."))
    return gaps.ndim > 0 and len(gaps) == info.layers and measure not in BY_TOKEN


def _facts(recording: Recording, run: Run) -> dict[str, Any]:
    """What the run was, as flat names."""
    facts: dict[str, Any] = {"model": plain(asdict(run.info))}
    settings = recording.meta.get("settings")
    facts["settings"] = {name: value for name, value in settings.items() if name not in PACE} if isinstance(settings, Mapping) else {}
    facts |= {name: recording.state(name) for name in ("reason", "branch", "undone", "interventions", "breakpoints", "sampling")}
    facts |= {name: recording.meta.get(name) for name in ("attribution",)}
    sweep = recording.meta.get("sweep")
    facts["sweep"] = (
        {name: value for name, value in sweep.items() if name not in ("end", "seconds")} if isinstance(sweep, Mapping) else None
    )
    facts["sweeps"] = [(one.branch, one.index, one.what, one.how, one.done, one.total) for one in sweeps_of(run.now)]
    facts["branch"] = {
        branch.name: {"parent": branch.parent, "at": branch.at, "prompt": plain(prompt_content(branch.prompt))}
        for branch in recording.branches()
    }
    return dict(_flat(facts, ""))


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, one in value.items():
            yield from _flat(one, f"{path}.{name}" if path else str(name))
    else:
        yield path, list(value) if isinstance(value, tuple) else value


def _pairs(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (a.get(name), b.get(name)) for name in dict.fromkeys((*a, *b))}
