"""mav's residual stream, sub-blocks, attention rows and logit lens against TransformerLens, which has code of its own for them.

tools/transformerlens.py does it, here where TransformerLens is installed, else by the Python that MAV_TRANSFORMERLENS_PYTHON
names; `make exactness` makes an environment for it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "transformerlens.py"
PYTHON = os.environ.get("MAV_TRANSFORMERLENS_PYTHON") or (sys.executable if importlib.util.find_spec("transformer_lens") else None)
WITHIN = 1e-4  # relative to the largest number of the same layer
FAMILIES = ("gpt2", "gpt_neox", "bloom", "llama", "mixtral", "gemma2", "gpt_oss")  # the least that it compares, of every kind
NUMBERS = ("logits", "residual", "attention", "mlp", "rows", "lens", "lens_probs")

pytestmark = [
    pytest.mark.exactness,
    pytest.mark.real,
    pytest.mark.timeout(900),  # a second copy of every model: slow where others work beside it
    pytest.mark.skipif(
        PYTHON is None, reason="TransformerLens is not installed and MAV_TRANSFORMERLENS_PYTHON names no Python; run make exactness"
    ),
]


@pytest.fixture(scope="module")
def figures(real_folder: Path) -> dict[str, dict[str, float]]:
    """What the tool finds for its families and the real model; fails with its message where it breaks down."""
    assert PYTHON is not None
    run = subprocess.run([PYTHON, str(TOOL), "--json"], capture_output=True, text=True, timeout=840)
    assert run.stdout, run.stderr
    found = json.loads(run.stdout)
    assert {*FAMILIES, real_folder.name} <= {Path(name).name for name in found}
    return found


def test_every_model_gives_the_same_numbers(figures: dict[str, dict[str, float]]) -> None:
    wrong = {(name, number): found[number] for name, found in figures.items() for number in NUMBERS if not found[number] <= WITHIN}
    assert wrong == {}


def test_the_comparison_would_see_a_layer_that_is_one_off(figures: dict[str, dict[str, float]]) -> None:
    assert all(found["one_layer_off"] > 10 * WITHIN for found in figures.values())
    assert all(figures[name]["one_layer_off"] > 100 * WITHIN for name in FAMILIES)
