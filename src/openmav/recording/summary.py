"""What a recording's first branch says in one row, without reading its arrays."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from openmav.recording.reader import Recording


@dataclass(frozen=True)
class RunSummary:
    """A recorded run; `surprisal` and `entropy` are means in nats, NaN for no tokens."""

    prompt_tokens: int
    tokens: int
    reason: str
    surprisal: float
    entropy: float
    text: str

    @property
    def perplexity(self) -> float:
        return math.exp(self.surprisal) if self.surprisal < 700 else math.inf


def summarise(path: Path) -> RunSummary:
    """Raises UsageError for what is no recording."""
    with Recording(path) as recording:
        rows = recording.rows("SELECT text, logprob, entropy FROM steps WHERE branch = 1 ORDER BY step")
        prompt = recording.rows("SELECT prompt FROM branches WHERE id = 1")
        reason = recording.state("reason")
    count = len(rows)
    means = [sum(math.nan if row[at] is None else row[at] for row in rows) / count if count else math.nan for at in (1, 2)]
    return RunSummary(_tokens(prompt), count, str(reason or ""), -means[0], means[1], "".join(row[0] for row in rows))


def _tokens(rows: list[tuple[str]]) -> int:
    return len(json.loads(rows[0][0]).get("token_ids", ())) if rows else 0
