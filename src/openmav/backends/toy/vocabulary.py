"""The toy's vocabulary: an end, every byte, and texts that are hard to show."""

from __future__ import annotations

WORDS = (
    *(" it", " is", " a", " truth", " [bold]", " [/]", "[red]red[/red]", "\x1b[2J", "\x1b]0;title\x07", "\r", "\x08", "\t", "\n", "\n\n"),
    *(
        b"\xf0\x9f",
        b"\x98\x80",
        b"\xe4\xb8",
        b"\xad",
        "文字",
        "宽",
        " \u05e9\u05dc\u05d5\u05dd",
        "\u202e",
        "\u200b",
        "e\u0301",
        "\x9b31m",
        "\x00",
    ),
    *(" ", "   ", "</s>", "{{", " \\", "%s", "👩\u200d👩\u200d👧", "\u0645\u0631\u062d\u0628\u0627", "$(reboot)", "&amp;", " end", "."),
)
END = 0  # the id of the token that ends a text
BYTES = 1  # the id of byte 0; all 256 follow, then WORDS
FIRST = BYTES + 256
VOCABULARY = [b"<end>", *(bytes([b]) for b in range(256)), *(w if isinstance(w, bytes) else w.encode() for w in WORDS)]
