"""The toy's forward pass, its text and its interventions; the switches are in the docstring of the package."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from urllib.parse import parse_qsl

import torch
from torch import Tensor

from openmav.backends.attribution import methods
from openmav.backends.base import Frame, LoadOptions, Progress, TokenBytes
from openmav.backends.loading.choice import refuse_placement
from openmav.backends.shared.edits import Edit, edits, need_range, refusal
from openmav.backends.sites import EDITABLE, Site
from openmav.backends.toy.head import ToyHead
from openmav.backends.toy.vocabulary import BYTES, END, FIRST, VOCABULARY
from openmav.errors import LoadError, UsageError
from openmav.record import ModelInfo
from openmav.record.attribution_result import Explanation
from openmav.settings.interventions import Intervention

LAYERS, HEADS, WIDTH, HIDDEN = 4, 4, 32, 64
BLOCK_SITES = ("attention.out", "attention.probs", "attention.scores", "mlp.out", "mlp.hidden")
SWITCHES = {"load": float, "slow": float, "fail": int, "crash": int, "nan": int, "context": int, "endless": int, "bare": int}


def load(name: str, options: LoadOptions, progress: Progress | None = None) -> Toy:
    """A Toy with the switches of its name. Raises LoadError for a switch that does not exist."""
    if options.device not in ("auto", "cpu") or options.dtype not in ("auto", "float32"):
        raise LoadError("the toy backend runs on the CPU in float32 only; leave out --device and --dtype")
    refuse_placement("toy", options)
    switches: dict[str, float] = {}
    for key, value in parse_qsl(name.partition("?")[2]):
        try:
            switches[key] = SWITCHES[key](value)
        except (KeyError, ValueError):
            raise LoadError(f"the toy backend does not know '{key}={value}'. Known: {', '.join(SWITCHES)}, each with a number") from None
    if progress is not None:
        progress("building the toy", 1.0)
    time.sleep(switches.get("load", 0.0))
    return Toy(name, switches)


class Toy:
    """Satisfies backends.base.Backend and Intervening. It has no cache: each pass reads the whole text again."""

    def __init__(self, name: str, switches: Mapping[str, float]) -> None:
        self.switches = switches
        self.ids: list[int] = []
        self.prompt_length = 0
        self.edits: tuple[Edit, ...] = ()  # applied in each forward pass
        self.end_ids = frozenset({END})
        self.bare = int(switches.get("bare", -1))
        self.missing = {site: dict.fromkeys(range(LAYERS), "no router") for site in ("router.experts", "router.weights")}
        if 0 <= self.bare < LAYERS:
            self.missing |= {site: {self.bare: "switched off"} for site in BLOCK_SITES}
        self.info = ModelInfo(
            name=name,
            backend="toy",
            dtype="float32",
            device="cpu",
            layers=LAYERS,
            heads=HEADS,
            vocab=len(VOCABULARY),
            context=int(switches.get("context", 1024)),
            kv_heads=HEADS,
            width=WIDTH,
        )
        generator = torch.Generator().manual_seed(7)

        def weights(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).div(shape[-1] ** 0.5)

        self.embedding = weights(len(VOCABULARY), WIDTH) * WIDTH**0.5
        self.positions = weights(self.info.context or 1, WIDTH)
        self.layers: list[dict[str, Tensor]] = [
            {"q": weights(WIDTH, WIDTH), "k": weights(WIDTH, WIDTH), "v": weights(WIDTH, WIDTH), "o": weights(WIDTH, WIDTH)}
            | {"up": weights(HIDDEN, WIDTH), "down": weights(WIDTH, HIDDEN)}
            for _ in range(LAYERS)
        ]

    # ---- text ------------------------------------------------------------------------------------------------------------

    def encode(self, text: str, *, chat: bool = False) -> list[int]:
        """One token per byte. Raises LoadError for chat: the toy has no template."""
        if chat:
            raise LoadError("the toy backend has no chat template; leave out --chat")
        return [BYTES + byte for byte in text.encode()]

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(VOCABULARY[i] for i in ids).decode("utf-8", errors="replace")

    def spelling(self) -> TokenBytes:
        """See backends.base.Spelling."""
        return TokenBytes(([b"", *VOCABULARY[1:]],))

    def bytes_of(self, token_id: int) -> bytes:
        """See backends.base.NamedBytes."""
        return VOCABULARY[token_id]

    def is_special(self, token_id: int) -> bool:
        return token_id == END

    # ---- forward passes --------------------------------------------------------------------------------------------------

    @property
    def length(self) -> int:
        return len(self.ids)

    def prefill(self, ids: Sequence[int], want: frozenset[str], progress: Progress | None = None) -> Frame:
        self.ids, self.prompt_length = list(ids), len(ids)
        if progress is not None:
            progress(f"reading the prompt, {len(ids)} of {len(ids)} tokens", 1.0)
        return self._forward(want)

    def decode_one_token(self, token_id: int, want: frozenset[str]) -> Frame:
        self.ids.append(token_id)
        generated = len(self.ids) - self.prompt_length
        if generated == self.switches.get("crash"):
            os._exit(3)
        if generated == self.switches.get("fail"):
            raise RuntimeError("the toy failed, as its switch fail=N asks")
        return self._forward(want)

    def rewind(self, length: int) -> None:
        del self.ids[length:]

    @contextmanager
    def aside(self) -> Iterator[None]:
        ids, prompt_length = list(self.ids), self.prompt_length
        try:
            yield
        finally:
            self.ids, self.prompt_length = ids, prompt_length

    def close(self) -> None:
        self.ids = []

    def _forward(self, want: frozenset[str]) -> Frame:
        began = time.perf_counter()
        time.sleep(self.switches.get("slow", 0.0))
        sites: dict[str, list[Tensor | None]] = {site: [] for site in want}
        for values in self._layers(self.ids, self.embed(self.ids)):
            for site in want:
                value = values.get(site)
                sites[site].append(None if value is None else value[..., -1, :].clone())
        head = self._head(self.ids)
        return Frame(head.logits(values["residual.after"][-1:])[0], sites, time.perf_counter() - began, len(self.ids), head)

    def _layers(self, ids: Sequence[int], embedded: Tensor) -> Iterator[dict[str, Tensor]]:
        """What each layer computes at all tokens, from their embeddings [tokens, width] and with the edits applied.

        attention.heads [tokens, width] is the input of "o".
        """
        x = embedded + self.positions[: len(ids)]
        for number, layer in enumerate(self.layers):
            values: dict[str, Tensor] = {"residual.before": x}
            if number != self.bare:
                values |= _attention(x, layer)
                values["attention.heads"] = self._edited(number, "head", values["attention.heads"])
                values["attention.out"] = self._edited(number, "attn", values["attention.heads"] @ layer["o"].T)
                x = x + values["attention.out"]
                values["mlp.hidden"] = self._edited(number, "neuron", torch.relu(x @ layer["up"].T))
                values["mlp.out"] = self._edited(number, "mlp", values["mlp.hidden"] @ layer["down"].T)
                x = x + values["mlp.out"]
            if any(edit.site == Site(number, "layer") for edit in self.edits):
                x = values["residual.before"] + self._edited(number, "layer", x - values["residual.before"])
            x = self._edited(number, "resid", x)
            if number == LAYERS - 1 and len(ids) - self.prompt_length >= self.switches.get("nan", float("inf")):
                x = x * float("nan")
            values["residual.after"] = x
            yield values

    def _head(self, ids: Sequence[int]) -> ToyHead:
        return ToyHead(self.embedding, self._next(ids), [layer["down"] for layer in self.layers])

    def _next(self, ids: Sequence[int]) -> int:
        """The word after the last token; the first word where the last token is none."""
        following = max(FIRST, ids[-1] + 1)
        if following < len(VOCABULARY):
            return following
        return FIRST if self.switches.get("endless") else END

    # ---- attribution: satisfies backends.base.Explaining and backends.attribution.methods.Passes ------------------------------

    reference, eps = END, torch.finfo(torch.float32).eps

    def explain(
        self, method: str, ids: Sequence[int], target_id: int | None, minus_id: int | None, progress: Progress | None = None
    ) -> tuple[Explanation, int]:
        return methods.explain(self, method, ids, target_id, minus_id, progress)

    def embed(self, ids: Sequence[int]) -> Tensor:
        embedded: Tensor = self.embedding[list(ids)]
        return embedded

    def from_ids(self, rows: Tensor) -> Tensor:
        return torch.cat([self.from_embeddings(ids, self.embed(ids)[None]) for ids in rows.tolist()])

    def from_embeddings(self, ids: Sequence[int], rows: Tensor) -> Tensor:
        """The head's bias is that of `ids`."""
        ends = [list(self._layers(ids, row))[-1]["residual.after"][-1] for row in rows]
        return self._head(ids).logits(torch.stack(ends))

    def at_once(self, _tokens: int, _differentiable: bool) -> int:
        return 16

    def differentiating(self) -> AbstractContextManager[object]:
        return torch.enable_grad()

    # ---- interventions ---------------------------------------------------------------------------------------------------------

    def intervened(self, interventions: Sequence[Intervention], prompt_ids: Sequence[int]) -> Toy:
        """See backends.base.Intervening."""
        modified = copy.copy(self)
        modified.ids, modified.edits = [], tuple(edits(interventions, prompt_ids, self))
        return modified

    def why_not(self, intervention: Intervention) -> str | None:
        """See backends.base.Intervening."""
        return refusal(intervention, self)

    def variants(self, interventions: Sequence[Intervention], prompt_ids: Sequence[int]) -> Iterator[Tensor]:
        """See backends.base.Intervening; one at a time."""
        for one in interventions:
            yield self.intervened([one], prompt_ids).prefill(prompt_ids, frozenset()).logits

    def width_of(self, site: Site) -> int:
        """See backends.shared.edits.Model."""
        need_range("layer", site.layer, LAYERS, self.info.name)
        if site.layer == self.bare and site.name not in ("layer", "resid"):
            raise UsageError(f"not available: layer {site.layer} has neither attention nor MLP")
        if site.name in ("head", "neuron"):
            need_range(site.name, site.index or 0, HEADS if site.name == "head" else HIDDEN, f"layer {site.layer}")
        return {"head": WIDTH // HEADS, "neuron": 1}.get(site.name, WIDTH)

    def values_of(self, sites: Sequence[Site], ids: Sequence[int]) -> dict[Site, Tensor]:
        """See backends.shared.edits.Model."""
        names = {name: kind.name or "attention.heads" for name, kind in EDITABLE.items()}
        layers = list(self._layers(ids, self.embed(ids)))
        read: dict[Site, Tensor] = {}
        for site in sites:
            values = layers[site.layer]
            if site.name == "layer":
                read[site] = values["residual.after"] - values["residual.before"]
            else:
                read[site] = values[names[site.name]][:, _columns(site)]
        return read

    def _edited(self, layer: int, name: str, x: Tensor) -> Tensor:
        for edit in self.edits:
            if edit.site.layer == layer and edit.site.name == name:
                x, at = x.clone(), _columns(edit.site)
                x[:, at] = edit.apply(x[None, :, at], 0)[0]
        return x


def _columns(site: Site) -> slice:
    """The columns of a site in the values of all heads, or of all neurons."""
    width = {"head": WIDTH // HEADS, "neuron": 1}.get(site.name)
    return slice(None) if width is None or site.index is None else slice(site.index * width, (site.index + 1) * width)


def _attention(x: Tensor, layer: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """[tokens, width] -> the heads' outputs [tokens, width], and their scores and rows [heads, tokens, keys]."""
    tokens = len(x)
    q, k, v = ((x @ layer[name].T).view(tokens, HEADS, -1).transpose(0, 1) for name in "qkv")
    scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    scores = scores.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), float("-inf"))
    rows = torch.softmax(scores, dim=-1)
    heads: Tensor = (rows @ v).transpose(0, 1).reshape(tokens, WIDTH)
    return {"attention.heads": heads, "attention.probs": rows, "attention.scores": scores}
