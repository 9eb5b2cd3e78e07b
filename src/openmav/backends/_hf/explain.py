"""A transformers model run over whole texts, on ids or on embeddings that take the place of its own; see backends/_explain.py.

The embeddings come in by a hook on the model's input embedding, so that all that follows (a scale, positions, a projection) is the
model's own. It runs with the attention that it decodes with, which is differentiable, and without a cache.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from openmav.backends._hf import placing
from openmav.backends._hf.quantised import without_gradients
from openmav.errors import UsageError

TOKENS = 4096  # in all texts of one pass
DIFFERENTIABLE_TOKENS = 1024  # the same where what each layer computed is kept for the gradient
LOGITS = 1 << 26  # numbers, of a model that gives the logits of every place


class ModelPasses:
    """Satisfies backends._explain.Passes."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any) -> None:
        self.model = model
        self.reference = reference_id(model, tokenizer)
        self.eps = torch.finfo(model.dtype).eps
        self._embedding: nn.Module = model.get_input_embeddings()
        takes = inspect.signature(model.forward).parameters
        self._last_only = "logits_to_keep" in takes
        self._arguments: dict[str, Any] = {"use_cache": False, "return_dict": True}
        if self._last_only:
            self._arguments["logits_to_keep"] = 1

    def at_once(self, tokens: int, differentiable: bool) -> int:
        room = (DIFFERENTIABLE_TOKENS if differentiable else TOKENS) // tokens
        if not self._last_only:
            room = min(room, LOGITS // (tokens * int(self.model.config.get_text_config(decoder=True).vocab_size)))
        return max(1, room)

    def embed(self, ids: Sequence[int]) -> Tensor:
        with torch.no_grad():
            row = torch.tensor(list(ids), device=placing.input_device(self.model))
            return self._embedding(row).float().clone()  # type: ignore[no-any-return]

    def from_ids(self, rows: Tensor) -> Tensor:
        with without_gradients(self.model):
            logits = self._run(rows)
        return logits.clone()

    def from_embeddings(self, ids: Sequence[int], rows: Tensor) -> Tensor:
        times = 0

        def put(_module: nn.Module, _given: object, made: Tensor) -> Tensor:
            nonlocal times
            times += 1
            return rows.to(made)

        handle = self._embedding.register_forward_hook(put)
        try:
            logits = self._run(torch.tensor([list(ids)]).repeat(len(rows), 1))
        finally:
            handle.remove()
        if times != 1:
            raise UsageError(f"no gradient for this model: its input embedding ran {times} times in one pass")
        return logits

    def _run(self, rows: Tensor) -> Tensor:
        output = self.model(input_ids=rows.to(placing.input_device(self.model)), **self._arguments)
        logits: Tensor = output.logits[:, -1].float().cpu()
        return logits

    @contextmanager
    def differentiating(self) -> Iterator[None]:
        """Gradients on, but through no weight; what the model can't differentiate is one line."""
        learned = [p for p in self.model.parameters() if p.requires_grad]
        try:
            for parameter in learned:
                parameter.requires_grad_(False)
            with torch.enable_grad():
                yield
        except (RuntimeError, NotImplementedError) as error:
            if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
                raise
            why = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
            raise UsageError(f"this model gives no gradient ({why}); occlusion needs none") from error
        finally:
            for parameter in learned:
                parameter.requires_grad_(True)


def reference_id(model: PreTrainedModel, tokenizer: Any) -> int:
    """The token that stands for "nothing here": the one for padding, else for unknown text, the end or the beginning of one; else 0."""
    for kind in ("pad", "unk", "eos", "bos"):
        for owner in (tokenizer, model.config.get_text_config(decoder=True)):
            found = getattr(owner, f"{kind}_token_id", None)
            found = found[0] if isinstance(found, list | tuple) and found else found
            if isinstance(found, int) and 0 <= found < model.get_input_embeddings().weight.shape[0]:
                return found
    return 0
