"""What the session asks of a backend: run the model one token at a time and hand over the wanted sites as tensors.

Sites are named by kind; a Frame holds one entry a layer, None where the layer has no such thing:

    residual.before   [width]        the residual stream that the layer takes
    residual.after    [width]        the residual stream after the layer, before the final norm
    attention.out     [width]        what the attention sub-block adds to the residual stream
    mlp.out           [width]        what the MLP sub-block adds to the residual stream
    attention.probs   [heads, keys]  the attention row of the last query, fp32
    attention.scores  [heads, keys]  the scores that softmax turned into that row (after scale, cap and mask), fp32; None where
                                     only the row is known
    mlp.hidden        [hidden]       what the last linear map of the MLP takes: its neurons after the activation
    router.experts    [k]            the experts that a mixture-of-experts layer chose, int64
    router.weights    [k]            the weights that their outputs get

What leads from the residual stream to logits is no site but the frame's `head`; a measure names what it needs of it, so that
a reason can be given where it is missing:

    head.logits       Head.logits gives the model's own logits
    head.direction    Head.directions explains some of them as linear functions
    head.neurons      Head.neuron_tokens says what a neuron of the layer adds to them
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from openmav.explained import Explanation
from openmav.interventions import Intervention
from openmav.record import ModelInfo

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
Progress: TypeAlias = Callable[[str, float | None], None]  # what is going on, and the share of it that is done
RESIDUAL_SITES = frozenset({"residual.before", "residual.after", "attention.out", "mlp.out"})
ROW_SITES = frozenset({"attention.probs", "attention.scores"})
SITES = RESIDUAL_SITES | ROW_SITES | {"mlp.hidden", "router.experts", "router.weights"}
HEAD_SITES = frozenset({"head.logits", "head.direction", "head.neurons"})


@dataclass(frozen=True)
class LoadOptions:
    """How a reader wants a model loaded; a backend refuses what it can't do with a LoadError."""

    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False
    threads: int | None = None


@dataclass(frozen=True)
class Directions:
    """Tokens' logits as linear functions of the residual stream x after the last layer: logits = vectors @ x + constants.

    The scale of the final norm is held at its value for this x. `logits` are what the model computed, before a soft cap. `kept`
    [layers + 1] is the factor with which what is in the stream before layer l (the last entry: after the last) arrives in x;
    empty: 1 everywhere, as in nearly every model.
    """

    vectors: Tensor  # [tokens, width] fp32
    constants: Tensor  # [tokens] fp32: what the biases of the final norm and of the head add
    logits: Tensor  # [tokens] fp32
    kept: tuple[float, ...] = ()


class Head(Protocol):
    """The way from the residual stream to logits, through the model's own modules."""

    def logits(self, residuals: Tensor) -> Tensor:
        """[n, width] of any layers -> [n, vocab] fp32: what the model would say if that were the last layer's output."""

    def directions(self, residual: Tensor, token_ids: Sequence[int], logits: Tensor) -> Directions | None:
        """The directions of these tokens' logits at the last layer's output `residual` [width]; `logits` [vocab] are the model's own.

        None where they are not known.
        """

    def neuron_tokens(self, layer: int, ids: Sequence[int], hidden: Tensor, residual: Tensor, count: int) -> tuple[Tensor, Tensor] | None:
        """The tokens whose logits each neuron raises and lowers most: ids [n, 2, count] and by how much [n, 2, count], strongest first.

        `ids` name the neurons, `hidden` [hidden] is the layer's mlp.hidden, `residual` [width] the last layer's output: the scale
        of the final norm is held at its value there. Where fewer tokens move that way: id -1, 0 logits. None: not known.
        """


@dataclass
class Frame:
    """One forward pass, at its last position. `tokens`: how many the model has read, this one included; 0 is not told."""

    logits: Tensor  # [vocab] fp32, the model's own
    sites: Mapping[str, Sequence[Tensor | None]] = field(default_factory=dict)
    model_seconds: float = 0.0
    tokens: int = 0
    head: Head | None = None
    cache_bytes: Callable[[], int] | None = None  # bytes that the model keeps of these tokens: keys and values, or a state; asked any time
    _found: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def once(self, name: str, find: Callable[[Frame], T]) -> T:
        """What `find` makes of this frame, made once however many measures ask for it; they must not change it."""
        if name not in self._found:
            self._found[name] = find(self)
        found: T = self._found[name]
        return found


