"""The field's words: phrases that made readers stop are in no source file, document or help text, but for documented aliases."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest

import warm

ROOT = Path(__file__).parents[2]
COMMANDS = ("run", "panels", "measures", "tour", "doctor", "sweep", "attribute", "config", "new")
PHRASES = {  # what is not said, and what is said instead
    r"\b(un)?touch(ed|es|ing|able)?\b": "intervene, modified, baseline",
    r"\blikeliest\b": "most likely, top-1",
    r"\bthe reader('s)?\b": "the user",
    r"\bhis watches\b": "the user's watches",
    r"\b(takes?|taken|took) back\b": "undo",
    r"\b(go|goes|gone|went) forward\b": "redo",
    r"\bways? of the text\b": "branches",
    r"\bin force\b": "current, active, applied",
    r"\bputs? it beside\b": "compare",
    r"\bwould say\b": "predicts",
    r"\bno room: m\b": "too narrow (m: maximise)",
    r"\bthe model goes on from\b": "text to continue",
    r"\bwhat a norm is\b": "norm to report",
    r"\bmust never stand\b": "never generate",
    r"\bcan't end before this was written\b": "don't stop before this string is generated",
    r"\bas this schema says\b": "that matches this schema",
    r"\bits logit less that of\b": "logit(target) - logit(this token)",
    r"\bas of mav run\b": "same as for mav run",
    r"\bcompute this too\b": "also compute this measure",
    r"\btake each head\b": "ablate each head",
    r"\bmap what it did\b": "map the effect",
    r"\blook into this model\b": "inspect this model",
    r"\buntil the model is there\b": "the model is still loading",
    r"\breading [\w{}]+ tokens again\b": "recomputing tokens",
    r"\bthe length asked for\b": "max tokens",
    r"\ba stop text\b": "a stop sequence",
    r"\ball that the constraint asks for\b": "the constraint is satisfied",
    r"\bequal tokens\b": "effective choices",
    r"\bput there by you\b": "forced",
    r"\blouder\b": "scales",
    r"\bspeaks? (for|against)\b": "raises, lowers",
    r"\bexperts? (were |was )?chosen?\b": "the router selected",
    r"\bhardly slowed\b": "capture overhead is small",
    r"\bset apart (by|with)\b": "separated by",
    r"\bstands? in a file\b": "are defined in a file",
    r"\bhow long each token stays\b": "minimum seconds per token",
}
ALIASES = (  # where an old word stays: it is the name of a key or of something in the language of conditions
    ("src/openmav/apps/tui/keys.py", 'aliases=("touch",)'),
    ("docs/config.md", "The older names"),
    ("src/openmav/conditions/", "touched"),
    ("docs/conditions.md", "`touched`"),
    ("docs/conditions.md", "untouched("),
    ("docs/conditions.md", "`untouched`"),
)
NAMES = {  # names of classes, functions, variables
    *("Looking", "Drawn", "Tape", "Ending", "Fence", "Hands", "Touch", "Touchable", "Inside", "Straight", "Asked", "Pieces", "Before"),
    *("Listeners", "hear_output", "hear_input", "likeliest", "found", "asked", "told"),
}


def pages() -> dict[str, str]:
    paths = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def said(page: str, text: str, phrase: str) -> list[str]:
    """The lines of a page that hold the phrase, but for aliases."""
    lines = [line for line in text.splitlines() if re.search(phrase, line, re.IGNORECASE)]
    return [f"{page}: {line.strip()}" for line in lines if not any(page.startswith(where) and mark in line for where, mark in ALIASES)]


def test_the_check_sees_what_is_there() -> None:
    assert said("README.md", "The likeliest token\nand others", r"\blikeliest\b") == ["README.md: The likeliest token"]


@pytest.mark.parametrize("phrase", PHRASES)
def test_no_page_says_it(phrase: str) -> None:
    assert [line for page, text in pages().items() for line in said(page, text, phrase)] == [], f"say: {PHRASES[phrase]}"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_no_help_says_it(command: str) -> None:
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    shown = warm.run(*command.split(), "--help", env=environment).stdout
    assert "Usage" in shown
    assert [line for phrase in PHRASES for line in said(f"mav {command} --help", shown, phrase)] == []


def test_no_name_is_one_of_them() -> None:
    bad = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id
            name = stored or (isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name) or (isinstance(node, ast.arg) and node.arg)
            if name in NAMES:
                bad.append(f"{path.relative_to(ROOT).as_posix()}:{node.lineno}: {name}")
    assert bad == []
