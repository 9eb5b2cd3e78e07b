"""Whether a token that is undone and read again gives the same logits, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from openmav.backends.transformers.decoding.decoder import Decoder


def goes_back(model: PreTrainedModel, ids: Sequence[int]) -> bool:
    """Whether the last token yields bit-identical logits when it is undone and read again."""
    decoder = Decoder(model)
    decoder.prefill(ids[:-2], {}, lambda _n: None)
    decoder.decode_one_token(ids[-2], {})
    return same_again(decoder, decoder.decode_one_token(ids[-1], {}).logits.clone(), {})


def same_again(decoder: Decoder, logits: Tensor, extra: dict[str, Any]) -> bool:
    """Whether the newest token yields these logits again, bit for bit, when it is undone and read again."""
    newest = decoder.ids[-1]
    decoder.rewind(len(decoder.ids) - 1)
    return torch.equal(logits, decoder.decode_one_token(newest, extra).logits)
