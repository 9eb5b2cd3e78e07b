"""Attribution: what each layer's attention and MLP adds to the logit of the token that was chosen, and of the likeliest tokens.

"attribution" [layers, 2], in logits: (attention-out_l, MLP-out_l) dotted with the direction of that token's logit, the scale of
the final norm held at its value here. "attribution.embedding" [1] is what was in the stream before layer 0, "attribution.bias"
[1] what the biases of the final norm and of the head add, "attribution.logit" [1] the model's own logit, and
"attribution.rest" [1] what the parts do not explain: rounding, and layers whose parts are not known. All parts, bias and rest
sum to the logit. A soft cap is no sum: with one, this is the logit before the cap. Where a layer's own parts are not known,
nothing that came before it can be followed: those parts are NaN, and the rest holds them.
"attribution.top" [layers, 2, k] are the same parts for the k likeliest tokens, most likely first, so that two of them can be
compared: the difference of two tokens' parts is what each part adds to the difference of their logits.
"attribution.top.token_ids" [k] says which; "attribution.top.embedding", ".bias", ".logit" and ".rest" are [1, k].
Source: Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021), "direct logit attribution".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from openmav.backends._base import Directions, Frame
from openmav.measures._base import Context, stacked

if TYPE_CHECKING:
    from torch import Tensor

TITLE = "attribution"
NEEDS = ("attention.out", "mlp.out", "residual.before", "residual.after", "head.direction")
TOP = 10


def compute(frame: Frame, context: Context) -> Mapping[str, NDArray]:
    """fp32, summed in fp64; NaN where a layer has no such part, and everywhere where the head has no direction (ids -1 then)."""
    layers = len(frame.sites["residual.after"])
    ids = np.array([context.token_id, *context.top_ids[:TOP].tolist()])
    parts = np.full((layers, 2, len(ids)), np.nan)
    embedding, bias, logit = np.full((3, 1, len(ids)), np.nan)
    first = frame.sites["residual.before"][0] if layers else None
    lines = _directions(frame, ids)
    if first is not None and lines is not None:
        kept = np.array(lines.kept)[:, None] if lines.kept else np.ones((layers + 1, 1))
        along = _along([*frame.sites["attention.out"], *frame.sites["mlp.out"], first], lines.vectors)
        parts[:, 0], parts[:, 1] = kept[1:] * along[:layers], kept[1:] * along[layers:-1]
        followed = _followed(frame)
        parts[:followed] = np.nan
        if followed == 0:
            embedding = kept[:1] * along[-1:]
        bias, logit = (numbers.cpu().double().numpy()[None] for numbers in (lines.constants, lines.logits))
    else:
        ids[1:] = -1
    rest = logit - bias - np.nan_to_num(embedding) - np.nansum(parts, axis=(0, 1))
    whole = {"embedding": embedding, "bias": bias, "logit": logit, "rest": rest}
    return {
        "attribution": parts[:, :, 0],
        **{f"attribution.{name}": value[:, 0] for name, value in whole.items()},
        "attribution.top": parts[:, :, 1:],
        "attribution.top.token_ids": ids[1:],
        **{f"attribution.top.{name}": value[:, 1:] for name, value in whole.items()},
    }


def _followed(frame: Frame) -> int:
    """The first layer whose parts arrive at the end as they are: after it there is none that changes the stream in an unknown way."""
    sites = ("attention.out", "mlp.out", "residual.before", "residual.after")
    unknown = 0
    for layer, (attention, mlp, before, after) in enumerate(zip(*(frame.sites[site] for site in sites))):
        if attention is not None or mlp is not None:
            continue
        if before is None or after is None or not bool((before == after).all()):
            unknown = layer + 1
    return unknown


def _directions(frame: Frame, ids: NDArray[np.int64]) -> Directions | None:
    """The directions of the tokens' logits; None where the head has none."""
    last = frame.sites["residual.after"][-1] if frame.sites["residual.after"] else None
    return None if last is None or frame.head is None else frame.head.directions(last, ids.tolist(), frame.logits)


def _along(vectors: Sequence[Tensor | None], directions: Tensor) -> NDArray[np.float64]:
    """[vectors, directions]: each vector . each direction [width], fp64; NaN for a vector that is not there."""
    found = np.full((len(vectors), len(directions)), np.nan)
    stack, layers = stacked(vectors)
    if stack is not None:
        found[layers] = (stack.double() @ directions.to(stack.device).double().T).cpu().numpy()
    return found
