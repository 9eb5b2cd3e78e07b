"""Several prompts in one pass: each gives what it gives alone, and a model for which that is not so runs one by one."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from openmav.analysis.batch import PromptBatch
from openmav.backends.base import LoadOptions
from openmav.backends.toy import load as load_toy
from openmav.backends.transformers import wrap
from openmav.backends.transformers.decoding import row_products
from openmav.settings import CORE_MEASURES, Settings
from openmav.settings.sampling import SamplingOptions

MEASURES = (*CORE_MEASURES, "attention_rows", "logit_lens", "neurons", "cache_size", "sink_share")
PROMPTS = {3: "A longer prompt than the others", 4: "It", 7: "was", 8: "the very best of the", 9: "x"}


def steps_of(batch):
    return {outcome.number: outcome.session.steps for outcome in batch}


def gpt2():
    """Its products are addmm, with a bias; rows of 50 numbers begin at addresses that are not round."""
    torch.manual_seed(2)
    return GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=50, n_layer=2, n_head=5, n_positions=700)).eval()


def half(model):
    return copy.deepcopy(model).to(torch.bfloat16)


@pytest.mark.parametrize(
    ("model", "temperature"),
    [("llama", 0.0), ("llama", 0.8), ("gpt2", 0.0), ("bfloat16", 0.0)],
    ids=["greedy", "drawn", "gpt2", "bfloat16"],
)
def test_each_prompt_of_a_batch_gives_the_bits_that_it_gives_alone(tiny_llama, id_tokenizer, model, temperature):
    backend = wrap({"llama": lambda: tiny_llama, "gpt2": gpt2, "bfloat16": lambda: half(tiny_llama)}[model](), id_tokenizer)
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
                np.testing.assert_array_equal(y, x, strict=True)


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


class Uneven(nn.Module):
    """An activation that is another for several rows, by less than a millionth."""

    def forward(self, x):
        return nn.functional.silu(x) * (1 + 2e-7 * (x.shape[0] - 1))


def test_a_model_whose_batch_differs_runs_one_by_one_and_says_why(tiny_llama, id_tokenizer):
    uneven = copy.deepcopy(tiny_llama)
    uneven.model.layers[1].mlp.act_fn = Uneven()
    settings = Settings(prompt="x", max_new_tokens=2, measures=())
    batch = PromptBatch(wrap(uneven, id_tokenizer), settings, PROMPTS, 4)
    assert "a batch differs from single runs by" in batch.why_not
    assert {*steps_of(batch)} == {*PROMPTS}
    toy = PromptBatch(load_toy("toy", LoadOptions(), None), settings, PROMPTS, 4)
    assert toy.why_not == "the backend toy runs one text at a time"
    assert {*steps_of(toy)} == {*PROMPTS}


@pytest.mark.parametrize(("outputs", "width"), [(200, 64), (64, 50), (1000, 24)])
def test_products_in_blocks_have_the_bits_of_single_rows(monkeypatch, outputs, width):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(5, 1, width), torch.randn(outputs, width), torch.randn(outputs)
    alone = torch.cat([nn.functional.linear(row.clone(), weight, bias) for row in x.split(1)])
    for block in (1, 1 << 15, 1 << 30):
        monkeypatch.setattr(row_products, "BLOCK", block)
        with row_products.RowProducts():
            assert torch.equal(nn.functional.linear(x, weight, bias), alone)


def test_a_prompt_that_does_not_fit_is_told_and_the_others_run(tiny_llama, id_tokenizer):
    settings = Settings(prompt="x", max_new_tokens=2, measures=())
    outcomes = {one.number: one for one in PromptBatch(wrap(tiny_llama, id_tokenizer), settings, {1: "a", 2: "b" * 800, 3: "c"}, 3)}
    assert "holds 700" in outcomes[2].error
    assert [len(outcomes[number].session.steps) for number in (1, 3)] == [2, 2]
