"""What the session asks of a backend: run the model one token at a time and return the wanted sites as tensors.

A Frame holds the sites of backends.sites by name, with one entry per layer, None where the layer has no such site.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from openmav.record import ModelInfo
from openmav.record.attribution_result import Explanation
from openmav.settings.generation_defaults import GenerationDefaults
from openmav.settings.interventions import Intervention
from openmav.settings.sampling import Sampling

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LogitsProcessorList

T = TypeVar("T")
Numbers: TypeAlias = "Tensor | NDArray[Any]"  # of one forward pass; all of them are of one kind
NO_ATTENTION, NO_MLP = "no attention in this layer", "no MLP in this layer"  # reasons why a part is missing
Progress: TypeAlias = Callable[[str, float | None], None]  # called with what is being done, and the share of it that is done, 0..1


@dataclass(frozen=True)
class LoadOptions:
    """How to load a model; a backend raises LoadError for an option that it does not support."""

    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False
    threads: int | None = None
    gpu_layers: int | None = None  # of llama.cpp; None: as many as an accelerator has room for
    rpc: tuple[str, ...] = ()  # addresses of llama.cpp's workers


@dataclass(frozen=True)
class Directions:
    """Tokens' logits as linear functions of the residual stream x after the last layer: logits = vectors @ x + constants.

    The scale of the final norm is held at its value for this x. `logits` are what the model computed, before a soft cap. `kept`
    [layers + 1] is the factor, a number or one per channel [width], that x contains of the stream before layer l (the last entry:
    after the last layer); empty: 1 everywhere, as in nearly every model.
    """

    vectors: Tensor  # [tokens, width] fp32
    constants: Tensor  # [tokens] fp32: what the biases of the final norm and of the head add
    logits: Tensor  # [tokens] fp32
    kept: tuple[float | Tensor, ...] = ()

    def before(self, layer: int) -> Tensor:
        """[tokens, width]: the directions for what is in the stream before this layer."""
        factor = self.kept[layer] if self.kept else 1.0
        return self.vectors * (factor if isinstance(factor, float) else factor.to(self.vectors.device))


class Head(Protocol):
    """Computes logits from the residual stream, through the model's own modules; from numpy arrays, where a frame has them, arrays."""

    def logits(self, residuals: Tensor) -> Tensor:
        """[n, width] of any layers -> [n, vocab] fp32: what the model would predict if these were outputs of the last layer."""

    def directions(self, residual: Tensor, token_ids: Sequence[int], logits: Tensor) -> Directions | None:
        """The directions of these tokens' logits at the last layer's output `residual` [width]; `logits` [vocab] are the model's own.

        None where they are not known.
        """

    def neuron_tokens(self, layer: int, ids: Sequence[int], hidden: Tensor, residual: Tensor, count: int) -> tuple[Tensor, Tensor] | None:
        """The tokens whose logits each neuron raises and lowers most: ids [n, 2, count] and by how much [n, 2, count], strongest first.

        `ids` name the neurons, `hidden` [hidden] is the layer's mlp.hidden, `residual` [width] the last layer's output: the scale
        of the final norm is held at its value there. Where fewer tokens are raised or lowered: id -1, 0 logits. None: not known.
        """


class Layers(Sequence[Any]):
    """What every layer has, alike in each, as one tensor or array `whole` [layers, ...]; a sequence of the layers' values."""

    def __init__(self, whole: Any) -> None:
        self.whole = whole

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, layer: Any) -> Any:
        return self.whole[layer]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.whole if isinstance(self.whole, np.ndarray) else self.whole.unbind(0))


