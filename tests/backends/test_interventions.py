"""Touched models against hooks of our own on the raw model: every kind of change, the prompt and several decoded tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from backends.families import build
from backends.raw_touch import PATHS, Raw
from openmav.backends.transformers import TransformersBackend, wrap
from openmav.settings.interventions import parse

IDS: list[int] = torch.randint(3, 128, (17,), generator=torch.Generator().manual_seed(5)).tolist()
OTHER: list[int] = torch.randint(3, 128, (13,), generator=torch.Generator().manual_seed(6)).tolist()
PROMPT = 13
TEXTS = {"other": OTHER, "love": OTHER[:6], "hate": OTHER[3:11], "short": OTHER[:3]}
EXACT = 1e-5  # of the largest logit
HEADS, LAYERS = 4, 3


class Words:
    """A tokenizer that knows the texts of these tests."""

    all_special_ids = (1, 2)
    eos_token_id = 2

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": TEXTS[text]}


@pytest.fixture(scope="module", params=PATHS)
def family(request):
    """A family's raw model and a backend around another model with the same weights."""
    model = build(request.param)
    head = model.config.get_text_config().to_dict().get("head_dim") or model.config.hidden_size // HEADS
    backend = wrap(build(request.param), Words(), request.param)
    yield Raw(model, PATHS[request.param], head), backend
    backend.close()


def run(backend: TransformersBackend) -> Tensor:
    """[decoded + 1, vocab]: the logits at the prompt's end and after each token that follows."""
    frames = [backend.prefill(IDS[:PROMPT], frozenset()), *(backend.decode_one_token(i, frozenset()) for i in IDS[PROMPT:])]
    return torch.stack([frame.logits for frame in frames])


def check(family, specs: list[str], changes) -> None:
    raw, backend = family
    before = run(backend)
    touched = backend.intervened([parse(spec) for spec in specs], IDS[:PROMPT])
    mine = run(touched)
    truth = raw.logits(IDS, changes)[PROMPT - 1 :]
    assert float((mine - truth).abs().max() / truth.abs().max()) < EXACT, specs
    assert not torch.allclose(mine, before, atol=1e-4), f"{specs} changed nothing"
    touched.close()
    assert torch.equal(run(backend), before)


@pytest.mark.parametrize("site", ["L0.H3", *(f"L1.H{head}" for head in range(HEADS)), "L2.H0"])
def test_each_head(family, site: str) -> None:
    check(family, [f"ablate {site}"], [(site, torch.zeros_like)])


@pytest.mark.parametrize("site", [f"L{layer}{part}" for layer in range(LAYERS) for part in (".attn", ".mlp", "")])
def test_each_sub_block_and_layer(family, site: str) -> None:
    raw, _ = family
    check(family, [f"ablate {site}"], [(site, torch.zeros_like)])
    check(family, [f"amplify {site}=-0.7"], [(site, lambda x: x * -0.7)])
    mean = raw.values(IDS[:PROMPT], site).mean(0)
    check(family, [f"ablate {site}=mean"], [(site, lambda x: mean.expand_as(x))])


def test_heads_are_amplified_and_take_their_mean(family) -> None:
    raw, _ = family
    mean = raw.values(IDS[:PROMPT], "L1.H2").mean(0)
    check(family, ["ablate L1.H2=mean"], [("L1.H2", lambda x: mean.expand_as(x))])
    check(family, ["amplify L1.H3=2.5"], [("L1.H3", lambda x: x * 2.5)])


@pytest.mark.parametrize("neuron", [0, 57, 127])
def test_neurons(family, neuron: int) -> None:
    raw, backend = family
    site = f"L1.N{neuron}"
    if not raw.paths.neurons:
        with pytest.raises(ValueError, match="not available: neurons of layer 1: mixture of experts"):
            backend.intervened([parse(f"ablate {site}")], IDS[:PROMPT])
        return
    mean = raw.values(IDS[:PROMPT], site).mean(0)
    check(family, [f"ablate {site}=mean"], [(site, lambda x: mean.expand_as(x))])
    check(family, [f"amplify {site}=30"], [(site, lambda x: x * 30)])


@pytest.mark.parametrize("at", ["", "@8", "@3-16", "@-1", "@15"])
def test_steering_with_a_file(family, tmp_path, at: str) -> None:
    vector = torch.randn(64, generator=torch.Generator().manual_seed(1))
    np.save(tmp_path / "vector.npy", vector.numpy())
    first, last = {"": (0, 99), "@8": (8, 8), "@3-16": (3, 16), "@-1": (PROMPT - 1, PROMPT - 1), "@15": (15, 15)}[at]
    check(family, [f"steer L1{at}={tmp_path}/vector.npy*4"], [("L1.resid", lambda x: x + 4 * vector * mask(x, first, last))])


def mask(x: Tensor, first: int, last: int) -> Tensor:
    """[tokens, 1]"""
    at = torch.arange(len(x))
    return ((at >= first) & (at <= last)).float()[:, None]


def test_steering_with_the_difference_of_two_texts(family) -> None:
    raw, _ = family
    vector = raw.values(TEXTS["love"], "L1.resid")[-1] - raw.values(TEXTS["hate"], "L1.resid")[-1]
    check(family, ['steer L1="love"-"hate"*2'], [("L1.resid", lambda x: x + 2 * vector)])


@pytest.mark.parametrize("inside", ["resid", "attn", "mlp", "H2", "N7"])
@pytest.mark.parametrize("at", ["@9", "@2-9", ""])
def test_patching(family, inside: str, at: str) -> None:
    raw, _ = family
    if inside == "N7" and not raw.paths.neurons:
        return
    site = f"L1.{inside}"
    there, (first, last) = raw.values(OTHER, site), {"@9": (9, 9), "@2-9": (2, 9), "": (0, PROMPT - 1)}[at]

    def change(x: Tensor) -> Tensor:
        made = x.clone()
        made[first : last + 1] = there[first : last + 1]
        return made

    check(family, [f"patch {site}{at}=other"], [(site, change)])


def test_positions_of_an_ablation(family) -> None:
    check(family, ["ablate L0.attn@4-14"], [("L0.attn", lambda x: x * (1 - mask(x, 4, 14)))])
    check(family, ["ablate L2@-1"], [("L2", lambda x: x * (1 - mask(x, PROMPT - 1, PROMPT - 1)))])


def test_several_at_once_in_their_order(family) -> None:
    specs = ["ablate L0.H1", "amplify L0.attn=3", "ablate L2.mlp", "amplify L1=0.5", "amplify L0.H2=2"]
    changes = [
        ("L0.H1", torch.zeros_like),
        ("L0.attn", lambda x: 3 * x),
        ("L2.mlp", torch.zeros_like),
        ("L1", lambda x: x / 2),
        ("L0.H2", lambda x: x * 2),
    ]
    check(family, specs, changes)
