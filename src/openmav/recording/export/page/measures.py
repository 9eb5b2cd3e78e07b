"""The measures that have a panel of their own on the page: attribution, sampling, neurons, router, heads, health, and a user's own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmav.paint import one_line, visible
from openmav.panels import health, output_distribution, sampler_waterfall
from openmav.panels.widgets.logit_parts import PARTS
from openmav.protocol.snapshot import Snapshot
from openmav.record import RANK_EDGES, Branch, Step, measure_of
from openmav.recording.export.page.numbers import MOST_ENTRIES, NORMS, NOT_RECORDED, TOO_LARGE
from openmav.recording.export.page.pack import Pack, permille, stacked
from openmav.recording.format import ATTENTION, LARGEST
from openmav.view import View

SHARES = ("sink_share", "relative_attention_entropy")
HUNDREDTHS = 300.0  # logits: up to here a number with two decimals is packed in two bytes
MOST_CHECKED = 2_000  # tokens whose health is judged; each looks at those before it
MOST_OWN = 4_096  # numbers of a user's own measure in one step
PLACED = {*NORMS, *SHARES, ATTENTION, LARGEST, "attention_entropy", "logit_lens", "attribution", "neurons", "neuron_tokens", "router"}
PLACED |= {"sampling_stages", "distribution", "cache_size"}  # what is shown in a place of its own

Rows = list[NDArray[Any] | None]


def add_measures(pack: Pack, steps: Sequence[Step], branches: Sequence[Branch], now: Snapshot) -> dict[str, Any]:
    """{panel: why it is empty, or None and what else it needs}."""
    return {
        "attribution": _attribution(pack, steps, now),
        "sampling_stages": _stages(pack, steps, now),
        "distribution": _distribution(pack, steps),
        "neurons": _neurons(pack, steps, now),
        "router": _router(pack, steps, now),
        "cache_size": _cache(pack, steps),
        "health": _health(pack, steps, branches, now),
        **{name: _shares(pack, steps, name, now) for name in SHARES},
        **_own(pack, steps),
    }


def _rows(steps: Sequence[Step], name: str, axes: int, layers: int | None = None) -> Rows:
    """The entry of each step, where it has so many axes, and a first one of this length."""
    arrays = [step.values.get(name) for step in steps]
    return [one if one is not None and one.ndim == axes and layers in (None, len(one)) else None for one in arrays]


def _widest(rows: Rows, axis: int) -> int:
    return max((one.shape[axis] for one in rows if one is not None), default=0)


def _padded(rows: Rows, shape: tuple[int, ...], fill: float, dtype: Any) -> NDArray[Any]:
    """[rows, *shape]; `fill` beyond the size of a row, and where there is none."""
    result = np.full((len(rows), *shape), fill, dtype=dtype)
    for into, one in zip(result, rows):
        if one is not None:
            into[tuple(slice(size) for size in one.shape)] = one
    return result


def _known(pack: Pack, name: str, rows: Rows, entries: int) -> str | None:
    """Why a measure is not on the page; else None, and `known` says which steps have it."""
    if all(one is None for one in rows):
        return NOT_RECORDED.format(name)
    if len(rows) * entries > MOST_ENTRIES:
        return TOO_LARGE
    pack.add(f"{name}.known", [one is not None for one in rows], "u1")
    return None


def _layers(now: Snapshot) -> int:
    return 0 if now.info is None else now.info.layers


# ---- attribution --------------------------------------------------------------------------------------------------------------


def _attribution(pack: Pack, steps: Sequence[Step], now: Snapshot) -> dict[str, Any]:
    """Parts [steps, layers, 2, 1 + k] and whole [steps, 5, 1 + k]: the chosen token first, then the most likely ones."""
    layers = _layers(now)
    chosen, top = _rows(steps, "attribution", 2, layers), _rows(steps, "attribution.top", 3, layers)
    count = 1 + _widest(top, 2)
    why = _known(pack, "attribution", chosen, (layers + 3) * 2 * count)
    if why:
        return {"why": why}
    names = (*PARTS, "logit")
    parts: Rows = []
    whole: Rows = []
    for step, own, others in zip(steps, chosen, top):
        if own is None:
            parts.append(None)
            whole.append(None)
            continue
        parts.append(own[..., None] if others is None else np.concatenate([own[..., None], others], axis=2))
        single = [np.ravel(step.values.get(f"attribution.{name}", np.zeros(1)))[:1] for name in names]
        more = [np.ravel(step.values.get(f"attribution.top.{name}", np.zeros(0))) for name in names]
        whole.append(_padded([np.concatenate(pair) for pair in zip(single, more)], (count,), np.nan, np.float32))
    pack.add("attribution.part", _padded(parts, (layers, 2, count), np.nan, np.float32), "f4")
    pack.add("attribution.whole", _padded(whole, (len(names), count), np.nan, np.float32), "f4")
    pack.add("attribution.token", [_compared(pack, step, count) for step in steps], "u4")
    return {"why": None, "parts": PARTS, "count": count}


def _compared(pack: Pack, step: Step, count: int) -> list[int]:
    """The texts of the tokens whose logits were attributed; "" where there is none."""
    ids = step.values.get("attribution.top.token_ids", np.zeros(0, np.int64)).tolist()
    texts = [visible(step.token), *("" if one < 0 else visible(step.pieces.get(one, f"#{one}")) for one in ids)]
    return [pack.text(text) for text in (*texts, *[""] * count)[:count]]


# ---- sampling -----------------------------------------------------------------------------------------------------------------


def _stages(pack: Pack, steps: Sequence[Step], now: Snapshot) -> dict[str, Any]:
    """Names, and [steps, stages, 5]: on, survivors, kept, entropy, p of the token; padded with stages that have no name."""
    rows = [sampler_waterfall.data(View(info=now.info, steps=(step,), cursor=0)).stages for step in steps]
    why = _known(pack, "sampling_stages", [np.zeros(1) if one else None for one in rows], 0)
    if why:
        return {"why": why}
    count = max(map(len, rows))
    numbers = [np.array([[s.on, s.survivors, s.kept, s.entropy, s.chosen] for s in one], np.float32) if one else None for one in rows]
    names = [[pack.text(stage.name) for stage in one] + [pack.text("")] * (count - len(one)) for one in rows]
    pack.add("stages.name", names, "u4")
    pack.add("stages.value", _padded(numbers, (count, 5), np.nan, np.float32), "f4")
    return {"why": None}


def _distribution(pack: Pack, steps: Sequence[Step]) -> dict[str, Any]:
    shape = (len(RANK_EDGES) + 1, 2)
    rows = [one if one is not None and one.shape == shape else None for one in _rows(steps, "distribution", 2)]
    why = _known(pack, "distribution", rows, 0)
    if why:
        return {"why": why}
    pack.add("distribution.p", permille(stacked(rows, shape, np.nan, np.float32)), "u2")
    return {"why": None, "ranks": [label for label, *_ in output_distribution.bins(np.zeros(shape), 0)]}


# ---- inside of a layer --------------------------------------------------------------------------------------------------------


def _neurons(pack: Pack, steps: Sequence[Step], now: Snapshot) -> dict[str, Any]:
    """The strongest neurons [steps, layers, k]; the tokens that each raises and lowers [steps, layers, k, 2, n], where they are known."""
    layers = _layers(now)
    values, ids = _rows(steps, "neurons", 2, layers), _rows(steps, "neurons.ids", 2, layers)
    count = _widest(values, 1)
    why = _known(pack, "neurons", values, layers * count)
    if why is None and count == 0:
        reasons = now.info.missing.get("neurons", {}) if now.info is not None else {}
        why = next(iter(reasons.values()), "no layer of this model has neurons to show")
    if why:
        return {"why": why}
    pack.add("neurons.value", _padded(values, (layers, count), np.nan, np.float32), "f4")
    pack.add("neurons.id", _padded(ids, (layers, count), -1, np.int32), "i4")
    moved = _rows(steps, "neuron_tokens", 4)
    shape = layers, count, 2, _widest(moved, 3)
    fits = len(steps) * math.prod(shape) <= MOST_ENTRIES
    if not fits or all(one is None for one in moved):
        return {"why": None, "why_no_tokens": NOT_RECORDED.format("neuron_tokens") if fits else TOO_LARGE}
    none = pack.text("")
    texts = np.full((len(steps), *shape), none, np.uint32)
    logits = np.zeros((len(steps), *shape), np.float64)
    for at, (step, numbers) in enumerate(zip(steps, moved)):
        tokens = step.values.get("neuron_tokens.token_ids")
        if numbers is None or tokens is None or tokens.shape != numbers.shape:
            continue
        for row, layer in enumerate(step.values.get("neuron_tokens.layers", ())):
            if 0 <= layer < layers and row < len(numbers):
                k, ways, tops = numbers.shape[1:]
                logits[at, layer, :k, :ways, :tops] = numbers[row]
                texts[at, layer, :k, :ways, :tops] = _texts(pack, step, tokens[row], none)
    good = bool((np.abs(logits) < HUNDREDTHS).all())
    pack.add("neurons.token", texts, "u2" if texts.max(initial=0) < 2**16 else "u4")
    pack.add("neurons.logit", np.rint(logits * 100) if good else logits, "i2" if good else "f4")
    return {"why": None, "why_no_tokens": None, "scale": 100 if good else 1}


def _texts(pack: Pack, step: Step, ids: NDArray[Any], none: int) -> NDArray[np.uint32]:
    """The texts of the tokens, in the shape of `ids`."""
    flat = ids.ravel().tolist()
    known = {one: none if one < 0 else pack.text(visible(step.pieces.get(one, f"#{one}")) or "∅") for one in set(flat)}
    return np.array([known[one] for one in flat], np.uint32).reshape(ids.shape)


def _router(pack: Pack, steps: Sequence[Step], now: Snapshot) -> dict[str, Any]:
    """The experts that each layer selected [steps, layers, k], and their weights."""
    layers = _layers(now)
    weights, ids = _rows(steps, "router", 2, layers), _rows(steps, "router.ids", 2, layers)
    count = _widest(weights, 1)
    why = _known(pack, "router", weights, layers * count)
    if why is None and count == 0:
        why = "no layer of this model is a mixture of experts"
    if why:
        return {"why": why}
    array = _padded(weights, (layers, count), np.nan, np.float32)
    pack.add("router.weight", array, "f4")
    pack.add("router.id", _padded(ids, (layers, count), -1, np.int32), "i4")
    return {"why": None, "most": float(np.max(array, where=np.isfinite(array), initial=0.0))}


def _shares(pack: Pack, steps: Sequence[Step], name: str, now: Snapshot) -> dict[str, Any]:
    """Shares [steps, layers, heads] and their mean over the heads that a layer has."""
    info = now.info
    assert info is not None
    shape = (info.layers, info.heads)
    rows = [one if one is not None and one.shape == shape else None for one in _rows(steps, name, 2)]
    why = _known(pack, name, rows, math.prod(shape))
    if why:
        return {"why": why}
    array = stacked(rows, shape, np.nan, np.float32)
    heads = [info.layer_heads[at] if at < len(info.layer_heads) else info.heads for at in range(info.layers)]
    means = [[one[at, :own].astype(np.float64).mean() if own else np.nan for at, own in enumerate(heads)] for one in array]
    pack.add(name, permille(array), "u2")
    pack.add(f"{name}.mean", permille(means), "u2")
    return {"why": None, "most": 1.0, "decimals": 1}


# ---- the run ------------------------------------------------------------------------------------------------------------------


def _cache(pack: Pack, steps: Sequence[Step]) -> dict[str, Any]:
    rows = _rows(steps, "cache_size", 1)
    why = _known(pack, "cache_size", rows, 0)
    if why is None:
        pack.add("cache_size", [np.nan if one is None or not len(one) else float(one[0]) for one in rows], "f8")
    return {"why": why}


def _health(pack: Pack, steps: Sequence[Step], branches: Sequence[Branch], now: Snapshot) -> dict[str, Any]:
    """The checks of each token as the app's panel shows them: [steps, checks, 3] texts (name, number, detail) and their verdicts."""
    if len(steps) > MOST_CHECKED:
        return {"why": f"left out of a page with more than {MOST_CHECKED:,} tokens; mav replay shows it"}
    checks: dict[int, Sequence[health.HealthCheck]] = {}
    for branch in branches:
        for at, step in enumerate(branch.steps):
            if id(step) not in checks:
                checks[id(step)] = health.data(View(info=now.info, steps=branch.steps, cursor=at)).checks
    rows = [[[pack.text(t) for t in (c.name, c.number, _detail(c))] for c in checks[id(step)]] for step in steps]
    good = [[2 if c.good is None else int(c.good) for c in checks[id(step)]] for step in steps]
    pack.add("health.text", rows, "u4")
    pack.add("health.good", good, "u1")
    return {"why": None}


def _detail(check: health.HealthCheck) -> str:
    return one_line(" · ".join(part for part in (check.limit, check.where) if part))


def _own(pack: Pack, steps: Sequence[Step]) -> Mapping[str, Any]:
    """Measures that mav does not bring, under the number of each: their arrays as they are, where all steps have the same shape."""
    names = list(dict.fromkeys(name for step in steps for name in step.values if measure_of(name) not in PLACED))
    own = []
    for at, name in enumerate(names):
        rows = [step.values.get(name) for step in steps]
        shapes = {one.shape for one in rows if one is not None}
        shape = next(iter(shapes))
        entry: dict[str, Any] = {"name": one_line(name), "shape": list(shape), "why": None}
        if len(shapes) > 1 or math.prod(shape) > MOST_OWN:
            entry["why"] = "too large for a page, or of several sizes; the recording has it"
        else:
            pack.add(f"own{at}", stacked(rows, shape, np.nan, np.float64), "f8")
        own.append(entry)
    return {"own": own}
