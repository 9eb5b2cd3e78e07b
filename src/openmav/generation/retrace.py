"""A text that was written before, once more: its branches, what was forced, and what was changed before which token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openmav.record import Branch, Step

if TYPE_CHECKING:
    from openmav.generation.session import Session


class Retrace:
    """Makes the steps of other branches again in a session that has none yet, or only those that it made itself.

    Each drawn token is drawn again with the sampling and the interventions of then, so that the random numbers after it are the same.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._names: dict[str, str] = {}  # {name of a branch: its name in the session}

    def begin(self, branch: Branch) -> None:
        """Go to where the branch left its parent, which was made before, or to its prompt.

        Raises UsageError where its prompt can't be read again.
        """
        session = self._session
        if branch.parent is not None:
            session.switch(self._names[branch.parent])
            session.forward(len(session.branches[session.branch].steps))
            session.back(len(session.steps) - branch.at)
        elif self._names:
            session.edit_prompt(branch.prompt.text)

    def same_prompt(self, branch: Branch) -> bool:
        """Whether the text's prompt has the tokens that the branch had."""
        return self._session.prompt.token_ids == branch.prompt.token_ids

    def make(self, step: Step) -> Step:
        """The token of this place: forced, or drawn; another one than the step's where the model does not write the same again."""
        session = self._session
        if session.sampling != step.sampling:
            session.sampling = step.sampling
        again = self._next(step)
        if step.interventions == session.interventions:
            return again
        if again.token_id == step.token_id:  # drawn before the model was changed, which makes the newest step again
            return session.intervene(step.interventions) or again
        session.back(1)
        session.intervene(step.interventions)
        return self._next(step)

    def end(self, branch: Branch) -> None:
        """The branch is made; others may leave it."""
        self._names[branch.name] = self._session.branch

    def go_to(self, name: str) -> None:
        """The end of a branch that was made, by its name then; nothing where it was not."""
        if name in self._names:
            self._session.switch(self._names[name])
            self._session.forward(len(self._session.branches[self._session.branch].steps))

    def _next(self, step: Step) -> Step:
        self._session.go_on()
        return self._session.force(step.token_id) if step.forced else self._session.step()
