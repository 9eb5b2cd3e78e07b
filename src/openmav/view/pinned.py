"""A token or a run that the user pinned: what is shown is compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openmav.record import Prompt, Step, without_large


@dataclass(frozen=True, eq=False)
class Pinned:
    """`steps` are those of the run, or the pinned token's alone; `ids` are the generated tokens up to the last of them."""

    name: str  # safe to show
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    steps: tuple[Step, ...]
    at: int | None = None  # the index of the pinned token; None: the whole run

    @classmethod
    def token(cls, name: str, prompt: Prompt | None, steps: Sequence[Step], at: int) -> Pinned:
        """One token of a text; every shown token is compared with it."""
        ids = tuple(step.token_id for step in steps[: at + 1])
        return cls(name, prompt.token_ids if prompt else (), ids, (steps[at],), at)

    @classmethod
    def run(cls, name: str, prompt: Prompt | None, steps: Sequence[Step]) -> Pinned:
        """All tokens of a text, without what is large in them; a shown token is compared with the one at the same index."""
        ids = tuple(step.token_id for step in steps)
        return cls(name, prompt.token_ids if prompt else (), ids, tuple(map(without_large, steps)))

    def step(self, cursor: int) -> Step | None:
        """The step that the one under the cursor is compared with."""
        if self.at is not None:
            return self.steps[0]
        return self.steps[cursor] if 0 <= cursor < len(self.steps) else None

    def is_same_text(self, prompt: Prompt | None, steps: Sequence[Step], cursor: int) -> bool:
        """Whether the same tokens come before both."""
        if self.prompt_ids != (prompt.token_ids if prompt else ()) or (self.at is not None and self.at != cursor):
            return False
        return all(mine == steps[at].token_id for at, mine in enumerate(self.ids[:cursor]))
