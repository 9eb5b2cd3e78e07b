"""The bytes that each token of a transformers tokenizer adds to a text, as the tokenizer's own decoder writes them.

Each token is decoded after another one. Where the result depends on the preceding token (the end of a word that is marked "</w>" adds a
space only once something follows), tokens are put into classes by their effect on the next one. The result is compared with the
decoder's text of random sequences; where they differ, the vocabulary is refused.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from transformers.convert_slow_tokenizer import bytes_to_unicode

from openmav.backends.base import TokenBytes
from openmav.errors import UsageError

Ids: TypeAlias = Sequence[int]
DecodeAll: TypeAlias = Callable[[Sequence[Ids]], list[str]]

REFUSED = "this model's vocabulary cannot be constrained: its decoder {why}, so no text can be held to a form"
BROKEN = "\ufffd"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_BYTE_OF = {char: byte for byte, char in bytes_to_unicode().items()}
_PROBES = 4  # tokens that are decoded after a token to determine its class
_SAMPLED = 2000  # tokens whose classes are determined first
_CLASSES = 4
_SEQUENCES, _LENGTH = 300, 12


def spelling(tokenizer: Any, special: frozenset[int], decode: Callable[[Ids], str], vocab: int) -> TokenBytes:
    """The bytes of the tokens of a model with `vocab` logits. Raises UsageError where the decoder's text is no concatenation of them."""
    size = min(vocab, len(tokenizer))
    decode_all = _decoder_of_many(tokenizer, decode, size)
    names = _names(tokenizer, size)
    plain = [i for i in range(size) if i not in special and names[i] is not None]
    anchor = _anchor(tokenizer, decode, plain)
    leaves, examples = _classes(decode_all, anchor, plain, [*range(size)])
    spelled = []
    for example in examples:
        words: list[bytes | None] = [b"" if i in special else None for i in range(vocab)]
        prefix = (anchor,) if example is None else (anchor, example)
        for i, text in zip(plain, _added(decode_all, prefix, plain)):
            words[i] = _bytes_of(names[i] or "", text, len(examples) == 1)
        spelled.append(words)
    token_bytes = TokenBytes(tuple(spelled), tuple(leaves) + (0,) * (vocab - size))
    _need_agreement(token_bytes, decode, [anchor, *sorted(i for i in special if i < size)[:8]], plain)
    return token_bytes


def _decoder_of_many(tokenizer: Any, decode: Callable[[Ids], str], size: int) -> DecodeAll:
    """Decodes many sequences, in one call where the tokenizer has an equivalent one."""
    batch = getattr(getattr(tokenizer, "backend_tokenizer", None), "decode_batch", None)
    if batch is not None:
        draw = random.Random(0)
        sample = [[draw.randrange(size) for _ in range(4)] for _ in range(64)]
        if batch(sample, skip_special_tokens=False) == [decode(ids) for ids in sample]:
            return lambda many: list(batch([list(ids) for ids in many], skip_special_tokens=False))
    return lambda many: [decode(ids) for ids in many]


def _anchor(tokenizer: Any, decode: Callable[[Ids], str], plain: Ids) -> int:
    """A token of plain text to decode others after."""
    known = set(plain)
    ids = [int(i) for i in tokenizer("a")["input_ids"]]
    for i in [*reversed(ids), *plain]:
        if i in known and decode([i]).strip().isalnum():
            return i
    raise UsageError(REFUSED.format(why="gives no letter for any token"))


def _added(decode_all: DecodeAll, prefix: Ids, tokens: Ids) -> list[str | None]:
    """The text that each of the tokens adds after this prefix; None where it changes the text before it."""
    (before,) = decode_all([prefix])
    texts = decode_all([(*prefix, i) for i in tokens])
    return [text[len(before) :] if text.startswith(before) else None for text in texts]


def _names(tokenizer: Any, size: int) -> list[str | None]:
    """The name of each token in the vocabulary; None for an id that it does not have."""
    convert = getattr(tokenizer, "convert_ids_to_tokens", None)
    return [""] * size if convert is None else [None if name is None else str(name) for name in convert([*range(size)])]


def _bytes_of(piece: str, added: str | None, alone: bool) -> bytes | None:
    """The bytes of the text that a token adds, or of its name where that is a part of a character. `alone`: whatever precedes it."""
    if added is None or BROKEN not in added:
        return None if added is None else added.encode()
    spelled = bytes_of_name(piece)
    return spelled if alone and spelled is not None and spelled.decode(errors="replace") == added else None


