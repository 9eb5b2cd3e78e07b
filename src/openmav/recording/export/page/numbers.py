"""The numbers of Steps as arrays of a page, a row a step, with the reason where there are none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmav.paint import one_line, printable, visible
from openmav.panels import token_card
from openmav.panels.widgets.attended import MEASURE as ROWS
from openmav.panels.widgets.attended import mean_row
from openmav.panels.widgets.layer_rows import decimals_for
from openmav.panels.widgets.lens import ABOVE, AGAIN, FIRST, STABLE, lens_of, mark, piece
from openmav.panels.widgets.lens import MEASURE as LENS
from openmav.protocol.snapshot import Snapshot
from openmav.record import Baseline, ModelInfo, Step
from openmav.record.nonfinite import nonfinite
from openmav.recording.export.page.pack import NOTHING, Pack, attention_code, permille, stacked
from openmav.recording.format import LARGEST
from openmav.view import View

LENS_TOP = 5  # tokens of each layer
MARKS = (" ", AGAIN, FIRST, ABOVE, STABLE)
NORMS = ("residual_norm", "attention_norm", "mlp_norm")
ENTROPY = "attention_entropy"
MOST_ENTRIES = 24_000_000  # of a measure in one page
MOST_CANDIDATES = 200  # of a token
NOT_RECORDED = "not recorded; run mav with --record and --measure {}"
TOO_LARGE = "left out of this page, which would be too large; the recording has it"


# ---- a token ------------------------------------------------------------------------------------------------------------------


def add_steps(pack: Pack, steps: Sequence[Step], now: Snapshot) -> list[dict[str, Any]]:
    """What the card of a token shows, from the panel that shows it in the app. Returns the contexts that the steps point to."""
    contexts: dict[tuple[Any, ...], int] = {}
    rows: dict[str, list[Any]] = {}
    width = min(max((len(step.candidates) for step in steps), default=1), MOST_CANDIDATES)
    for step in steps:
        card = token_card.data(View(info=now.info, steps=(replace(step, values={}),), cursor=0))
        context = step.sampling, step.interventions
        base = step.before
        row = {
            "id": card.token_id,
            "position": card.position,
            "token": pack.text(card.token),
            "text": pack.text(printable(step.text)),
            "bytes": pack.text(" ".join(f"{one:02X}" for one in card.token_bytes) if card.no_bytes is None else f"none: {card.no_bytes}"),
            "chosen_by": pack.text(card.chosen_by),
            "flags": step.forced + 2 * step.special,
            "p": card.p,
            "sampled_p": np.nan if card.sampled_p is None else card.sampled_p,
            "rank": card.rank,
            "surprisal": card.surprisal,
            "entropy": card.entropy,
            "seconds": card.seconds,
            "context": contexts.setdefault(context, len(contexts)),
            "alarm": pack.text(", ".join(map(one_line, nonfinite(step, now.info)))),
            "base.surprisal": np.nan if base is None else -base.logprob,
            "base.entropy": np.nan if base is None else base.entropy,
        }
        for name, value in {**row, **_candidates(pack, step, width)}.items():
            rows.setdefault(name, []).append(value)
    kinds = {"token": "u4", "text": "u4", "bytes": "u4", "chosen_by": "u4", "alarm": "u4", "context": "u4", "flags": "u1"}
    kinds |= {"candidate.token": "u4", "candidate.p": "f4", "candidate.sampled_p": "f4", "candidate.logit": "f4", "candidate.base": "f4"}
    for name, values in rows.items():
        pack.add(name, values, kinds.get(name, "f8"))
    return [{"sampling": s.describe(), "greedy": s.greedy, "seed": s.seed, "interventions": list(map(one_line, i))} for s, i in contexts]


def _candidates(pack: Pack, step: Step, width: int) -> dict[str, Any]:
    """[width] of each column, padded with NaN; ids are -1 there. Of more than that, the first ones and the chosen one."""
    candidates, base = step.candidates, step.before
    known = {} if base is None else dict(zip(base.candidates.token_ids.tolist(), base.candidates.probs.tolist()))
    rows = np.arange(min(len(candidates), width))
    chosen = np.nonzero(candidates.token_ids == step.token_id)[0]
    if len(chosen) and chosen[0] >= width:
        rows[-1] = chosen[0]
    ids = candidates.token_ids[rows].tolist()
    columns: dict[str, tuple[Any, float]] = {
        "candidate.id": (ids, -1),
        "candidate.token": ([pack.text(visible(candidates.tokens[row])) for row in rows], 0),
        "candidate.p": (candidates.probs[rows], np.nan),
        "candidate.sampled_p": (candidates.sampled_probs[rows], np.nan),
        "candidate.logit": (candidates.logits[rows], np.nan),
        "candidate.base": ([known.get(token_id, np.nan) for token_id in ids], np.nan),
    }
    return {name: np.concatenate([values, np.full(width - len(ids), fill)]) for name, (values, fill) in columns.items()}


# ---- layers -------------------------------------------------------------------------------------------------------------------


def _shaped(step: Step | Baseline, name: str, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """An entry of the step's values, where it has this shape."""
    array = step.values.get(name)
    return array if array is not None and array.shape == shape else None


