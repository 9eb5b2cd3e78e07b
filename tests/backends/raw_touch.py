"""Interventions written a second time: plain hooks on a raw transformers model, one full pass; and how mav's are held against them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from openmav.backends.transformers import TransformersBackend
from openmav.settings.interventions import parse

EXACT = 1e-5  # of the largest logit
TEXT = "The capital of France is"  # what `check` reads
Change = Callable[[Tensor], Tensor]  # [tokens, columns] -> the same
Changes = list[tuple[str, Change]]
Place = tuple[str, str, slice]  # module, "in" | "out" | "layer", columns


@dataclass(frozen=True)
class Paths:
    """Where things stand in a model of some family, written down by hand."""

    layers: str
    attn: str  # whose output is added to the residual stream
    mlp: str
    heads: str  # the map that the heads' outputs go through
    neurons: str = ""  # the last map of the MLP; none in a mixture of experts
    times: float = 1.0  # what the sub-blocks' outputs are multiplied by before they are added


PATHS = {
    "gpt2": Paths("transformer.h", "attn", "mlp", "attn.c_proj", "mlp.c_proj"),
    "llama": Paths("model.layers", "self_attn", "mlp", "self_attn.o_proj", "mlp.down_proj"),
    "gemma2": Paths("model.layers", "post_attention_layernorm", "post_feedforward_layernorm", "self_attn.o_proj", "mlp.down_proj"),
    "phi": Paths("model.layers", "self_attn", "mlp", "self_attn.dense", "mlp.fc2"),
    "mixtral": Paths("model.layers", "self_attn", "mlp", "self_attn.o_proj"),
    "granite": Paths("model.layers", "self_attn", "mlp", "self_attn.o_proj", "mlp.down_proj", times=0.5),
}


class Raw:
    """A raw model and its paths; `head_width` is that of one head in the input of the output projection."""

    def __init__(self, model: nn.Module, paths: Paths, head_width: int) -> None:
        self.model = model
        self.paths = paths
        self.head_width = head_width

    @cached_property
    def exact(self) -> Raw:
        """The same in double precision, copied as the model is at the first use."""
        return Raw(copy.deepcopy(self.model).double(), self.paths, self.head_width)

    def place(self, site: str) -> Place:
        """Of a site written as in a spec: "L1.H2"."""
        layer, _, inside = site[1:].partition(".")
        at = f"{self.paths.layers}.{layer}"
        if inside in ("attn", "mlp"):
            return f"{at}.{getattr(self.paths, inside)}", "out", slice(None)
        if inside.startswith("H"):
            head = int(inside[1:])
            return f"{at}.{self.paths.heads}", "in", slice(head * self.head_width, (head + 1) * self.head_width)
        if inside.startswith("N"):
            return f"{at}.{self.paths.neurons}", "in", slice(int(inside[1:]), int(inside[1:]) + 1)
        return at, "out" if inside == "resid" else "layer", slice(None)

    def logits(self, ids: Sequence[int], changes: Sequence[tuple[str, Change]] = (), rows: int = 1) -> Tensor:
        """[tokens, vocab] with each site's value changed, by a pass over so many rows of the same tokens."""
        with ExitStack() as stack, torch.no_grad():
            for site, change in changes:
                path, side, columns = self.place(site)
                module = self.model.get_submodule(path)
                if side == "in":
                    hook = module.register_forward_pre_hook(lambda m, a, c=change, k=columns: (_changed(a[0], c, k),))
                elif side == "out":
                    hook = module.register_forward_hook(lambda m, a, out, c=change: _first_changed(out, c))
                else:
                    hook = module.register_forward_hook(lambda m, a, out, c=change: _layer_changed(a[0], out, c))
                stack.callback(hook.remove)
            found: Tensor = self.model(input_ids=torch.tensor([list(ids)] * rows), use_cache=False).logits[0]
        return found

    def values(self, ids: Sequence[int], site: str) -> Tensor:
        """[tokens, columns] of an untouched run."""
        kept: list[Tensor] = []

        def keep(x: Tensor) -> Tensor:
            kept.append(x.clone())
            return x

        self.logits(ids, [(site, keep)])
        return kept[0]


def _changed(x: Tensor, change: Change, columns: slice) -> Tensor:
    made = x.clone().reshape(-1, x.shape[-1])
    made[:, columns] = change(made[:, columns])
    return made.view_as(x)


def _layer_changed(taken: Tensor, output: object, change: Change) -> object:
    """The output with what the layer added to what it took changed."""
    taken = taken.reshape(-1, taken.shape[-1])
    return _first_changed(output, lambda x: taken + change(x - taken))


def _first_changed(output: object, change: Change) -> object:
    if isinstance(output, tuple):
        return (_first_changed(output[0], change), *output[1:])
    assert isinstance(output, Tensor)
    return change(output.reshape(-1, output.shape[-1])).view_as(output)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def near(raw: Raw, mine: Tensor, ids: list[int], make: Callable[[Raw], Changes], rows: int = 1) -> bool:
    """Whether `mine` [n, vocab], of a pass over so many rows, are the raw model's last n logits, changed as `make` says for a raw model.

    Where fp32 itself is not that exact, mav may be twice as far from a run in double precision as transformers' own run of as many rows.
    """
    truth = raw.logits(ids, make(raw))[-len(mine) :]
    if relative(mine, truth) < EXACT:
        return True
    exact = raw.exact.logits(ids, make(raw.exact))[-len(mine) :]
    rounding = relative(raw.logits(ids, make(raw), rows)[-len(mine) :], exact)
    return rounding > EXACT / 2 and relative(mine, exact) < 2 * rounding


def check(raw: Raw, backend: TransformersBackend, specs: list[str], make: Callable[[Raw], Changes]) -> None:
    """The prompt and four decoded tokens; the untouched model's logits are the same bits afterwards."""
    ids = backend.encode(TEXT)
    text = [*ids, *backend.encode(" Paris, and it is")[:4]]
    before = backend.prefill(ids, frozenset()).logits
    touched = backend.intervened([parse(spec) for spec in specs], ids)
    mine = [touched.prefill(ids, frozenset()).logits, *(touched.decode_one_token(i, frozenset()).logits for i in text[len(ids) :])]
    touched.close()
    assert near(raw, torch.stack(mine), text, make), specs
    assert float((mine[0] - before).abs().max()) > 1e-3, f"{specs} changed nothing"
    assert torch.equal(backend.prefill(ids, frozenset()).logits, before)
