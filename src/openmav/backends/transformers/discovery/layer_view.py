"""One layer as the trial and the probe saw it: which terms its attention adds, which its MLP, and which neither.

A term is classified by how it was computed. A term that mixes positions belongs to attention, or to the mixer used in its place. A term
that does not belongs to the MLP if a weight matrix computed it from the residual stream alone; a term that also depends on another
input, for example a per-layer token embedding, is neither.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from openmav.backends.transformers.discovery.linear_form import Coefficient
from openmav.backends.transformers.discovery.probe import CHANGED, Probe
from openmav.backends.transformers.discovery.recorder import TOKENS, Added, LayerTrial
from openmav.backends.transformers.discovery.roles import (
    ATTENTION,
    MIXERS,
    MLP,
    OTHER_ATTENTION,
    has_matrix,
    innermost_attention,
    is_called_mlp,
    recurrent_kind,
    role_in_layer,
)
from openmav.backends.transformers.discovery.trace import MATRIX, OUTSIDE, SOFTMAX

OTHER = "other"
OWN_CODE = "a part of it is made by the layer's own code, where no hook can see it"
CHAINED = "its attention and its MLP follow one another before anything is added to the residual stream"
SHARED = "several layers share one module there"
AGAIN = "a module of it runs more than once per token"


class LayerTrialView:
    """Classifies the terms of one layer. `mixers` are the outermost modules that mix positions, `kinds` the kind of each."""

    def __init__(self, trial: LayerTrial, probe: Probe | None, registered: tuple[type, ...], shared: frozenset[int]) -> None:
        self.trial = trial
        self.layer = trial.layer
        self.probe = probe
        self.shared = shared  # ids of modules that run in several layers: a hook can't tell their outputs apart
        mixers = _by_name(trial) if probe is None else probe.mixers
        short = {path for path in mixers if self._shifts_tokens(path)}
        self.shifting = short if len(short) < len(mixers) else set()  # MLPs that mix positions
        self.mixers = [path for path in mixers if path not in self.shifting] or _outermost(trial.row_owners)
        self.kinds = [self._kind(path) for path in self.mixers]
        self.rows = self._owner_of_rows(registered)
        self.sides = {id(term): self._side(term) for term in trial.terms}
        self.why = self._why()  # why the parts are not known; empty where they are

    # ---- mixers ----------------------------------------------------------------------------------------------------------

    def _shifts_tokens(self, path: str) -> bool:
        """Whether a module that is named an MLP and computes no attention mixes positions, as in RWKV and Inkling."""
        attends = any(_inside(owner, path) for owner in self.trial.row_owners)
        return self.probe is not None and self.probe.reach[path] > 0 and not attends and is_called_mlp(self.layer, path)

    def _kind(self, path: str) -> str:
        if any(_inside(owner, path) for owner in self.trial.row_owners):
            return ATTENTION
        if self.probe is None:
            named = role_in_layer(self.layer, path)
            return named if named in MIXERS else ATTENTION
        named = recurrent_kind(self.layer, path)
        if named is None and role_in_layer(self.layer, path) == ATTENTION:
            return OTHER_ATTENTION
        return named or ("convolution" if self.probe.reach[path] < TOKENS - 1 - CHANGED else "recurrence")

    def _owner_of_rows(self, registered: tuple[type, ...]) -> nn.Module | None:
        """The module that computes softmax attention: the first one inside a mixer."""
        owners = [path for path in self.trial.row_owners if any(_inside(path, mixer) for mixer in self.mixers)]
        modules = [self.layer.get_submodule(path) for path in owners]
        known = [module for module in modules if isinstance(module, registered)]
        if modules:
            return (known or modules)[0]
        soft = [path for path, kind in zip(self.mixers, self.kinds, strict=True) if kind == ATTENTION]
        return innermost_attention(self.layer.get_submodule(soft[0])) if soft else None

    @property
    def shares_rows(self) -> bool:
        """Whether other layers use the same attention module, so that its rows can't be attributed to one layer."""
        return self.rows is not None and id(self.rows) in self.shared

    # ---- terms -----------------------------------------------------------------------------------------------------------

    def _side(self, term: Added) -> str | None:
        """ATTENTION, MLP, OTHER, or None where that is unknown."""
        if term.constant:
            return OTHER
        seen = term.path or term.linear
        mixes = self._mixes(seen) if seen is not None else None
        if mixes and self._follows_a_mixer(term):
            return None
        if mixes or (mixes is None and term.marks & SOFTMAX):
            return ATTENTION
        if term.renews or not term.marks & MATRIX:
            return OTHER
        if mixes is None:
            return None
        named = self._chooses(term) or (term.path is not None and is_called_mlp(self.layer, term.path))
        return OTHER if term.marks & OUTSIDE and not named else MLP

    def _follows_a_mixer(self, term: Added) -> bool:
        """Whether it is the output of an MLP whose input was a mixer's output that was not added to the residual stream first."""
        path, probe = term.path, self.probe
        return (
            path is not None and probe is not None and probe.inputs[path] > 0 and self._has_matrix(path) and is_called_mlp(self.layer, path)
        )

    def _chooses(self, term: Added) -> bool:
        """Whether it is a mixture of experts: called with a selection, or selecting experts itself."""
        path = term.path
        return path is not None and any(_inside(chooser, path) for chooser in (*self.trial.experts, *self.trial.choosers))

    def _mixes(self, path: str) -> bool | None:
        if self.probe is None:
            role = role_in_layer(self.layer, path)
            return None if role is None else role in MIXERS
        if path not in self.probe.reach:
            return None
        return self.probe.reach[path] > 0 and not any(_inside(path, other) for other in self.shifting)

    def _why(self) -> str:
        trial, probe = self.trial, self.probe
        if trial.stream_in is None or trial.stream_out is None:
            return "the residual stream is not one vector per token here"
        if not (trial.finite and bool(trial.stream_in.isfinite().all()) and bool(trial.stream_out.isfinite().all())):
            return "the layer computes NaN or infinity"
        carried = isinstance(trial.carry, Tensor) or trial.carry != 0 or any(term.renews for term in trial.terms)
        if not carried:
            normed = trial.normed or any(term.path is not None and not self._has_matrix(term.path) for term in trial.terms)
            return "the layer normalises the residual stream itself, so its parts are not simply added" if normed else NO_SUM
        if not trial.error <= trial.allowed or (probe is not None and probe.error is not None and not probe.error <= probe.allowed):
            return NO_SUM
        unclear = [term for term in trial.terms if self.sides[id(term)] is None]
        if unclear:
            return OWN_CODE if any(term.path is None for term in unclear) else CHAINED
        return ""

    def _has_matrix(self, path: str) -> bool:
        return has_matrix(self.layer.get_submodule(path))

    def terms(self, side: str) -> list[Added]:
        """The terms of one side; empty where the parts are not known."""
        return [] if self.why else [term for term in self.trial.terms if self.sides[id(term)] == side]

    def why_not(self, side: str) -> str:
        """Why the terms of a side can't be captured; empty where they can."""
        if self.why:
            return self.why
        for term in self.terms(side):
            if term.constant:
                continue
            if term.path is None:
                return OWN_CODE
            if id(self.layer.get_submodule(term.path)) in self.shared:
                return SHARED
            if self.trial.times[term.path] != 1:
                return AGAIN
        return ""

    @property
    def neurons(self) -> list[Added]:
        """The terms whose last linear map may be the MLP's, also where the layer's output is not the sum of its terms."""
        if not self.why:
            return self.terms(MLP)
        seen = {} if self.probe is None else self.probe.reach
        return [term for term in self.trial.terms if term.linear is not None and seen.get(term.linear) == 0 and self.trial.finite]

    @property
    def has_mlp(self) -> bool:
        """Whether there is an MLP; where the parts are not known, whether a module that mixes no positions is named one."""
        return bool(self.terms(MLP)) or self.feeds_mlp if not self.why else self._calls_mlp

    @property
    def feeds_mlp(self) -> bool:
        """Whether it holds an MLP whose output is no term but the input of another block."""
        return not self.why and not self.terms(MLP) and self._calls_mlp

    @property
    def _calls_mlp(self) -> bool:
        names = [path for path in self.trial.times if role_in_layer(self.layer, path) == MLP]
        return any(not any(_inside(path, mixer) for mixer in self.mixers) for path in names)

    @property
    def carry(self) -> Coefficient:
        """What the layer multiplies the residual stream by; 1 where that is not known."""
        return 1.0 if self.why else self.trial.carry

    @property
    def experts(self) -> str | None:
        """The path of the module that is called with a selection of the MLP's experts."""
        return next((path for path in self.trial.experts if not any(_inside(path, mixer) for mixer in self.mixers)), None)

    @property
    def router(self) -> tuple[str, int] | None:
        """The path of the router that scores the MLP's experts, and how many it selects, where no module is called with the selection."""
        routers = [(path, count) for path, count in self.trial.routers.items() if not any(_inside(path, mixer) for mixer in self.mixers)]
        return routers[0] if routers and self.experts is None else None

    @property
    def chooses_experts(self) -> bool:
        """Whether the MLP is a mixture of experts, called with a selection or selecting experts itself."""
        return self.experts is not None or any(self._chooses(term) for term in self.terms(MLP))


NO_SUM = "the layer's output is not the sum of its input and its modules' outputs"


def _inside(path: str, outer: str) -> bool:
    return path == outer or path.startswith(f"{outer}.")


def _outermost(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not any(path != other and _inside(path, other) for other in paths)]


def _by_name(trial: LayerTrial) -> list[str]:
    """The outermost modules that are named as mixers."""
    return _outermost([path for path in trial.times if role_in_layer(trial.layer, path) in MIXERS])
