"""mav's decoding, transformers' `generate` and one pass without a cache, compared on short texts past a model's thresholds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from openmav.backends.transformers.capture import module_state
from openmav.backends.transformers.checks import thresholds
from openmav.backends.transformers.checks.reference import generated, whole_pass
from openmav.backends.transformers.decoding.decoder import Decoder
from openmav.backends.transformers.discovery.values import mask_width
from openmav.backends.transformers.head.exact_head import difference
from openmav.backends.transformers.loading.quantised import without_gradients
from openmav.errors import LoadError, words_of
from openmav.system.memory import out_of_memory

CHUNK = 6  # tokens of a prompt that are read at a time here
T = TypeVar("T")
PAST, ACROSS = 3, 5  # tokens that are decoded beyond the thresholds, and across them


@dataclass(frozen=True)
class RunMode:
    """How mav runs a model's forward pass."""

    attention: str | None  # the name of the attention that it decodes with; None: the model's current one
    arguments: Mapping[str, bool] = field(default_factory=dict)
    last_alone: bool = False  # the last token of a prompt is read in a pass of its own


@dataclass
class MoreKeys:
    """The keys of a module whose attention has other keys besides the tokens, for example blocks of several tokens."""

    keys: int
    tokens: int  # that these keys cover
    proved: bool = True  # in every pass, the tokens' keys came first, in order, as many as the mask is wide
    row: Tensor | None = None  # [heads, keys]: of the last token in the latest pass without a cache


@dataclass
class Agreement:
    """The differences of the three, relative to the largest logit, with `lengths` lowered for the comparison."""

    lengths: Mapping[str, int]
    ours: float = 0.0  # mav against `generate`
    generate: float = 0.0  # `generate` against a pass without a cache
    in_one_piece: bool = False  # a prompt has to be read in one piece to agree with `generate`
    keys: dict[nn.Module, MoreKeys] = field(default_factory=dict)  # of modules whose attention has more keys than tokens
    problem: str | None = None  # why nothing was compared


