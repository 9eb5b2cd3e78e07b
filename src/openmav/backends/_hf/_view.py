"""One layer as the trial showed it, with the roles of its modules: which of them mix positions, which are the MLP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from openmav.backends._hf._fit import CARRY, Solution
from openmav.backends._hf._roles import ATTENTION, MIXERS, MLP, innermost_attention, role_in_layer
from openmav.backends._hf._trial import Call, LayerTrial

LEAST_CARRY = 0.1  # what keeps less of the residual stream than this replaces it


class View:
    """`outer` are the outermost modules that have a role, in the order in which they finished; `names` those whose outputs may be terms."""

    def __init__(self, shown: LayerTrial, registered: tuple[type, ...], shared: frozenset[int]) -> None:
        self.trial = shown
        self.shared = shared  # ids of modules that run in several layers: what they make can't be told apart by a hook
        self.layer: nn.Module = shown.layer
        self.solution: Solution | None = None
        self.roles = {path: role_in_layer(shown.layer, path) for path in shown.calls}
        outer = [path for path, role in self.roles.items() if role and not self._within_another(path)]
        self.outer = sorted(outer, key=lambda path: shown.calls[path].order)
        self.mixers = [self.role(path) for path in self.outer if self.roles[path] in MIXERS]
        self.rows = self._owner_of_rows(registered)
        self.has_mlp = any(self.roles[path] == MLP for path in self.outer)
        self.usable = shown.came_in is not None and shown.went_out is not None
        self.finite = all(x is None or bool(x.isfinite().all()) for x in (shown.came_in, shown.went_out, *_outputs(shown)))
        self.names = [path for path, call in shown.calls.items() if self.usable and self.finite and self._may_be_a_term(call)]

    def _may_be_a_term(self, call: Call) -> bool:
        return call.made is not None and bool(call.made.any()) and call.times == 1 and id(call.module) not in self.shared

    def _owner_of_rows(self, registered: tuple[type, ...]) -> nn.Module | None:
        """The module that computes softmax attention: the first that ran of a registered class, else by its name."""
        blocks = [path for path in self.outer if self.roles[path] == ATTENTION]
        known = [call for call in self.trial.calls.values() if isinstance(call.module, registered)]
        if blocks and known:
            return min(known, key=lambda call: call.order).module
        return innermost_attention(self.layer.get_submodule(blocks[0])) if blocks else None

    def role(self, path: str) -> str:
        return self.roles[path] or "none"

    def _within_another(self, path: str) -> bool:
        """Whether a module around it, which ran too, has a role."""
        parts = path.split(".")
        return any(self.roles.get(".".join(parts[:i])) for i in range(1, len(parts)))

    @property
    def signature(self) -> tuple[Any, ...]:
        """Layers with the same one are built alike."""
        return (self.trial.eps, *((p, type(self.trial.calls[p].module), self.roles[p]) for p in self.names))

    @property
    def shares_rows(self) -> bool:
        """Whether other layers use the same attention module, so that its rows can't be told apart."""
        return self.rows is not None and id(self.rows) in self.shared

    @property
    def anchors(self) -> list[str]:
        """The outermost sub-blocks whose outputs may be terms."""
        return [path for path in self.outer if path in self.names]

    def side(self, path: str) -> str | None:
        """ATTENTION for all that a mixer makes, MLP for the rest; None for what the layer makes before any of them.

        A norm or dropout belongs to the module whose output it takes, else to the sub-block that finished last before it.
        """
        role = self.roles[path]
        if role is None:
            call = self.trial.calls[path]
            before = [p for p in self.outer if self.trial.calls[p].order < call.order]
            source = [p for p in before if _same(self.trial.calls[p].made, call.given)]
            role = self.roles[(source or before)[-1]] if before else None
        return ATTENTION if role in MIXERS else role

    def sensible(self, terms: dict[str, float]) -> bool:
        """Whether each term has a side, each sub-block that the layer has takes part, and the residual stream goes on."""
        if abs(1 + terms.get(CARRY, 0.0)) < LEAST_CARRY:
            return False
        sides = {self.side(path) for path in terms if path != CARRY}
        return None not in sides and (not self.mixers or ATTENTION in sides) and (not self.has_mlp or MLP in sides)

    def terms(self, side: str) -> dict[str, float]:
        """The solution's terms of one side; empty without a solution."""
        return {path: c for path, c in (self.solution.terms.items() if self.solution else ()) if path != CARRY and self.side(path) == side}

    @property
    def carry(self) -> float:
        """What the layer multiplies the residual stream by; 1 without a solution."""
        return 1 + (self.solution.terms.get(CARRY, 0.0) if self.solution else 0.0)

    @property
    def renormalises(self) -> bool:
        """Whether the layer's output is that of a norm, as in layers that normalise the stream after each sub-block."""
        norms = (c for p, c in self.trial.calls.items() if self.roles[p] is None and any(True for _ in c.module.parameters()))
        return any(_same(call.made, self.trial.went_out) for call in norms)


def _outputs(shown: LayerTrial) -> list[Tensor | None]:
    return [call.made for call in shown.calls.values()]


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and torch.equal(a, b)
