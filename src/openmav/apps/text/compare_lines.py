"""A comparison for scripts: JSON lines, a header, a line for each token, an end. docs/compare.md describes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from openmav.analysis.compare import ComparedToken, Lockstep, Parting, Totals
from openmav.record import Prompt, Step
from openmav.record.codec import plain
from openmav.record.lines import model_of, prompt_of, write_line

SCHEMA = 1


class JsonComparison:
    """JSON lines, each written whole and at once; None for NaN and infinity."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def begin(self, pair: Lockstep) -> None:
        sides = {name: _side(session.info, session.prompt, session.interventions) for name, session in (("a", pair.a), ("b", pair.b))}
        about = {"threshold": pair.threshold, "layers": pair.why_no_layers or None}
        self._line({"type": "header", "schema": SCHEMA, **sides, **about})

    def add(self, one: ComparedToken) -> None:
        self._line(
            {
                "type": "token",
                "index": one.a.index,
                "token_id": one.a.token_id,
                "token": one.a.token,
                "kl": one.kl,
                "flip": one.flips,
                "a": _top(one.a),
                "b": _top(one.b),
                "parting": _parting(one.parting),
                "layers": {part: asdict(apart) for part, apart in one.layers.items()},
            }
        )

    def end(self, reason: str, totals: Totals, within: bool | None) -> None:
        self._line(
            {
                "type": "end",
                "reason": reason,
                "tokens": totals.tokens,
                "kl_mean": totals.kl_mean,
                "kl_max": totals.kl_max if totals.tokens else None,
                "kl_max_token": totals.kl_max_token,
                "flips": totals.flips,
                "first": _parting(totals.first),
                "within": within,
            }
        )

    def _line(self, content: dict[str, Any]) -> None:
        self._write(write_line(plain(content)))


def _side(info: Any, prompt: Prompt, interventions: tuple[str, ...]) -> dict[str, Any]:
    return {
        "model": model_of(info),
        "prompt": prompt_of(prompt),
        "interventions": list(interventions),
    }


def _top(step: Step) -> dict[str, Any]:
    """The most likely token of one side, and what it gives the token that was chosen."""
    shown = step.candidates
    top = {"token_id": int(shown.token_ids[0]), "token": shown.tokens[0], "prob": float(shown.probs[0])}
    return {"top": top, "logprob": step.logprob, "entropy": step.entropy}


def _parting(parting: Parting | None) -> dict[str, Any] | None:
    return None if parting is None else asdict(parting)
