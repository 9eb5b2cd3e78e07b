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
RANDOM = ("gpt2", "llama", "gpt_neox", "bloom", "mixtral", "gemma2", "gpt_oss")
NUMBERS = ("logits", "residual", "attention", "mlp", "rows", "lens", "lens_probs")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # a second copy of every model: slow where others work beside it
    pytest.mark.skipif(
        PYTHON is None, reason="TransformerLens is not installed and MAV_TRANSFORMERLENS_PYTHON names no Python; run make exactness"
    ),
]


def figures(*models: str) -> dict[str, dict[str, float]]:
    """What the tool finds for these models; fails with its message where it breaks down."""
    assert PYTHON is not None
    run = subprocess.run([PYTHON, str(TOOL), "--json", *models], capture_output=True, text=True, timeout=840)
    assert run.stdout, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def random_models() -> dict[str, dict[str, float]]:
    return figures(*RANDOM)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("family", RANDOM)
def test_a_random_model_of_a_family_gives_the_same_numbers(random_models: dict[str, dict[str, float]], family: str, number: str) -> None:
    assert random_models[family][number] <= WITHIN


@pytest.mark.parametrize("family", RANDOM)
def test_the_comparison_would_see_a_layer_that_is_one_off(random_models: dict[str, dict[str, float]], family: str) -> None:
    assert random_models[family]["one_layer_off"] > 100 * WITHIN


@pytest.mark.real
def test_the_real_model_gives_the_same_numbers(real_folder: Path) -> None:
    found = figures(str(real_folder))[str(real_folder)]
    assert {number: found[number] for number in NUMBERS if not found[number] <= WITHIN} == {}
    assert found["one_layer_off"] > 10 * WITHIN
