"""What happened, frozen: a Prompt, the ModelInfo it was given to, and a Step for every token.

From here nothing changes a value: every face of mav (terminal, plain text, JSON lines, replay) shows these numbers. The
module needs numpy only, so that a recording opens without the model's libraries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from openmav.settings.sampling import Sampling

Array: TypeAlias = NDArray[np.float32]
Ids: TypeAlias = NDArray[np.int64]
RANK_EDGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)  # of "distribution": a bin holds the ranks up to its edge, one more bin the rest
TRUNK = "main"  # the name of the first branch
USUAL_STAGES = ("raw", "constraint", "penalty", "temperature", "top-k", "top-p", "min-p")  # those that any model has, on or off
SAMPLING_STAGES = (  # of "sampling_stages": its rows, in the order in which they run
    "raw",
    "constraint",
    "sequence bias",
    "prompt penalty",
    "penalty",
    "no n-gram",
    "prompt n-gram",
    "bad words",
    "min length",
    "min tokens",
    "forced start",
    "forced end",
    "finite",
    "end bias",
    "suppressed",
    "not first",
    "temperature",
    "top-h",
    "top-k",
    "top-p",
    "min-p",
    "typical-p",
    "epsilon",
    "eta",
    "normalise",
)
Missing: TypeAlias = Mapping[str, Mapping[int, str]]  # {measure: {layer: why it has no such value}}
LARGE = 1 << 14  # bytes of an entry of Step.values from which on it is large
EndReason: TypeAlias = Literal["eos", "length", "stop", "break", "complete", "stuck", "interrupt"]
ENDS: Mapping[EndReason, str] = {
    "eos": "the model ended the text",
    "complete": "the constraint is satisfied",
    "stuck": "the constraint allows no token here",
    "length": "max tokens",
    "stop": "a stop sequence",
    "break": "a breakpoint",
    "interrupt": "interrupted",
}


def frozen(array: NDArray) -> NDArray:
    """The same array, read only."""
    array.setflags(write=False)
    return array


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model once it is loaded; counts, no values.

    `missing` says for a measure which layers have no such value, and why: the shape is {measure: {layer: reason}}. A NaN in
    a Step at such a place means "none"; anywhere else it is the model's own NaN.
    """

    name: str
    backend: str
    dtype: str
    device: str
    layers: int
    heads: int
    vocab: int
    context: int | None  # tokens; None: no limit known
    kv_heads: int = 0
    width: int = 0  # of the residual stream
    parameters: int = 0
    missing: Missing = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what a reader should know, a line each
    generation_config: Mapping[str, Any] = field(default_factory=dict)  # the model's own settings that are followed, where not given
    layer_heads: tuple[int, ...] = ()  # attention rows of each layer where they differ; empty: `heads` in every layer that has any

    def why_missing(self, measure: str, layer: int) -> str | None:
        """The reason why `layer` has no value of `measure` (or of a part of it); None where it has one."""
        return self.missing.get(measure_of(measure), {}).get(layer)


@dataclass(frozen=True)
class Prompt:
    """The text of the prompt and the tokens that were really fed; `tokens` are their strings, joined they read as the text."""

    text: str
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    special: tuple[bool, ...] = ()  # which of them are special tokens
    parts: Mapping[int, str] = field(default_factory=dict)  # {index of a token that is a part of a character: its name, "<0xF0>"}


@dataclass(frozen=True)
class Candidates:
    """The k most likely next tokens by the raw logits, most likely first; the chosen one is always among them (last if it was not).

    Arrays are [k]. `logits` and `probs` are the model's own in fp32, before any change by sampling; `sampled_probs` come after
    the sampling chain, 0 where it filtered the token out.
    """

    token_ids: Ids
    tokens: tuple[str, ...]
    logits: Array
    probs: Array
    sampled_probs: Array

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Timing:
    """Seconds of one token: the forward pass, what capture and measures added, and choosing."""

    model: float
    capture: float
    sample: float = 0.0

    @property
    def total(self) -> float:
        return self.model + self.capture + self.sample


