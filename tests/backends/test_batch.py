"""Several prompts in one pass: each gives what it gives alone, and a model for which that is not so runs one by one."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from openmav.analysis.batch import PromptBatch
from openmav.backends.base import LoadOptions
from openmav.backends.toy import load as load_toy
from openmav.backends.transformers import wrap
from openmav.settings import CORE_MEASURES, Settings
from openmav.settings.sampling import SamplingOptions

MEASURES = (*CORE_MEASURES, "attention_rows", "logit_lens", "neurons", "cache_size", "sink_share")
PROMPTS = {3: "A longer prompt than the others", 4: "It", 7: "was", 8: "the very best of the", 9: "x"}


def steps_of(batch):
    return {outcome.number: outcome.session.steps for outcome in batch}


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_each_prompt_of_a_batch_gives_the_numbers_that_it_gives_alone(tiny_llama, id_tokenizer, temperature):
    backend = wrap(tiny_llama, id_tokenizer)
    sampling = SamplingOptions(temperature=temperature, seed=3)
    settings = Settings(prompt="x", max_new_tokens=6, measures=MEASURES, sampling=sampling, stop=("<299>",))
    together, alone = (PromptBatch(backend, settings, PROMPTS, size) for size in (3, 1))
    assert together.why_not == ""
    assert alone.why_not
    fed = []
    together.on_tokens = fed.append
    batched, single = steps_of(together), steps_of(alone)
    assert max(fed) == 3
    assert sum(fed) == sum(map(len, batched.values()))
    assert list(single) == list(PROMPTS)
    assert {*batched} == {*PROMPTS}
    for number, steps in single.items():
        assert [step.token_id for step in batched[number]] == [step.token_id for step in steps]
        for one, other in zip(steps, batched[number], strict=True):
            assert (one.text, one.position, one.index) == (other.text, other.position, other.index)
            assert one.values.keys() == other.values.keys()
            pairs = [(one.logprob, other.logprob), (one.entropy, other.entropy), (one.candidates.logits, other.candidates.logits)]
            for x, y in [*pairs, *((one.values[name], other.values[name]) for name in one.values)]:
                assert np.shape(x) == np.shape(y)
                np.testing.assert_allclose(y, x, rtol=1e-5, atol=1e-5)


def test_texts_that_end_early_leave_the_others_as_they_are(tiny_llama, id_tokenizer):
    backend = wrap(tiny_llama, id_tokenizer)
    settings = Settings(prompt="x", max_new_tokens=12, measures=())
    single = steps_of(PromptBatch(backend, settings, PROMPTS, 1))
    stop = single[4][2].text, single[7][4].text
    settings = Settings(prompt="x", max_new_tokens=12, measures=(), stop=tuple(text for text in stop if text))
    single, batched = (steps_of(PromptBatch(backend, settings, PROMPTS, size)) for size in (1, 5))
    ids = {number: [step.token_id for step in steps] for number, steps in single.items()}
    assert len({len(one) for one in ids.values()}) > 1
    assert {number: [step.token_id for step in steps] for number, steps in batched.items()} == ids


def test_a_model_whose_batch_differs_runs_one_by_one_and_says_why(tiny_llama, id_tokenizer):
    rough = copy.deepcopy(tiny_llama).to(torch.bfloat16)
    settings = Settings(prompt="x", max_new_tokens=2, measures=())
    batch = PromptBatch(wrap(rough, id_tokenizer), settings, PROMPTS, 4)
    same = batch.why_not == ""
    assert same or "differs from single runs by" in batch.why_not
    toy = PromptBatch(load_toy("toy", LoadOptions(), None), settings, PROMPTS, 4)
    assert toy.why_not == "the backend toy runs one text at a time"
    assert {*steps_of(toy)} == {*PROMPTS}


def test_a_prompt_that_does_not_fit_is_told_and_the_others_run(tiny_llama, id_tokenizer):
    settings = Settings(prompt="x", max_new_tokens=2, measures=())
    outcomes = {one.number: one for one in PromptBatch(wrap(tiny_llama, id_tokenizer), settings, {1: "a", 2: "b" * 800, 3: "c"}, 3)}
    assert "holds 700" in outcomes[2].error
    assert [len(outcomes[number].session.steps) for number in (1, 3)] == [2, 2]
