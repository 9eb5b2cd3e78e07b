"""Captures the wanted sites of a transformers model during a forward pass: references to outputs are kept, nothing is computed then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from openmav.backends.sites import ROW_SITES
from openmav.backends.transformers.capture.attention import Rows
from openmav.backends.transformers.capture.forward_taps import ForwardTaps
from openmav.backends.transformers.discovery.anatomy import Anatomy, Part, Term
from openmav.backends.transformers.discovery.mlp_internals import MlpInternals
from openmav.backends.transformers.discovery.values import choice_of_experts, mask_width, output_tensor

Site: TypeAlias = Sequence[Tensor | None]
_Pair: TypeAlias = tuple[Tensor | None, Tensor]


def last_position(x: Tensor) -> Tensor:
    """[1, tokens, width] or [tokens, width] -> [width]; copied where it would hold a whole prompt in memory."""
    return x.reshape(-1) if x.numel() == x.shape[-1] else x.reshape(-1, x.shape[-1])[-1].clone()


def row_of(output: object, query: int = -1) -> Tensor | None:
    """The attention row of one query, [heads, keys] fp32, of an attention module that returns its rows [1, heads, queries, keys].

    A row that sums to 1 but for the rounding of the model's float type is set to sum to 1, as the softmax made it.
    """
    rows = (
        [t for t in output if isinstance(t, Tensor) and t.ndim == 4 and t.is_floating_point()] if isinstance(output, tuple | list) else []
    )
    if not rows:
        return None
    row, eps = rows[-1][0, :, query].float(), torch.finfo(rows[-1].dtype).eps
    total = row.sum(-1, keepdim=True)
    return torch.where((total - 1).abs() <= eps, row / total, row)


class Capture:
    """Taps exactly the modules that the wanted sites need, and reads the sites after a forward pass.

    With `from_outputs` attention rows come from the outputs of the attention modules, otherwise attention.py records them. For the
    modules in `more_keys`, the keys after those of the mask are moved to the front, and `other_keys` counts them.
    """

    def __init__(
        self, anatomy: Anatomy, mlp_internals: MlpInternals, *, from_outputs: bool = False, more_keys: Set[nn.Module] = frozenset()
    ) -> None:
        self.anatomy = anatomy
        self.mlp_internals = mlp_internals
        self.from_outputs = from_outputs
        self.more_keys = more_keys
        self.rows = Rows()
        self._widths: dict[nn.Module, int | None] = {}  # of the masks
        self._want: frozenset[str] = frozenset()
        self._outputs: dict[nn.Module, Tensor] = {}
        self._inputs: dict[nn.Module, Tensor] = {}
        self._choices: dict[nn.Module, _Pair] = {}
        self._taps = ForwardTaps()

    @property
    def wants_rows(self) -> bool:
        return bool(self._want & ROW_SITES)

    def want(self, sites: frozenset[str]) -> None:
        """Capture these sites from now on, and no others."""
        if sites == self._want:
            return
        self.close()
        self._want = sites
        self.rows.with_scores = "attention.scores" in sites
        outputs, inputs, experts = self._needed()
        rows = dict.fromkeys(m for m in self.anatomy.attention_modules if m is not None and self.wants_rows and self.from_outputs)
        for m in outputs:
            self._taps.tap_output(m, self._keep_output)
        for m in inputs:
            self._taps.tap_input(m, partial(self._keep_input, m))
        scored = {m: k for m, k in zip(self.mlp_internals.experts, self.mlp_internals.chosen) if m is not None and k is not None}
        for m in experts:
            if m in scored:
                self._taps.tap_output(m, partial(self._keep_scores, scored[m]))
            else:
                self._taps.tap_input(m, partial(self._keep_choice, m))
        for m in rows:
            self._taps.tap_output(m, partial(self._keep_row, m))
            if m in self.more_keys:
                self._taps.tap_input(m, lambda module, _args, kwargs: self._widths.update({module: mask_width(kwargs)}))

    def on(self) -> AbstractContextManager[None]:
        """Context manager: forward passes inside it are captured, and every module is unchanged after it."""
        return self._taps.on()

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
            inputs.update(dict.fromkeys(m for m in self.mlp_internals.last_linear if m is not None))
        if self._want & {"router.experts", "router.weights"}:
            experts.update(dict.fromkeys(m for m in self.mlp_internals.experts if m is not None))
        for site, parts in self._parts():
            if site in self._want:
                for part in parts:
                    outputs.update(dict.fromkeys(term.module for term in part or () if term.module is not None))
        return list(outputs), list(inputs), list(experts)

    def _parts(self) -> tuple[tuple[str, tuple[Part | None, ...]], ...]:
        others = self.anatomy.other or (None,) * len(self.anatomy.layers)
        return ("attention.out", self.anatomy.attention), ("mlp.out", self.anatomy.mlp), ("other.out", others)

    def _keep_output(self, module: nn.Module, _args: object, output: object) -> None:
        """Runs for each module and token: a single position is kept as it is, and reshaped in `sites`."""
        x = output if isinstance(output, Tensor) else output_tensor(output)
        self._outputs[module] = self._kept(x) if x.numel() != x.shape[-1] or self.mlp_internals.overwrites else x

    def _output(self, module: nn.Module) -> Tensor | None:
        """[width]: what a module returned for the last position."""
        kept = self._outputs.get(module)
        return None if kept is None else kept.reshape(-1)

    def _input(self, module: nn.Module) -> Tensor | None:
        """[width]: what a module was given for the last position."""
        return self._inputs.get(module)

    def _keep_input(self, key: nn.Module, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._inputs[key] = self._kept(args[0] if args else kwargs["hidden_states"])

    def _kept(self, x: Tensor) -> Tensor:
        row = last_position(x)
        return row.clone() if self.mlp_internals.overwrites else row

    def _keep_choice(self, key: nn.Module, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        choice = choice_of_experts(args, kwargs)
        if choice is not None:
            self._choices[key] = (last_position(choice[0]), last_position(choice[1]).float())

    def _keep_scores(self, count: int, module: nn.Module, _args: object, output: object) -> None:
        """The choice of a router whose output is [tokens, experts], 0 for experts not chosen."""
        weights, ids = last_position(output_tensor(output)).float().topk(count)
        self._choices[module] = (ids, weights)

    def _keep_row(self, key: nn.Module, _module: nn.Module, _args: object, output: object) -> None:
        row = row_of(output)
        if row is not None and key in self.more_keys:
            width = self._widths.get(key)
            row = None if width is None else row.roll(row.shape[-1] - width, -1)
        if row is not None:
            self.rows.by_module[key] = (None, row)

    @property
    def other_keys(self) -> Sequence[int]:
        """See backends.base.Frame."""
        if not self.more_keys:
            return ()
        rows = [None if m is None else self.rows.by_module.get(m) for m in self.anatomy.attention_modules]
        widths = [None if m is None else self._widths.get(m) for m in self.anatomy.attention_modules]
        return [0 if row is None or width is None else row[1].shape[-1] - width for row, width in zip(rows, widths, strict=True)]

    def begin(self) -> None:
        """Forget the last forward pass."""
        self._outputs.clear()
        self._inputs.clear()
        self._choices.clear()
        self.rows.by_module.clear()
        self._widths.clear()

    def sites(self) -> dict[str, Site]:
        """The wanted sites of the last forward pass, one entry per layer; backends/base.py gives the shapes."""
        layers, internals = self.anatomy.layers, self.mlp_internals
        result: dict[str, Site] = {}
        if "residual.before" in self._want:
            result["residual.before"] = [self._input(layer) for layer in layers]
        if "residual.after" in self._want:
            result["residual.after"] = [self._output(layer) for layer in layers]
        if "mlp.hidden" in self._want:
            result["mlp.hidden"] = [None if m is None else self._input(m) for m in internals.last_linear]
        for site, parts in self._parts():
            if site in self._want:
                result[site] = [self._sum(part) for part in parts]
        result |= self._pairs(("attention.scores", "attention.probs"), self.anatomy.attention_modules, self.rows.by_module)
        result |= self._pairs(("router.experts", "router.weights"), internals.experts, self._choices)
        for site in result.keys() & self.anatomy.missing.keys():  # reported as missing, so not shown
            result[site] = [None if layer in self.anatomy.missing[site] else row for layer, row in enumerate(result[site])]
        return result

    def _pairs(self, sites: tuple[str, str], modules: Sequence[nn.Module | None], recorded: Mapping[nn.Module, _Pair]) -> dict[str, Site]:
        """Two sites that one module provides together; only the wanted ones."""
        pairs = [None if m is None else recorded.get(m) for m in modules]
        return {site: [None if pair is None else pair[i] for pair in pairs] for i, site in enumerate(sites) if site in self._want}

    def _sum(self, part: Part | None) -> Tensor | None:
        if part is None:
            return None
        if len(part) == 1 and isinstance(part[0].coefficient, float) and part[0].coefficient == 1:
            return self._term(part[0])
        terms = [term for term in map(self._term, part) if term is not None]
        return torch.stack([term.float().to(terms[0].device) for term in terms]).sum(0) if len(terms) == len(part) else None

    def _term(self, term: Term) -> Tensor | None:
        """[width]: what one term adds at the last position."""
        by = term.coefficient
        if term.module is None:
            return by if isinstance(by, Tensor) else None
        output = self._output(term.module)
        if output is None or (isinstance(by, float) and by == 1):
            return output
        return output.float() * (by.to(output.device) if isinstance(by, Tensor) else by)

    def close(self) -> None:
        """Remove all taps and forget the last pass; no site is wanted any more."""
        self._taps = ForwardTaps()
        self._want = frozenset()
        self.begin()
