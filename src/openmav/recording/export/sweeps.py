"""A table of the sweeps inside of a run: a line for each site that was computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from openmav.record.codec import plain
from openmav.record.sweep import swept_sites
from openmav.record.sweep_map import SweepMap
from openmav.recording.export.csv import write_table
from openmav.recording.run_sweeps import sweeps_of

if TYPE_CHECKING:
    from openmav.recording.export.run import Run

COLUMNS = ("sweep", "branch", "step", "token_id", "token", "token_logit", "how", "of_baseline", "site", "layer", "head", "logit_change")


def write(run: Run, out: BinaryIO) -> None:
    write_table(COLUMNS, (line for sweep in sweeps_of(run.now) for line in _lines(sweep)), out)


def _lines(sweep: SweepMap) -> Iterator[tuple[Any, ...]]:
    layers, columns = sweep.changes.shape
    token = (sweep.number, sweep.branch, sweep.index, sweep.token_id, sweep.token, plain(sweep.logit), sweep.how, int(sweep.of_baseline))
    for site in swept_sites(sweep.what, layers, columns, sweep.how):
        place = (site.layer, site.index or 0)
        if sweep.known[place]:
            yield (*token, site.place, site.layer, site.index, plain(sweep.changes[place]))
