"""A backend over the model of another one, with a text and a cache of its own."""

from __future__ import annotations

from typing import Any

from openmav.backends.base import Backend, RunsText

RUN = ("length", "prefill", "decode_one_token", "rewind", "aside", "close")  # what a backend does with its one text


class SecondCache:
    """Satisfies every protocol of backends.base that its owner does; `run` is what the text goes through."""

    def __init__(self, owner: Backend, run: RunsText) -> None:
        self._owner, self._run = owner, run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run if name in RUN else self._owner, name)
