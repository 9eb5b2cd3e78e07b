"""Attribution: what each layer's attention and MLP adds to the logit of the token that was chosen, and of the most likely tokens.

"attribution" [layers, 2], in logits: (attention-out_l, MLP-out_l) dotted with the direction of that token's logit, the scale of
the final norm held at its value here. "attribution.embedding" [1] is the part of the stream before layer 0, "attribution.other"
[1] what layers add besides those two, such as per-layer inputs, summed over layers (0 in nearly every model), "attribution.bias"
[1] what the biases of the final norm and of the head add, "attribution.logit" [1] the model's own logit, and
"attribution.rest" [1] what the parts do not explain: rounding, and layers whose parts are not known. All parts, bias and rest
sum to the logit. With a soft cap, which is not linear, this is the logit before the cap. Where a layer's own parts are not known,
earlier parts can't be traced to the logit: they are NaN, and included in the rest.
"attribution.top" [layers, 2, k] are the same parts for the k most likely tokens, most likely first, so that two of them can be
compared: the difference of two tokens' parts is what each part adds to the difference of their logits.
"attribution.top.token_ids" [k] says which; "attribution.top.embedding", ".other", ".bias", ".logit" and ".rest" are [1, k].
Source: Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021), "direct logit attribution".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmav.backends.base import Directions, Frame
from openmav.measures.base import Context, array_of, stacked

TITLE = "attribution"
NEEDS = ("attention.out", "mlp.out", "other.out", "residual.before", "residual.after", "head.direction")
TOP = 10
PARTS = ("attention.out", "mlp.out", "other.out")


def compute(frame: Frame, context: Context) -> Mapping[str, NDArray]:
    """fp32, summed in fp64; NaN where a layer has no such part, and everywhere (with ids -1) where the head has no direction."""
    layers = len(frame.rows("residual.after"))
    ids = np.array([context.token_id, *context.top_ids[:TOP].tolist()])
    parts = np.full((layers, 2, len(ids)), np.nan)
    embedding, other, bias, logit = np.full((4, 1, len(ids)), np.nan)
    first = next((row for layer, row in enumerate(frame.rows("residual.before")) if layer not in frame.idle), None)
    lines = _directions(frame, ids)
    if first is not None and lines is not None:
        added, start = _along([frame.rows(site) for site in PARTS], first, lines)
        followed = _followed(frame)
        parts[followed:] = added[:2, followed:].transpose(1, 0, 2)
        other = _known(added[2, followed:]).sum(axis=0, keepdims=True)
        if followed == 0:
            embedding = start
        bias, logit = (array_of(numbers).astype(np.float64)[None] for numbers in (lines.constants, lines.logits))
    else:
        ids[1:] = -1
    rest = logit - bias - _known(np.concatenate([parts.reshape(-1, len(ids)), embedding, other])).sum(axis=0, keepdims=True)
    whole = {"embedding": embedding, "other": other, "bias": bias, "logit": logit, "rest": rest}
    return {
        "attribution": parts[:, :, 0],
        **{f"attribution.{name}": value[:, 0] for name, value in whole.items()},
        "attribution.top": parts[:, :, 1:],
        "attribution.top.token_ids": ids[1:],
        **{f"attribution.top.{name}": value[:, 1:] for name, value in whole.items()},
    }


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values with 0 for NaN."""
    return np.where(np.isnan(values), 0.0, values)


def _followed(frame: Frame) -> int:
    """The first layer whose parts can be traced to the end: no later layer changes the stream in an unknown way."""
    sites = ("attention.out", "mlp.out", "residual.before", "residual.after")
    unknown = 0
    for layer, (attention, mlp, before, after) in enumerate(zip(*(frame.rows(site) for site in sites))):
        if attention is not None or mlp is not None or layer in frame.idle:
            continue
        if before is None or after is None or not bool((before == after).all()):
            unknown = layer + 1
    return unknown


def _directions(frame: Frame, ids: NDArray[np.int64]) -> Directions | None:
    """The directions of the tokens' logits; None where the head has none."""
    last: Any = frame.last_row
    logits: Any = frame.raw
    return None if last is None or frame.head is None else frame.head.directions(last, ids.tolist(), logits)


def _along(sites: Sequence[Sequence[Any]], first: Any, lines: Directions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[sites, layers, directions] and [1, directions]: what the rows of each site, and the first state, add to each logit, in fp64.

    NaN for a row that is None. All in one product where the directions are the same for every layer: after a small model's pass a
    call costs more than its work.
    """
    layers = len(sites[0])
    if lines.kept:
        added = np.stack([np.concatenate([_dot([row], lines.before(layer + 1)) for layer, row in enumerate(rows)]) for rows in sites])
        return added, _dot([first], lines.before(0))
    products = _dot([*(row for rows in sites for row in rows), first], lines.vectors)
    return products[:-1].reshape(len(sites), layers, -1), products[-1:]


def _dot(vectors: Sequence[Any], directions: Any) -> NDArray[np.float64]:
    """[vectors, directions]: each vector . each direction [width], fp64; NaN for a vector that is None."""
    products = np.full((len(vectors), len(directions)), np.nan)
    stack, layers = stacked(vectors)
    if isinstance(directions, np.ndarray) and stack is not None:
        products[layers] = stack.astype(np.float64) @ directions.astype(np.float64).T
    elif stack is not None:
        products[layers] = (stack.double() @ directions.to(stack.device).double().T).cpu().numpy()
    return products
