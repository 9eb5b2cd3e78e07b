"""`mav verify --rerun`: the model once more over all branches of a recording, with what was forced and changed; or a sweep again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from openmav.errors import MavError
from openmav.plugins import registry
from openmav.record import Branch, Candidates, Step, measure_of
from openmav.recording.check import Check
from openmav.recording.diff import gap
from openmav.recording.facts import read_settings
from openmav.recording.reader import Recording
from openmav.recording.sweep import RecordedSweep

if TYPE_CHECKING:
    from openmav.generation.session import Session


class OtherError(Exception):
    """The run is not the same: why, in words."""


def run_again(recording: Recording) -> Check:
    """The same tokens, and the largest difference of any number; "none: why" where the recording does not have what that needs."""
    branches = recording.branches()
    try:
        settings = read_settings(recording.meta.get("settings"))
        from openmav.library import open_session

        session = open_session(settings)
    except MavError as error:
        return Check("rerun", True, f"none: {error}")
    with session:
        rerun = _Rerun(session, branches)
        try:
            rerun.run()
        except OtherError as error:
            return Check("rerun", False, str(error))
        except MavError as error:
            return Check("rerun", True, f"none: {error}")
    left_out = f"; not computed again: {', '.join(sorted(rerun.left_out))}" if rerun.left_out else ""
    says = f"the same {rerun.tokens} tokens; the largest difference of a number is {rerun.largest:.3g}{left_out}"
    return Check("rerun", rerun.largest == 0.0, says)


def sweep_again(recording: Recording, sweep: RecordedSweep) -> Check:
    """The same sites, and the largest difference of a logit or probability; "none: why" where the model can't be loaded."""
    from openmav.analysis.sweep import Sweep
    from openmav.library import open_session

    plan, largest, count = sweep.plan, 0.0, 0
    try:
        with open_session(read_settings(recording.meta.get("settings"))) as session:
            if session.prompt.token_ids != plan.prompt.token_ids:
                return Check("rerun", False, "the prompt has other tokens now")
            for effect, again in zip(sweep.effects, Sweep(session, plan.what, plan.target, plan.minus, plan.how)):
                if effect.intervention != again.intervention:
                    return Check("rerun", False, f"{effect.intervention.place} is another site now: {again.intervention.place}")
                a, b = ([*asdict(one.before).values(), *asdict(one.after).values()] for one in (effect, again))
                largest = max(largest, float(np.max(gap([x for x in a if x is not None], [x for x in b if x is not None]))))
                count += 1
    except MavError as error:
        return Check("rerun", True, f"none: {error}")
    same = count == len(sweep.effects)
    says = (
        f"the same {count} sites; the largest difference of a number is {largest:.3g}" if same else f"only {count} sites can be ablated now"
    )
    return Check("rerun", same and largest == 0.0, says)


class _Rerun:
    """`largest`: of any number that both have; `left_out`: measures that were recorded and are not computed again."""

    def __init__(self, session: Session, branches: list[Branch]) -> None:
        self._session, self._branches = session, branches
        self._retrace = session.retrace()
        self.largest, self.tokens = 0.0, 0
        self.left_out: set[str] = set()
        known = set(registry.names("measures"))
        recorded = {measure_of(name) for branch in branches for step in branch.steps for name in step.values}
        session.want(sorted(recorded & known), candidates=max((len(s.candidates) for b in branches for s in b.steps), default=0))

    def run(self) -> None:
        """Raises OtherError where the run is another one, MavError where something of it can't be done here."""
        for branch in self._branches:
            self._retrace.begin(branch)
            if not self._retrace.same_prompt(branch):
                raise OtherError(f"the prompt of branch '{branch.name}' has other tokens now")
            for step in branch.steps[len(self._session.steps) :]:
                self._compare(branch, step, self._made(branch, step))
                self.tokens += 1
            self._retrace.end(branch)

    def _made(self, branch: Branch, step: Step) -> Step:
        again = self._retrace.make(step)
        if again.token_id != step.token_id:
            raise OtherError(f"token {step.index} of branch '{branch.name}' is {again.token!r} now, and was {step.token!r}")
        return again

    def _compare(self, branch: Branch, step: Step, again: Step) -> None:
        for name, a, b in self._pairs(step, again):
            largest = float(np.max(gap(a, b), initial=0.0))
            if largest == np.inf:
                raise OtherError(f"{name} of token {step.index} of branch '{branch.name}' is not what it was")
            self.largest = max(self.largest, largest)

    def _pairs(self, step: Step, again: Step) -> Iterator[tuple[str, Any, Any]]:
        yield "logprob", step.logprob, again.logprob
        yield "entropy", step.entropy, again.entropy
        yield "a candidate", *_same_candidates(step.candidates, again.candidates)
        for name, value in step.values.items():
            if name in again.values:
                yield name, value, again.values[name]
            else:
                self.left_out.add(measure_of(name))
        if step.before is not None and again.before is not None:
            yield "the baseline's logprob", step.before.logprob, again.before.logprob
            for name in step.before.values:
                if name in again.before.values:
                    yield name, step.before.values[name], again.before.values[name]


def _same_candidates(a: Candidates, b: Candidates) -> tuple[list[list[float]], list[list[float]]]:
    """Logits and probabilities of the tokens that are candidates of both."""
    rows = [{int(i): [float(x) for x in row] for i, *row in zip(one.token_ids, one.logits, one.probs, one.sampled_probs)} for one in (a, b)]
    common = [token_id for token_id in rows[0] if token_id in rows[1]]
    return [rows[0][i] for i in common], [rows[1][i] for i in common]
