"""Models, steps and sources made up for tests: seeded, any size, with every token that ever broke a screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from openmav.protocol.commands import (
    COMMANDS,
    Advance,
    Back,
    Command,
    Force,
    Intervene,
    Pause,
    PreviewSampling,
    Resume,
    SetBreakpoints,
    SetPace,
    SetSampling,
    SweepSites,
    Want,
)
from openmav.protocol.history import History
from openmav.protocol.snapshot import Snapshot
from openmav.record import RANK_EDGES, SAMPLING_STAGES, Candidates, ModelInfo, Prompt, Step, Timing, freeze_values, frozen
from openmav.record.attribution_result import InputAttribution
from openmav.record.sampling_preview import SamplingPreview
from openmav.record.sweep_map import SweepMap
from openmav.settings.sampling import Sampling

TEXT = (
    "the river that divides it and the bridges that tie it together , and for a tower that nobody wanted at first , which is now"
    " the picture by which the whole world knows it best . Its art , its museums and its old streets are famous"
)
WORDS = TEXT.split(" ")
HOSTILE = (
    "[/]",
    "[bold]",
    "\x1b[2J",
    "\ufffd",
    "日本語",
    "\n",
    "\u202eשלום\u202c",
    "مرحبا",
    "\r",
    "\x07",
    "👩\u200d👩\u200d👧",
    "🇫🇷",
    "e\u0301",
    "\u0301",
    "\t",
    "   ",
    "",
    "\u200b",
    "\ud800",
    "\x9b31m",
    "[@click=app.bell]x[/]",
    "{x}",
    "$a",
    "\\",
    "❤\ufe0f",
)


def make_info(layers: int = 30, heads: int = 9, missing: dict[str, dict[int, str]] | None = None, **changes: object) -> ModelInfo:
    """A model of any size; `missing` as in ModelInfo."""
    known = ModelInfo(
        name="SmolLM2-135M",
        backend="transformers",
        dtype="float32",
        device="cpu",
        layers=layers,
        heads=heads,
        vocab=49152,
        context=8192,
        missing=missing or {},
    )
    return replace(known, **changes)  # type: ignore[arg-type]


def make_prompt(text: str = "The capital of France is Paris. The city is known for its museums,") -> Prompt:
    """A prompt with a token a word."""
    tokens = tuple(part if at == 0 else f" {part}" for at, part in enumerate(text.split(" ")))
    return Prompt(text=text, token_ids=tuple(range(len(tokens))), tokens=tokens, special=(False,) * len(tokens))


def _candidates(rng: np.random.Generator, token_id: int, token: str, count: int) -> tuple[Candidates, np.ndarray]:
    logits = np.sort(rng.normal(0, 3, 2000).astype(np.float32))[::-1] + 20
    probs = np.exp(logits - logits.max())
    probs /= probs.sum()
    chosen = min(int(rng.exponential(1.2)), count - 1)
    ids = 1000 + np.arange(count)
    ids[chosen] = token_id
    names = [f" {WORDS[int(i)]}" for i in rng.integers(0, len(WORDS), count)]
    names[chosen] = token
    kept = np.where(np.arange(count) < max(5, chosen + 1), probs[:count], 0)
    made = Candidates(
        token_ids=frozen(ids.astype(np.int64)),
        tokens=tuple(names),
        logits=frozen(logits[:count].copy()),
        probs=frozen(probs[:count].astype(np.float32)),
        sampled_probs=frozen((kept / kept.sum()).astype(np.float32)),
    )
    return made, probs


def make_step(
    index: int, token: str | None = None, info: ModelInfo | None = None, seed: int = 0, candidates: int = 20, **changes: object
) -> Step:
    """One step with all core measures; the same arguments give the same step."""
    info = info or make_info()
    rng = np.random.default_rng([seed, index])
    token = f" {WORDS[index % len(WORDS)]}" if token is None else token
    token_id = 5000 + index
    made, probs = _candidates(rng, token_id, token, candidates)
    chosen = int(np.nonzero(made.token_ids == token_id)[0][0])
    edges = [0, *RANK_EDGES, len(probs)]
    mass = [float(probs[a:b].sum()) for a, b in pairwise(edges)]
    kept = np.zeros(len(probs))
    kept[: len(made)] = made.sampled_probs
    after = [float(kept[a:b].sum()) for a, b in pairwise(edges)]
    depth = np.linspace(0.1, 1, info.layers)
    values = {
        "mlp_norm": 30 + 250 * depth**3 * rng.uniform(0.8, 1.2, info.layers),
        "attention_norm": 15 + 60 * depth * rng.uniform(0.4, 1.3, info.layers),
        "residual_norm": 80 + 820 * depth**2.2 * rng.uniform(0.97, 1.03, info.layers),
        "attention_entropy": np.abs(rng.normal(1.1, 0.9, (info.layers, info.heads))),
        "distribution": np.stack([mass, after], axis=1),
    }
    for measure, layers in info.missing.items():
        for layer in layers:
            values[measure][layer] = np.nan
    step = Step(
        index=index,
        position=14 + index,
        token_id=token_id,
        token=token,
        text=token,
        logprob=float(np.log(made.probs[chosen])),
        entropy=float(-(probs * np.log(probs)).sum()),
        candidates=made,
        values=freeze_values(values),
        timing=Timing(model=0.043, capture=0.001, sample=0.0005),
    )
    return replace(step, **changes)  # type: ignore[arg-type]


def make_steps(count: int, info: ModelInfo | None = None, tokens: Sequence[str] | None = None, seed: int = 0) -> tuple[Step, ...]:
    """`count` steps; `tokens` are gone through again and again."""
    return tuple(make_step(i, tokens[i % len(tokens)] if tokens else None, info, seed) for i in range(count))


def make_attribution(prompt: Prompt, steps: Sequence[Step], index: int, **changes: object) -> InputAttribution:
    """An answer for one of the steps: scores from -1 to 2.5, nearly complete."""
    ids = (*prompt.token_ids, *(step.token_id for step in steps[:index]))
    scores = np.linspace(-1.0, 2.5, len(ids)).astype(np.float32)
    known = {
        "method": "integrated",
        "index": index,
        "position": len(ids),
        "target_id": steps[index].token_id,
        "target": steps[index].token,
        "minus_id": None,
        "minus": None,
        "token_ids": ids,
        "tokens": (*prompt.tokens, *(step.text for step in steps[:index])),
        "scores": scores,
        "output": 20.0,
        "total": float(scores.sum()) * 1.004,
        "drift": 0.0,
        "drift_limit": 1e-4,
        "of_baseline": False,
        "passes": 64,
        "reference": "<|end|>",
        "seconds": 1.0,
    }
    return InputAttribution(**{**known, **changes})  # type: ignore[arg-type]


def with_values(step: Step, **values: np.ndarray) -> Step:
    """The step with some measures replaced."""
    return replace(step, values=freeze_values({**step.values, **values}))


def with_nan(step: Step, measure: str, *place: int, value: float = float("nan")) -> Step:
    """The step with one number spoilt."""
    array = step.values[measure].copy()
    array[place] = value
    return with_values(step, **{measure: array})


def make_sweep(step: Step, info: ModelInfo, known: int | None = None, **changes: object) -> SweepMap:
    """Changes of a token's logit, those of the first `known` sites."""
    columns = info.heads if changes.get("what", "heads") == "heads" else 1
    count = info.layers * columns
    there = (np.arange(count) < (count if known is None else known)).reshape(info.layers, columns)
    values = np.random.default_rng(4).normal(0, 1, there.shape)
    made = SweepMap(step.index, step.token_id, step.token, 20.0, frozen(np.where(there, values, 0).astype(np.float32)), there, count)
    return replace(made, **changes)  # type: ignore[arg-type]


