"""Steps with deep measures made up for tests: attention rows and their summaries, the lens, attribution; seeded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fakes import WORDS, make_info, make_steps
from openmav.record import ModelInfo, Step, freeze_values

LENS_TOP = 10


def rows_of(rng: np.random.Generator, layers: int, heads: int, tokens: int) -> np.ndarray:
    """[layers, heads, tokens] softmax rows; the first token is a sink of many heads."""
    scores = rng.normal(0, 2, (layers, heads, tokens))
    scores[..., 0] += rng.choice([0, 8], (layers, heads))
    made = np.exp(scores - scores.max(-1, keepdims=True))
    return made / made.sum(-1, keepdims=True)


def attention_values(rows: np.ndarray) -> dict[str, np.ndarray]:
    """The measures that sum up rows."""
    entropy = -(rows * np.log(np.maximum(rows, 1e-30))).sum(-1)
    return {
        "attention_rows": rows,
        "attention_entropy": entropy,
        "relative_attention_entropy": entropy / np.log(max(rows.shape[-1], 2)),
        "sink_share": rows[..., 0],
        "sink_share.learned": np.zeros(rows.shape[:2]),
    }


def lens_values(rng: np.random.Generator, step: Step, layers: int) -> tuple[dict[str, np.ndarray], dict[int, str]]:
    """A lens whose upper layers say the likeliest candidate, and the texts of its tokens."""
    answer = int(step.candidates.token_ids[0])
    ids = rng.integers(100, 900, (layers, LENS_TOP))
    turn = int(rng.integers(layers // 2, layers))
    ids[turn:, 0] = answer
    probs = np.sort(rng.dirichlet(np.full(LENS_TOP + 1, 0.3), layers)[:, :LENS_TOP])[:, ::-1] * np.linspace(0.1, 1, layers)[:, None]
    pieces = {int(i): f" {WORDS[int(i) % len(WORDS)]}" for i in ids.ravel()} | {answer: step.candidates.tokens[0]}
    return {
        "logit_lens": probs,
        "logit_lens.token_ids": ids,
        "logit_lens.logits": np.log(probs + 1e-9) + 20,
        "logit_lens.chosen": probs[:, 0],
    }, pieces


def attribution_values(step: Step, layers: int) -> dict[str, np.ndarray]:
    """Parts that sum to the logits of the chosen token and of the ten likeliest."""
    ids = [step.token_id, *step.candidates.token_ids[:10].tolist()]
    logits = {int(i): float(logit) for i, logit in zip(step.candidates.token_ids, step.candidates.logits)}
    parts, embedding, bias, rest = [], [], [], []
    for token_id in ids:
        one = np.random.default_rng([step.index, token_id]).normal(0, 1.5, (layers, 2))
        parts.append(one)
        bias.append(0.25)
        rest.append(0.001)
        embedding.append(logits[token_id] - one.sum() - 0.251)
    whole = {"embedding": embedding, "bias": bias, "rest": rest, "logit": [logits[i] for i in ids]}
    return {
        "attribution": parts[0],
        **{f"attribution.{name}": np.array(value[:1]) for name, value in whole.items()},
        "attribution.top": np.stack(parts[1:], axis=-1),
        "attribution.top.token_ids": np.array(ids[1:]),
        **{f"attribution.top.{name}": np.array([value[1:]]) for name, value in whole.items()},
    }


def deepen(step: Step, info: ModelInfo, seed: int = 0, tokens: int | None = None) -> Step:
    """The step with all deep measures of these panels; `tokens` sets how many an attention row spans."""
    rng = np.random.default_rng([seed, step.index, 7])
    lens, pieces = lens_values(rng, step, info.layers)
    values = attention_values(rows_of(rng, info.layers, info.heads, tokens or step.position)) | lens
    values |= attribution_values(step, info.layers)
    for measure, layers in info.missing.items():
        for name in values:
            if name.partition(".")[0] == measure and values[name].shape[0] == info.layers:
                empty = -1 if name.endswith(".token_ids") else np.nan
                values[name] = values[name].astype(float) if empty != -1 else values[name]
                values[name][list(layers)] = empty
    return replace(step, values=freeze_values({**step.values, **values}), pieces=pieces)


def deep_steps(count: int, info: ModelInfo | None = None, tokens: Sequence[str] | None = None) -> tuple[Step, ...]:
    """`count` steps with everything in them."""
    info = info or make_info()
    bare = replace(info, missing={k: v for k, v in info.missing.items() if k in ("mlp_norm", "attention_norm", "residual_norm")})
    return tuple(deepen(step, info) for step in make_steps(count, bare, tokens))
