"""A transformers model run over whole texts, on ids or on embeddings that replace its own; see backends/attribution/methods.py.

A hook on the model's input embedding inserts the embeddings, so that all that follows (a scale, positions, a projection) is the
model's own code. It runs with the attention that it decodes with, which is differentiable, and without a cache.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from openmav.backends.transformers.capture.module_state import fresh
from openmav.backends.transformers.decoding.decoder import traits_of
from openmav.backends.transformers.loading import placement
from openmav.backends.transformers.loading.quantised import without_gradients
from openmav.errors import NoGradientError, words_of
from openmav.system.memory import out_of_memory

TOKENS = 4096  # in all texts of one pass
DIFFERENTIABLE_TOKENS = 1024  # the same where activations are kept for the gradient
WITHOUT_CACHE = {"use_cache": False, "return_dict": True}
LOGITS = 1 << 26  # numbers, of a model that returns the logits of every position


class ModelPasses:
    """Satisfies backends.attribution.methods.Passes."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any) -> None:
        self.model = model
        self.reference = reference_id(model, tokenizer)
        self.eps = torch.finfo(model.dtype).eps
        self._embedding: nn.Module = model.get_input_embeddings()
        takes = inspect.signature(model.forward).parameters
        open_ended = any(one.kind is one.VAR_KEYWORD for one in takes.values())
        self._last_only = "logits_to_keep" in takes
        self._arguments: dict[str, Any] = {name: value for name, value in WITHOUT_CACHE.items() if name in takes or open_ended}
        if self._last_only:
            self._arguments["logits_to_keep"] = 1

    def at_once(self, tokens: int, differentiable: bool) -> int:
        room = (DIFFERENTIABLE_TOKENS if differentiable else TOKENS) // tokens
        if not self._last_only:
            room = min(room, LOGITS // (tokens * int(self.model.config.get_text_config(decoder=True).vocab_size)))
        return max(1, room)

    def embed(self, ids: Sequence[int]) -> Tensor:
        with torch.no_grad():
            row = torch.tensor(list(ids), device=placement.input_device(self.model))
            return self._embedding(row).float().clone()  # type: ignore[no-any-return]

    def from_ids(self, rows: Tensor) -> Tensor:
        with without_gradients(self.model):
            logits = self._run(rows)
        return logits.clone()

    def from_embeddings(self, ids: Sequence[int], rows: Tensor) -> Tensor:
        times = 0

        def replace(_module: nn.Module, _args: object, embedded: Tensor) -> Tensor:
            nonlocal times
            times += 1
            return rows.to(embedded)

        handle = self._embedding.register_forward_hook(replace)
        try:
            logits = self._run(torch.tensor([list(ids)]).repeat(len(rows), 1))
        finally:
            handle.remove()
        if times != 1:
            raise NoGradientError(f"no gradient for this model: its input embedding ran {times} times in one pass; occlusion needs none")
        return logits

    def _run(self, rows: Tensor) -> Tensor:
        with fresh(traits_of(self.model).slots):
            output = self.model(input_ids=rows.to(placement.input_device(self.model)), **self._arguments)
        logits: Tensor = output.logits[:, -1].float().cpu()
        return logits

    @contextmanager
    def differentiating(self) -> Iterator[None]:
        """See backends.attribution.methods.Passes."""
        learned = [p for p in self.model.parameters() if p.requires_grad]
        try:
            for parameter in learned:
                parameter.requires_grad_(False)
            with torch.enable_grad():
                yield
        except (RuntimeError, NotImplementedError) as error:
            if out_of_memory(error):
                raise
            raise NoGradientError(f"this model has no gradient ({words_of(error)}); occlusion needs none") from error
        finally:
            for parameter in learned:
                parameter.requires_grad_(True)


def reference_id(model: PreTrainedModel, tokenizer: Any) -> int:
    """The token used as a neutral replacement: padding, else unknown, end or beginning of text; else 0."""
    for kind in ("pad", "unk", "eos", "bos"):
        for owner in (tokenizer, model.config.get_text_config(decoder=True)):
            token = getattr(owner, f"{kind}_token_id", None)
            token = token[0] if isinstance(token, list | tuple) and token else token
            if isinstance(token, int) and 0 <= token < model.get_input_embeddings().weight.shape[0]:
                return token
    return 0
