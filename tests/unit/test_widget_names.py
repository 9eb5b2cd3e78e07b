"""No attribute of mav's widgets hides one that Textual keeps for itself: a hidden one breaks a widget without a word."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from textual.app import App
from textual.screen import ModalScreen
from textual.widget import Widget

import openmav

FOLDER = Path(openmav.__file__).parent / "apps" / "tui"
MEANT = {"animation_level", "theme", "display"}  # Textual's own settings


def assigned(path: Path) -> set[str]:
    """Names that the file assigns on self."""
    found = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Attribute))
    return {node.attr for node in found if isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == "self"}


@pytest.mark.parametrize("path", sorted(set(FOLDER.glob("*.py")) - {FOLDER / "messages.py"}), ids=lambda path: path.stem)
def test_no_name_is_textuals(path: Path) -> None:
    class Bare(App[None]):
        pass

    taken = {*vars(Bare()), *vars(Widget()), *vars(ModalScreen()), *dir(App), *dir(Widget), *dir(ModalScreen)}
    assert sorted((assigned(path) & taken) - MEANT) == []