def compare(
    model: PreTrainedModel,
    config: Any,
    ids: Sequence[int],
    mode: RunMode,
    use: Callable[[str], None],
    owners: Sequence[nn.Module],
    limit: float,
    scan: module_state.Scan,
) -> Agreement | None:
    """None where the configuration names no such length. `ids` are some ordinary tokens.

    `use(name)` switches the attention; at the end the model has the mode's. State that modules keep is added to `scan`.
    """
    lengths = thresholds.find(config)
    if not lengths:
        return None
    result = Agreement(lengths)
    try:
        with thresholds.lowered(model, config), without_gradients(model):
            fresh = _Fresh(module_state.Scan(model), scan)
            for length, count in ((thresholds.length_past(lengths), PAST), (thresholds.LOW - 2, ACROSS)):
                prompt = [ids[(7 * at + at // len(ids)) % len(ids)] for at in range(length)]
                _compare(model, prompt, count, mode, use, owners, limit, result, fresh)
    except Exception as error:  # a model may raise anything with a length that it was not built for
        result.problem = words_of(error, kind=True)
    finally:
        if mode.attention is not None:
            use(mode.attention)
    return result


def _compare(
    model: PreTrainedModel,
    prompt: list[int],
    count: int,
    mode: RunMode,
    use: Callable[[str], None],
    owners: Sequence[nn.Module],
    limit: float,
    result: Agreement,
    fresh: _Fresh,
) -> None:
    length = len(prompt)
    if mode.attention is not None:
        use("eager")
    buffers = _buffers(model)
    tokens, expected = fresh(lambda: generated(model, prompt, count))
    if any(now is not then for now, then in zip(_buffers(model), buffers)):  # as rotary frequencies are, which then depend on the length
        result.in_one_piece = True  # in half precision the difference is no larger than rounding on some texts, and is on others
    error = apart(expected, fresh(lambda: _whole(model, [*prompt, *tokens[:-1]], count, owners, result)))
    if not error <= limit:  # a longer text may change what a pass computes of its beginning, so each text gets a pass of its own
        passes = [fresh(partial(whole_pass, model, [*prompt, *tokens[:at]], 1)) for at in range(count)]
        error = apart(expected, torch.cat(passes))
    result.generate = max(result.generate, error)
    if mode.attention is not None:
        use(mode.attention)
    last: dict[nn.Module, tuple[Tensor, int | None]] = {}
    with _observed_rows(list(result.keys), lambda owner, rows, width: last.update({owner: (rows[0, :, -1].float(), width)})):
        piece = len(prompt) if result.in_one_piece else CHUNK
        error = apart(fresh(lambda: _decode_with_mav(model, prompt, tokens, mode, piece)), expected)
    for owner, more in result.keys.items():
        if more.tokens == length + count - 1:  # of this text
            more.proved = more.proved and _same_keys(more, last.get(owner), limit)
    if not error <= limit:
        again = apart(
            fresh(lambda: _decode_with_mav(model, prompt, tokens, RunMode(mode.attention, mode.arguments), len(prompt))), expected
        )
        result.in_one_piece = result.in_one_piece or again <= limit
        error = min(error, again)
    result.ours = max(result.ours, error)


def _buffers(model: PreTrainedModel) -> list[Tensor | None]:
    return [buffer for module in model.modules() for buffer in module._buffers.values()]


def needs_one_piece(model: PreTrainedModel, ids: Sequence[int], mode: RunMode, limit: float) -> bool:
    """Whether a prompt of these tokens yields the logits of `generate` only if it is read in one piece.

    Raises LoadError where it never does.
    """
    prompt = list(ids)
    fresh = _Fresh(module_state.Scan(model), module_state.Scan(model))
    with without_gradients(model):
        tokens, expected = fresh(lambda: generated(model, prompt, ACROSS))
        if not bool(expected.isfinite().all()):  # a model that computes NaN: nothing to compare, and the panels raise the alarm
            return False
        if _in_pieces(lambda: fresh(lambda: _decode_with_mav(model, prompt, tokens, mode, CHUNK)), expected) <= limit:
            return False
        error = apart(
            fresh(lambda: _decode_with_mav(model, prompt, tokens, RunMode(mode.attention, mode.arguments), len(prompt))), expected
        )
    if error <= limit:
        return True
    raise LoadError(
        f"{type(model).__name__} can't be shown: read token by token its logits are not those of transformers' generate() "
        f"(off by {error:.1g} of the largest)"
    )


def _in_pieces(run: Callable[[], Tensor], expected: Tensor) -> float:
    """The difference; infinite where the model can't read several tokens after those in its cache."""
    try:
        return apart(run(), expected)
    except Exception as error:
        if out_of_memory(error):
            raise
        return math.inf


def apart(a: Tensor, b: Tensor) -> float:
    """[n, vocab] each: the largest difference of two rows, relative to the largest logit."""
    return max(difference(x, y) for x, y in zip(a, b, strict=True))


@dataclass(frozen=True)
class _Fresh:
    """Runs functions one after another, each on a model without state from the runs before."""

    here: module_state.Scan
    outside: module_state.Scan

    def __call__(self, run: Callable[[], T]) -> T:
        try:
            return run()
        finally:
            slots = self.here.changed()
            module_state.put(slots, module_state.initial(slots))
            self.outside.add(slots)


def _whole(model: PreTrainedModel, ids: Sequence[int], last: int, owners: Sequence[nn.Module], result: Agreement) -> Tensor:
    """A pass without a cache, and which modules' attention has other keys than the tokens."""

    def look(owner: nn.Module, rows: Tensor, width: int | None) -> None:
        if rows.shape[2] == len(ids) and rows.shape[3] > len(ids):
            before = result.keys.get(owner)
            proved = (before is None or before.proved) and width == len(ids) and in_order(rows[0], width)
            result.keys[owner] = MoreKeys(rows.shape[3], len(ids), proved, rows[0, :, -1].float())

    with _observed_rows(owners, look):
        return whole_pass(model, ids, last)


def in_order(rows: Tensor, tokens: int) -> bool:
    """Whether the first `tokens` keys of [heads, queries, keys] are the tokens in their order: query i is the first to see key i.

    A key for several tokens is visible from its last token on, as is another key: the first queries distinguish them.
    """
    seen = (rows != 0).any(0)  # [queries, keys]
    first = seen.to(torch.uint8).argmax(0)
    return bool(seen.any(0)[:tokens].all()) and first[:tokens].tolist() == list(range(tokens))


@contextmanager
def _observed_rows(owners: Sequence[nn.Module], look: Callable[[nn.Module, Tensor, int | None], None]) -> Iterator[None]:
    """Context manager: `look(owner, rows, mask width)` is called with the rows [1, heads, queries, keys] that these modules return."""

    def hook(owner: nn.Module, _module: nn.Module, _args: object, kwargs: dict[str, Any], output: object) -> None:
        for rows in output if isinstance(output, tuple | list) else ():
            if isinstance(rows, Tensor) and rows.ndim == 4:
                look(owner, rows, mask_width(kwargs))

    handles = [owner.register_forward_hook(partial(hook, owner), with_kwargs=True) for owner in owners]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _same_keys(more: MoreKeys, cached: tuple[Tensor, int | None] | None, limit: float) -> bool:
    """Whether the row of the last token in a pass with a cache, split where the mask ends, is that of the pass without one."""
    row, width = cached or (None, None)
    whole, tokens = more.row, more.tokens
    if row is None or width is None or whole is None or width > tokens or row.shape[-1] - width != more.keys - tokens:
        return False
    expected = torch.cat([whole[:, tokens - width : tokens], whole[:, tokens:]], -1)
    return not bool(whole[:, : tokens - width].any()) and float((row - expected).abs().max()) <= limit


def _decode_with_mav(model: PreTrainedModel, prompt: list[int], tokens: list[int], mode: RunMode, chunk: int) -> Tensor:
    decoder = Decoder(model, chunk)
    if mode.last_alone:
        decoder.prefill(prompt[:-1], {}, lambda _n: None)
        outputs = [decoder.decode_one_token(prompt[-1], dict(mode.arguments))]
    else:
        outputs = [decoder.prefill(prompt, dict(mode.arguments), lambda _n: None)]
    first = [outputs[0].logits[0, -1].float().cpu()]
    return torch.stack([*first, *(decoder.decode_one_token(t, dict(mode.arguments)).logits[0, -1].float().cpu() for t in tokens[:-1])])


def notes(result: Agreement, limit: float, *, known: bool) -> tuple[str, ...]:
    """Notes for the user: where mav differs from `generate`, and where `generate` differs from one pass over all tokens.

    `known`: the second was already reported for texts of any length.
    """
    where = " and ".join(f"{name} = {value}" for name, value in sorted(result.lengths.items()))
    lines = []
    if not result.ours <= limit:
        lines.append(f"past {where} mav's logits are not those of generate(): off by up to {result.ours:.1g} of the largest")
    if not (known or result.generate <= limit):
        apart = f"off by up to {result.generate:.1g} of the largest logit"
        lines.append(f"past {where} generate(), which mav follows, is not one pass without a cache: {apart}")
    return tuple(lines)


def summary(result: Agreement | None) -> str | None:
    """One line for `mav doctor`; None where there was nothing to compare."""
    if result is None:
        return None
    lengths = ", ".join(f"{name} {value}" for name, value in sorted(result.lengths.items()))
    if result.problem is not None:
        return f"{lengths}: not compared ({result.problem})"
    whole = "; a prompt is read in one piece" if result.in_one_piece else ""
    ours, generate = f"mav to generate() {result.ours:.1e}", f"generate() to a pass without a cache {result.generate:.1e}"
    return f"{lengths} (on short texts with {thresholds.LOW}): {ours}, {generate}{whole}"


def with_whole_pass(model: PreTrainedModel, ids: Sequence[int], decoded: Tensor, limit: float) -> list[str]:
    """Notes where the logits [n, vocab] after the last n of `ids`, decoded with a cache, are not those of one pass without one.

    Raises LoadError for an encoder that is used as a decoder.
    """
    try:
        whole = whole_pass(model, ids, len(decoded))
    except Exception as problem:  # a model may raise anything without its cache
        return [f"this model does not run without a cache ({type(problem).__name__}), so decoding was not compared with one pass over all"]
    error = apart(decoded, whole)
    if error <= limit or not bool(whole.isfinite().all()):
        return []
    later = apart(whole_pass(model, [*ids[:-1], ids[0]], 2)[:1], whole[-2:-1])
    if later > limit and getattr(model.config, "is_decoder", None) is False:
        raise LoadError(
            f"{type(model).__name__} is an encoder as it is configured: what it says of a token depends on later ones; "
            "load it with is_decoder=True if it was trained to write the next token"
        )
    return [f"generate(), which mav follows, is not one pass without a cache: off by {error:.1g} of the largest logit"]