@dataclass
class Frame:
    """One forward pass, at its last position. `tokens`: how many the model has read, this one included; 0: not known.

    A layer's output is `carry` [layers] (numbers, or one per channel [width]; empty: 1 everywhere) times its input, plus attention.out,
    mlp.out and other.out. `idle` are layers that do not run: the residual stream skips them. `other_keys` [layers] (empty: none
    anywhere) counts the first keys of a layer's row that stand for blocks of several tokens instead of one.
    """

    logits: Tensor  # [vocab] fp32, the model's own
    sites: Mapping[str, Sequence[Tensor | None]] = field(default_factory=dict)
    model_seconds: float = 0.0
    tokens: int = 0
    head: Head | None = None
    cache_bytes: Callable[[], int] | None = (
        None  # bytes of these tokens in the cache: keys and values, or a state; may be called at any time
    )
    carry: Sequence[float | Tensor] = ()
    idle: frozenset[int] = frozenset()
    heads: int = 0  # of the model's attention; the size of arrays by head where no layer has rows
    other_keys: Sequence[int] = ()
    _cached: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def last_residual(self) -> Tensor | None:
        """[width]: the residual stream after the last layer that runs."""
        last: Tensor | None = self._last(self.sites["residual.after"])
        return last

    def _last(self, rows: Sequence[Any]) -> Any:
        return next((row for layer, row in reversed(list(enumerate(rows))) if layer not in self.idle), None)

    @property
    def raw(self) -> Numbers:
        """The logits as the backend has made them: `logits`, or a numpy array."""
        return self.logits

    def rows(self, site: str) -> Sequence[Any]:
        """A site as the backend has made it: of `sites`, or numpy arrays."""
        return self.sites[site]

    @property
    def last_row(self) -> Any:
        """The last residual, as `rows` has it; the same object for each measure, so that what one has computed of it serves the next."""
        return self.once("last row", lambda frame: frame._last(frame.rows("residual.after")))

    def once(self, name: str, compute: Callable[[Frame], T]) -> T:
        """compute(self), cached under `name` for all measures that use it; they must not modify it."""
        if name not in self._cached:
            self._cached[name] = compute(self)
        result: T = self._cached[name]
        return result


class RunsText(Protocol):
    """A KV cache that holds one sequence, and the forward passes that fill it."""

    @property
    def length(self) -> int:
        """Tokens that the cache holds."""

    def prefill(self, ids: Sequence[int], want: frozenset[str], progress: Progress | None = None) -> Frame:
        """Empty the cache and read a prompt. Returns the frame at its last token."""

    def decode_one_token(self, token_id: int, want: frozenset[str]) -> Frame:
        """Feed one token after those in the cache."""

    def rewind(self, length: int) -> None:
        """Drop all tokens after the first `length`; the next decode is bit-identical to what it would have been then."""

    def aside(self) -> AbstractContextManager[None]:
        """Context manager: the cache may be cut, refilled or replaced inside it, and is restored after it, bit for bit."""

    def close(self) -> None:
        """Free the model and remove every hook."""


class Backend(RunsText, Protocol):
    """A loaded model with a KV cache that holds one sequence."""

    info: ModelInfo
    end_ids: frozenset[int]  # tokens that end a text

    @property
    def missing(self) -> Mapping[str, Mapping[int, str]]:
        """{site: {layer: reason}} for sites that this model does not have, or that could not be identified."""

    def encode(self, text: str, *, chat: bool | str = False) -> list[int]:
        """Token ids as the model reads them, special tokens included; `chat` applies the model's own template, or the one of that name."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these tokens; special tokens are written out, nothing is stripped or cleaned up."""

    def is_special(self, token_id: int) -> bool: ...


@runtime_checkable
class Preparing(Protocol):
    """A backend that prepares its model for each forward pass, and can do so for several at once."""

    def ready(self) -> AbstractContextManager[None]:
        """Context manager: the passes inside it follow one another, and what is alike for each is prepared once."""


@dataclass(frozen=True)
class ModelCheck:
    """A figure that should be small: good up to `limit`, never if NaN. None: nothing to measure. `of`: what it is relative to."""

    name: str
    figure: float | None
    limit: float
    of: str

    @property
    def good(self) -> bool:
        return self.figure is None or self.figure <= self.limit


@runtime_checkable
class Inspectable(Protocol):
    """A backend that can describe a model for `mav doctor`: where its sites are, and what was checked."""

    def describe(self) -> list[tuple[str, str]]:
        """Lines of (what, where), for example ("layers", "model.layers, 30 of LlamaDecoderLayer")."""

    def checks(self) -> list[ModelCheck]:
        """The comparisons that were made at load."""


