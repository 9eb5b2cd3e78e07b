"""Steps computed once more with what is wanted now: from what is still captured, from the newest forward pass, or from an earlier one."""

from __future__ import annotations

from dataclasses import replace

from openmav.generation.step_maker import StepMaker
from openmav.record import Step


class Recomputer:
    """Puts more values into the steps of a text. Tokens, numbers that are there already and the text itself stay."""

    def __init__(self, maker: StepMaker) -> None:
        self._maker = maker

    @property
    def _steps(self) -> list[Step]:
        return self._maker.tree.steps

    def lacks(self) -> bool:
        """Whether the newest step has no value for something that is wanted now."""
        return bool(self._steps) and self._maker.runner.lacks(self._steps[-1])

    def newest(self) -> Step | None:
        """The newest step with what its forward pass was captured for; None where nothing is new."""
        maker = self._maker
        if maker.newest is None:
            return None
        frame, context = maker.newest
        again = maker.runner.again(frame, context, self._steps[-1])
        if again is None:
            return None
        context, self._steps[-1] = again
        maker.newest = frame, context
        return self._steps[-1]

    def earlier(self, index: int, dropped: bool = True) -> Step | None:
        """Step `index` with its forward pass run once more, bit for bit; see Session.look_back."""
        maker, step = self._maker, self._steps[index]
        if step.interventions != maker.runs.interventions or not maker.runner.lacks(step, dropped):
            return None
        ids = maker.token_ids[:index]
        frame = maker.runs.current.aside(maker.tree.prompt.token_ids, ids, maker.runner.sites)
        choice = maker.choose(frame, ids, step.token_id, maker.sampler.with_(step.sampling))
        self._steps[index] = maker.runner.completed(step, frame, choice)
        return self._steps[index]

    def retake(self) -> Step | None:
        """The newest step made again from the start; the token and how it was chosen stay. None where there is none."""
        if not self._steps:
            return None
        maker, old, ids = self._maker, self._steps[-1], self._maker.token_ids[:-1]
        sampling = maker.sampler.sampling
        maker.truncate(len(ids))
        try:
            maker.sampler.use(old.sampling)
            step = maker.finish(maker.pending(ids, old.token_id, forced=old.forced), ids)
        except BaseException:
            maker.truncate(len(ids))
            maker.text.add(old.token_id)
            raise
        finally:
            maker.sampler.use(sampling)
        self._steps[-1] = replace(step, sampling=old.sampling)
        return self._steps[-1]