def add_layers(pack: Pack, steps: Sequence[Step], now: Snapshot) -> dict[str, Any]:
    """Norms [steps, layers] and the entropy of attention [steps, layers, heads], where the recording has them."""
    info = _info(now)
    result: dict[str, Any] = {}
    for name in (*NORMS, ENTROPY):
        shape = (info.layers, info.heads) if name == ENTROPY else (info.layers,)
        if len(steps) * math.prod(shape) > MOST_ENTRIES:
            result[name] = {"why": TOO_LARGE}
            continue
        rows = [_shaped(step, name, shape) for step in steps]
        if all(row is None for row in rows):
            result[name] = {"why": NOT_RECORDED.format(name)}
            continue
        array = stacked(rows, shape, np.nan, np.float32)
        pack.add(name, array, "f4")
        pack.add(f"{name}.known", [row is not None for row in rows], "u1")
        first = next(row for row in rows if row is not None)
        most = float(np.max(array, where=np.isfinite(array), initial=0.0))
        decimals = 2 if name == ENTROPY else decimals_for(float(np.max(np.abs(first), where=np.isfinite(first), initial=0.0)))[0]
        result[name] = {"why": None, "most": most, "decimals": decimals}
        if name == ENTROPY:
            pack.add(f"{name}.mean", _means(array, info), "f8")
        base = [None if step.before is None else _shaped(step.before, name, shape) for step in steps]
        if any(row is not None for row in base):
            numbers = stacked(base, shape, np.nan, np.float32)
            pack.add(f"{name}.base", _means(numbers, info) if name == ENTROPY else numbers, "f8")
    return result


def _means(array: NDArray[Any], info: ModelInfo) -> list[list[float]]:
    return [[_mean(row, layer, info) for layer in range(info.layers)] for row in array]


def _mean(values: NDArray[Any], layer: int, info: ModelInfo) -> float:
    """Over the heads that the layer has; NaN where one of them is."""
    heads = info.layer_heads[layer] if layer < len(info.layer_heads) else info.heads
    return float(values[layer, :heads].astype(np.float64).mean()) if heads else np.nan


def _info(now: Snapshot) -> ModelInfo:
    assert now.info is not None
    return now.info


# ---- lens ---------------------------------------------------------------------------------------------------------------------


