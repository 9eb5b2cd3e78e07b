"""A model's generation config is followed as generate() follows it: the same tokens and the same distributions, and flags win over it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from backends.generation_configs import PROMPT, Make, generated, unchecked
from openmav.backends.transformers.decoding.generation_config import Generation
from openmav.generation.sampler import STAGE_OF
from openmav.record import SAMPLING_STAGES
from openmav.settings.sampling import Sampling, SamplingOptions

pytestmark = pytest.mark.changes_model  # they give a model another generation config

GREEDY: list[dict[str, Any]] = [
    {"repetition_penalty": 1.4},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"encoder_repetition_penalty": 1.5},
    {"encoder_no_repeat_ngram_size": 2, "sequence_bias": [[[108], 90.0]]},
    {"bad_words_ids": [[104], [101, 108], [250], [7]]},
    {"suppress_tokens": list(range(100, 250))},
    {"begin_suppress_tokens": list(range(280))},
    {"sequence_bias": [[[65], 30.0], [[66], -30.0], [[65, 66], 60.0]]},
    {"min_new_tokens": 6, "eos_token_id": list(range(150))},
    {"min_length": 15, "eos_token_id": list(range(150))},
    {"forced_eos_token_id": 9, "eos_token_id": 9},
    {"forced_eos_token_id": [9, 10]},
    {"forced_bos_token_id": 33},
    {"exponential_decay_length_penalty": (3, 1.3), "eos_token_id": 21},
    {"remove_invalid_values": True},
    {"renormalize_logits": True},
    {"no_repeat_ngram_size": 1, "repetition_penalty": 1.2, "suppress_tokens": [65, 66], "forced_eos_token_id": 5, "min_new_tokens": 3},
]
SAMPLED: list[dict[str, Any]] = [
    {},
    {"temperature": 0.6},
    {"temperature": 0.6, "top_k": 20, "top_p": 0.9},
    {"top_k": 0, "temperature": 1.7},
    {"top_k": 0, "min_p": 0.05},
    {"top_k": 0, "typical_p": 0.8},
    {"top_k": 0, "epsilon_cutoff": 0.004},
    {"top_k": 0, "eta_cutoff": 0.01},
    {"top_k": 60, "top_h": 0.4},
    {"top_k": 100, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "bad_words_ids": [[9], [12, 13]], "renormalize_logits": True},
]


@pytest.mark.parametrize("config", GREEDY, ids=str)
def test_greedy_tokens_are_those_of_generate(with_config: Make, tiny_llama: PreTrainedModel, config: dict[str, Any]) -> None:
    plain, _ = generated(tiny_llama, do_sample=False)
    expected, _ = generated(tiny_llama, do_sample=False, **config)
    assert [step.token_id for step in with_config(config)] == expected
    if not {"remove_invalid_values", "renormalize_logits", "forced_bos_token_id"} & {*config}:
        assert expected != plain, "the setting must do something here, or this shows nothing"


@pytest.mark.parametrize("config", SAMPLED, ids=str)
def test_sampled_tokens_and_distributions_are_those_of_generate(
    with_config: Make, tiny_llama: PreTrainedModel, config: dict[str, Any]
) -> None:
    config = {"do_sample": True, **config}
    expected, scores = generated(tiny_llama, **config)
    session = with_config(config, candidates=300)
    steps = list(session)
    assert [step.token_id for step in steps] == expected
    for step, before in zip(steps, scores, strict=True):
        found = np.zeros(300)
        found[step.candidates.token_ids] = step.candidates.sampled_probs
        assert np.allclose(found, torch.softmax(before.double(), -1).numpy(), atol=1e-6)


def test_a_prompt_of_one_token_is_forced_to_its_start(with_config: Make) -> None:
    session = with_config({"forced_bos_token_id": 33, "begin_suppress_tokens": [33, 34]}, prompt="h")
    assert session.step().token_id == 33


def test_every_stage_has_its_name_in_the_order_in_which_it_runs(with_config: Make, tiny_llama: PreTrainedModel) -> None:
    everything: dict[str, Any] = {"do_sample": True, "eos_token_id": 2, "temperature": 0.9, "top_k": 40, "top_p": 0.99, "min_p": 0.001}
    for config in (*GREEDY, *SAMPLED[3:]):
        everything |= {name: value for name, value in config.items() if name not in everything}
    tiny_llama.generation_config = unchecked(everything)
    own = Generation(tiny_llama, frozenset({2}), 300)
    chain = own.processors(own.defaults.sampling, [1, 2, 3], 5)
    assert chain is not None
    names = [STAGE_OF[type(processor).__name__] for processor in chain]
    assert names == [name for name in SAMPLING_STAGES if name not in ("raw", "constraint")], "all of them, in the table's order"
    flags = {"penalty", "temperature", "top-k", "top-p", "min-p"}
    assert [name for name, _ in own.defaults.sampling.stages] == [name for name in names if name not in flags]
    step = with_config(everything).step()
    rows, settings = step.values["sampling_stages"], step.values["sampling_stages.settings"]
    assert [SAMPLING_STAGES[at] for at, row in enumerate(rows) if row[0]] == ["raw", *names]
    assert settings[SAMPLING_STAGES.index("suppressed")] == 150
    assert settings[SAMPLING_STAGES.index("typical-p")] == pytest.approx(0.8)


# ---- flags win -------------------------------------------------------------------------------------------------------------

CONFIG = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.3, "no_repeat_ngram_size": 3}


def test_what_is_asked_for_wins_and_the_rest_is_the_models(with_config: Make) -> None:
    assert with_config(CONFIG).sampling == Sampling(0.6, 20, 0.9, 0.0, 1.3, 42, (("no n-gram", 3.0),))
    asked = with_config(CONFIG, sampling=SamplingOptions(temperature=0.0, repetition_penalty=1.0)).sampling
    assert asked == Sampling(0.0, 20, 0.9, 0.0, 1.0, 42, (("no n-gram", 3.0),))
    assert with_config({**CONFIG, "do_sample": False}).sampling.greedy
    hot = with_config({**CONFIG, "do_sample": False}, sampling=SamplingOptions(temperature=1.1, seed=3)).sampling
    assert (hot.temperature, hot.top_k, hot.top_p, hot.seed) == (1.1, 20, 0.9, 3)
    assert with_config(CONFIG, sampling=Sampling(temperature=0.4)).sampling == Sampling(0.4, stages=(("no n-gram", 3.0),))
    assert with_config({}).sampling == Sampling()


def test_an_end_that_the_model_lacks_is_noted(with_config: Make) -> None:
    told = [note for note in with_config({"eos_token_id": [5, 99999, 300]}).info.notes if "never reached" in note]
    assert len(told) == 1
    assert "end token 300, 99999" in told[0]
    assert not any("never reached" in note for note in with_config({"eos_token_id": [5, 6]}).info.notes)


def test_ignoring_it_leaves_the_ends(with_config: Make) -> None:
    ends = with_config({**CONFIG, "eos_token_id": [5, 6]}, ignore_generation_config=True)
    assert ends.sampling == Sampling()
    assert ends.backend.end_ids == {5, 6}
    assert ends.info.notes == with_config({}).info.notes
    assert ends.info.generation_config == {}
    with_config({"temperature": -3, "num_beams": "many"}, ignore_generation_config=True).step()


@pytest.mark.parametrize(
    ("config", "asked", "expected"),
    [
        ({"max_new_tokens": 3}, None, 3),
        ({"max_length": len(PROMPT) + 4}, None, 4),
        ({"max_new_tokens": 3, "max_length": 900}, None, 3),
        ({"max_new_tokens": 3}, 5, 5),
        ({"max_length": len(PROMPT) + 4}, 2, 2),
        ({"max_length": len(PROMPT)}, None, 200),
        ({}, None, 200),
    ],
)
def test_how_long_a_text_gets(with_config: Make, config: dict[str, Any], asked: int | None, expected: int) -> None:
    session = with_config(config, max_new_tokens=asked)
    assert len(list(session)) == expected
    assert session.reason == "length"
    assert any("which the prompt has already" in note for note in session.info.notes) == (config.get("max_length") == len(PROMPT))


def test_stop_strings(with_config: Make) -> None:
    text = "".join(step.text for step in with_config({}))
    wanted = text[4:6]
    session = with_config({"stop_strings": [wanted, "never said"]})
    list(session)
    assert session.reason == "stop"
    assert wanted in session.text
    assert wanted not in "".join(step.text for step in session.steps[:-1])
    other = with_config({"stop_strings": wanted}, stop=("never said",))
    list(other)
    assert other.reason == "length"


def test_notes_name_what_comes_from_the_model(with_config: Make) -> None:
    note = next(note for note in with_config(CONFIG, sampling=SamplingOptions(top_k=5)).info.notes if "generation config" in note)
    for said in ("do_sample", "temperature 0.6", "top_p 0.9", "repetition_penalty 1.3", "no_repeat_ngram_size 3", "--ignore-generation"):
        assert said in note
    assert "top_k" not in note
    greedy = next(note for note in with_config(CONFIG, sampling=SamplingOptions(temperature=0)).info.notes if "generation config" in note)
    assert "repetition_penalty" in greedy
    assert not any(said in greedy for said in ("temperature", "top_p", "do_sample"))
    assert with_config(CONFIG).info.generation_config == CONFIG


# ---- every way to a text ---------------------------------------------------------------------------------------------------

STRICT = {
    "do_sample": True,
    "top_k": 0,
    "no_repeat_ngram_size": 2,
    "repetition_penalty": 1.2,
    "min_new_tokens": 8,
    "forced_eos_token_id": 9,
    "exponential_decay_length_penalty": [2, 1.2],
    "begin_suppress_tokens": [1, 2, 3],
    "eos_token_id": [9, 90, 91],
}


def test_every_way_to_a_text_goes_through_the_same_stages(with_config: Make) -> None:
    once = list(with_config(STRICT))
    session = with_config(STRICT)
    for _ in range(7):
        session.step()
    session.back(5)
    session.forward(2)
    session.back(4)
    list(session)
    assert [step.token_id for step in session.steps] == [step.token_id for step in once]
    for one, other in zip(session.steps, once, strict=True):
        assert np.array_equal(one.values["sampling_stages"], other.values["sampling_stages"])
    bare = with_config(STRICT, measures=())
    list(bare)
    bare.sampling = Sampling(temperature=0.3, top_k=7)
    bare.want(["sampling_stages"])
    for index in (0, 4, len(once) - 1):
        again = bare.look_back(index)
        assert again is not None
        assert np.array_equal(again.values["sampling_stages"], once[index].values["sampling_stages"])


def test_another_prompt_counts_from_its_own_end(with_config: Make) -> None:
    fresh = list(with_config(STRICT, prompt="jello, and a longer prompt"))
    session = with_config(STRICT)
    first = [session.step() for _ in range(4)]
    session.edit_prompt("jello, and a longer prompt")
    assert [step.token_id for step in session] == [step.token_id for step in fresh]
    session.switch("main")
    list(session)
    assert [step.token_id for step in session.steps] == [step.token_id for step in with_config(STRICT)]
    assert session.steps[:4] == first


def test_another_sampling_keeps_the_models_stages(with_config: Make) -> None:
    session = with_config({"suppress_tokens": list(range(97, 123))})
    session.step()
    session.sampling = Sampling(temperature=1.5, top_k=0)
    assert session.sampling.stages == (("suppressed", 26.0),)
    assert not {step.token_id for step in session} & {*range(97, 123)}


def test_a_constraint_wins_over_the_models_settings(with_config: Make) -> None:
    """The model's settings would force another token, or cut all that may come."""
    config = {"suppress_tokens": list(range(97, 110)), "forced_eos_token_id": 9, "no_repeat_ngram_size": 1, "eos_token_id": 9}
    allowed = torch.zeros(300, dtype=torch.bool)
    allowed[98:100] = True
    held = with_config({**config, "exponential_decay_length_penalty": [0, 1.5]}, max_new_tokens=6)
    held._stopping.allowed = lambda _ids: allowed  # type: ignore[method-assign]
    steps = list(held)
    assert len(steps) == 6
    assert {step.token_id for step in steps} <= {98, 99}
    on = [{SAMPLING_STAGES[at] for at, row in enumerate(step.values["sampling_stages"]) if row[0]} for step in steps]
    assert not any("suppressed" in names for names in on)
    assert ["forced end" in names for names in on] == [True] * 5 + [False]
