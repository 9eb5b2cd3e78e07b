"""What neurons say through the head: against weights read by hand, and summed up to what the whole MLP adds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from backends.families import FAMILIES, build
from backends.test_deep import about, feed
from openmav.backends.base import Frame, LoadOptions
from openmav.backends.toy import load as load_toy
from openmav.backends.transformers import wrap
from openmav.backends.transformers.head import neurons as reading
from openmav.measures import neuron_tokens, neurons
from openmav.measures.base import Context

SITES = frozenset(neuron_tokens.NEEDS) | {"mlp.out"}


@pytest.fixture(scope="module", params=FAMILIES)
def shown(request):
    """A family's model, its backend and a frame."""
    model = build(request.param)
    backend = wrap(model, None, request.param)
    yield request.param, model, backend, feed(backend)
    backend.close()


def all_effects(frame: Frame, layer: int, vocab: int) -> Tensor | None:
    """[hidden, vocab]: what each neuron of a layer adds to each logit, put together from the tokens it raises and lowers."""
    assert frame.head is not None
    hidden, last = frame.sites["mlp.hidden"][layer], frame.sites["residual.after"][-1]
    assert hidden is not None
    assert last is not None
    found = frame.head.neuron_tokens(layer, range(len(hidden)), hidden, last, vocab)
    if found is None:
        return None
    ids, logits = found
    effects = torch.zeros(len(hidden), vocab + 1)
    return effects.scatter_add(1, ids.flatten(1) % (vocab + 1), logits.flatten(1))[:, :vocab]


def test_all_neurons_of_a_layer_sum_to_what_its_mlp_adds(shown) -> None:
    _, _, backend, frame = shown
    assert frame.head is not None
    vocab, token = len(frame.logits), int(frame.logits.argmax())
    last = frame.sites["residual.after"][-1]
    assert last is not None
    line = frame.head.directions(last, [token], frame.logits)
    assert line is not None
    for layer, hidden in enumerate(frame.sites["mlp.hidden"]):
        if hidden is None:
            continue
        effects = all_effects(frame, layer, vocab)
        assert (effects is None) == (layer in backend.missing.get("head.neurons", {}))
        if effects is None:
            continue
        module = backend.checked.mlp_internals.last_linear[layer]
        bias = getattr(module, "bias", None)
        added = frame.sites["mlp.out"][layer].float() - (
            0 if bias is None else bias.detach() * backend.checked.mlp_internals.factors[layer]
        )
        kept = line.kept[layer + 1] if line.kept else 1.0
        assert float(effects[:, token].sum()) == pytest.approx(kept * float(added @ line.vectors[0]), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("family", "column"),
    [
        ("llama", lambda model, layer, i: model.model.layers[layer].mlp.down_proj.weight[:, i]),
        ("qwen2", lambda model, layer, i: model.model.layers[layer].mlp.down_proj.weight[:, i]),
    ],
)
def test_by_the_weights_of_a_llama(family: str, column) -> None:
    model = build(family)
    backend = wrap(model, None, family)
    frame = feed(backend)
    found = neuron_tokens.compute(frame, about(frame))
    values = neurons.compute(frame, about(frame))
    x = frame.sites["residual.after"][-1]
    norm, rows = model.model.norm, model.lm_head.weight
    scale = 1 / (x.square().mean() + norm.variance_epsilon).sqrt()
    for at, layer in enumerate(found["neuron_tokens.layers"]):
        for k, (value, neuron) in enumerate(zip(values["neurons"][layer], values["neurons.ids"][layer])):
            effect = rows @ (norm.weight * scale * column(model, layer, int(neuron)) * float(value))
            high, low = effect.topk(neuron_tokens.TOKENS), effect.topk(neuron_tokens.TOKENS, largest=False)
            assert found["neuron_tokens"][at, k, 0] == pytest.approx(high.values.detach().numpy(), rel=1e-4, abs=1e-6)
            assert found["neuron_tokens"][at, k, 1] == pytest.approx(low.values.detach().numpy(), rel=1e-4, abs=1e-6)
            assert found["neuron_tokens.token_ids"][at, k, 0, 0] == high.indices[0]
            assert found["neuron_tokens.token_ids"][at, k, 1, 0] == low.indices[0]


def test_a_second_look_is_the_same_and_other_activations_scale() -> None:
    backend = wrap(build("llama"), None, "llama")
    frame = feed(backend)
    assert frame.head is not None
    hidden, last = frame.sites["mlp.hidden"][0], frame.sites["residual.after"][-1]
    first = frame.head.neuron_tokens(0, [3, 5], hidden, last, 4)
    again = frame.head.neuron_tokens(0, [5, 3], hidden, last, 4)
    assert torch.equal(first[1][0], again[1][1])
    turned = frame.head.neuron_tokens(0, [3], -2 * hidden, last, 4)
    assert torch.equal(turned[0][0], first[0][0].flip(0))
    assert torch.allclose(turned[1][0], -2 * first[1][0].flip(0))


def test_a_small_layer_is_learned_at_once_and_a_large_one_as_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model, found, known = build("llama"), [], []
    for limit in (0, reading.SMALL):
        monkeypatch.setattr(reading, "SMALL", limit)
        frame = feed(wrap(model, None, "llama"))
        assert frame.head is not None
        hidden, last = frame.sites["mlp.hidden"][1], frame.sites["residual.after"][-1]
        found.append(frame.head.neuron_tokens(1, [3, 5], hidden, last, 4))
        known.append(len(frame.head._head.neurons._effects._known))
    assert known == [2, len(hidden)]
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


def test_a_norm_between_is_said_and_no_number_is_given() -> None:
    backend = wrap(build("gemma2"), None, "gemma2")
    frame = feed(backend)
    assert "such as a norm, stands between" in next(iter(backend.missing["head.neurons"].values()))
    assert neuron_tokens.compute(frame, about(frame))["neuron_tokens.layers"].tolist() == []


def test_only_the_selected_layer_is_computed() -> None:
    toy = load_toy("toy", LoadOptions())
    frame = toy.prefill(toy.encode("abc"), SITES)
    plain = about(frame)
    chosen = Context(plain.logits, plain.probs, plain.sampled_probs, plain.top_ids, plain.token_id, layer=2)
    one, every = neuron_tokens.compute(frame, chosen), neuron_tokens.compute(frame, plain)
    assert one["neuron_tokens.layers"].tolist() == [2]
    assert every["neuron_tokens.layers"].tolist() == [0, 1, 2, 3]
    assert np.array_equal(one["neuron_tokens"][0], every["neuron_tokens"][2])


def test_a_neuron_that_is_cached_runs_no_module_of_the_model() -> None:
    family = next(iter(FAMILIES))
    model = build(family)
    backend = wrap(model, None, family)
    frame = feed(backend)
    assert frame.head is not None
    hidden, last = frame.sites["mlp.hidden"][0], frame.sites["residual.after"][-1]
    assert hidden is not None
    assert last is not None
    runs: list[object] = []
    handles = [module.register_forward_pre_hook(lambda *_: runs.append(1)) for module in model.modules()]
    first = frame.head.neuron_tokens(0, [1, 2], hidden, last, 4)
    assert first is not None
    ran = len(runs)
    again = frame.head.neuron_tokens(0, [1, 2], hidden, last, 4)
    assert again is not None
    assert ran > 0
    assert len(runs) == ran
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for handle in handles:
        handle.remove()
    backend.close()
