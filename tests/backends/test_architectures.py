"""Tiny models of many types, past every length at which they change something: what mav shows is what they compute.

This is a part of what `make architectures` measures: types of every kind, not all of them.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from backends.tiny_checks import examine
from backends.tiny_configs import TYPES, thresholds, tiny_config
from backends.tiny_models import CannotBuildError, tiny_model
from backends.tiny_parts import sums_up
from backends.tiny_reasons import in_words
from backends.tiny_report import LIMITS, PROMPT, Report

WHOLE = (  # everything is shown of these
    *("gpt2", "gpt_neo", "gptj", "gpt_neox", "bloom", "falcon", "mpt", "opt", "codegen"),  # learned or no positions, ALiBi, parallel blocks
    *("llama", "qwen3", "phi3 longrope", "llama yarn", "starcoder2 windows", "cohere2", "glm4", "granite multipliers", "minicpm3"),
    *("gemma2", "gemma3_text", "gemma4_text", "olmo2", "exaone4"),  # norms after the sub-blocks
    *("mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3", "llama4_text", "modernbert-decoder"),  # experts, latent attention, sinks, chunks
    *("gemma3", "qwen2_vl", "mistral3", "qwen3_vl_moe"),  # the text side of models that see images
)
HYBRID = {  # a site that some layers don't have, and how many of the four
    "mamba": {"attention.probs": 4, "mlp.out": 4},
    "mamba2": {"attention.probs": 4, "mlp.out": 4},
    "jamba": {"attention.probs": 2},
    "bamba": {"attention.probs": 2},
    "lfm2": {"attention.probs": 2},
    "qwen3_next": {"attention.probs": 2},
    "granitemoehybrid": {"attention.probs": 2},
    "recurrent_gemma": {"attention.probs": 3},
}
DTYPES = (torch.float32, torch.bfloat16)
both = pytest.mark.parametrize("dtype", DTYPES, ids=("float32", "bfloat16"))


@pytest.mark.architectures
@both
@pytest.mark.parametrize("name", WHOLE)
def test_everything_is_shown_and_right(name: str, dtype: torch.dtype) -> None:
    report = examine(name, dtype)
    assert report.failed == report.cannot == report.refused == ""
    assert report.wrong == {}
    assert report.none == {}
    measured = {"tokens", "logits", "generate", "rows", "entropy", "residual", "parts", "sum", "norms", "lens", "back", "bits", "left"}
    assert measured <= report.errors.keys()


@pytest.mark.architectures
@both
@pytest.mark.parametrize("name", HYBRID)
def test_what_a_layer_lacks_is_none_and_the_rest_is_right(name: str, dtype: torch.dtype) -> None:
    report = examine(name, dtype)
    assert report.failed == report.cannot == report.refused == ""
    assert report.wrong == {}
    shown = {site: reason for site, reason in report.none.items() if site != "ablation"}
    assert shown.keys() == HYBRID[name].keys()
    for site, layers in HYBRID[name].items():
        assert f"({layers} of 4)" in shown[site]


def test_nearly_every_type_can_be_built_and_crosses_its_thresholds() -> None:
    """What can't be built needs a package that is not installed, or can't be built from its own configuration."""
    failed = []
    for name in TYPES:
        try:
            config = tiny_config(name)
        except Exception:
            failed.append(name)
            continue
        assert all(length < PROMPT for length in thresholds(config).values())
    assert len(failed) <= 0.05 * len(TYPES), failed


def test_a_type_that_can_not_be_built_says_why() -> None:
    with pytest.raises(CannotBuildError, match="unknown-type"):
        tiny_model("unknown-type")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module named 'scipy'"), "it needs the package scipy"),
        (ValueError("You have to specify pixel_values"), "it needs an image"),
        (
            AttributeError("'BltConfig' object has no attribute 'depth'"),
            "transformers' own code asks BltConfig for 'depth', which",
        ),
        (
            RuntimeError("expected scalar type Float but found BFloat16"),
            "a part of its code computes in float32",
        ),
        (KeyError("a word\nthat nobody knows"), "KeyError: 'a word\\nthat nobody knows'"),
    ],
)
def test_what_transformers_raises_is_put_into_words(error: Exception, words: str) -> None:
    assert in_words(error).startswith(words)
    assert ("Error" in in_words(error)) == ("Error" in words)


def test_the_page_says_which_rows_are_of_other_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
    made = importlib.import_module("architecture_page")._made
    one, other = {"code": "a1"}, {"code": "b2"}
    assert made({"x float32": one, "y float32": one}) == "All 2 measurements are of one state of the code (a1)."
    assert made({"x float32": one, "y float32": one, "z float32": other}).endswith("(a1); of others: z float32.")


@both
def test_a_wrong_sum_is_noticed(dtype: torch.dtype) -> None:
    """One and a half per cent of the residual stream is more than bfloat16 rounds away."""
    generator = torch.Generator().manual_seed(0)
    before, block = (torch.randn(64, generator=generator) * size for size in (10.0, 1.0))
    after = (before + block).to(dtype)
    for wrong, seen in ((0.0, False), (0.15, True)):
        report = Report()
        parts = {"attention.out": block * (1 + wrong), "mlp.out": None}
        sums_up({"residual.before": before.to(dtype), "residual.after": after, **parts}, 1.0, torch.finfo(dtype).eps, report)
        assert ("sum" in report.wrong) == seen, report.errors
    assert LIMITS["sum"] <= 1
