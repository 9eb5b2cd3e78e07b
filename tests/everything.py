"""Steps with every measure that mav has, for tests and benchmarks of panels: seeded, any size, long histories at little cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fakes import WORDS, ScriptedSource, make_info, make_step
from openmav.record import SAMPLING_STAGES, USUAL_STAGES, ModelInfo, Step, frozen
from openmav.record.comparison import COMPARISON
from panels.deep import deepen, rows_of

NEURONS, EXPERTS, SAID = 8, 4, 6  # strongest neurons and chosen experts of a layer; tokens that a neuron raises, and lowers
STAGES_SET = dict(zip(USUAL_STAGES, (1, 1, 1.1, 0.8, 50, 0.95, 0)))  # what the stages of sampling are set to
DIFFERENT = 24  # steps that are made; a longer history goes through them again and again


def _mlp_values(rng: np.random.Generator, layers: int) -> dict[str, np.ndarray]:
    """Neurons, what they say, and experts."""
    strongest = np.sort(rng.gamma(2, 3, (layers, NEURONS)))[:, ::-1] * rng.choice([-1, 1], (layers, NEURONS))
    weights = np.sort(rng.dirichlet(np.ones(EXPERTS), layers))[:, ::-1]
    said = np.sort(rng.gamma(2, 0.4, (layers, NEURONS, 2, SAID)))[..., ::-1] * np.array([1, -1])[:, None]
    return {
        "neurons": strongest,
        "neurons.ids": rng.integers(0, 1536, (layers, NEURONS)),
        "neuron_tokens": said,
        "neuron_tokens.token_ids": rng.integers(100, 900, said.shape),
        "neuron_tokens.layers": np.arange(layers),
        "router": weights,
        "router.ids": rng.integers(0, 64, (layers, EXPERTS)),
    }


def _comparison_values(rng: np.random.Generator, step: Step, layers: int) -> dict[str, np.ndarray]:
    """What a comparison adds: from the second layer on the runs differ."""
    count = len(step.candidates)
    share = np.sort(rng.gamma(2, 0.1, (3, layers))) * (np.arange(layers) > 0)
    ids, probs = rng.permutation(step.candidates.token_ids), np.sort(rng.dirichlet(np.ones(count)))[::-1]
    values = {
        "kl": np.array([10 ** rng.uniform(-8, 1)]),
        "difference": 30 * share,
        "share": share,
        "cosine": np.where(share > 0, 1 - share, np.nan),
        "parting": np.array([min(1, layers - 1), 1]),
        "first": np.array([0, min(1, layers - 1), 1]),
        "token_ids": ids,
        "probs": probs,
        "probs_in_a": probs[::-1],
        "probs_in_b": rng.permutation(probs),
        "logprob": np.array([step.logprob - 1]),
        "entropy": np.array([step.entropy + 0.5]),
    }
    return {f"{COMPARISON}.{name}": array for name, array in values.items()}


def _run_values(step: Step) -> dict[str, np.ndarray]:
    """What belongs to no layer: the stages of sampling, and the cache."""
    p = float(np.exp(step.logprob))
    stages = np.zeros((len(SAMPLING_STAGES), 5))
    for at, name in enumerate(USUAL_STAGES):
        on = float(at % 2 == 0)
        stages[SAMPLING_STAGES.index(name)] = [on, 49152 / 4**at, 1 - 0.05 * at, step.entropy / (1 + 0.2 * at), p]
    return {
        "sampling_stages": stages,
        "sampling_stages.settings": np.array([STAGES_SET.get(name, 0.0) for name in SAMPLING_STAGES]),
        "cache_size": np.array([46080.0 * step.position]),
    }


def _emptied(values: dict[str, np.ndarray], info: ModelInfo) -> None:
    """Puts "none" wherever the model has nothing, whatever part of a measure it is."""
    for name, array in values.items():
        if array.ndim and len(array) == info.layers:
            array[list(info.missing.get(name.partition(".")[0], {}))] = -1 if array.dtype.kind == "i" else np.nan


def whole_step(index: int, info: ModelInfo | None = None, token: str | None = None) -> Step:
    """One step with everything in it; its attention rows span its position."""
    info = info or make_info()
    bare = replace(info, missing={})
    step = deepen(make_step(index, token, bare), bare)
    rng = np.random.default_rng([11, index])
    added = _mlp_values(rng, info.layers) | _run_values(step) | _comparison_values(rng, step, info.layers)
    pieces = {int(i): f" {WORDS[int(i) % len(WORDS)]}" for i in added["neuron_tokens.token_ids"].ravel()}
    pieces |= dict(zip(step.candidates.token_ids.tolist(), step.candidates.tokens))
    values = {name: np.array(array) for name, array in {**step.values, **added}.items()}
    _emptied(values, info)
    made = {name: frozen(array.astype(np.int64 if array.dtype.kind == "i" else np.float32)) for name, array in values.items()}
    return replace(step, values=made, pieces={**pieces, **step.pieces})


def whole_steps(count: int, info: ModelInfo | None = None, tokens: Sequence[str] | None = None) -> tuple[Step, ...]:
    """`count` steps; the last one's attention rows span all of them, as far as that is not too much to hold."""
    info = info or make_info()
    made = [whole_step(i, info, tokens[i % len(tokens)] if tokens else None) for i in range(min(count, DIFFERENT))]
    steps = [made[i] if i < DIFFERENT else replace(made[i % DIFFERENT], index=i, position=14 + i) for i in range(count)]
    return (*steps[:-1], _with_long_rows(steps[-1], info)) if count > DIFFERENT else tuple(steps)


def _with_long_rows(step: Step, info: ModelInfo) -> Step:
    """All heads look alike there: one row, seen from everywhere, takes no room."""
    row = rows_of(np.random.default_rng(5), 1, 1, step.position).astype(np.float32)
    rows = np.broadcast_to(row, (info.layers, info.heads, step.position))
    return replace(step, values={**step.values, "attention_rows": rows})


def spoilt(step: Step, value: float = float("nan")) -> Step:
    """The step of a broken model: no number in it is finite."""
    broken = {name: np.full_like(array, value) if array.dtype.kind == "f" else array for name, array in step.values.items()}
    logits = np.full_like(step.candidates.logits, value)
    candidates = replace(step.candidates, logits=logits, probs=logits, sampled_probs=logits)
    return replace(step, values=broken, candidates=candidates, entropy=value, logprob=value)


class WholeSource(ScriptedSource):
    """A source whose steps hold every measure; its tokens are gone through again and again."""

    def __init__(self, steps: Sequence[Step] = (), info: ModelInfo | None = None, limit: int = 200, tokens: Sequence[str] = WORDS) -> None:
        super().__init__(steps, info, limit)
        self.tokens = tokens

    def _append(self, **changes: object) -> None:
        index = len(self.steps)
        step = whole_step(index, self.info, self.tokens[index % len(self.tokens)])
        self.history.append(replace(step, **changes))  # type: ignore[arg-type]
        if len(self.steps) >= self.limit:
            self.history.update(status="ended", reason="length")