@dataclass(frozen=True)
class Baseline:
    """The baseline model's numbers at the same place after the same tokens, beside a Step of the modified one.

    `candidates` are its own most likely tokens and all those of the Step, most likely first; `values` and `pieces` as in a Step.
    """

    candidates: Candidates
    logprob: float  # of the Step's token, natural log of its raw probability
    entropy: float  # nats, of the raw next-token distribution
    values: Mapping[str, NDArray]
    pieces: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One generated token and what the model did at the position that predicted it.

    `values` maps a measure's name to its array: per layer [layers], per layer and head [layers, heads], or as the measure's
    docstring says; "distribution" is [len(RANK_EDGES) + 1, 2]: the probability mass in each bin of ranks, raw and after
    sampling. A measure that has more to tell has more arrays, named "measure.part". Numbers are fp32; ids are int64, -1 where
    there is none, and those under a name that ends in ".token_ids" have their texts in `pieces`. A measure that nobody wanted
    is not there. NaN: see ModelInfo.missing.
    """

    index: int  # 0 is the first generated token
    position: int  # of the token in the whole sequence, prompt included
    token_id: int
    token: str  # the token on its own; a part of a character by its bytes, "<0xF0>", or U+FFFD where they are not known
    text: str  # what it adds to the visible text: "" until a split character is whole
    logprob: float  # natural log of its raw probability
    entropy: float  # nats, of the raw next-token distribution
    candidates: Candidates
    values: Mapping[str, NDArray]
    timing: Timing
    special: bool = False
    forced: bool = False  # put there by the user, not drawn
    pieces: Mapping[int, str] = field(default_factory=dict)  # texts of the token ids in `values`
    dropped: tuple[str, ...] = ()  # entries of `values` that were let go to bound the memory
    sampling: Sampling = field(default_factory=Sampling)  # how it was chosen
    interventions: tuple[str, ...] = ()  # what was done to the model meanwhile, as interventions.parse reads it
    before: Baseline | None = None  # of the model without interventions; None where there are none
    rank: int = -1  # how many tokens have a larger raw logit: 0 is the most likely (top-1); -1 where that is not known

    @property
    def surprisal(self) -> float:
        """-ln p of the token, nats."""
        return -self.logprob

    @property
    def healthy(self) -> bool:
        """False where the model's logits held NaN or infinity."""
        return bool(np.isfinite(self.entropy) and np.isfinite(self.candidates.logits).all())


@dataclass(frozen=True)
class Branch:
    """One way that the text went: a prompt and the tokens after it. `steps` before `at` are those of `parent`, None for a root."""

    name: str
    prompt: Prompt
    steps: tuple[Step, ...] = ()
    parent: str | None = None
    at: int = 0

    @property
    def text(self) -> str:
        """What was generated."""
        return "".join(step.text for step in self.steps)


def freeze_values(values: Mapping[str, NDArray]) -> Mapping[str, NDArray]:
    """The same names with read-only arrays: ids as int64, all else as fp32."""
    return {k: frozen(np.ascontiguousarray(v, dtype=np.int64 if v.dtype.kind in "iu" else np.float32)) for k, v in values.items()}


def large(step: Step) -> dict[str, int]:
    """The step's entries that are large, such as attention rows over a long text, with their bytes."""
    return {name: array.nbytes for name, array in step.values.items() if array.nbytes > LARGE}


def without_large(step: Step) -> Step:
    """The step without its large entries, which it names in `dropped`."""
    names = large(step)
    if not names:
        return step
    return replace(step, values={k: v for k, v in step.values.items() if k not in names}, dropped=(*step.dropped, *names))


def measure_of(name: str) -> str:
    """The measure that an entry of `Step.values` belongs to: "logit_lens" for "logit_lens.token_ids"."""
    return name.partition(".")[0]


def lacking(step: Step, measures: Iterable[str], layer: int | None, missing: Missing, dropped: bool = True) -> set[str]:
    """Those of the measures that a step has no values for, or not for this layer, which has them; `dropped`: nor any more."""
    have = {measure_of(name) for name in (*step.values, *(() if dropped else step.dropped))}
    requested = -1 if layer is None else layer

    def of_others(measure: str) -> bool:
        layers = step.values.get(f"{measure}.layers")
        return layers is not None and requested >= 0 and requested not in layers.tolist() and requested not in missing.get(measure, {})

    return {measure for measure in measures if measure not in have or of_others(measure)}


def mean_surprisal(steps: Sequence[Step]) -> float:
    """Nats per token; NaN for no tokens. exp of it is the perplexity of the generated text."""
    return -float(np.mean([s.logprob for s in steps])) if steps else float("nan")
