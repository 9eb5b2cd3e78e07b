"""A model in memory is its owner's: left exactly as it was, however it is wrapped, whatever fails, and by all that share it."""

from __future__ import annotations

import copy
import gc
import logging
import pickle
import random
import subprocess
import sys
import threading
import time
import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AttentionInterface, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.masking_utils import AttentionMaskInterface

import as_it_was
from fakes import IdTokenizer
from openmav import LoadError, Session, UsageError, watch
from openmav.backends.transformers import wrap
from openmav.backends.transformers.capture.borrowed import Borrowed

IDS = [5, 17, 200, 31, 8, 90, 44]
SITES = frozenset({"residual.after", "attention.out", "mlp.out", "attention.probs", "mlp.hidden"})


def build(seed: int = 0, **changed: Any) -> LlamaForCausalLM:
    """A random Llama, in training, with dropout in its attention and one layer that its owner froze."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    ends = {"eos_token_id": None, "bos_token_id": None, "attention_dropout": 0.3, "initializer_range": 0.3}
    model = LlamaForCausalLM(LlamaConfig(**{**sizes, **ends, "num_key_value_heads": 2, "max_position_embeddings": 256, **changed})).train()
    model.model.layers[1].eval()
    model.model.layers[1].requires_grad_(False)
    return model


def tokens_of(session: Session) -> list[int]:
    return [step.token_id for step in session]


def generated(model: nn.Module, prompt: str, count: int) -> list[int]:
    """What the model itself says, by full passes without a cache, in evaluation mode."""
    alone: Any = copy.deepcopy(model).eval()
    ids = list(prompt.encode())
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(alone(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[-count:]


# ---- the checker -----------------------------------------------------------------------------------------------------------


CHANGES = {
    "training": lambda model: model.model.layers[0].mlp.eval(),
    "_forward_hooks": lambda model: model.model.layers[2].register_forward_hook(lambda *_: None),
    "_forward_pre_hooks": lambda model: model.lm_head.register_forward_pre_hook(lambda *_: None),
    "forward": lambda model: vars(model.model.layers[0].mlp).update(forward=model.model.layers[0].mlp.forward),
    "config": lambda model: model.set_attn_implementation("eager"),
    "weight": lambda model: model.lm_head.weight.requires_grad_(False),
    "gradient_checkpointing": lambda model: model.gradient_checkpointing_enable(),
    "generation_config": lambda model: setattr(model.generation_config, "top_k", 7),
    "inv_freq": lambda model: model.model.rotary_emb.inv_freq.mul_(2),
}


@pytest.mark.parametrize("what", sorted(CHANGES))
def test_the_checker_finds_what_is_left_in_a_model(what: str) -> None:
    model = build()
    checker = as_it_was.Checker()
    checker.see(model)
    assert checker.found() == []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        CHANGES[what](model)
    assert any(fault.endswith(what) or f".{what}" in fault for fault in checker.found())


def test_the_checker_finds_what_is_left_in_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    checker, logger = as_it_was.Checker(), logging.getLogger("transformers")
    level, threads = logger.level, torch.get_num_threads()
    try:
        with checker.call("a step"):
            torch.rand(1)
            random.random()
            monkeypatch.setenv("TQDM_DISABLE", "yes")
            logger.setLevel(level + 1)
            torch.set_num_threads(threads + 1)
            AttentionInterface.register("left-behind", lambda: None)
    finally:
        logger.setLevel(level)
        torch.set_num_threads(threads)
        AttentionInterface._global_mapping.pop("left-behind")
    expected = ["attention functions", "environment", "logger transformers", "random state", "threads"]
    assert checker.found() == [f"a step: {name}" for name in expected]


def test_the_checker_counts_a_block_of_several_calls_as_one() -> None:
    """What stands in the model inside the block is not taken for what was there before a call from another thread."""
    checker = as_it_was.Checker()
    with as_it_was.checking(checker):
        backend = wrap(build(), None)
        with backend.ready():
            waiting = threading.Thread(target=backend.prefill, args=(IDS, SITES))
            waiting.start()
            for _ in range(1000):  # until the other thread waits for the model
                if checker._calls == 2:
                    break
                time.sleep(0.001)
        waiting.join()
    assert checker.found() == []


def test_a_hook_that_mav_leaves_fails_a_test(pytester_folder: Path) -> None:
    """A whole test run with a fault put into mav: its one test passes, and the check after it fails."""
    (pytester_folder / "test_fault.py").write_text(
        "from openmav.backends.transformers import TransformersBackend, wrap\n"
        "def test_it(tiny_llama, monkeypatch):\n"
        "    close = TransformersBackend.close\n"
        "    leave = lambda self: (self.model.lm_head.register_forward_hook(lambda *_: None), close(self))\n"
        "    monkeypatch.setattr(TransformersBackend, 'close', leave)\n"
        "    wrap(tiny_llama, None).close()\n"
    )
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(pytester_folder), "."]
    done = subprocess.run(run, cwd=pytester_folder, capture_output=True, text=True, timeout=120, check=False)
    assert "not left as it was: LlamaForCausalLM: lm_head._forward_hooks" in done.stdout
    assert "1 passed, 1 error" in done.stdout


@pytest.fixture
def pytester_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "backends"
    folder.mkdir()
    tests = Path(__file__).parents[1]
    text = (tests / "conftest.py").read_text(encoding="utf-8")
    first = "from __future__ import annotations\n"
    text = text.replace(first, f"{first}\nimport sys\nsys.path.insert(0, {str(tests)!r})\n", 1)
    (folder / "conftest.py").write_text(text, encoding="utf-8")
    return folder


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


# ---- wrapped models --------------------------------------------------------------------------------------------------------


def compiled_outside(model: Any) -> Any:
    return torch.compile(model, backend="eager")


def compiled_inside(model: Any) -> Any:
    model.compile(backend="eager")
    return model


def compiled_forward(model: Any) -> Any:
    model.forward = torch.compile(model.forward, backend="eager")
    return model


def compiled_layers(model: Any) -> Any:
    for layer in model.model.layers:
        layer.compile(backend="eager")
    return model


def checkpointed(model: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.gradient_checkpointing_enable()
    model.config.use_cache = False
    return model


@pytest.mark.parametrize("around", [compiled_outside, compiled_inside, compiled_forward, compiled_layers, checkpointed, nn.DataParallel])
def test_a_model_as_a_training_loop_has_it(around: Any) -> None:
    expected = generated(build(), "to be or", 6)
    plain = [*watch("to be or", build(), IdTokenizer(), max_new_tokens=6)]
    model = around(build())
    with watch("to be or", model, IdTokenizer(), max_new_tokens=6) as session:
        steps = list(session)
        assert [step.token_id for step in steps] == expected
        for ours, theirs in zip(steps, plain, strict=True):
            assert np.array_equal(ours.values["mlp_norm"], theirs.values["mlp_norm"])
        notes = " ".join(session.info.notes)
    assert ("torch.compile" in notes) == ("compiled" in around.__name__)
    assert ("DataParallel" in notes) == (around is nn.DataParallel)


def adapter(**changed: Any) -> Any:
    peft = pytest.importorskip("peft")
    return peft.LoraConfig(
        **{
            "r": 4,
            "target_modules": ["q_proj", "down_proj"],
            "lora_dropout": 0.3,
            "init_lora_weights": False,
            "task_type": "CAUSAL_LM",
            **changed,
        }
    )


@pytest.mark.parametrize("how", ["peft", "add_adapter", "inner"])
def test_adapters_are_part_of_the_numbers(how: str) -> None:
    peft = pytest.importorskip("peft")
    model = build()
    plain = generated(model, "to be or", 8)
    torch.manual_seed(4)
    wrapped: Any = model
    if how == "add_adapter":
        model.add_adapter(adapter())
    else:
        wrapped = peft.get_peft_model(model, adapter())
        wrapped = wrapped.train() if how == "peft" else wrapped.get_base_model().train()
    expected = generated(wrapped, "to be or", 8)
    with watch("to be or", wrapped, IdTokenizer(), max_new_tokens=8) as session:
        assert tokens_of(session) == expected != plain
        assert any("adapter default" in note for note in session.info.notes)


def test_an_adapter_that_acts_outside_of_the_model_is_refused() -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(build(), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    with pytest.raises(UsageError, match=r"this adapter \(PROMPT_TUNING\) acts outside"):
        watch("to be or", model, IdTokenizer())


def test_what_is_no_model_is_one_line() -> None:
    class Shell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pretrained_model = build()

    for model, line in (
        (Shell(), "give the one inside it"),
        (nn.Linear(2, 2), "Linear is no transformers model"),
        (object(), "no transformers"),
    ):
        with pytest.raises(UsageError, match=line) as error:
            wrap(model, None)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)


def test_an_adapter_that_is_put_in_later_asks_for_a_new_session() -> None:
    model = build()
    session = watch("to be or", model, IdTokenizer(), max_new_tokens=4)
    session.step()
    before = model.model.layers[0].mlp.down_proj
    model.model.layers[0].mlp.down_proj = nn.Sequential(before)
    try:
        with pytest.raises(UsageError, match="modules were replaced"):
            session.step()
    finally:
        model.model.layers[0].mlp.down_proj = before


# ---- the process -----------------------------------------------------------------------------------------------------------


def test_threads_are_those_of_the_caller_again() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    with watch("It is", "demo", threads=before + 1, max_new_tokens=2) as session:
        hook = session.backend.model.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))  # type: ignore[attr-defined]
        list(session)
        hook.remove()
    assert seen
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


def test_opening_by_name_leaves_the_process_as_it_was() -> None:
    before = as_it_was.of_process()
    with watch("It is", "demo", max_new_tokens=3) as session:
        list(session)
    assert as_it_was.differences(before, as_it_was.of_process()) == []