def make_preview(step: Step, sampling: Sampling) -> SamplingPreview:
    """Temperature and top-k on a step's candidates, as if there were no other tokens."""
    mine = step.candidates
    names, rows = ["raw"], [mine.probs]
    logits = mine.logits.astype(np.float64)
    stages = np.zeros((len(SAMPLING_STAGES), 5))
    settings = np.zeros(len(SAMPLING_STAGES))
    settings[SAMPLING_STAGES.index("temperature")] = sampling.temperature
    settings[SAMPLING_STAGES.index("top-k")] = sampling.top_k
    if sampling.greedy:
        names.append("greedy")
        rows.append(np.eye(len(mine))[0])
    else:
        names += ["temperature", "top-k"]
        for cut in (len(mine), sampling.top_k or len(mine)):
            weights = np.where(np.arange(len(mine)) < cut, np.exp((logits - logits[0]) / sampling.temperature), 0)
            rows.append(weights / weights.sum())
    for name, row in zip(names, rows):
        if name in SAMPLING_STAGES:
            entropy = -sum(p * np.log(p) for p in row if p > 0)
            stages[SAMPLING_STAGES.index(name)] = 1, np.count_nonzero(row), 1, entropy, row[mine.token_ids.tolist().index(step.token_id)]
    values = {"sampling_stages": stages, "sampling_stages.settings": settings, "distribution": step.values["distribution"]}
    probs = frozen(np.stack(rows).astype(np.float32))
    return SamplingPreview(sampling, step.index, step.token_id, mine.token_ids, mine.tokens, tuple(names), probs, freeze_values(values))