class Backend(Protocol):
    """A loaded model with a KV cache that holds one sequence."""

    info: ModelInfo
    end_ids: frozenset[int]  # tokens that end a text

    @property
    def missing(self) -> Mapping[str, Mapping[int, str]]:
        """{site: {layer: reason}} for what this model does not have, or what could not be found in it."""

    @property
    def length(self) -> int:
        """Tokens that the cache holds."""

    def encode(self, text: str, *, chat: bool = False) -> list[int]:
        """Token ids as they will be fed, special tokens included; `chat` applies the model's own template."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these tokens, special ones written out, nothing stripped or cleaned up."""

    def is_special(self, token_id: int) -> bool: ...

    def prefill(self, ids: Sequence[int], want: frozenset[str], progress: Progress | None = None) -> Frame:
        """Empty the cache and read a prompt."""

    def decode_one_token(self, token_id: int, want: frozenset[str]) -> Frame:
        """Feed one token after those in the cache."""

    def rewind(self, length: int) -> None:
        """Forget all tokens after the first `length`; the next decode gives what it would have given then, bit for bit."""

    def aside(self) -> AbstractContextManager[None]:
        """Within it the cache may be cut and fed again what stood there, or filled anew; after it, it is as it was, bit for bit."""

    def close(self) -> None:
        """Free the model; take every hook off."""


@dataclass(frozen=True)
class Check:
    """A figure that should be small: it is good up to `limit`, NaN never is. None: there was nothing to measure. `of`: relative to what."""

    name: str
    figure: float | None
    limit: float
    of: str

    @property
    def good(self) -> bool:
        return self.figure is None or self.figure <= self.limit


@runtime_checkable
class Inspectable(Protocol):
    """A backend that can say what it found in a model, for `mav doctor`."""

    def found(self) -> list[tuple[str, str]]:
        """(what, where) in words, such as ("layers", "model.layers, 30 alike")."""

    def checks(self) -> list[Check]:
        """What was compared at load."""


@runtime_checkable
class Intervening(Protocol):
    """A backend whose model can be touched while it runs.

    Nothing that is changed outlives the forward pass that it was changed in, so the backend itself is never touched by this: its
    logits are bit-identical before, beside and after.
    """

    def intervened(self, interventions: Sequence[Intervention], prompt_ids: Sequence[int]) -> Backend:
        """A backend over the same model, with a cache of its own, in whose forward passes these are in force, in this order.

        Means, differences of texts and patches are computed now, in untouched runs. Closing it leaves this one as it is.
        Raises UsageError for what this model or this prompt does not have.
        """

    def why_not(self, intervention: Intervention) -> str | None:
        """Why its site can't be touched in this model, one line; None where it can."""

    def variants(self, interventions: Sequence[Intervention], prompt_ids: Sequence[int]) -> Iterator[Tensor]:
        """The logits [vocab] fp32 at the end of the prompt with each of them in force alone, in their order, as they come.

        Many are computed in one forward pass, as many as memory allows. Raises as `intervened` does.
        """


@runtime_checkable
class Spelling(Protocol):
    """A backend that knows which bytes its tokens are, so that a text can be constrained."""

    def spelling(self) -> Sequence[bytes]:
        """[vocab] the bytes that each token adds to a text; b"" for special tokens and where it is not known."""


@runtime_checkable
class Explaining(Protocol):
    """A backend that can say which tokens of a text a prediction depends on."""

    def explain(
        self, method: str, ids: Sequence[int], target_id: int | None, minus_id: int | None, progress: Progress | None = None
    ) -> tuple[Explanation, int]:
        """How each of `ids` contributes to the logit of A = `target_id` after them, or to A's minus B's; and A's id.

        A is the likeliest token where `target_id` is None. The methods are those of openmav.explained. The running text, its cache,
        the weights and their gradients are left as they are, also where `progress` raises.
        Raises UsageError where this model can't be asked that, with the reason.
        """
