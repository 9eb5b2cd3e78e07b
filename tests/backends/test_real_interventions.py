"""The real model modified, against hooks of our own on transformers' own run of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from backends.raw_touch import PATHS, TEXT, Changes, Raw, check, near
from openmav.backends.base import LoadOptions
from openmav.backends.transformers import load
from openmav.settings.interventions import parse

pytestmark = [pytest.mark.real, pytest.mark.slow]
OTHER = "The capital of Italy is"
LAYERS, HEADS, WIDTH = 30, 9, 576


@pytest.fixture(scope="module")
def both(real_folder: Path):
    """transformers' own run with eager attention, and mav's backend around another copy."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(real_folder, attn_implementation="eager", dtype=torch.float32).eval()
    backend = load(str(real_folder), LoadOptions())
    yield Raw(model, PATHS["llama"], WIDTH // HEADS), backend
    backend.close()


def test_each_head_of_a_layer(both) -> None:
    for head in range(HEADS):
        check(*both, [f"ablate L11.H{head}"], lambda _, h=head: [(f"L11.H{h}", torch.zeros_like)])


@pytest.mark.changes_model  # it runs in float64 too
@pytest.mark.parametrize("part", [".attn", ".mlp", ""])
def test_each_sub_block_and_layer_at_the_end_of_the_prompt(both, part: str) -> None:
    raw, backend = both
    ids = backend.encode(TEXT)
    sites = [f"L{layer}{part}" for layer in range(LAYERS)]
    for site, logits in zip(sites, backend.variants([parse(f"ablate {site}") for site in sites], ids), strict=True):
        assert near(raw, logits[None], ids, lambda _, s=site: [(s, torch.zeros_like)], rows=LAYERS), site


@pytest.mark.parametrize("site", ["L0.mlp", "L14.attn", "L29", "L20.N700"])
def test_means_and_factors(both, site: str) -> None:
    raw, backend = both

    def to_mean(model: Raw) -> Changes:
        mean = model.values(backend.encode(TEXT), site).mean(0)
        return [(site, lambda x: mean.expand_as(x))]

    check(raw, backend, [f"ablate {site}=mean"], to_mean)
    check(raw, backend, [f"amplify {site}=-1.5"], lambda _: [(site, lambda x: x * -1.5)])


def test_steering(both, tmp_path) -> None:
    raw, backend = both
    vector = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "v.npy", vector.numpy())
    check(raw, backend, [f"steer L8={tmp_path}/v.npy*4"], lambda _: [("L8.resid", lambda x: x + 4 * vector)])
    love, hate = (raw.values(backend.encode(text), "L8.resid")[-1] for text in ("I love it", "I hate it"))
    check(raw, backend, ['steer L8="I love it"-"I hate it"*4'], lambda _: [("L8.resid", lambda x: x + 4 * (love - hate))])


@pytest.mark.parametrize("site", ["L6.resid", "L12.attn", "L3.mlp", "L11.H7", "L2.N5"])
def test_patching(both, site: str) -> None:
    raw, backend = both
    there, at = raw.values(backend.encode(OTHER), site), 3

    def change(x: torch.Tensor) -> torch.Tensor:
        made = x.clone()
        made[at] = there[at]
        return made

    specs, changes = [f"patch {site}@{at}={OTHER}"], [(site, change)]
    if site == "L2.N5":  # one neuron at one place is too little to see alone
        specs, changes = [*specs, "amplify L2.mlp=1.1"], [*changes, ("L2.mlp", lambda x: x * 1.1)]
    check(raw, backend, specs, lambda _: changes)
