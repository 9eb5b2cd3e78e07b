"""A comparison of two runs against numbers that transformers gives alone."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from backends.logits import cached_logits, divergence, hidden
from openmav.analysis.compare import Lockstep, Totals
from openmav.backends.transformers.capture import attention
from openmav.errors import UsageError
from openmav.generation.opening import open_pair, open_session
from openmav.library import attach
from openmav.record.comparison import MEASURES
from openmav.settings import Settings

TOKENS = 5


def settings(**options) -> Settings:
    return Settings(**{"prompt": "Hello", "max_new_tokens": TOKENS, "measures": MEASURES, **options})


def in_memory(a, b, tokenizer):
    pair = Lockstep(attach(a, tokenizer, settings()), attach(b, tokenizer, settings()))
    return pair, list(pair)


def test_two_checkpoints_give_the_figures_of_transformers_and_part_where_the_weights_do(tiny_llama, id_tokenizer):
    changed = copy.deepcopy(tiny_llama)
    with torch.no_grad():
        changed.model.layers[1].mlp.down_proj.weight.mul_(1.01)
    references = copy.deepcopy(tiny_llama), copy.deepcopy(changed)
    pair, compared = in_memory(tiny_llama, changed, id_tokenizer)
    assert len(compared) == TOKENS
    for one in compared:
        ids = [*pair.a.prompt.token_ids, *(step.token_id for step in pair.a.steps[: one.a.index])]
        (logits, residual), (other, others) = (hidden(model, ids) for model in references)
        assert one.kl == pytest.approx(divergence(logits, other), abs=1e-6)
        assert one.kl > 1e-7
        assert one.flips == bool(logits.argmax() != other.argmax())
        for layer, (x, y) in enumerate(zip(residual, others, strict=True)):
            apart = one.layers["residual"]
            assert apart.difference[layer] == pytest.approx(float((x - y).norm()), abs=1e-4)
            assert apart.cosine[layer] == pytest.approx(float(torch.cosine_similarity(x, y, dim=0)), abs=1e-6)
        assert one.parting is not None
        assert (one.parting.layer, one.parting.part) == (1, "MLP")
    totals = Totals()
    for one in compared:
        totals.add(one)
    assert (totals.first.token, totals.first.layer) == (0, 1)
    assert totals.kl_max == max(one.kl for one in compared)
    assert totals.within(totals.kl_max)
    assert not totals.within(totals.kl_max / 2)


def test_the_same_model_twice_parts_nowhere(tiny_llama, id_tokenizer):
    _, compared = in_memory(tiny_llama, copy.deepcopy(tiny_llama), id_tokenizer)
    assert [(one.kl, one.flips, one.parting) for one in compared] == [(0.0, False, None)] * TOKENS


def test_an_intervention_is_compared_with_the_model_loaded_once():
    a, b = open_pair(
        settings(model="demo", backend="transformers"), settings(model="demo", backend="transformers", interventions=("ablate L3.attn",))
    )
    pair = Lockstep(a, b)
    compared = list(pair)
    assert a.backend.model is b.backend.model
    assert {(one.parting.layer, one.parting.part) for one in compared} == {(3, "attention")}
    for one in compared:  # B's own baseline is A
        assert one.b.before is not None
        assert one.b.before.logprob == one.a.logprob
        assert one.layers["attention"].difference[3] == pytest.approx(float(one.a.values["attention_norm"][3]), rel=1e-5)
    b.close()
    a.close()


def test_two_prompts_of_one_model_are_each_what_it_is_alone():
    a, b = open_pair(
        settings(model="demo", backend="transformers", prompt="It was a"),
        settings(model="demo", backend="transformers", prompt="Yesterday she saw a very"),
    )
    assert len({len(session.prompt.token_ids) for session in (a, b)}) == 2
    model = copy.deepcopy(a.backend.model)
    compared = list(Lockstep(a, b))
    for one in compared:
        fed = [step.token_id for step in a.steps[: one.a.index]]
        logits = [hidden(model, [*session.prompt.token_ids, *fed])[0] for session in (a, b)]
        assert one.kl == pytest.approx(divergence(*logits), abs=1e-6)
    assert [step.token_id for step in a.steps] == [step.token_id for step in b.steps]
    b.close()
    a.close()


def test_other_vocabularies_are_refused():
    with pytest.raises(UsageError, match="different vocabularies, of 2048 and 295 tokens"):
        open_pair(settings(model="demo", backend="transformers"), settings(model="toy", backend="toy"))


@pytest.mark.real
@pytest.mark.slow
def test_float32_against_bfloat16(real_folder: Path):
    prompt = "The capital of France is"
    a, b = (
        open_session(settings(model=str(real_folder), dtype=dtype, prompt=prompt, max_new_tokens=3)) for dtype in ("float32", "bfloat16")
    )
    compared = list(Lockstep(a, b))
    one = AutoModelForCausalLM.from_pretrained(real_folder, dtype=torch.float32, attn_implementation="eager")
    prompt_ids, fed = list(a.prompt.token_ids), [step.token_id for step in a.steps]
    with attention.registered():  # in bfloat16 each kernel of attention rounds otherwise, so it is mav's there
        other = AutoModelForCausalLM.from_pretrained(real_folder, dtype=torch.bfloat16, attn_implementation=attention.NAME)
        logits = zip(cached_logits(one, prompt_ids, fed), cached_logits(other, prompt_ids, fed), strict=True)
        expected = [divergence(x, y) for x, y in logits]
    assert [row.kl for row in compared] == pytest.approx(expected, abs=1e-6)
    assert min(expected) > 1e-6
    b.close()
    a.close()
