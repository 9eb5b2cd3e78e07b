"""Arrays and what JSON has as one block of text: a page unpacks it with what every browser brings."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

ALIGNED = 8  # bytes: where an array may begin, so that the page can read it in place
LESS, ZERO, NOTHING = 0, 1001, 65535  # of `permille`: above 0 but shown as "<0.1 %"; exactly 0; NaN or infinity
KINDS = {"f8": "<f8", "f4": "<f4", "u4": "<u4", "u2": "<u2", "u1": "|u1", "i4": "<i4", "i2": "<i2"}


class Pack:
    """Named little-endian arrays, a table of texts that they point into, and a header.

    `encoded` is base64 of a zlib stream that holds the length of the JSON as four bytes, the JSON, and the arrays, each at a multiple of
    8 bytes from the end of the JSON. The JSON names them: {"name": [kind, offset, shape]}.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, list[Any]] = {}
        self._blocks: list[bytes] = []
        self._size = 0
        self._texts: dict[str, int] = {}

    def text(self, text: str) -> int:
        """The place of a text in the table, each text once."""
        return self._texts.setdefault(text, len(self._texts))

    def add(self, name: str, values: ArrayLike, kind: str) -> None:
        """`kind`: one of KINDS."""
        array = np.ascontiguousarray(values, dtype=KINDS[kind])
        data = array.tobytes()
        self._arrays[name] = [kind, self._size, list(array.shape)]
        self._blocks += [data, bytes(-len(data) % ALIGNED)]
        self._size += len(data) + -len(data) % ALIGNED

    def encoded(self, header: Mapping[str, Any]) -> str:
        content = {**header, "texts": list(self._texts), "arrays": self._arrays}
        text = json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")
        text += b" " * (-(len(text) + 4) % ALIGNED)
        compressor = zlib.compressobj(6)
        parts = [compressor.compress(block) for block in (len(text).to_bytes(4, "little"), text, *self._blocks)]
        return base64.b64encode(b"".join([*parts, compressor.flush()])).decode("ascii")


def permille(probs: ArrayLike) -> NDArray[np.uint16]:
    """Tenths of a percent, the digits that the page shows of a probability, in the shape of `probs`."""
    given = np.asarray(probs, dtype=np.float64)
    good = np.isfinite(given)
    values = np.where(good, given, 0.0)
    result = np.rint(np.clip(values, 0.0, 1.0) * 1000)  # exact for fp32: half to even, as Python formats it
    result = np.where(values <= 0, ZERO, np.where(values < 0.0005, LESS, result))
    return np.where(good, result, NOTHING).astype(np.uint16)


def attention_code(rows: NDArray[Any]) -> NDArray[np.uint16]:
    """[..., tokens]: `permille` times 8, and the colour of each token: eighths of the most that goes to any token but the first."""
    given = np.asarray(rows, dtype=np.float64)
    finite = np.where(np.isfinite(given), given, 0.0)
    most = finite[..., 1:].max(axis=-1, keepdims=True, initial=0.0)
    shares = np.divide(finite, most, out=np.zeros_like(finite), where=most > 0)
    codes = permille(given)
    eighths = np.minimum(shares * 8, 7).astype(np.uint16)
    return np.where(codes == NOTHING, codes, codes * 8 + eighths).astype(np.uint16)


def stacked(rows: list[Any], shape: tuple[int, ...], fill: float, dtype: DTypeLike) -> NDArray[Any]:
    """The rows as one array [rows, *shape]; `fill` where a row is None."""
    result = np.full((len(rows), *shape), fill, dtype=dtype)
    for at, row in enumerate(rows):
        if row is not None:
            result[at] = row
    return result
