"""The real model touched, against hooks of our own on transformers' own run of it; from its weights as they are and from a GGUF file.

Some changes of the first layers make the model so sensitive that transformers' own fp32 run is further than EXACT from its fp64 run.
There, mav may be twice as far from the fp64 run as that, and no more.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from backends.raw_touch import PATHS, Change, Raw
from openmav.backends.base import LoadOptions
from openmav.backends.transformers import TransformersBackend, load
from openmav.settings.interventions import parse

pytestmark = [pytest.mark.real, pytest.mark.slow]
GGUF = Path(__file__).parents[2] / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
EXACT = 1e-5  # of the largest logit
TEXT, OTHER = "The capital of France is", "The capital of Italy is"
LAYERS, HEADS, WIDTH = 30, 9, 576
Changes = list[tuple[str, Change]]


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def near(raw: Raw, mine: torch.Tensor, ids: list[int], make: Callable[[Raw], Changes], rows: int = 1) -> bool:
    """Whether `mine` [n, vocab], of a pass over so many rows, are the raw model's last n logits, changed as `make` says for a raw model.

    Where fp32 itself is not that exact, mav may be twice as far from a run in double precision as transformers' own run of as many rows.
    """
    truth = raw.logits(ids, make(raw))[-len(mine) :]
    if relative(mine, truth) < EXACT:
        return True
    model = Raw(copy.deepcopy(raw.model).double(), raw.paths, raw.head_width)
    exact = model.logits(ids, make(model))[-len(mine) :]
    rounding = relative(raw.logits(ids, make(raw), rows)[-len(mine) :], exact)
    return rounding > EXACT / 2 and relative(mine, exact) < 2 * rounding


@pytest.fixture(scope="module")
def both(real_folder: Path):
    """transformers' own run with eager attention, and mav's backend around another copy."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(real_folder, attn_implementation="eager", dtype=torch.float32).eval()
    backend = load(str(real_folder), LoadOptions())
    yield Raw(model, PATHS["llama"], WIDTH // HEADS), backend
    backend.close()


def check(raw: Raw, backend: TransformersBackend, specs: list[str], make: Callable[[Raw], Changes]) -> None:
    """The prompt and four decoded tokens; the untouched model's logits are the same bits afterwards."""
    ids = backend.encode(TEXT)
    text = [*ids, *backend.encode(" Paris, and it is")[:4]]
    before = backend.prefill(ids, frozenset()).logits
    touched = backend.intervened([parse(spec) for spec in specs], ids)
    mine = [touched.prefill(ids, frozenset()).logits, *(touched.decode_one_token(i, frozenset()).logits for i in text[len(ids) :])]
    touched.close()
    assert near(raw, torch.stack(mine), text, make), specs
    assert float((mine[0] - before).abs().max()) > 1e-3, f"{specs} changed nothing"
    assert torch.equal(backend.prefill(ids, frozenset()).logits, before)


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


@pytest.mark.skipif(not all(map(importlib.util.find_spec, ("gguf", "accelerate"))), reason="needs gguf and accelerate")
def test_a_gguf_file() -> None:
    from transformers import AutoModelForCausalLM

    if not GGUF.exists():
        pytest.skip("the GGUF file is not there: run make real-model")
    model = AutoModelForCausalLM.from_pretrained(GGUF.parent, gguf_file=GGUF.name, attn_implementation="eager", dtype=torch.float32).eval()
    raw, backend = Raw(model, PATHS["llama"], WIDTH // HEADS), load(str(GGUF), LoadOptions())
    specs = ["ablate L11.H7", "ablate L3.mlp", "amplify L20.attn=2", "ablate L8", "amplify L9.N3=9"]
    changes: Changes = [
        ("L11.H7", torch.zeros_like),
        ("L3.mlp", torch.zeros_like),
        ("L20.attn", lambda x: 2 * x),
        ("L8", torch.zeros_like),
        ("L9.N3", lambda x: 9 * x),
    ]
    check(raw, backend, specs, lambda _: changes)
    backend.close()
