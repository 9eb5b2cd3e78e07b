"""Measures as pure functions: their definitions and bounds, on rows and vectors of every kind, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from openmav.backends.base import Directions, Frame
from openmav.measures import (
    attention_entropy,
    attention_rows,
    attribution,
    distribution,
    logit_lens,
    neurons,
    relative_attention_entropy,
    router,
    sink_share,
)
from openmav.measures._rows import rows_over_tokens
from openmav.measures.base import Context
from openmav.plugins import registry

VOCAB = 50
few = settings(max_examples=60, deadline=None)
scores_of = st.integers(1, 40).flatmap(
    lambda keys: st.lists(st.lists(st.floats(-60, 60, width=32), min_size=keys, max_size=keys), min_size=1, max_size=3)
)


def context(token_id: int = 3) -> Context:
    logits = torch.linspace(-3, 3, VOCAB)
    probs = logits.softmax(-1)
    return Context(logits, probs, probs, logits.argsort(descending=True), token_id)


def frame_of_rows(scores: Tensor, dtype: torch.dtype = torch.float32, sinks: Tensor | None = None, *, told: bool = True) -> Frame:
    """One layer; `scores` [heads, keys]."""
    wide = scores if sinks is None else torch.cat([scores, sinks[:, None]], -1)
    row = wide.float().softmax(-1)[:, : scores.shape[1]].to(dtype)
    sites = {"attention.probs": [row], "attention.scores": [scores.float() if told else None]}
    return Frame(torch.zeros(VOCAB), sites, tokens=scores.shape[1])


@given(scores_of, st.booleans())
@few
def test_entropy_is_the_definition_and_within_its_bounds(scores: list[list[float]], told: bool) -> None:
    frame = frame_of_rows(torch.tensor(scores), told=told)
    found = attention_entropy.compute(frame, context())
    a = torch.tensor(scores).double().softmax(-1).numpy()
    expected = -np.where(a > 0, a * np.log(np.maximum(a, 1e-300)), 0).sum(-1)
    assert found[0] == pytest.approx(expected, abs=2e-5)
    assert (found >= -1e-6).all()
    assert (found <= np.log(len(scores[0])) + 1e-5).all()


@given(scores_of, st.booleans(), st.floats(-60, 60))
@few
def test_relative_entropy_is_a_share(scores: list[list[float]], told: bool, sink: float) -> None:
    tensor = torch.tensor(scores)
    plain = relative_attention_entropy.compute(frame_of_rows(tensor, told=told), context())
    sunk = relative_attention_entropy.compute(frame_of_rows(tensor, sinks=torch.full((len(scores),), sink), told=told), context())
    for found in (plain, sunk):
        assert (found >= -1e-6).all()
        assert (found <= 1).all()


def test_relative_entropy_of_known_rows() -> None:
    masked = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, -torch.inf, -torch.inf], [5.0, -torch.inf, -torch.inf, -torch.inf]])
    found = relative_attention_entropy.compute(frame_of_rows(masked), context())
    assert found[0] == pytest.approx([1, 1, 0], abs=1e-6)
    without_scores = relative_attention_entropy.compute(frame_of_rows(masked, told=False), context())
    assert without_scores[0] == pytest.approx([1, 1, 0], abs=1e-6)


def test_relative_entropy_counts_a_learned_sink_as_a_place() -> None:
    frame = frame_of_rows(torch.zeros(1, 3), sinks=torch.zeros(1))
    entropy = -3 * 0.25 * np.log(0.25)
    assert relative_attention_entropy.compute(frame, context())[0, 0] == pytest.approx(entropy / np.log(4), rel=1e-5)


@given(scores_of)
@few
def test_attention_rows_sum_to_one_or_leave_a_learned_sink_its_share(scores: list[list[float]]) -> None:
    tensor = torch.tensor(scores)
    rows = attention_rows.compute(frame_of_rows(tensor), context())
    assert rows.sum(-1) == pytest.approx(np.ones((1, len(scores))), abs=1e-5)
    sinks = torch.zeros(len(scores))
    frame = frame_of_rows(tensor, sinks=sinks)
    rows, shares = attention_rows.compute(frame, context()), sink_share.compute(frame, context())
    whole = rows.sum(-1) + shares["sink_share.learned"]
    assert whole == pytest.approx(np.ones((1, len(scores))), abs=2e-4)
    assert shares["sink_share"] == pytest.approx(rows[..., 0] + shares["sink_share.learned"], abs=1e-6)


def test_rows_of_a_window_lie_at_the_newest_tokens() -> None:
    wide, narrow = torch.tensor([[0.1, 0.2, 0.3, 0.4]]), torch.tensor([[0.25, 0.75]])
    frame = Frame(torch.zeros(VOCAB), {"attention.probs": [wide, narrow, None], "attention.scores": [None] * 3}, tokens=4)
    rows = attention_rows.compute(frame, context())
    assert rows[1, 0].tolist() == [0, 0, 0.25, 0.75]
    assert np.isnan(rows[2]).all()
    shares = sink_share.compute(frame, context())["sink_share"]
    assert shares[:2, 0] == pytest.approx([0.1, 0])
    assert np.isnan(shares[2]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("measure", [attention_entropy, relative_attention_entropy, attention_rows, sink_share])
def test_half_precision_rows_give_finite_numbers(measure, dtype: torch.dtype) -> None:
    scores = torch.randn(4, 30, generator=torch.Generator().manual_seed(0)) * 20
    scores[0, 5:] = -torch.inf
    for told in (True, False):
        found = measure.compute(frame_of_rows(scores, dtype, told=told), context())
        for array in found.values() if isinstance(found, dict) else [found]:
            assert np.isfinite(array).all()


@pytest.mark.parametrize("measure", [attention_entropy, relative_attention_entropy, sink_share])
def test_nan_stays_nan(measure) -> None:
    scores = torch.zeros(2, 5)
    scores[1, 2] = torch.nan
    found = measure.compute(frame_of_rows(scores), context())
    for array in found.values() if isinstance(found, dict) else [found]:
        assert np.isfinite(array[0, 0])
        assert np.isnan(array[0, 1])


# ---- what needs a head -----------------------------------------------------------------------------------------------------


@dataclass
class PlainHead:
    """logits = 2 * rows . x + 1."""

    rows: Tensor

    def logits(self, residuals: Tensor) -> Tensor:
        return 2 * residuals @ self.rows.T + 1

    def directions(self, residual: Tensor, token_ids: Sequence[int], logits: Tensor) -> Directions:
        ids = list(token_ids)
        return Directions(2 * self.rows[ids], torch.ones(len(ids)), logits[ids])


def stream(layers: int, width: int, seed: int) -> tuple[Frame, Context]:
    """A made-up residual stream: an embedding, and two parts a layer."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(VOCAB, width, generator=generator)
    first = torch.randn(width, generator=generator)
    parts = torch.randn(layers, 2, width, generator=generator)
    after = first + parts.sum(1).cumsum(0)
    before = torch.cat([first[None], after[:-1]])
    head = PlainHead(rows)
    logits = head.logits(after[-1:])[0]
    sites = {
        "attention.out": list(parts[:, 0]),
        "mlp.out": list(parts[:, 1]),
        "other.out": [None] * layers,
        "residual.before": list(before),
        "residual.after": list(after),
    }
    probs = logits.softmax(-1)
    return Frame(logits, sites, head=head), Context(logits, probs, probs, logits.argsort(descending=True), int(logits.argmax()))


