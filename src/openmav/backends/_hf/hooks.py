"""The wanted sites of a transformers model as a forward pass goes by: references to outputs are kept, nothing is computed meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from openmav.backends._base import ROW_SITES
from openmav.backends._hf.anatomy import Anatomy, Part, Term
from openmav.backends._hf.attention import Rows
from openmav.backends._hf.hearing import Undo, hear_input, hear_output, hooks_of
from openmav.backends._hf.inside import Inside, choice_of_experts

_Site: TypeAlias = Sequence[Tensor | None]
_Pair: TypeAlias = tuple[Tensor | None, Tensor]


def first_tensor(output: object) -> Tensor:
    """The tensor of a module's output; the first of a tuple."""
    while not isinstance(output, Tensor):
        if not isinstance(output, (tuple, list)):
            raise TypeError(f"a module gave {type(output).__name__}, not a tensor")
        output = output[0]
    return output


def last_position(x: Tensor) -> Tensor:
    """[1, tokens, width] or [tokens, width] -> [width]; copied where it would hold a whole prompt in memory."""
    return x.reshape(-1) if x.numel() == x.shape[-1] else x.reshape(-1, x.shape[-1])[-1].clone()


def row_of(output: object) -> Tensor | None:
    """The attention row of the last query, [heads, keys] fp32, of an attention module that returns its rows [1, heads, queries, keys].

    A row that sums to 1 but for the rounding of the model's float type is set to sum to 1, as the softmax made it.
    """
    rows = [t for t in output if isinstance(t, Tensor) and t.ndim == 4] if isinstance(output, tuple | list) else []
    if not rows:
        return None
    row, eps = rows[-1][0, :, -1].float(), torch.finfo(rows[-1].dtype).eps
    total = row.sum(-1, keepdim=True)
    return torch.where((total - 1).abs() <= eps, row / total, row)