def add_lens(pack: Pack, steps: Sequence[Step], now: Snapshot) -> dict[str, Any]:
    """Each layer's most likely tokens [steps, layers, LENS_TOP] with their probabilities, and the marks of the app's lens map."""
    layers = _info(now).layers
    shape = (layers, LENS_TOP)
    if len(steps) * math.prod(shape) > MOST_ENTRIES:
        return {"why": TOO_LARGE}
    tokens: list[Any] = []
    probs: list[Any] = []
    marks: list[Any] = []
    chosen: list[Any] = []
    for step in steps:
        lens = lens_of(step)
        good = lens is not None and lens.ids.ndim == 2 and lens.ids.shape == lens.probs.shape and len(lens.ids) == layers
        if lens is None or not good:
            for rows in (tokens, probs, marks, chosen):
                rows.append(None)
            continue
        shown, top = np.full(shape, pack.text("")), np.full(shape, NOTHING)
        count = min(LENS_TOP, lens.ids.shape[1])
        shown[:, :count] = [[pack.text(piece(step, token_id)) for token_id in row] for row in lens.ids[:, :count].tolist()]
        top[:, :count] = np.where(lens.ids[:, :count] < 0, NOTHING, permille(lens.probs[:, :count]))
        tokens.append(shown)
        probs.append(top)
        marks.append([MARKS.index(mark(lens, layer)) for layer in range(layers)])
        of_chosen = _shaped(step, f"{LENS}.chosen", (layers,))
        chosen.append(None if of_chosen is None else permille(of_chosen))
    if all(row is None for row in tokens):
        return {"why": NOT_RECORDED.format(LENS)}
    pack.add("lens.token", stacked(tokens, shape, pack.text(""), np.uint32), "u4")
    pack.add("lens.p", stacked(probs, shape, NOTHING, np.uint16), "u2")
    pack.add("lens.mark", stacked(marks, (layers,), 0, np.uint8), "u1")
    pack.add("lens.chosen", stacked(chosen, (layers,), NOTHING, np.uint16), "u2")
    pack.add("lens.known", [row is not None for row in tokens], "u1")
    return {"why": None, "marks": MARKS, "top": LENS_TOP}


# ---- attention ----------------------------------------------------------------------------------------------------------------


def add_attention(pack: Pack, steps: Sequence[Step], now: Snapshot) -> dict[str, Any]:
    """For each step [layers, 1 + heads, tokens], the first of them the mean over the heads; `start` says where each step's begin.

    `start` is -1 for a step without. Where the recording has the largest entries only, the others are not known, and the mean neither.
    """
    info = _info(now)
    blocks: list[NDArray[np.uint16]] = []
    start, tokens, partial, size, left_out = [], [], [], 0, False
    for step in steps:
        rows, part = _rows(step, info)
        fits = rows is not None and size + info.layers * (info.heads + 1) * rows.shape[2] <= MOST_ENTRIES
        left_out = left_out or (rows is not None and not fits)
        start.append(size if fits else -1)
        tokens.append(rows.shape[2] if rows is not None and fits else 0)
        partial.append(part)
        if rows is None or not fits:
            continue
        means = [None if part else mean_row(rows, layer, info) for layer in range(info.layers)]
        whole = np.concatenate([stacked(means, rows.shape[2:], np.nan, np.float64)[:, None], rows], axis=1)
        blocks.append(attention_code(whole))
        size += whole.size
    if not blocks:
        return {"why": TOO_LARGE if left_out else NOT_RECORDED.format(ROWS)}
    pack.add("attention", np.concatenate([block.ravel() for block in blocks]), "u2")
    pack.add("attention.start", start, "f8")
    pack.add("attention.tokens", tokens, "u4")
    pack.add("attention.partial", partial, "u1")
    return {"why": None, "why_not": TOO_LARGE if left_out else "not captured for this token"}


def _rows(step: Step, info: ModelInfo) -> tuple[NDArray[Any] | None, bool]:
    """[layers, heads, tokens], and whether only the largest entries are known: the others are NaN then."""
    rows = step.values.get(ROWS)
    if rows is not None and rows.ndim == 3 and rows.shape[:2] == (info.layers, info.heads):
        return rows, False
    largest, places = step.values.get(LARGEST), step.values.get(f"{LARGEST}.ids")
    if largest is None or places is None or largest.shape != places.shape or largest.shape[:2] != (info.layers, info.heads):
        return None, False
    tokens = max(step.position, 0)
    if largest.ndim != 3 or largest.shape[2] >= tokens or tokens > MOST_ENTRIES:
        return None, False
    whole = np.full((*largest.shape[:2], tokens + 1), np.nan, dtype=np.float32)
    np.put_along_axis(whole, np.where((places < 0) | (places >= tokens), tokens, places), largest, -1)
    return whole[..., :tokens], True