@given(st.integers(1, 12), st.integers(2, 40), st.integers(0, 10_000))
@few
def test_attribution_sums_to_the_logit(layers: int, width: int, seed: int) -> None:
    frame, about = stream(layers, width, seed)
    found = attribution.compute(frame, about)
    assert found["attribution"].shape == (layers, 2)
    whole = found["attribution"].sum() + found["attribution.embedding"][0] + found["attribution.bias"][0] + found["attribution.rest"][0]
    assert whole == pytest.approx(float(frame.logits[about.token_id]), abs=1e-9)
    assert found["attribution.rest"][0] == pytest.approx(0, abs=1e-4)


def test_attribution_shows_what_an_unknown_layer_adds_as_rest() -> None:
    frame, about = stream(3, 8, 1)
    known = attribution.compute(frame, about)
    frame.sites["mlp.out"][1] = None
    found = attribution.compute(frame, about)
    assert np.isnan(found["attribution"][1, 1])
    assert found["attribution.rest"][0] == pytest.approx(known["attribution"][1, 1], abs=1e-5)


@given(st.integers(1, 6), st.integers(2, 20), st.integers(0, 10_000))
@few
def test_attribution_of_the_likeliest_tokens_is_each_ones_own(layers: int, width: int, seed: int) -> None:
    frame, about = stream(layers, width, seed)
    found = attribution.compute(frame, about)
    for at, token in enumerate(found["attribution.top.token_ids"].tolist()):
        assert token == int(about.top_ids[at])
        alone = attribution.compute(frame, replace(about, token_id=token))
        assert found["attribution.top"][:, :, at] == pytest.approx(alone["attribution"], abs=1e-9)
        for part in ("embedding", "bias", "logit", "rest"):
            assert found[f"attribution.top.{part}"][0, at] == pytest.approx(alone[f"attribution.{part}"][0], abs=1e-9)


