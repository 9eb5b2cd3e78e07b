"""A model in memory is its owner's: left exactly as it was, whatever fails, and by all that share it."""

from __future__ import annotations

import copy
import gc
import pickle
import random
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AttentionInterface, AutoModelForCausalLM
from transformers.masking_utils import AttentionMaskInterface

import as_it_was
from backends.owners_model import IDS, build, generated, tokens_of
from fakes import IdTokenizer
from openmav import LoadError, watch
from openmav.backends.transformers.capture.borrowed import Borrowed

# ---- one session -----------------------------------------------------------------------------------------------------------


def test_between_two_tokens_the_model_is_its_owners() -> None:
    """All is as it was while the session is open, so that its owner goes on to train it, and copies are plain copies."""
    model = build()
    before = as_it_was.of_model(model)
    expected = generated(model, "to be or", 6)
    found = []
    for step in watch("to be or", model, IdTokenizer(), max_new_tokens=6):
        found.append(step.token_id)
        assert as_it_was.differences(before, as_it_was.of_model(model)) == []
        assert not {name for name in (*AttentionInterface._global_mapping, *AttentionMaskInterface._global_mapping) if "mav" in name}
    assert found == expected


def test_a_burst_prepares_the_model_once_and_leaves_it_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    before = as_it_was.of_model(model)
    expected = tokens_of(watch("to be or", model, IdTokenizer(), max_new_tokens=6))
    session = watch("to be or", model, IdTokenizer(), max_new_tokens=6)
    session.prefill()
    prepared, prepare = [], Borrowed._set

    def counted(self: Borrowed, *args: Any) -> Any:
        prepared.append(self)
        return prepare(self, *args)

    monkeypatch.setattr(Borrowed, "_set", counted)
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)  # no burst is too long
    session.burst(most=6)
    assert len(prepared) == 1
    assert [step.token_id for step in session.steps] == expected
    assert as_it_was.differences(before, as_it_was.of_model(model)) == []


@pytest.mark.changes_model
def test_the_owner_trains_while_a_session_is_open() -> None:
    model, alone = build(), build()
    session = watch("to be or", model, IdTokenizer(), max_new_tokens=3)
    session.step()
    row = torch.tensor([IDS])
    for one in (model, alone):
        torch.manual_seed(3)  # for dropout
        one(row, labels=row).loss.backward()
    pairs = [*zip(model.parameters(), alone.parameters(), strict=True)]
    assert any(p.grad is not None for p, _ in pairs)
    assert all((p.grad is None and q.grad is None) or torch.equal(p.grad, q.grad) for p, q in pairs)
    grads = [p.grad for p, _ in pairs]
    session.explain("gradient")
    assert all(p.grad is grad for p, grad in zip(model.parameters(), grads, strict=True))


def test_every_way_to_use_a_session_leaves_all_as_it_was() -> None:
    model = build()
    state = (torch.get_rng_state(), random.getstate(), str(np.random.get_state()))
    before = as_it_was.of_model(model)
    with watch("to be or", model, IdTokenizer(), max_new_tokens=9, measures=("mlp_norm", "logit_lens", "neuron_tokens")) as session:
        session.burst(most=2)
        session.back()
        session.force(7)
        session.want(["attention_rows", "attribution"])
        session.look_back(0)
        session.intervene(["ablate L0.H1"])
        session.step()
        session.explain("occlusion")
        session.edit_prompt("not")
        session.step()
    assert as_it_was.differences(before, as_it_was.of_model(model)) == []
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (random.getstate(), str(np.random.get_state())) == state[1:]