def bytes_of_name(piece: str) -> bytes | None:
    """The bytes that a token's name in the vocabulary spells: "<0xF0>", or a character a byte; None where it is neither."""
    byte = _BYTE.fullmatch(piece)
    if byte:
        return bytes([int(byte[1], 16)])
    return bytes(_BYTE_OF[char] for char in piece) if piece and all(char in _BYTE_OF for char in piece) else None


def _classes(decode_all: DecodeAll, anchor: int, plain: Ids, every: Ids) -> tuple[list[int], list[int | None]]:
    """The class of each token by what others add after it, and a token of each class; None for the anchor itself."""
    draw = random.Random(1)
    probes = [i for i, text in zip(plain, _added(decode_all, (anchor,), plain)) if text and text.strip() and BROKEN not in text]
    probes = draw.sample(probes, min(_PROBES, len(probes)))
    usual = tuple(_added(decode_all, (anchor,), probes))

    def added(had: str, text: str, otherwise: str | None) -> str | None:
        new = text[len(had) :] if text.startswith(had) else None
        return otherwise if new and BROKEN in new else new  # after a part of a character, a byte token is broken too

    def signatures(tokens: Ids) -> list[tuple[str | None, ...]]:
        before = decode_all([(anchor, i) for i in tokens])
        after = [decode_all([(anchor, i, probe) for i in tokens]) for probe in probes]
        return [tuple(added(had, text, one) for text, one in zip(texts, usual)) for had, *texts in zip(before, *after)]

    sampled = signatures(draw.sample(every, min(_SAMPLED, len(every))))
    classes: dict[tuple[str | None, ...], int] = {usual: 0}
    if set(sampled) <= {usual}:
        return [0] * len(every), [None]
    leaves = [classes.setdefault(signature, len(classes)) for signature in signatures(every)]
    if len(classes) > _CLASSES or any(None in signature for signature in classes):
        raise UsageError(REFUSED.format(why="changes what stands before a token, or writes a token in too many ways"))
    return leaves, [None, *(leaves.index(one) for one in range(1, len(classes)))]


def _need_agreement(token_bytes: TokenBytes, decode: Callable[[Ids], str], anchors: Ids, plain: Ids) -> None:
    """Raises UsageError where the decoder's text of a random sequence, whole or two tokens at a time, is not that of the bytes."""
    for anchor, ids in _sequences(token_bytes, anchors, plain):
        agrees = decode([anchor, *ids]) == decode([anchor]) + token_bytes.text(ids, anchor).decode()
        for last, i in zip((anchor, *ids), ids):  # as in a text that grows token by token
            text = token_bytes.text([i], last)
            if _is_whole(text) and (last == anchor or (token_bytes.text([last], anchor) and _is_whole(token_bytes.text([last], anchor)))):
                agrees = agrees and decode([last, i]) == decode([last]) + text.decode()
        if not agrees:
            raise UsageError(REFUSED.format(why="writes a token in ways that depend on more than the one before it"))


def _sequences(token_bytes: TokenBytes, anchors: Ids, plain: Ids) -> Iterator[tuple[int, list[int]]]:
    """Random tokens that together are whole characters, after one of the anchors; tokens that hold parts of characters come often."""
    draw = random.Random(2)
    known = [i for i in plain if all(words[i] is not None for words in token_bytes.after)]
    parts = [i for i in known if not _is_whole(token_bytes.after[0][i] or b"")]
    if not known:
        raise UsageError(REFUSED.format(why="does not say what any token is"))
    for turn in range(_SEQUENCES):
        anchor, ids, whole = anchors[turn % len(anchors)], list[int](), 0
        for _ in range(_LENGTH):
            choices = draw.choices(parts if parts and draw.random() < 0.5 else known, k=20) + draw.choices(parts or known, k=40)
            text = token_bytes.text(ids, anchor)
            on = next((i for i in choices if _may_begin(text + token_bytes.text([i], ids[-1] if ids else anchor))), None)
            if on is None:
                break
            ids.append(on)
            if _is_whole(token_bytes.text(ids, anchor)):
                whole = len(ids)
        yield anchor, ids[:whole]


def _is_whole(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _may_begin(text: bytes) -> bool:
    """Whether it is valid UTF-8, up to an end that more bytes may complete."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return True