def test_nothing_is_followed_through_a_layer_whose_parts_are_not_known() -> None:
    frame, about = stream(4, 8, 1)
    known = attribution.compute(frame, about)
    for site in ("attention.out", "mlp.out"):
        frame.sites[site][1] = None
    found = attribution.compute(frame, about)
    assert np.isnan(found["attribution"][:2]).all()
    assert np.isnan(found["attribution.embedding"]).all()
    assert found["attribution"][2:].tolist() == known["attribution"][2:].tolist()
    before = known["attribution"][:2].sum() + known["attribution.embedding"][0]
    assert found["attribution.rest"][0] == pytest.approx(before, abs=1e-4)


def test_a_layer_that_does_nothing_hides_nothing() -> None:
    frame, about = stream(3, 8, 2)
    for site in ("attention.out", "mlp.out", "other.out"):
        frame.sites[site].insert(1, None)
    frame.sites["residual.before"].insert(1, frame.sites["residual.after"][0])
    frame.sites["residual.after"].insert(1, frame.sites["residual.after"][0])
    found = attribution.compute(frame, about)
    assert np.isfinite(found["attribution.embedding"]).all()
    assert found["attribution.rest"][0] == pytest.approx(0, abs=1e-4)


def test_attribution_follows_a_stream_that_layers_rescale() -> None:
    first, added, carry = torch.tensor([1.0, 2.0]), torch.tensor([[3.0, -1.0], [0.5, 4.0]]), 0.5
    middle = carry * first + added[0]
    last = carry * middle + added[1]
    rows = torch.eye(2)

    class Carried(PlainHead):
        def directions(self, residual: Tensor, token_ids: Sequence[int], logits: Tensor) -> Directions:
            return replace(super().directions(residual, token_ids, logits), kept=(0.25, 0.5, 1.0))

    head = Carried(rows)
    parts = {"attention.out": list(added), "mlp.out": [None, None], "other.out": [None, None]}
    sites = {**parts, "residual.before": [first, middle], "residual.after": [middle, last]}
    logits = head.logits(last[None])[0]
    found = attribution.compute(Frame(logits, sites, head=head), Context(logits, logits, logits, logits.argsort(descending=True), 1))
    assert found["attribution"][:, 0] == pytest.approx([2 * 0.5 * -1.0, 2 * 4.0])
    assert found["attribution.embedding"][0] == pytest.approx(2 * 0.25 * 2.0)
    assert found["attribution.rest"][0] == pytest.approx(0, abs=1e-6)


def test_lens_ranks_each_layers_logits() -> None:
    frame, about = stream(4, 16, 3)
    found = logit_lens.compute(frame, about)
    for layer, residual in enumerate(frame.sites["residual.after"]):
        logits = frame.head.logits(residual[None])[0]
        assert found["logit_lens.token_ids"][layer].tolist() == logits.argsort(descending=True)[:10].tolist()
        assert found["logit_lens"][layer] == pytest.approx(logits.softmax(-1).sort(descending=True).values[:10].numpy(), abs=1e-6)
        assert found["logit_lens.chosen"][layer] == pytest.approx(float(logits.softmax(-1)[about.token_id]), abs=1e-6)
    assert found["logit_lens.logits"][-1] == pytest.approx(frame.logits.sort(descending=True).values[:10].numpy(), rel=1e-5)
    assert (found["logit_lens"].sum(-1) <= 1 + 1e-5).all()