@runtime_checkable
class Intervening(Protocol):
    """A backend that supports interventions.

    No change outlives its forward pass, so the backend itself is never modified: its logits are bit-identical before, between and
    after passes with interventions.
    """

    def intervened(self, interventions: Sequence[Intervention], prompt_ids: Sequence[int]) -> Backend:
        """A backend over the same model, with its own cache, that applies these in each forward pass, in this order.

        Means, differences of texts and patches are computed now, with the baseline model. Closing it does not affect this one.
        Raises UsageError for a site or position that this model or prompt does not have.
        """

    def why_not(self, intervention: Intervention) -> str | None:
        """Why this model does not support an intervention at its site, one line; None where it does."""

    def variants(self, interventions: Sequence[Intervention], prompt_ids: Sequence[int]) -> Iterator[Tensor]:
        """Yields the logits [vocab] fp32 at the end of the prompt with each of them applied alone, in order.

        As many as memory allows are computed in one forward pass. Raises UsageError as `intervened` does.
        """


@dataclass(frozen=True)
class TokenBytes:
    """The bytes that each token adds to a text, by the class of the preceding token.

    `after` [classes][vocab]: b"" for special tokens, None where they are not known or there is no such token. `leaves` [vocab] is
    the class of each token for the next one; empty where there is one class only, as in most vocabularies.
    """

    after: tuple[Sequence[bytes | None], ...]
    leaves: Sequence[int] = ()

    def left_by(self, token_id: int) -> int:
        """The class of a token for the next one."""
        return self.leaves[token_id] if len(self.after) > 1 and token_id < len(self.leaves) else 0

    def text(self, ids: Sequence[int], before: int) -> bytes:
        """The bytes of these tokens after the token `before`."""
        return b"".join(self.after[self.left_by(last)][i] or b"" for last, i in zip((before, *ids), ids))


@runtime_checkable
class Spelling(Protocol):
    """A backend that knows which bytes its tokens are, so that a text can be constrained."""

    def spelling(self) -> TokenBytes:
        """The bytes of its tokens. Raises UsageError for a vocabulary whose tokens do not determine the text."""


@runtime_checkable
class NamedBytes(Protocol):
    """A backend that can name a token that is a part of a character by its bytes."""

    def bytes_of(self, token_id: int) -> bytes | None:
        """The bytes of a token; None where they are not known."""


@runtime_checkable
class Configured(Protocol):
    """A backend whose models have their own generation settings."""

    def generation_defaults(self) -> GenerationDefaults:
        """The model's settings. Raises LoadError where they are invalid."""


@runtime_checkable
class Processing(Protocol):
    """A backend that makes the logits processors itself; for another one they are those of the sampling."""

    def logits_processors(self, sampling: Sampling, prompt_ids: Sequence[int], max_new_tokens: int) -> LogitsProcessorList | None:
        """The processors of the sampling and of the model's settings, in order, for a text of that length; None where there are none."""


@runtime_checkable
class Explaining(Protocol):
    """A backend that can attribute a prediction to the tokens of the text."""

    def explain(
        self, method: str, ids: Sequence[int], target_id: int | None, minus_id: int | None, progress: Progress | None = None
    ) -> tuple[Explanation, int]:
        """How each of `ids` contributes to the logit of A = `target_id` after them, or to A's minus B's; and A's id.

        A is the most likely token where `target_id` is None. The methods are those of openmav.record.attribution_result. The running text,
        its cache, the weights and their gradients are unchanged, also where `progress` raises.
        Raises UsageError, with the reason, where this model does not support the method.
        """


class Batch(Protocol):
    """Several texts of one model. Each of `texts` reads its own prompt, and gives the frame of a pass of the batch after `decode`."""

    @property
    def texts(self) -> Sequence[RunsText]: ...

    def decode(self, tokens: Sequence[tuple[Any, int]], want: frozenset[str]) -> None:
        """Feed each of these texts one token in one forward pass; its `decode_one_token` then returns the frame."""

    def close(self) -> None:
        """Forget all texts."""


@runtime_checkable
class Batching(Protocol):
    """A backend that can run several texts at once."""

    def batch(self, count: int) -> Batch:
        """A batch of that many texts, each without a prompt yet."""

    def why_not_batched(self, prompts: Sequence[Sequence[int]], want: frozenset[str]) -> str:
        """Why texts are to be run one by one; "" where these give the logits and sites of single runs, bit for bit."""
