"""What must not be imported: a fresh interpreter tells. A replay, a listing and the help open without the model's libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "textual", "llama_cpp")
LIGHT = (
    "record",
    "record.lines",
    "recording.replay",
    "settings",
    "conditions",
    "plugins.registry",
    "protocol.source",
    "view.options",
    "apps.text.jsonl",
    "apps.text.plain",
    "apps.live",
    "engine",
    "mav",
    "library",
)
STARTS = ("import openmav", *(f"from openmav.cli.main import main; main({args})" for args in (["--help"], ["--version"], ["--top-p", "2"])))
PACKAGES = {"importlib.metadata", "email"}  # reading which packages are installed
NOT_FOR = {  # what a command that is over at once need not wait for
    "--version": {*PACKAGES, "json", "difflib", "platformdirs", "openmav.settings", "openmav.plugins", "openmav.view", "openmav.record"},
    "--help": {*PACKAGES, "difflib", "platformdirs", "openmav.plugins", "openmav.cli.options.values", "openmav.cli.options.commands"},
    "panels": {"openmav.panels", "openmav.paint", "openmav.protocol", "openmav.settings", "openmav.cli.options.values"},
    "measures": {"openmav.measures", "openmav.backends", "openmav.settings", "openmav.cli.options.values"},
}


def imported(code: str) -> set[str]:
    """The modules that a fresh interpreter has after the code."""
    code += "\nimport sys; sys.stdout.write('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_the_check_sees_what_is_there() -> None:
    assert "textual" in imported("import textual")


@pytest.mark.parametrize("code", STARTS)
def test_the_package_and_the_help_are_light(code: str) -> None:
    assert not imported(code) & {*HEAVY, "numpy", "rich"}


@pytest.mark.parametrize("word", NOT_FOR)
def test_a_command_that_is_over_at_once_imports_what_it_shows_alone(word: str) -> None:
    found = imported(f"from openmav.cli.main import main; main(['{word}'])")
    assert "openmav.cli.parser" in found
    assert not found & {*HEAVY, *NOT_FOR[word], "numpy", "rich"}


@pytest.mark.parametrize("module", LIGHT)
def test_what_the_app_and_a_replay_need_has_no_model_library(module: str) -> None:
    assert not imported(f"import openmav.{module}") & {*HEAVY}


def test_panels_and_paint_need_neither_model_nor_app() -> None:
    code = "from openmav import paint\nfrom openmav.plugins import registry\n"
    code += "for name in registry.names('panels'): registry.load('panels', name)"
    found = imported(code)
    assert not found & {*HEAVY}
    assert "rich" in found


def test_the_apps_process_never_imports_torch() -> None:
    found = imported("import openmav.apps.tui.app, openmav.engine, openmav.cli.app")
    assert "textual" in found
    assert not found & {"torch", "transformers"}


def test_the_models_side_never_imports_the_screens() -> None:
    code = "from openmav import engine\nfrom openmav.generation import sampler, session\nfrom openmav.plugins import registry\n"
    code += "for kind in ('measures', 'backends'):\n  for name in registry.names(kind): registry.load(kind, name)"
    found = imported(code)
    assert "torch" in found
    assert "textual" not in found  # transformers itself may import Rich; mav's own imports are held by the import contracts


def test_public_names_exist_and_are_loaded_when_used() -> None:
    import openmav

    for name in openmav.__all__:
        assert getattr(openmav, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        openmav.nothing  # noqa: B018
