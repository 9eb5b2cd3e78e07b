"""A sweep in a recording: its settings in `meta`, a row of `effects` for each site. Written as it goes, and read whoever made it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from openmav.errors import UsageError
from openmav.protocol.snapshot import Snapshot
from openmav.record.codec import number
from openmav.record.sweep import Effect, Plan, Reading, SweepEnd, Token, swept_sites
from openmav.record.sweep_lines import about
from openmav.recording.guard import WRONG
from openmav.recording.reader import Recording
from openmav.recording.recorder import Recorder
from openmav.recording.rows import sum_of
from openmav.settings import Settings
from openmav.settings.interventions import How, Intervention
from openmav.settings.sites import Swept

COLUMNS = ("site", "layer", "head", "logit", "prob", "logprob", "minus_logit", "change")  # of `effects`, besides its sum
MOST_SITES = 100_000  # six times the heads of the largest models; each is listed whenever the file is read


@dataclass(frozen=True)
class RecordedSweep:
    """A sweep as far as it was written; `seconds` and `end` are None where it was stopped by a kill, or is still going on."""

    plan: Plan
    effects: tuple[Effect, ...]
    end: SweepEnd | None
    seconds: float | None
    wrong: int = 0  # rows that are not as they were written


class SweepRecorder:
    """Writes a sweep while it runs. A file that can't be written any more ends the recording, never the sweep."""

    def __init__(self, path: str, settings: Settings, failed: Callable[[str], None]) -> None:
        """`failed` gets the line that says why the recording stopped. Raises UsageError where the file can't be made."""
        self._file = Recorder(path, settings, failed)
        self._meta: dict[str, Any] = {}

    def begin(self, plan: Plan) -> None:
        self._meta = about(plan)
        self._file.update(Snapshot(status="paused", info=plan.info, prompt=plan.prompt))
        self._file.write(lambda: self._file.writer.begin_sweep(self._meta))

    def add(self, effect: Effect) -> None:
        self._file.write(lambda: self._file.writer.put_effect(row_of(effect)))

    def end(self, reason: SweepEnd, _count: int, seconds: float) -> None:
        self._file.write(lambda: self._file.writer.set_meta({"sweep": {**self._meta, "end": reason, "seconds": seconds}}))

    def close(self) -> None:
        """A file that no sweep has begun in, such as after a wrong target, is no recording, and is removed."""
        self._file.close()
        if not self._meta:
            self._file.writer.remove()


def row_of(effect: Effect) -> tuple[Any, ...]:
    """Its values in the order of COLUMNS, and their sum; None for NaN."""
    one, after = effect.intervention, effect.after
    values = (one.place, one.layer, one.index, after.logit, after.prob, after.logprob, after.minus_logit, effect.change)
    row = tuple(None if value != value else value for value in values)
    return *row, sum_of(row)


def is_sweep(recording: Recording) -> bool:
    return "sweep" in recording.meta or "effects" in recording.tables


def read_sweep(recording: Recording) -> RecordedSweep | None:
    """The sweep of a recording; None where it is a run. Raises UsageError where the file does not say what it swept."""
    if not is_sweep(recording):
        return None
    content, info = recording.meta.get("sweep"), recording.info
    prompt = next((branch.prompt for branch in recording.branches()), None)
    if info is None or prompt is None or not isinstance(content, Mapping):
        raise UsageError(f"{recording.path} holds no sweep yet: it does not say of which model and prompt")
    try:
        what, how = _one_of(Swept, content["ablate"]), _one_of(How, content["how"])
        if info.layers * (info.heads if what == "heads" else 1) > MOST_SITES:
            raise ValueError("sites")
        every = {one.place: one for one in swept_sites(what, info.layers, info.heads, how)}
        missing = {every[str(place)]: str(why) for place, why in content["missing"].items()}
        target, minus, before = _token(content["target"]), content["minus"], _reading(**content["before"])
        minus = None if minus is None else _token(minus)
        if (minus is None) != (before.minus_logit is None):
            raise ValueError("minus")
        sites = tuple(one for one in every.values() if one not in missing)
        plan = Plan(info, prompt, what, how, target, minus, before, sites, missing)
        end = None if content.get("end") is None else _one_of(SweepEnd, content["end"])
        seconds = None if content.get("seconds") is None else float(content["seconds"])
    except WRONG as error:
        raise UsageError(f"{recording.path} is damaged: it does not say what its sweep was of") from error
    effects = list(_effects(recording, plan, {one.place: one for one in sites}))
    good = tuple(effect for effect in effects if effect is not None)
    wrong = len(effects) - len(good)
    line = f"{wrong} of {len(effects)} effects are not as they were written, and are left out"
    if wrong and line not in recording.problems:
        recording.problems.append(line)
    return RecordedSweep(plan, good, end, seconds, wrong)


def _effects(recording: Recording, plan: Plan, sites: dict[str, Intervention]) -> Iterator[Effect | None]:
    """Each site's effect, once; None for a row that is not as it was written."""
    if "effects" not in recording.tables:
        return
    query = f"SELECT {', '.join(COLUMNS)}, sum FROM effects WHERE length(site) < 100 ORDER BY id LIMIT ?"
    for *values, total in recording.rows(query, MOST_SITES):
        try:
            one = sites.pop(values[0])
            logit, prob, logprob, minus_logit, _ = values[3:]
            after = _reading(logit, prob, logprob, None if plan.minus is None else number(minus_logit))
            sound = values[1:3] == [one.layer, one.index] and sum_of(tuple(values)) == total
            yield Effect(one, plan.before, after) if sound else None
        except WRONG:
            yield None


def _reading(logit: Any, prob: Any, logprob: Any, minus_logit: Any = None) -> Reading:
    """NaN for None. Raises TypeError for what is no number."""
    if not all(type(value) in (int, float, type(None)) for value in (logit, prob, logprob, minus_logit)):
        raise TypeError("a number")
    return Reading(number(logit), number(prob), number(logprob), None if minus_logit is None else float(minus_logit))


def _token(content: Any) -> Token:
    if type(content["token_id"]) is not int or not isinstance(content["text"], str):
        raise TypeError("a token")
    return Token(content["token_id"], content["text"])


def _one_of(kind: Any, value: Any) -> Any:
    if value not in get_args(kind):
        raise ValueError(value)
    return value
