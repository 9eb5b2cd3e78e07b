"""Forward passes in one context with values read and changed on their way: the graph is learned once, and again if it is another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from openmav.backends.llamacpp import anatomy
from openmav.backends.llamacpp.anatomy import Anatomy
from openmav.backends.llamacpp.context import Context
from openmav.backends.llamacpp.graph import Graph
from openmav.backends.llamacpp.homes import CELLS, Homes, can_move
from openmav.backends.llamacpp.insides import Layer
from openmav.backends.llamacpp.tap import NOTHING, Change, Key, Plan, Values
from openmav.errors import EngineError

Kind: TypeAlias = Literal["one", "many"]  # tokens of the pass
Changes: TypeAlias = Callable[[Anatomy], Sequence[tuple[int, Change]]]
ATTEMPTS = 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Learned:
    graph: Graph
    anatomy: Anatomy


class Passes:
    """The passes of one context. `changes` says what is changed in each pass; `exact` stops at each value (see Plan)."""

    def __init__(self, context: Context, layers: int, changes: Changes | None = None, *, exact: bool = False, cuts: bool = True) -> None:
        self.context = context
        self.layers = layers
        self.changes = changes
        self.cuts = cuts
        self.exact = exact
        self.learned: dict[Kind, Learned] = {}
        self._plans: dict[tuple[Kind, frozenset[str]], Plan] = {}
        self._proved: dict[Plan, bool] = {}  # whether results are the same in memory of mav's own, of the plans that were tried

    def change_to(self, changes: Changes | None) -> None:
        """Other changes from the next pass on."""
        self.changes = changes
        self._plans.clear()
        self._proved.clear()

    def run(self, ids: Sequence[int], start: int, sites: Iterable[str] = (), outputs: str = "last") -> Values:
        """One pass over `ids`, whose first token stands at `start`: the values of the sites.

        Raises EngineError where llama.cpp or the capture fails, NotFollowedError where its
        graph is not understood.
        """
        want = frozenset(sites)
        if not want and self.changes is None:
            self.context.decode(ids, outputs)
            return NOTHING
        kind: Kind = "one" if len(ids) == 1 else "many"
        for _ in range(ATTEMPTS):
            state = None if self.cuts or kind in self.learned else self.context.state()
            values = self._attempt(kind, want, ids, start, outputs)
            if values is not None:
                return values
            if state is not None:
                self.context.restore(state)
            elif not self.context.cut(start):
                raise EngineError("the graph of this model changed, and its state can't be restored; start again")
        raise EngineError(f"the computation can't be followed: {self.context.tap.error or 'its graph changes from pass to pass'}")

    def learn(self, ids: Sequence[int], outputs: str = "last") -> Learned:
        """Learn the graph of such a pass; the cache then holds these tokens too."""
        tap = self.context.tap
        tap.begin(None, 0)
        try:
            self.context.ask(True)
            self.context.decode(ids, outputs)
        finally:
            tap.end()
        if tap.error:
            raise EngineError(f"the computation can't be followed: {tap.error}")
        if not tap.recorded:
            raise EngineError("llama.cpp does not call back")
        return self._understand("one" if len(ids) == 1 else "many")

    def _understand(self, kind: Kind) -> Learned:
        graph = Graph(self.context.native, self.context.tap.recorded)
        learned = self.learned[kind] = Learned(graph, anatomy.find(graph, self.layers))
        self._plans = {key: plan for key, plan in self._plans.items() if key[0] != kind}
        return learned

    def _attempt(self, kind: Kind, want: frozenset[str], ids: Sequence[int], start: int, outputs: str) -> Values | None:
        """None: it has to be repeated, since the graph was not yet known, or is another now."""
        tap, reused = self.context.tap, self.context.reused
        plan = self._plan(kind, want)
        homes = tap.homes
        if homes is not None and (homes.plan is not plan or start + len(ids) > homes.last):
            tap.leave_homes()
            homes = None
        self._decode(plan, ids, start, outputs, stops=homes is None)
        if tap.error is not None:
            _log.info("capture failed: %r", tap.error)
        elif plan is None:
            self._understand(kind)
        elif self.context.reused > reused:
            if homes is not None:
                written: Values = homes.values(start + len(ids))
                return written
            return self._moved(kind, plan, tap.values(), ids, start, outputs)
        elif homes is not None:  # another graph, which was not expected
            tap.leave_homes()
            self._still_holds(kind, plan, stopped=False)
            return None
        elif self._still_holds(kind, plan):
            return tap.values()
        else:
            return None
        if tap.error is not None:
            self.learned.pop(kind, None)
        return None

    def _decode(self, plan: Plan | None, ids: Sequence[int], start: int, outputs: str, *, stops: bool = True) -> None:
        tap = self.context.tap
        tap.begin(plan, start)
        try:
            if not stops:
                tap.end()
            self.context.ask(stops)
            self.context.decode(ids, outputs)
        finally:
            tap.end()

    def _moved(self, kind: Kind, plan: Plan, values: Values, ids: Sequence[int], start: int, outputs: str) -> Values:
        """The values of this pass; the next ones with its graph need no stops, where a replay of the pass gives the same to the bit."""
        learned = self.learned.get(kind)
        if kind != "one" or self.exact or not self.cuts or learned is None or self._proved.get(plan) is False:
            return values
        if not can_move(learned.graph, plan):
            self._proved[plan] = False
            return values
        tap, homes = self.context.tap, Homes(learned.graph, plan, (start // CELLS + 1) * CELLS)
        tap.homes = homes
        homes.move()
        if plan in self._proved or not self.context.cut(start):
            return values
        reused = self.context.reused
        self._decode(plan, ids, start, outputs, stops=False)
        self._proved[plan] = self.context.reused > reused and values.same_as(homes.values())
        if not self._proved[plan]:
            _log.info("results that llama.cpp writes elsewhere are others: passes stop for them")
            tap.leave_homes()
            self.context.cut(start)
            self.context.decode(ids, outputs)
        return values

    def _still_holds(self, kind: Kind, plan: Plan, *, stopped: bool = True) -> bool:
        """After a pass with a graph that was made anew: whether the plan is one for it too. If not, its plans are forgotten."""
        graph = Graph(self.context.native, plan.graph.addresses)
        same = graph.same_as(plan.graph) and (not stopped or self.context.tap.stopped == len(plan.stops))
        if same and plan.holds_in(graph):
            return True
        known = self.learned.pop(kind, None)
        if same and known is not None:
            self.learned[kind] = Learned(graph, known.anatomy)
        self._plans = {key: other for key, other in self._plans.items() if key[0] != kind}
        return False

    def _plan(self, kind: Kind, want: frozenset[str]) -> Plan | None:
        learned = self.learned.get(kind)
        if learned is None:
            return None
        if (kind, want) not in self._plans:
            changes = self.changes(learned.anatomy) if self.changes is not None else ()
            wanted = dict(_wanted(learned.anatomy, want))
            self._plans[kind, want] = Plan(self.context.native, learned.graph, learned.anatomy.layers, wanted, changes, exact=self.exact)
        return self._plans[kind, want]


PARTS = {"attention.out": "attention", "mlp.out": "mlp", "other.out": "other"}
SINGLE = {
    "residual.before": "before",
    "residual.after": "after",
    "attention.probs": "rows",
    "attention.scores": "scores",
    "attention.heads": "heads",
    "mlp.hidden": "hidden",
    "router.experts": "experts",
    "router.weights": "weights",
}


def _wanted(anatomy: Anatomy, want: frozenset[str]) -> Iterable[tuple[Key, int]]:
    """The nodes of these sites."""
    for number, layer in enumerate(anatomy.layers):
        for site in want:
            for part, index in enumerate(nodes_of(layer, site)):
                yield (site, number, part), index


def nodes_of(layer: Layer, site: str) -> list[int]:
    """The nodes whose sum is the site; none where the layer has none."""
    if site in PARTS:
        parts: list[int] = getattr(layer, PARTS[site])
        return parts
    index: int | None = getattr(layer, SINGLE[site]) if site in SINGLE else None
    return [] if index is None else [index]


def summed(values: Values, site: str, layer: int) -> NDArray[np.float32] | None:
    """The value of a site in a layer: the sum of its parts; None where nothing was read."""
    if (site, layer, 0) not in values:
        return None
    parts = [values[site, layer, 0]]
    if (site, layer, 1) not in values:
        return parts[0]
    while (site, layer, len(parts)) in values:
        parts.append(values[site, layer, len(parts)])
    total: NDArray[np.float32] = np.sum(parts, axis=0, dtype=np.float32)
    return total
