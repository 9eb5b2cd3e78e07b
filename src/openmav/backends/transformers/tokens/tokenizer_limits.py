"""Limits of a tokenizer: it must not multiply text without bound, or end the process with a panic of its Rust library."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from openmav.errors import LoadError, is_panic

MOST_GROWTH = 1000  # characters that a character may become; real ones make about 18 (Unicode's own decompositions)
MOST_ADDED = 10_000  # characters put before a text


class PanicError(RuntimeError):
    """A panic of a Rust library, with its own message."""


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Context manager: turns a panic of a Rust library into an Exception, like any other failure."""
    try:
        yield
    except BaseException as error:
        if is_panic(error):
            raise PanicError(str(error).splitlines()[0] if str(error) else "panic") from error
        raise


def check(name: str, tokenizer: Any) -> None:
    """Raises LoadError for a tokenizer whose normaliser or decoder would turn a short text into one that fills the memory."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    for what in ("normalizer", "decoder"):
        part = getattr(backend, what, None)
        if part is None:
            continue
        try:
            growth = _growth(json.loads(part.__getstate__()))
        except (AttributeError, ValueError, TypeError, RecursionError):
            continue
        if growth > MOST_GROWTH:
            raise LoadError(f"the tokenizer of {name} would multiply text {growth:,.0f} times (its {what}); it is not used")


def _growth(part: Any) -> float:
    """The most characters that one character can become."""
    if not isinstance(part, Mapping):
        return 1.0
    inside = [*(part.get("normalizers") or ()), *(part.get("decoders") or ())]
    product = 1.0
    for one in inside:
        product *= _growth(one)
    content = part.get("content")
    if part.get("type") == "Replace" and isinstance(content, str):
        pattern = part.get("pattern") or {}
        literal = pattern.get("String")
        product *= max(1.0, len(content) / max(1, len(literal))) if isinstance(literal, str) else 1.0 + len(content)
    prepended = part.get("prepend")
    if isinstance(prepended, str) and len(prepended) > MOST_ADDED:
        product *= len(prepended)
    return product
