"""Finding a command or a line of help by what it means: the words of a query in the words of a text, other words for the same known."""

from __future__ import annotations

import re
from functools import lru_cache

MEANINGS = {  # what somebody may type: a word that stands in a command's title or help
    "back": "undo",
    "bookmark": "branches",
    "clipboard": "copy",
    "close": "remove",
    "color": "colour",
    "confidence": "entropy",
    "continue": "run",
    "dark": "theme",
    "disable": "ablate",
    "exit": "quit",
    "expert": "router",
    "fast": "speed",
    "find": "search",
    "full": "maximise",
    "hide": "remove",
    "knock": "ablate",
    "light": "theme",
    "memory": "accounting",
    "pause": "run",
    "picture": "svg",
    "play": "run",
    "probability": "predictions",
    "quiet": "minimal",
    "saliency": "attribution",
    "screenshot": "svg",
    "slow": "speed",
    "start": "run",
    "step": "generate",
    "stop": "pause",
    "temperature": "sampling",
    "tint": "colour",
    "uncertain": "entropy",
    "unlikely": "surprisal",
    "why": "attribution",
    "zoom": "maximise",
}


@lru_cache(maxsize=2048)
def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[\w+]+", text.lower()))


def _quality(word: str, words: tuple[str, ...]) -> int:
    """3: it is one of them; 2: one begins with it; 1: it is in one; 0: in none."""
    if word in words:
        return 3
    if any(other.startswith(word) for other in words):
        return 2
    return int(len(word) > 2 and any(word in other for other in words))


def match_score(query: str, title: str, help: str = "") -> float:
    """How well the query matches, from 0 (not) to 1. Each of its words must be in the title or in the help, or mean one of theirs."""
    words = _words(query)
    if not words:
        return 0.0
    total = 0.0
    for word in words:
        best = max(_quality(word, _words(title)) / 3, _quality(word, _words(help)) / 6)
        for other, meant in MEANINGS.items():
            if other == word or (len(word) > 3 and other.startswith(word)):
                best = max(best, _quality(meant, _words(title)) / 4, _quality(meant, _words(help)) / 8)
        if best == 0:
            return 0.0
        total += best
    return total / len(words) - 0.001 * min(len(_words(title)), 50)  # of several that have it all, the shortest
