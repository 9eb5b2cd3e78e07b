"""The loop, on a random Llama: equal to generate, reproducible, and everything can be taken back exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from openmav.backends.transformers import wrap
from openmav.errors import UsageError
from openmav.generation.opening import open_session
from openmav.generation.session import Session
from openmav.record import Step
from openmav.settings import CORE_MEASURES, Settings
from openmav.settings.sampling import Sampling

PROMPT = "hello mello"
CONFIGS = [
    Sampling(),
    Sampling(repetition_penalty=1.3),
    Sampling(temperature=1.0, top_k=0),
    Sampling(temperature=0.7),
    Sampling(temperature=1.3, top_k=5, seed=7),
    Sampling(temperature=1.0, top_p=0.8),
    Sampling(temperature=0.9, top_k=0, min_p=0.1),
    Sampling(temperature=1.1, top_k=20, top_p=0.9, min_p=0.05, repetition_penalty=1.1, seed=1),
]


@pytest.fixture
def make(tiny_llama, id_tokenizer):
    """Sessions on the same model; each is closed at the end."""
    made: list[Session] = []

    def build(**changes) -> Session:
        settings = Settings(**{"prompt": PROMPT, "max_new_tokens": 40, **changes})
        made.append(Session(wrap(tiny_llama, id_tokenizer, "tiny"), settings))
        return made[-1]

    yield build
    for session in made:
        session.close()


def same(a: Step, b: Step) -> bool:
    """Bit for bit, but for the time it took."""
    numbers = all(np.array_equal(a.values[k], b.values[k], equal_nan=True) for k in a.values | b.values)
    candidates = np.array_equal(a.candidates.logits, b.candidates.logits) and np.array_equal(a.candidates.token_ids, b.candidates.token_ids)
    return numbers and candidates and (a.token_id, a.text, a.logprob, a.entropy) == (b.token_id, b.text, b.logprob, b.entropy)


@pytest.mark.parametrize("sampling", CONFIGS, ids=lambda s: s.describe())
def test_tokens_equal_those_of_generate(make, tiny_llama, sampling: Sampling) -> None:
    ids = list(PROMPT.encode())
    torch.manual_seed(sampling.seed)
    given = (
        {}
        if sampling.greedy
        else {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p, "min_p": sampling.min_p or None}
    )
    expected = tiny_llama.generate(
        torch.tensor([ids]),
        do_sample=not sampling.greedy,
        max_new_tokens=40,
        repetition_penalty=sampling.repetition_penalty,
        pad_token_id=0,
        **given,
    )[0].tolist()
    session = make(sampling=sampling)
    list(session)
    assert session.token_ids == expected


def test_two_hundred_greedy_tokens_equal_generate(make, tiny_llama) -> None:
    expected = tiny_llama.generate(torch.tensor([list(PROMPT.encode())]), do_sample=False, max_new_tokens=200, pad_token_id=0)
    session = make(max_new_tokens=200)
    list(session)
    assert session.token_ids == expected[0].tolist()


def test_a_seed_gives_the_same_text_twice(make) -> None:
    runs = [make(sampling=Sampling(temperature=1.0, seed=5)) for _ in range(2)]
    first, second = (list(run) for run in runs)
    assert all(map(same, first, second))
    other = make(sampling=Sampling(temperature=1.0, seed=6))
    assert [s.token_id for s in other] != [s.token_id for s in first]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("count", [1, 7, 39, 40, 99])
def test_back_and_forward_is_bit_identical(make, sampling: Sampling, count: int) -> None:
    session = make(sampling=sampling)
    first = list(session)
    session.back(count)
    assert len(session.steps) == max(0, 40 - count)
    again = list(session)
    assert all(map(same, first[-len(again) :], again))
    assert session.text == "".join(s.text for s in first)


def test_back_again_and_again(make) -> None:
    session = make()
    first = list(session)
    for count in (5, 9, 3, 20):
        session.back(count)
        session.step()
    list(session)
    assert all(map(same, first, session.steps))


def test_a_forced_token_is_fed_and_marked(make) -> None:
    session = make()
    session.step()
    session.back()
    step = session.force(65)
    assert (step.token_id, step.text, step.forced) == (65, "A", True)
    assert step.logprob == pytest.approx(float(np.log(step.candidates.probs[-1])), abs=1e-5)
    fresh = make(prompt=PROMPT + "A")
    assert session.step().token_id == fresh.step().token_id


def test_values_have_their_shapes_and_bounds(make) -> None:
    step = make().step()
    assert step.values["mlp_norm"].shape == (3,)
    assert step.values["attention_entropy"].shape == (3, 4)
    assert (step.values["attention_entropy"] >= 0).all()
    assert (step.values["attention_entropy"] <= np.log(len(PROMPT)) + 1e-5).all()
    assert step.values["distribution"].sum(0) == pytest.approx([1, 1], abs=1e-5)
    assert not step.values["mlp_norm"].flags.writeable


def test_only_what_is_wanted_is_there(make, tiny_llama) -> None:
    session = make(measures=("mlp_norm",))
    heard: list[str] = []
    hook = tiny_llama.register_forward_pre_hook(lambda m, _a: heard.extend(n for n, one in m.named_modules() if "forward" in vars(one)))
    assert set(session.step().values) == {"mlp_norm"}
    hook.remove()
    assert heard == [f"model.layers.{layer}.mlp" for layer in range(3)]
    session.want(["residual_norm", "attention_entropy"])
    assert set(session.step().values) == {"residual_norm", "attention_entropy"}


def test_what_is_wanted_late_is_there_at_once_even_for_the_first_token(make) -> None:
    session = make(measures=())
    session.prefill()
    session.want(["residual_norm"])
    assert session.step().values["residual_norm"].shape == (3,)


def test_capture_does_not_change_the_model(make) -> None:
    bare, full = make(measures=()), make()
    assert all(a.candidates.logits.tobytes() == b.candidates.logits.tobytes() for a, b in zip(bare, full, strict=True))


def test_a_long_prompt_is_read_in_chunks_as_if_in_one(make, tiny_llama) -> None:
    prompt = "".join(chr(97 + i * 7 % 26) for i in range(600))
    session = make(prompt=prompt, max_new_tokens=1)
    seen = []
    session.prefill(lambda text, share: seen.append(share))
    step = session.step()
    with torch.inference_mode():
        logits = tiny_llama(torch.tensor([list(prompt.encode())])).logits[0, -1]
    assert seen == [pytest.approx(512 / 600), 1.0]
    assert np.abs(step.candidates.logits - logits[step.candidates.token_ids.tolist()].numpy()).max() < 1e-4


def test_max_abs_is_the_largest_entry(make) -> None:
    l2, largest = make().step(), make(aggregation="max_abs").step()
    assert (largest.values["residual_norm"] < l2.values["residual_norm"]).all()


def test_stop_strings_end_the_text_also_across_tokens(make) -> None:
    text = "".join(s.text for s in make())
    stop = text[10:13]
    session = make(stop=(stop,))
    list(session)
    assert session.reason == "stop"
    assert session.text.rstrip() == text[: len(session.text)].rstrip()
    assert stop in session.text


def test_the_context_is_a_limit(make) -> None:
    session = make(prompt="x" * 690, max_new_tokens=50)
    list(session)
    assert session.reason == "length"
    assert len(session.token_ids) == 700
    with pytest.raises(UsageError, match="700"):
        make(prompt="x" * 700)


def test_nonsense_is_refused(make) -> None:
    with pytest.raises(UsageError, match="empty"):
        make(prompt="")
    with pytest.raises(UsageError, match=r"unknown measure 'mlp_nrom'.*mlp_norm"):
        make(measures=("mlp_nrom",))
    session = make(max_new_tokens=1)
    with pytest.raises(UsageError, match="no token 300"):
        session.force(300)
    session.step()
    with pytest.raises(UsageError, match="ended"):
        session.step()


def test_a_doubled_first_token_is_said(make, id_tokenizer, monkeypatch) -> None:
    assert make().info.notes == ()
    monkeypatch.setattr(type(id_tokenizer), "__call__", lambda self, text: {"input_ids": [299, 299, *text.encode()]})
    assert "begins with <299> twice" in make().info.notes[0]


def test_closing_gives_the_model_back(make, tiny_llama) -> None:
    before = tiny_llama.config._attn_implementation
    session = make()
    session.step()
    session.close()
    assert tiny_llama.config._attn_implementation == before
    assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in tiny_llama.modules())


def test_what_other_hooks_change_is_heard(make, tiny_llama) -> None:
    """Whether they were there first or came later; and a forward that somebody put on a module stays his."""
    session = make()
    session.step()
    plain = session.step()
    mlp = tiny_llama.model.layers[1].mlp
    hook = mlp.register_forward_hook(lambda _m, _a, output: output * 3)
    late = session.retake()
    early = make().step()
    hook.remove()
    assert late.values["mlp_norm"][1] == pytest.approx(3 * plain.values["mlp_norm"][1], rel=1e-5)
    assert early.values["mlp_norm"][1] == pytest.approx(3 * make().step().values["mlp_norm"][1], rel=1e-5)
    own = mlp.forward
    mlp.forward = lambda x: own(x) * 2
    try:
        other = make()
        assert other.step().values["mlp_norm"][1] == pytest.approx(2 * session.steps[0].values["mlp_norm"][1], rel=1e-5)
        other.close()
        assert vars(mlp)["forward"](torch.ones(1, 1, 64)).equal(own(torch.ones(1, 1, 64)) * 2)
    finally:
        del mlp.forward


# ---- looking again ---------------------------------------------------------------------------------------------------------


def test_the_newest_step_is_measured_again_for_what_is_wanted_now() -> None:
    session = open_session(Settings(model="toy", backend="toy", prompt="abc", measures=("mlp_norm", "neuron_tokens")))
    first = session.step()
    session.want(("mlp_norm", "neurons"), layer=1)
    again = session.look_again()
    assert again is not None
    assert session.steps == [again]
    assert again.token_id == first.token_id
    assert set(again.values) >= {"mlp_norm", "neurons", "neuron_tokens"}
    assert session.look_again() is None


def test_another_layer_is_measured_again() -> None:
    session = open_session(Settings(model="toy", backend="toy", prompt="abc", measures=("neurons", "neuron_tokens")))
    session.want(("neurons", "neuron_tokens"), layer=0)
    assert session.step().values["neuron_tokens.layers"].tolist() == [0]
    session.want(("neurons", "neuron_tokens"), layer=3)
    again = session.look_again()
    assert again is not None
    assert again.values["neuron_tokens.layers"].tolist() == [3]
    assert set(again.values["neuron_tokens.token_ids"].ravel().tolist()) - {-1} <= set(again.pieces)


def test_what_was_not_captured_waits_for_the_next_step() -> None:
    session = open_session(Settings(model="toy", backend="toy", prompt="abc", measures=("mlp_norm",)))
    assert session.look_again() is None
    session.step()
    session.want(("attention_entropy",))
    again = session.look_again()
    assert again is None or "attention_entropy" not in again.values
    assert "attention_entropy" in session.step().values
    session.back()
    assert session.look_again() is None


@pytest.mark.parametrize("sampling", CONFIGS, ids=lambda s: s.describe())
def test_bursts_are_the_steps_one_by_one(make, sampling: Sampling) -> None:
    wanted = (*CORE_MEASURES, "cache_size", "attention_rows", "logit_lens", "sampling_stages")
    single, many = (make(sampling=sampling, measures=wanted) for _ in range(2))
    expected = list(single)
    found: list[Step] = []
    while many.reason is None:
        found += many.burst(seconds=60, most=7)
    assert [step.index for step in found] == list(range(40))
    assert all(same(a, b) and a.values.keys() == b.values.keys() for a, b in zip(found, expected, strict=True))
    assert found == many.steps
    assert many.reason == single.reason == "length"
    for session in (single, many):
        session.back(15)
        session.sampling = replace(sampling, temperature=1.7)
    while many.reason is None:
        many.burst(seconds=60)
    assert all(same(a, b) for a, b in zip(many.steps[25:], single, strict=True))


def test_a_burst_ends_in_time_and_with_the_text(make) -> None:
    assert len(make().burst(seconds=0.0)) == 1
    assert len(make(max_new_tokens=3).burst(seconds=60)) == 3


def test_a_burst_goes_token_by_token_where_the_next_depends_on_the_last(make) -> None:
    stops = make(breakpoints=("index == 2",))
    made = [len(stops.burst(60)) for _ in range(3)]
    assert made == [1, 1, 1]
    assert stops.hit is not None
    text = make(max_new_tokens=8)
    part = "".join(step.text for step in text.burst(60)[:3])
    ends = make(stop=(part[-2:],))
    while ends.reason is None:
        assert len(ends.burst(60)) == 1
    assert ends.reason == "stop"
    back = make(max_new_tokens=8)
    back.burst(60)
    back.back(4)
    assert len(back.burst(60)) == 1  # which may leave the tokens ahead on a branch


def test_a_burst_that_fails_leaves_what_was_whole(make, monkeypatch) -> None:
    whole = make(sampling=Sampling(temperature=1.3, seed=7), max_new_tokens=10)
    expected = list(whole)
    session = make(sampling=Sampling(temperature=1.3, seed=7), max_new_tokens=10)
    freeze, calls = session._runner.freeze, iter(range(100))

    def fails(*drawn):
        if next(calls) == 4:
            raise KeyboardInterrupt
        return freeze(*drawn)

    monkeypatch.setattr(session._runner, "freeze", fails)
    with pytest.raises(KeyboardInterrupt):
        session.burst(60)
    assert len(session.steps) == 4
    assert session.reason is None
    assert all(same(a, b) for a, b in zip([*session.steps[:4], *session.burst(60)], expected, strict=True))


def test_a_text_that_has_ended_goes_on_when_asked() -> None:
    session = open_session(Settings("toy?endless=1", "Hi", backend="toy", max_new_tokens=5))
    whole = [step.token_id for step in open_session(Settings("toy?endless=1", "Hi", backend="toy", max_new_tokens=12))]
    assert session.go_on() is None, "it has not ended"
    list(session)
    assert session.reason == "length"
    assert session.go_on() == 5
    list(session)
    assert (len(session.steps), session.reason) == (10, "length")
    session.go_on()
    session.step()
    session.step()
    assert [step.token_id for step in session.steps] == whole, "the tokens of a longer run"


def test_a_text_goes_on_past_the_models_end() -> None:
    session = open_session(Settings("toy", "Hi", backend="toy", max_new_tokens=100))
    steps = list(session)
    assert session.reason == "eos"
    assert session.go_on() == 100
    assert session.step().index == len(steps)
    session.back(2)
    session.forward(2)
    assert len(session.steps) == len(steps) + 1


def test_words_that_are_typed_at_the_end_are_never_lost() -> None:
    session = open_session(Settings("toy?endless=1", "Hi", backend="toy", max_new_tokens=3))
    list(session)
    assert [step.text for step in session.type("abcdef")] == [], "without being asked, an ended text stays as it is"
    assert "".join(step.text for step in session.type("abcdef", past_end=True)) == "abcdef"


def test_a_full_context_and_a_constraint_that_is_complete_can_not_go_on() -> None:
    session = open_session(Settings("toy?endless=1&context=8", "Hi", backend="toy", max_new_tokens=100))
    list(session)
    with pytest.raises(UsageError, match=r"the context of toy\?endless=1&context=8 is full \(8 tokens\): undo tokens"):
        session.go_on()
    assert session.reason == "length"
