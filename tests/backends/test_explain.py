"""Input attribution against what plain transformers and autograd say, on small models of several families and on the real one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backends.families import tiny
from openmav.backends.attribution.integrated_gradients import StraightPath, gauss_legendre, integrate
from openmav.backends.transformers import wrap
from openmav.errors import UsageError
from openmav.generation.opening import open_session
from openmav.settings import Settings

IDS = [5, 17, 9, 33, 21, 40, 8, 61, 12]
A, B = 7, 90
FAMILIES = ["gpt2", "llama", "gemma2", "gemma3_text", "phi", "mixtral", "falcon", "mamba", "gpt_oss"]
SMOOTH = ["gpt2", "llama", "gemma2", "phi", "mamba"]  # a mixture of experts leaps where it chooses others
every = pytest.mark.parametrize("family", FAMILIES)


def asked(family: str, method: str, minus: int | None = None, target: int | None = A):
    return wrap(tiny(family), None).explain(method, IDS, target, minus)


def plain_logits(family: str, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return tiny(family)(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].float()


def reference_of(family: str) -> int:
    config = tiny(family).config
    return next(i for i in (config.pad_token_id, config.eos_token_id, config.bos_token_id) if i is not None)


@every
def test_gradient_times_input_equals_autograd_on_the_raw_model(family: str) -> None:
    """Through `inputs_embeds`, a way of transformers' own, and with its eager attention."""
    found, _ = asked(family, "gradient", B)
    model = tiny(family)
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    given = model.get_input_embeddings()(torch.tensor([IDS])).detach().requires_grad_()
    logits = model(inputs_embeds=given, use_cache=False).logits[0, -1].float()
    (slope,) = torch.autograd.grad(logits[A] - logits[B], given)
    model.set_attn_implementation(before)
    expected = (slope * given).sum(-1)[0].detach().numpy()
    np.testing.assert_allclose(found.scores, expected, atol=1e-4 * np.abs(expected).max() + 1e-6)
    assert np.abs(expected).max() > 1e-3


@every
def test_occlusion_equals_a_loop_of_plain_runs(family: str) -> None:
    found, _ = asked(family, "occlusion", B)
    reference, whole = reference_of(family), plain_logits(family, IDS)
    assert found.reference == reference
    for at, score in enumerate(found.scores):
        without = plain_logits(family, [*IDS[:at], reference, *IDS[at + 1 :]])
        expected = float((whole[A] - whole[B]) - (without[A] - without[B]))
        assert float(score) == pytest.approx(expected, abs=2e-4 * float(whole.abs().max()))


@pytest.mark.parametrize("family", SMOOTH)
@pytest.mark.parametrize("minus", [None, B])
def test_integrated_gradients_are_complete(family: str, minus: int | None) -> None:
    """They sum to f at the text less f at the reference, both by plain runs; within 1 % of it."""
    found, _ = asked(family, "integrated", minus)
    ends = [plain_logits(family, ids) for ids in (IDS, [reference_of(family)] * len(IDS))]
    total = float(ends[0][A] - ends[1][A]) - (float(ends[0][minus] - ends[1][minus]) if minus is not None else 0.0)
    assert found.total == pytest.approx(total, rel=1e-3)
    assert found.scores.sum() == pytest.approx(total, rel=0.01)


def test_integrated_gradients_equal_a_fine_riemann_sum() -> None:
    """Each score by itself, not their sum alone."""
    found, _ = asked("gpt2", "integrated")
    model = tiny("gpt2")
    embed = model.get_input_embeddings()
    end, start = (embed(torch.tensor([ids])).detach() for ids in (IDS, [reference_of("gpt2")] * len(IDS)))
    slopes = torch.zeros_like(end)
    points = 400
    for at in range(points):
        given = (start + (at + 0.5) / points * (end - start)).requires_grad_()
        slopes += torch.autograd.grad(model(inputs_embeds=given).logits[0, -1, A], given)[0] / points
    expected = (slopes * (end - start)).sum(-1)[0].numpy()
    np.testing.assert_allclose(found.scores, expected, atol=0.01 * np.abs(expected).max())


@pytest.mark.parametrize("method", ["gradient", "occlusion"])
@every
def test_a_minus_b_is_a_less_b(family: str, method: str) -> None:
    both, alone, other = (asked(family, method, *of)[0].scores for of in ((B, A), (None, A), (None, B)))
    np.testing.assert_allclose(both, alone - other, atol=1e-4 * max(1.0, float(np.abs(alone).max())))


@pytest.mark.parametrize("method", ["gradient", "integrated", "occlusion"])
def test_twice_the_same(method: str) -> None:
    assert np.array_equal(asked("llama", method)[0].scores, asked("llama", method)[0].scores)