class ListSource:
    """A source with a fixed list of steps; it obeys no command."""

    def __init__(self, steps: Sequence[Step] = (), info: ModelInfo | None = None, **changes: object) -> None:
        known = {"status": "ended", "reason": "length", "prompt": make_prompt(), "version": 1, **changes}
        self._now = Snapshot(info=info or make_info(), steps=tuple(steps), **known)  # type: ignore[arg-type]
        self.sent: list[Command] = []
        self.closed = False

    @property
    def can(self) -> frozenset[str]:
        return frozenset()

    def snapshot(self) -> Snapshot:
        return self._now

    def send(self, command: Command) -> None:
        self.sent.append(command)

    def close(self) -> None:
        self.closed = True


class ScriptedSource:
    """A source that makes up a step whenever it is asked to; while it runs, each call of `beat` makes one.

    `sent` holds the commands in their order. A forced token is one of the last step's candidates, or is named by its id.
    """

    can = COMMANDS

    def __init__(self, steps: Sequence[Step] = (), info: ModelInfo | None = None, limit: int = 200, **changes: object) -> None:
        self.info = info or make_info()
        self.limit = limit
        self.sent: list[Command] = []
        self.closed = False
        known = {"status": "paused", "info": self.info, "prompt": make_prompt(), "version": 1, **changes}
        self.history = History(Snapshot(steps=tuple(steps), **known))  # type: ignore[arg-type]

    def snapshot(self) -> Snapshot:
        return self.history.snapshot()

    @property
    def steps(self) -> Sequence[Step]:
        return self.history.snapshot().steps

    def beat(self, **changes: object) -> None:
        """One token, where it runs."""
        if self.history.snapshot().status == "running":
            self._append(**changes)

    def _append(self, **changes: object) -> None:
        changes = {"sampling": self.history.snapshot().sampling, **changes}
        self.history.append(replace(make_step(len(self.steps), None, self.info), **changes))  # type: ignore[arg-type]
        if len(self.steps) >= self.limit:
            self.history.update(status="ended", reason="length")

    def send(self, command: Command) -> None:
        self.sent.append(command)
        match command:
            case Resume():
                self.history.update(status="running")
            case Pause():
                self.history.update(status="paused")
            case Advance(count):
                for _ in range(count):
                    self._append()
                self.history.update(status="paused")
            case Back(count):
                self.history.truncate(max(0, len(self.steps) - count))
                self.history.update(status="paused")
            case Force(token_id, at):
                if at is not None:
                    self.history.truncate(at)
                    self.history.update(status="paused")
                self._force(token_id)
            case SetSampling(sampling):
                self.history.update(sampling=sampling)
            case PreviewSampling(sampling):
                self.history.update(preview=make_preview(self.steps[-1], sampling) if self.steps else None)
            case SweepSites(index):
                self.history.update(sweep=make_sweep(self.steps[index], self.info, known=40))
            case SetPace(seconds):
                self.history.update(pace=seconds)
            case Intervene(specs):
                self.history.update(interventions=specs)
            case SetBreakpoints(texts):
                self.history.update(breakpoints=texts)
            case Want():
                pass

    def _force(self, token_id: int) -> None:
        step = make_step(len(self.steps), None, self.info)
        rows = np.nonzero(step.candidates.token_ids == token_id)[0]
        token = step.candidates.tokens[int(rows[0])] if len(rows) else f" #{token_id}"
        self.history.append(replace(step, token_id=token_id, token=token, text=token, forced=True))

    def close(self) -> None:
        self.closed = True


def sampled() -> Sampling:
    """A choice that is not greedy."""
    return Sampling(temperature=0.8, top_k=40, top_p=0.95)


class IdTokenizer:
    """Ids 0..255 are bytes, more are written as <n>; enough of a tokenizer for sessions on random models."""

    all_special_ids = (299,)
    eos_token_id = None
    chat_template = None

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": list(text.encode())}

    def decode(self, ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) -> str:
        out, run = [], bytearray()
        for i in ids:
            if i < 256:
                run.append(i)
                continue
            out.append(run.decode("utf-8", "replace"))
            run.clear()
            out.append(f"<{i}>")
        return "".join(out) + run.decode("utf-8", "replace")

    def __len__(self) -> int:
        return 300