class Capture:
    """Hears exactly the modules that the wanted sites need, and reads the sites after a forward pass.

    With `from_outputs` attention rows are taken from what the attention modules return, else they are told by attention.py. With
    `hooked` it hears by hooks only: what hooks that come and go change as well.
    """

    def __init__(self, anatomy: Anatomy, inside: Inside, *, from_outputs: bool = False, hooked: bool = False) -> None:
        self.anatomy = anatomy
        self.inside = inside
        self.from_outputs = from_outputs
        self.hooked = hooked
        self.rows = Rows()
        self._want: frozenset[str] = frozenset()
        self._outputs: dict[nn.Module, Tensor] = {}
        self._inputs: dict[nn.Module, Tensor] = {}
        self._choices: dict[nn.Module, _Pair] = {}
        self._undo: list[Undo] = []
        self._free: list[Mapping[int, Any]] = []  # the hooks of the modules that are heard without one: none

    @property
    def wants_rows(self) -> bool:
        return bool(self._want & ROW_SITES)

    def want(self, sites: frozenset[str]) -> None:
        """From now on these sites, and no others."""
        if sites == self._want:
            return
        self.close()
        self._want = sites
        self.rows.with_scores = "attention.scores" in sites
        outputs, inputs, experts = self._needed()
        rows = dict.fromkeys(m for m in self.anatomy.attention_modules if m is not None and self.wants_rows and self.from_outputs)
        modules = dict.fromkeys((*outputs, *inputs, *experts, *rows))
        by_hook = {m: self.hooked or any(hooks_of(m)) for m in modules}
        self._free = [hooks for m in modules if not by_hook[m] for hooks in hooks_of(m)]
        self._undo = [hear_output(m, self._keep_output, by_hook[m]) for m in outputs]
        self._undo += [hear_input(m, partial(self._keep_input, m), by_hook[m]) for m in inputs]
        self._undo += [hear_input(m, partial(self._keep_choice, m), by_hook[m]) for m in experts]
        self._undo += [hear_output(m, partial(self._keep_row, m), by_hook[m]) for m in rows]

    def _needed(self) -> tuple[list[nn.Module], list[nn.Module], list[nn.Module]]:
        """The modules whose outputs, inputs and choice of experts are needed, each once."""
        outputs: dict[nn.Module, None] = {}
        inputs: dict[nn.Module, None] = {}
        experts: dict[nn.Module, None] = {}
        layers = self.anatomy.layers
        if "residual.after" in self._want:
            outputs.update(dict.fromkeys(layers))
        if "residual.before" in self._want:
            inputs.update(dict.fromkeys(layers))
        if "mlp.hidden" in self._want:
            inputs.update(dict.fromkeys(m for m in self.inside.last_linear if m is not None))
        if self._want & {"router.experts", "router.weights"}:
            experts.update(dict.fromkeys(m for m in self.inside.experts if m is not None))
        for site, parts in self._parts():
            if site in self._want:
                for layer, part in zip(layers, parts, strict=True):
                    for term in part or ():
                        if term.module is None:
                            inputs[layer] = None
                        else:
                            outputs[term.module] = None
        return list(outputs), list(inputs), list(experts)

    def _parts(self) -> tuple[tuple[str, tuple[Part | None, ...]], ...]:
        return ("attention.out", self.anatomy.attention), ("mlp.out", self.anatomy.mlp)

    def _keep_output(self, module: nn.Module, _args: object, output: object) -> None:
        """Amid the forward pass, for each module and token: a single position is kept as it comes, and made a row in `sites`."""
        x = output if isinstance(output, Tensor) else first_tensor(output)
        self._outputs[module] = self._kept(x) if x.numel() != x.shape[-1] or self.inside.overwrites else x

    def _output(self, module: nn.Module) -> Tensor | None:
        """[width]: what a module returned for the last position."""
        kept = self._outputs.get(module)
        return None if kept is None else kept.reshape(-1)

    def _keep_input(self, key: nn.Module, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._inputs[key] = self._kept(args[0] if args else kwargs["hidden_states"])

    def _kept(self, x: Tensor) -> Tensor:
        row = last_position(x)
        return row.clone() if self.inside.overwrites else row

    def _keep_choice(self, key: nn.Module, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        choice = choice_of_experts(args, kwargs)
        if choice is not None:
            self._choices[key] = (last_position(choice[0]), last_position(choice[1]).float())

    def _keep_row(self, key: nn.Module, _module: nn.Module, _args: object, output: object) -> None:
        row = row_of(output)
        if row is not None:
            self.rows.by_module[key] = (None, row)

    def begin(self) -> None:
        """Forget the last forward pass. Where somebody has put hooks since, what they change is heard by hooks from now on."""
        if any(self._free):
            want = self._want
            self.close()
            self.want(want)
        self._outputs.clear()
        self._inputs.clear()
        self._choices.clear()
        self.rows.by_module.clear()

    def sites(self) -> dict[str, _Site]:
        """What the last forward pass left at the wanted sites, one entry a layer; see backends/_base.py for the shapes."""
        layers, inside = self.anatomy.layers, self.inside
        found: dict[str, _Site] = {}
        if "residual.before" in self._want:
            found["residual.before"] = [self._inputs.get(layer) for layer in layers]
        if "residual.after" in self._want:
            found["residual.after"] = [self._output(layer) for layer in layers]
        if "mlp.hidden" in self._want:
            found["mlp.hidden"] = [None if m is None else self._inputs.get(m) for m in inside.last_linear]
        for site, parts in self._parts():
            if site in self._want:
                found[site] = [self._sum(part, layer) for part, layer in zip(parts, layers, strict=True)]
        found |= self._pairs(("attention.scores", "attention.probs"), self.anatomy.attention_modules, self.rows.by_module)
        found |= self._pairs(("router.experts", "router.weights"), inside.experts, self._choices)
        for site in found.keys() & self.anatomy.missing.keys():  # said to be missing, so not shown
            found[site] = [None if layer in self.anatomy.missing[site] else row for layer, row in enumerate(found[site])]
        return found

    def _pairs(self, sites: tuple[str, str], modules: Sequence[nn.Module | None], told: Mapping[nn.Module, _Pair]) -> dict[str, _Site]:
        """Two sites that one module tells together, those of them that are wanted."""
        pairs = [None if m is None else told.get(m) for m in modules]
        return {site: [None if pair is None else pair[i] for pair in pairs] for i, site in enumerate(sites) if site in self._want}

    def _sum(self, part: Part | None, layer: nn.Module) -> Tensor | None:
        if part is None:
            return None
        if len(part) == 1 and part[0].coefficient == 1:
            return self._term(part[0], layer)
        values = [self._term(term, layer) for term in part]
        if any(v is None for v in values):
            return None
        terms = [v.float().to(values[0].device) * t.coefficient for v, t in zip(values, part, strict=True)]  # type: ignore[union-attr]
        return torch.stack(terms).sum(0)

    def _term(self, term: Term, layer: nn.Module) -> Tensor | None:
        return self._inputs.get(layer) if term.module is None else self._output(term.module)

    def close(self) -> None:
        """Leave every module as it was."""
        for undo in reversed(self._undo):
            undo()
        self._undo, self._free = [], []
        self._want = frozenset()
        self.begin()
