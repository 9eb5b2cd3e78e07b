"""The examples of the documents work as they stand there, and their tables say what the program has."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from fakes import make_info, make_prompt, make_steps
from openmav import registry
from openmav.apps.layouts import LAYOUTS
from openmav.backends._base import HEAD_SITES, SITES
from openmav.commands.config import KNOWN, read_config
from openmav.commands.own import add_measures, add_panels
from openmav.opening import open_session
from openmav.panels._view import View
from openmav.settings import Settings
from openmav.source import Snapshot

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_files", {})
    monkeypatch.setattr(registry, "_loaded", {})
    monkeypatch.chdir(tmp_path)


def test_the_panel_of_the_page_draws_the_steps_numbers() -> None:
    Path("top_layers.py").write_text(blocks("plugins.md", "python")[0])
    assert add_panels(["top_layers.py"]) == ("top_layers",)
    panel, steps = registry.load("panels", "top_layers"), make_steps(3)
    lines = panel.render(View().updated(Snapshot(info=make_info(), prompt=make_prompt(), steps=steps)), 40, 10)
    norms = steps[-1].values["mlp_norm"]
    assert len(lines) == 5
    assert lines[0] == f"layer {int(norms.argmax()):>3}  {norms.max():9.2f}"
    assert panel.render(View(), 40, 10) == ["no token yet"]


def test_the_measure_of_the_page_is_computed() -> None:
    Path("mlp_kurtosis.py").write_text(blocks("plugins.md", "python")[1])
    names, files = add_measures(["mlp_kurtosis.py"])
    step = next(iter(open_session(Settings("toy", "Hi", backend="toy", measures=names, measure_files=files))))
    assert np.isfinite(step.values["mlp_kurtosis"]).all()
    assert (step.values["mlp_kurtosis"] >= 1).all(), "a kurtosis is never below 1"


def test_the_page_names_every_site() -> None:
    text = (DOCS / "plugins.md").read_text(encoding="utf-8")
    assert [site for site in sorted(SITES - HEAD_SITES) if f"`{site}`" not in text] == []


def test_the_config_of_the_page_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("my_panel.py").write_text(blocks("plugins.md", "python")[0])
    Path("my_measure.py").write_text(blocks("plugins.md", "python")[1])
    (text,) = blocks("config.md", "toml")
    Path("config.toml").write_text(text)
    config = read_config(Path("config.toml"))
    assert config.layout == "reading"
    assert config.keys["help"] == "h,?"
    assert all(re.search(rf"(?m)^(\[{name}\]|{name} =)", text) for name in KNOWN)


def test_the_page_names_every_layout_by_its_key() -> None:
    rows = re.findall(r"\| `(\d)` \| `([\w-]+)` \|", (DOCS / "config.md").read_text(encoding="utf-8"))
    assert rows == [(str(at), name) for at, name in enumerate(LAYOUTS, 1)]


def test_the_page_names_every_binding() -> None:
    from openmav.apps.tui.help import key_lines
    from openmav.apps.tui.keymap import keys_of

    rows = re.findall(r"(?m)^\| `(\w+)` \| `(.+)` \| (.+) \|$", (DOCS / "config.md").read_text(encoding="utf-8").split("| id |")[1])
    known = [(name, *line) for name, line in zip(keys_of({}), key_lines({}))]
    assert rows == known
