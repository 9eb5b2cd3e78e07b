"""The router panel on real mixture-of-experts models: what it says is the model's own router's choice, computed again by hand."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from backends.families import build
from backends.test_deep import Letters
from openmav.backends.transformers import wrap
from openmav.generation.session import Session
from openmav.paint import line_text
from openmav.panels import draw
from openmav.plugins import registry
from openmav.protocol.snapshot import Snapshot
from openmav.settings import Settings
from openmav.view import View
from openmav.view.options import AppOptions


def by_hand(name: str, tokens: list[int]) -> list[list[tuple[int, float]]]:
    """Each layer's (expert, weight) at the last token, heaviest first: the softmax of the gate's product, its best, scaled to 1."""
    model, inputs = build(name), []
    gates = [layer.mlp.gate for layer in model.model.layers]
    handles = [
        gate.register_forward_pre_hook(lambda _, given: inputs.append(given[0].reshape(-1, given[0].shape[-1])[-1])) for gate in gates
    ]
    with torch.no_grad():
        model(torch.tensor([tokens]))
    for handle in handles:
        handle.remove()
    chosen: list[list[tuple[int, float]]] = []
    for gate, x in zip(gates, inputs, strict=True):
        top: Tensor = (gate.weight @ x).softmax(-1).topk(model.config.num_experts_per_tok)
        weights = top.values / top.values.sum() if name == "mixtral" or model.config.norm_topk_prob else top.values
        chosen.append(list(zip(top.indices.tolist(), weights.tolist(), strict=True)))
    return chosen


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_the_drawn_experts_are_the_models_own(name: str) -> None:
    session = Session(wrap(build(name), Letters(), name), Settings(prompt="hello", measures=("router",), max_new_tokens=3))
    steps = [session.step() for _ in range(3)]
    tokens = [*session.prompt.token_ids, *(step.token_id for step in steps[:-1])]
    now = Snapshot(version=1, status="paused", info=session.info, prompt=session.prompt, sampling=session.sampling, steps=steps)
    view = View(options=AppOptions()).updated(now)
    session.close()
    drawn = [line_text(line) for line in draw(registry.load("panels", "router"), view, 100, 12).lines]
    expected = by_hand(name, tokens)
    assert len(drawn) == len(expected)
    for row, chosen in zip(drawn, reversed(expected), strict=True):
        said = [(int(expert), float(weight)) for expert, weight in re.findall(r"#(\d+) +(\d\.\d\d)", row)]
        assert [expert for expert, _ in said] == [expert for expert, _ in chosen]
        assert [weight for _, weight in said] == pytest.approx([weight for _, weight in chosen], abs=0.00501)