@pytest.mark.parametrize("where", ["while opening", "in a step", "in a measure"])
def test_whatever_fails(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    before = as_it_was.of_model(model)

    def fail(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("on purpose")

    if where == "while opening":
        with monkeypatch.context() as patch:
            patch.setattr(type(model.model.norm), "forward", fail)
            with pytest.raises((RuntimeError, LoadError), match="on purpose"):
                watch("to be or", model, IdTokenizer())
    else:
        session = watch("to be or", model, IdTokenizer(), measures=("logit_lens",))
        session.step()
        kind = type(model.model.layers[1].mlp) if where == "in a step" else type(model.model.norm)
        with monkeypatch.context() as patch:
            patch.setattr(kind, "forward", fail)
            with pytest.raises(RuntimeError, match="on purpose"):
                session.step()
    assert as_it_was.differences(before, as_it_was.of_model(model)) == []
    assert "mav" not in AttentionInterface._global_mapping


def test_a_forgotten_session_keeps_nothing_alive() -> None:
    model = build()
    before = as_it_was.of_model(model)
    session = watch("to be or", model, IdTokenizer(), max_new_tokens=3)
    backend, kept = weakref.ref(session.backend), weakref.ref(model)
    next(iter(session))
    del session
    gc.collect()
    assert backend() is None
    assert as_it_was.differences(before, as_it_was.of_model(model)) == []
    del model
    before.clear()
    # the check after this test holds the model as well, so what mav itself holds is looked at
    gc.collect()
    holders = [one for one in gc.get_referrers(kept()) if type(one).__module__.startswith("openmav")]
    assert holders == []


@pytest.mark.changes_model  # so that nothing but mav could hold it
def test_a_model_goes_when_its_owner_lets_it_go() -> None:
    model = build()
    kept = weakref.ref(model)
    list(watch("to be or", model, IdTokenizer(), max_new_tokens=2))
    del model
    gc.collect()
    assert kept() is None


def test_buffers_that_a_long_text_replaces_stay_the_owners() -> None:
    """Dynamic rotary scaling replaces the frequencies past a length, which is met after loading."""
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    model = build(max_position_embeddings=24, rope_parameters=rope).eval()
    buffers = dict(model.model.rotary_emb._buffers)
    found = tokens_of(watch("to be or", model, IdTokenizer(), max_new_tokens=30))
    assert {name: id(one) for name, one in model.model.rotary_emb._buffers.items()} == {name: id(one) for name, one in buffers.items()}
    fresh = build(max_position_embeddings=24, rope_parameters=rope).eval()
    row = torch.tensor([list(b"to be or")])
    expected = fresh.generate(row, attention_mask=torch.ones_like(row), max_new_tokens=30, do_sample=False, pad_token_id=0)
    assert found == expected[0, row.shape[1] :].tolist()
    assert model.model.rotary_emb.inv_freq.requires_grad is False
    assert not model.model.rotary_emb.inv_freq.is_inference()


# ---- several sessions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_sessions_on_one_model_end_in_any_order(order: tuple[int, ...]) -> None:
    model = build()
    before = as_it_was.of_model(model)
    prompts = ["to be or", "not", "the question is"]
    expected = [generated(model, prompt, 5) for prompt in prompts]
    sessions = [watch(prompt, model, IdTokenizer(), max_new_tokens=5) for prompt in prompts]
    found = [[session.step().token_id] for session in sessions]
    for at in order:
        found[at] += tokens_of(sessions[at])
        sessions[at].close()
        assert as_it_was.differences(before, as_it_was.of_model(model)) == []
    assert found == expected


def test_two_threads_share_a_model() -> None:
    model = build()
    expected = {prompt: [*watch(prompt, model, IdTokenizer(), max_new_tokens=25)] for prompt in ("to be or", "not to be", "that is")}
    found: dict[str, list[Any]] = {}

    def run(prompt: str) -> None:
        with watch(prompt, model, IdTokenizer(), max_new_tokens=25) as session:
            found[prompt] = list(session)

    threads = [threading.Thread(target=run, args=(prompt,)) for prompt in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for prompt, steps in expected.items():
        assert [step.token_id for step in found[prompt]] == [step.token_id for step in steps]
        for ours, alone in zip(found[prompt], steps, strict=True):
            assert all(np.array_equal(ours.values[name], alone.values[name], equal_nan=True) for name in alone.values)


# ---- copies ----------------------------------------------------------------------------------------------------------------


def test_copies_made_while_a_session_is_open_are_their_own(tmp_path: Path) -> None:
    model = build()
    row = torch.tensor([IDS])
    session = watch("to be or", model, IdTokenizer(), max_new_tokens=3)
    session.step()
    twin, other = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    for copied in (twin, other):
        assert copied.config._attn_implementation == model.config._attn_implementation != "mav"
        assert [m.training for m in copied.modules()] == [m.training for m in model.modules()]
        with torch.no_grad():
            same = copied.eval()(row).logits
            copied.model.layers[0].mlp.down_proj.weight.zero_()
            assert not torch.equal(copied(row).logits, same)  # it computes with weights of its own
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model.eval()))
    model.train()
    model.model.layers[1].eval()
    read = (
        "import pickle, sys, torch\n"
        "model = pickle.load(open(sys.argv[1], 'rb'))\n"
        f"print(model(torch.tensor([{IDS}])).logits[0, -1].argmax().item(), 'openmav' in sys.modules)\n"
    )
    run = [sys.executable, "-c", read, str(tmp_path / "model.pickle")]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120, check=True)
    alone = copy.deepcopy(model).eval()
    assert done.stdout.split() == [str(int(alone(row).logits[0, -1].argmax())), "False"]


@pytest.mark.changes_model  # save_pretrained writes names into the config
def test_a_model_that_is_saved_while_a_session_is_open(tmp_path: Path) -> None:
    model = build()
    session = watch("to be or", model, IdTokenizer(), max_new_tokens=3)
    session.step()
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again(torch.tensor([IDS])).logits, copy.deepcopy(model).eval()(torch.tensor([IDS])).logits)


# ---- the process -----------------------------------------------------------------------------------------------------------


def test_threads_are_those_of_the_caller_again() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    with watch("It is", "demo", backend="transformers", threads=before + 1, max_new_tokens=2) as session:
        hook = session.backend.model.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))  # type: ignore[attr-defined]
        list(session)
        hook.remove()
    assert seen
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


def test_opening_by_name_leaves_the_process_as_it_was() -> None:
    before = as_it_was.of_process()
    with watch("It is", "demo", backend="transformers", max_new_tokens=3) as session:
        list(session)
    assert as_it_was.differences(before, as_it_was.of_process()) == []