def test_the_token_is_the_likeliest_where_none_is_named() -> None:
    found, target = asked("llama", "gradient", target=None)
    assert target == int(plain_logits("llama", IDS).argmax()) == int(found.logits.argmax())


@pytest.mark.parametrize("method", ["gradient", "integrated", "occlusion"])
@pytest.mark.parametrize("family", ["llama", "mamba", "mistral"])
def test_the_running_text_and_the_model_are_left_as_they_were(family: str, method: str) -> None:
    model = tiny(family)
    flags, hooks = [p.requires_grad for p in model.parameters()], hooks_on(model)
    sites = frozenset({"mlp.out", "residual.after"})
    logits = []
    for asks in (False, True):
        backend = wrap(model, None)
        backend.prefill(IDS, sites)
        if asks:
            backend.explain(method, IDS, A, None)
        frame = backend.decode_one_token(A, sites)
        logits.append((frame.logits, *frame.sites["mlp.out"]))
        backend.close()
    assert all(torch.equal(x, y) for x, y in zip(*logits) if x is not None)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert hooks_on(model) == hooks


def hooks_on(model: torch.nn.Module) -> list[tuple[int, int]]:
    """Of every module; other tests on the same model may have left some."""
    return [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]


class StopError(Exception):
    pass


@pytest.mark.parametrize("method", ["integrated", "occlusion"])
def test_progress_may_stop_it(method: str) -> None:
    model = tiny("llama")
    hooks = hooks_on(model)
    told: list[str] = []

    def progress(what: str, _share: float | None) -> None:
        told.append(what)
        if len(told) == 2:
            raise StopError

    with pytest.raises(StopError):
        wrap(model, None).explain(method, IDS, A, None, progress)
    assert all(p.requires_grad for p in model.parameters())
    assert hooks_on(model) == hooks


def test_a_model_that_gives_no_gradient_says_so() -> None:
    model = tiny("gpt2")
    layer = model.transformer.h[1].mlp
    backend = wrap(model, None)
    handle = layer.register_forward_pre_hook(lambda _m, args: (torch.from_numpy(args[0].numpy()),))
    try:
        with pytest.raises(UsageError, match=r"has no gradient .* occlusion needs none"):
            backend.explain("gradient", IDS, A, None)
        assert backend.explain("occlusion", IDS, A, None)[0].scores.any()
    finally:
        handle.remove()
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("points", [1, 2, 4, 7])
def test_quadrature_is_exact_for_polynomials_up_to_its_degree(points: int) -> None:
    """The integral of x^k over [0, 1] is 1 / (k + 1); the first degree that the rule can't do shows that it is no finer one."""
    nodes, weights = gauss_legendre(points)
    missed = [sum(w * x**k for x, w in zip(nodes, weights)) - 1 / (k + 1) for k in range(2 * points + 1)]
    assert max(map(abs, missed[:-1])) < 1e-14
    assert abs(missed[-1]) > 1e-10


def test_integrated_gradients_of_a_polynomial_equal_its_integral() -> None:
    """f = (a . x)^3 summed over tokens: from 0 on, the integral of 3 s^2 (a . x)^2 a over s, times x, is (a . x)^3."""
    generator = torch.Generator().manual_seed(1)
    end, a = torch.randn(5, 8, generator=generator), torch.randn(8, generator=generator)
    way = StraightPath(lambda rows: ((rows @ a) ** 3).sum(-1), torch.zeros(5, 8), end, 3, torch.finfo(torch.float32).eps)
    scores, total = integrate(way)
    expected = (end.double() @ a.double()) ** 3
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
    assert total == pytest.approx(float(expected.sum()), rel=1e-5)


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown attribution method 'shap'\. Known: gradient, integrated, occlusion"):
        asked("gpt2", "shap")


@pytest.mark.parametrize("model", ["demo", pytest.param("real", marks=[pytest.mark.real, pytest.mark.slow])])
def test_integrated_gradients_are_complete_on_trained_models(model: str, request: pytest.FixtureRequest) -> None:
    """Trained models leap on the way; points that are spread evenly miss the total by several times itself."""
    folder = str(request.getfixturevalue("real_folder")) if model == "real" else model
    session = open_session(Settings(model=folder, prompt="Paris is" if model == "real" else "It is a truth", backend="transformers"))
    step = session.step()
    found = session.explain("integrated", 0)
    assert found.target_id == step.token_id
    assert found.error < 0.01
    assert found.sum == pytest.approx(found.total, rel=0.01)
    assert found.drift <= found.drift_limit
    assert found.output == pytest.approx(float(step.candidates.logits[0]), rel=1e-4)
    session.close()
