"""What a recording has besides its steps: an input attribution, and the map of a sweep."""

from __future__ import annotations

from typing import Any

from openmav.paint import one_line, printable, visible
from openmav.panels.input_attribution import NAMES, notes_of
from openmav.record.attribution_result import InputAttribution
from openmav.record.codec import plain
from openmav.recording.export.page.pack import Pack
from openmav.recording.sweep import RecordedSweep


def add_input(pack: Pack, result: InputAttribution | None) -> dict[str, Any] | None:
    """The tokens that were read, and what each adds to the logit; None where nobody asked for it."""
    if result is None:
        return None
    pack.add("input.score", result.scores, "f4")
    pack.add("input.token", [pack.text(visible(token) or "∅") for token in result.tokens], "u4")
    minus = f" minus {visible(result.minus)}" if result.minus is not None else ""
    method = one_line(NAMES.get(result.method, result.method))
    return {"target": visible(result.target) + minus, "method": method, "t": result.index, "notes": list(map(one_line, notes_of(result)))}


def add_sweep(pack: Pack, sweep: RecordedSweep) -> dict[str, Any]:
    """A row a layer, a column a head (else one): the change of the score, and the target's probability afterwards."""
    plan = sweep.plan
    place = [effect.layer * plan.columns + effect.column for effect in sweep.effects]
    pack.add("sweep.place", place, "f8")
    pack.add("sweep.change", [effect.change for effect in sweep.effects], "f8")
    pack.add("sweep.p", [effect.after.prob for effect in sweep.effects], "f8")
    pack.add("sweep.site", [pack.text(effect.intervention.place) for effect in sweep.effects], "u4")
    about = {
        "what": plan.what,
        "how": plan.how,
        "target": visible(plan.target.text),
        "minus": None if plan.minus is None else visible(plan.minus.text),
        "score": plan.before.score,
        "p": plan.before.prob,
        "columns": plan.columns,
        "sites": len(plan.sites),
        "ended": sweep.end,
        "missing": {one.place: printable(one_line(why)) for one, why in plan.missing.items()},
    }
    return {name: plain(value) for name, value in about.items()}
