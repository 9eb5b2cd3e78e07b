"""From the command to the first paint and to the first token, against what importing the model's libraries takes."""

from __future__ import annotations

import subprocess
import sys
import time

import terminal
from common import Counts, Figure, Section, median, note, ratio, spread, take_turns

TITLE = "From the command to the screen"
FIRST_PAINT = 0.5  # seconds, at most
TORCH = "import torch"
LIBRARIES = "import torch; from transformers import LlamaForCausalLM, PreTrainedTokenizerFast"
HOW = (
    "`mav` alone, in a pseudo terminal of {columns}x{rows}; seconds from the start of the process until the app's name has been "
    "written, and until a speed stands in the header, which is when a token does. Imports are processes of their own that do "
    "nothing else; the second is what the bundled model needs. All take turns, {starts} rounds after one that warms the disk cache."
)


def run(counts: Counts) -> list[Section]:
    if not terminal.AVAILABLE:
        return [Section(TITLE, terminal.UNAVAILABLE, [])]
    note("startup")
    tokens: list[float] = []
    sides = {
        "paint": lambda: _start(tokens),
        "torch": lambda: _import(TORCH),
        "libraries": lambda: _import(LIBRARIES),
    }
    take_turns(1, sides)
    tokens.clear()
    found = take_turns(counts.starts, sides)
    paint, torch, libraries = found["paint"], found["torch"], found["libraries"]
    seconds = [f"{median(values):.2f} s ({spread(values)})" for values in (paint, tokens, torch, libraries)]
    figures = [
        Figure("first paint", seconds[0], median(paint), most=FIRST_PAINT, unit=" s"),
        Figure("first paint against import torch", f"import torch {seconds[2]}", ratio(paint, torch)),
        Figure("first token", seconds[1], median(tokens), unit=" s"),
        Figure("first token against importing torch and the model's classes", f"imports {seconds[3]}", ratio(tokens, libraries)),
    ]
    return [Section(TITLE, HOW.format(columns=terminal.COLUMNS, rows=terminal.ROWS, starts=counts.starts), figures)]


def _start(tokens: list[float]) -> float:
    """Seconds to the first paint; those to the first token go to `tokens`."""
    with terminal.Terminal(terminal.mav()) as screen:
        paint = screen.seconds_until(r" mav ")
        tokens.append(screen.seconds_until(r"\d tok/s"))
    return paint


def _import(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began
