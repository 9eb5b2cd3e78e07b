"""The examples of the documents work as they stand there, and their tables say what the program has."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from fakes import make_info, make_prompt, make_steps
from openmav.backends.base import LoadOptions
from openmav.backends.sites import HEAD_SITES, SITES
from openmav.cli.config_file.read import KNOWN, read_config
from openmav.generation.opening import open_session
from openmav.generation.session import Session
from openmav.panels import draw
from openmav.plugins import registry
from openmav.plugins.user_files import add_measures, add_panels
from openmav.protocol.snapshot import Snapshot
from openmav.settings import Settings
from openmav.view import View
from openmav.view.layouts import COMPARE, LAYOUTS

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


def test_the_panel_in_two_parts_of_the_page_draws_its_data() -> None:
    Path("largest_mlp.py").write_text(blocks("plugins.md", "python")[2])
    assert add_panels(["largest_mlp.py"]) == ("largest_mlp",)
    panel, steps = registry.load("panels", "largest_mlp"), make_steps(3)
    view = View().updated(Snapshot(info=make_info(), prompt=make_prompt(), steps=steps))
    norms = steps[-1].values["mlp_norm"]
    assert draw(panel, view, 40, 10).lines == [f"layer {int(norms.argmax())}: {norms.max():.2f}"]
    assert draw(panel, View(), 40, 10).lines == ["no token yet"]


def test_the_measure_of_the_page_is_computed() -> None:
    Path("mlp_kurtosis.py").write_text(blocks("plugins.md", "python")[1])
    names, files = add_measures(["mlp_kurtosis.py"])
    step = next(iter(open_session(Settings("toy", "Hi", backend="toy", measures=names, measure_files=files))))
    assert np.isfinite(step.values["mlp_kurtosis"]).all()
    assert (step.values["mlp_kurtosis"] >= 1).all(), "a kurtosis is never below 1"


def test_the_backend_of_the_page_generates() -> None:
    Path("constant.py").write_text(blocks("architecture.md", "python")[0])
    namespace = runpy.run_path("constant.py")
    with Session(namespace["load"]("x", LoadOptions(), None), Settings(prompt="Hi", max_new_tokens=3)) as session:
        steps = list(session)
        assert "".join(step.text for step in steps) == "aaa"
        assert all(np.isnan(step.values["mlp_norm"]).all() for step in steps), "it has no MLP"
        session.back(2)
        assert session.token_ids == [*map(ord, "Hi"), ord("a")]


def test_the_page_of_the_rooms_names_every_folder() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8").partition("```text")[2].partition("```")[0]
    package = DOCS.parent / "src" / "openmav"
    there = {
        path.name + "/" * path.is_dir() for path in package.iterdir() if (path.is_dir() and any(path.glob("*.py"))) or path.suffix == ".py"
    }
    named = set(re.findall(r"(?m)(?<=^  )(\S+)(?= )", text)) | set(re.findall(r"\b\w+\.py\b", text))
    assert there - {"__init__.py", "__main__.py"} <= named


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
    assert rows == [(str(at % 10), name) for at, name in enumerate((*LAYOUTS, *COMPARE), 1)]


def test_the_page_names_every_binding() -> None:
    from openmav.apps.tui.keys import key_lines, keys_of

    rows = re.findall(r"(?m)^\| `(\w+)` \| `(.+)` \| (.+) \|$", (DOCS / "config.md").read_text(encoding="utf-8").split("| id |")[1])
    known = [(name, *line) for name, line in zip(keys_of({}), key_lines({}))]
    assert rows == known