@pytest.mark.parametrize("measure", [logit_lens, attribution])
def test_without_a_head_there_is_nothing_rather_than_something_wrong(measure) -> None:
    frame, about = stream(3, 8, 0)
    found = measure.compute(Frame(frame.logits, frame.sites), about)
    for name, array in found.items():
        assert (array == -1).all() if name.endswith(".token_ids") else np.isnan(array).all()


# ---- inside the MLP --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(0, 1000))
@few
def test_neurons_are_the_strongest(width: int, seed: int) -> None:
    hidden = torch.randn(width, generator=torch.Generator().manual_seed(seed))
    found = neurons.compute(Frame(torch.zeros(VOCAB), {"mlp.hidden": [hidden, None]}), context())
    count = min(width, neurons.TOP)
    ids, values = found["neurons.ids"][0], found["neurons"][0]
    assert values.tolist() == hidden[ids].tolist()
    assert np.abs(values).tolist() == hidden.abs().sort(descending=True).values[:count].tolist()
    assert (found["neurons.ids"][1] == -1).all()
    assert np.isnan(found["neurons"][1]).all()


def test_router_orders_experts_by_weight() -> None:
    sites = {
        "router.experts": [torch.tensor([7, 2, 5]), None, torch.tensor([1, 0])],
        "router.weights": [torch.tensor([0.2, 0.7, 0.1]), None, torch.tensor([0.5, 0.5])],
    }
    found = router.compute(Frame(torch.zeros(VOCAB), sites), context())
    assert found["router.ids"].tolist() == [[2, 7, 5], [-1, -1, -1], [1, 0, -1]]
    assert found["router"][0] == pytest.approx([0.7, 0.2, 0.1])
    assert np.isnan(found["router"][1]).all()


# ---- all of them -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.names("measures"))
def test_each_measure_says_what_it_is(name: str) -> None:
    module = registry.load("measures", name)
    text = module.__doc__ or ""
    assert module.TITLE
    assert isinstance(module.NEEDS, tuple)
    assert text.splitlines()[0].lower().startswith(module.TITLE.lower())
    assert "[" in text, "the shape"
    assert "Source:" in text or name == "distribution"


def test_a_model_without_rows_has_none_for_each_of_its_heads() -> None:
    frame = Frame(torch.zeros(5), {"attention.probs": [None, None], "attention.scores": [None, None]}, tokens=7, heads=3)
    about = Context(frame.logits, frame.logits, frame.logits, torch.arange(5), 0)
    assert attention_entropy.compute(frame, about).shape == (2, 3)
    assert rows_over_tokens(frame).shape == (2, 3, 7)
    assert np.isnan(rows_over_tokens(frame)).all()


def spread(logits: Tensor, kept: int) -> np.ndarray:
    """The bins of a distribution that sampling cut to its `kept` most likely tokens."""
    order = logits.argsort(descending=True)
    probs = logits.softmax(-1)
    left = torch.zeros_like(probs)
    left[order[:kept]] = probs[order[:kept]] / probs[order[:kept]].sum()
    return distribution.compute(Frame(logits), Context(logits, probs, left, order, int(order[0])))


def test_what_sampling_cut_has_no_mass_left_by_rounding() -> None:
    for seed in range(40):
        logits = torch.randn(4000, generator=torch.Generator().manual_seed(seed)) * 3
        found = spread(logits, 50)
        assert (found[7:, 1] == 0).all(), "ranks 65 and on"
        assert found[-1, 0] == pytest.approx(float(logits.softmax(-1).sort(descending=True).values[512:].double().sum()), abs=1e-6)
        assert (spread(logits[:50], 50)[-1] == 0).all(), "a vocabulary that ends before the last bin"
    assert spread(logits, 600)[-1, 1] > 0, "what is left of the rest counts"
