"""Sweeps: many touched runs in one pass are each what it is alone, and what a raw model gives; what is said of a target."""

from __future__ import annotations

import time

import pytest
import torch

from backends.families import build, tiny
from backends.raw_touch import PATHS, Raw
from openmav.analysis.sweep import Sweep
from openmav.backends.transformers import wrap
from openmav.backends.transformers.interventions import batched_ablation
from openmav.backends.transformers.interventions.hook_edits import InterventionHooks
from openmav.errors import UsageError
from openmav.generation.opening import open_session
from openmav.generation.session import Session
from openmav.settings import Settings
from openmav.settings.interventions import parse

IDS: list[int] = torch.randint(3, 128, (12,), generator=torch.Generator().manual_seed(2)).tolist()
EXACT = 1e-5  # of the largest logit


class Words:
    all_special_ids = ()
    eos_token_id = 2

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": IDS}


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "phi", "mixtral", "gpt_oss", "bloom", "falcon", "jamba", "mamba", "granite"])
def test_a_batch_gives_what_each_alone_gives(family: str, monkeypatch) -> None:
    monkeypatch.setattr(batched_ablation, "MOST", 5)
    backend = wrap(build(family), Words(), family)
    sites = [f"L{layer}{part}" for layer in range(backend.info.layers) for part in (".H0", ".H3", ".attn", ".mlp", "", ".N4")]
    specs = [f"ablate {s}=mean" if i % 3 else f"ablate {s}" for i, s in enumerate(sites)] + ["patch L1.attn@3-5=x", "amplify L0.mlp@-1=3"]
    every = [one for one in map(parse, specs) if backend.why_not(one) is None]
    before = backend.prefill(IDS, frozenset()).logits
    passes: list[int] = []
    monkeypatch.setattr(
        batched_ablation,
        "_batch",
        lambda m, touches, *a, f=batched_ablation._batch, **k: passes.append(len(touches)) or f(m, touches, *a, **k),
    )
    together = list(backend.variants(every, IDS))
    assert len(together) == len(every)
    assert sum(passes) == len(every)
    assert max(passes) == 5
    for one, logits in zip(every, together):
        alone = backend.intervened([one], IDS).prefill(IDS, frozenset()).logits
        assert relative(logits, alone) < EXACT, str(one)
    assert torch.equal(backend.prefill(IDS, frozenset()).logits, before)
    backend.close()


def test_every_head_is_what_hooks_of_our_own_give() -> None:
    raw, backend = Raw(build("gemma2"), PATHS["gemma2"], 16), wrap(build("gemma2"), Words(), "gemma2")
    sites = [f"L{layer}.H{head}" for layer in range(3) for head in range(4)]
    for site, logits in zip(sites, backend.variants([parse(f"ablate {site}") for site in sites], IDS), strict=True):
        assert relative(logits, raw.logits(IDS, [(site, torch.zeros_like)])[-1]) < EXACT
    backend.close()


def test_where_a_batch_is_not_the_same_each_is_run_alone(monkeypatch) -> None:
    """A model whose rows reach into each other."""
    model = build("llama")
    model.model.layers[1].register_forward_hook(lambda m, a, out: out + out.mean(0, keepdim=True) if out.shape[0] > 1 else out)
    backend, plain = wrap(model, Words(), "llama"), wrap(tiny("llama"), Words(), "llama")
    every = [parse(f"ablate L0.H{head}") for head in range(4)]
    alone = [plain.intervened([one], IDS).prefill(IDS, frozenset()).logits for one in every]
    assert all(relative(a, b) < EXACT for a, b in zip(backend.variants(every, IDS), alone, strict=True))
    backend.close()
    plain.close()


def test_an_interrupt_amid_a_pass_leaves_no_hook(monkeypatch) -> None:
    backend = wrap(build("llama"), Words(), "llama")
    monkeypatch.setattr(InterventionHooks, "_edited", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        list(backend.variants([parse("amplify L0.attn=2")], IDS))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in backend.model.modules())
    backend.close()


@pytest.fixture(scope="module")
def session():
    opened = open_session(Settings(prompt="It is a truth universally acknowledged, that", backend="transformers", measures=()))
    yield opened
    opened.close()


def test_all_heads_of_the_bundled_model_in_under_ten_seconds_of_a_processor(session: Session) -> None:
    began = time.process_time()
    sweep = Sweep(session, "heads")
    effects = list(sweep)
    assert time.process_time() - began < 10
    assert [(one.layer, one.column) for one in effects] == [(layer, head) for layer in range(6) for head in range(8)]
    for one in effects[::7]:
        alone = session.backend.intervened([one.intervention], sweep.plan.prompt.token_ids)
        logits = alone.prefill(sweep.plan.prompt.token_ids, frozenset()).logits
        target = sweep.plan.target.token_id
        assert abs(one.after.logit - float(logits[target])) < EXACT * float(logits.abs().max())
        assert one.after.logprob == pytest.approx(float(logits.log_softmax(-1)[target]), abs=1e-5)
        assert one.after.prob == pytest.approx(float(logits.softmax(-1)[target]), rel=1e-4)
        assert one.change == one.after.logit - one.before.logit


def test_the_target_is_the_likeliest_token_where_none_is_named(session: Session) -> None:
    logits = session.backend.prefill(session.prompt.token_ids, frozenset()).logits
    plan = Sweep(session, "layers").plan
    assert plan.target.token_id == int(logits.argmax())
    assert plan.before.logit == float(logits.max())
    assert (plan.columns, len(plan.sites), plan.missing) == (1, 6, {})


def test_a_difference_of_two_tokens(session: Session) -> None:
    sweep = Sweep(session, "mlp", " the", " a", "mean")
    assert (sweep.plan.target.text, sweep.plan.minus.text) == (" the", " a")
    ids = sweep.plan.prompt.token_ids
    for one in sweep:
        assert one.intervention.how == "mean"
        logits = session.backend.intervened([one.intervention], ids).prefill(ids, frozenset()).logits
        difference = float(logits[sweep.plan.target.token_id] - logits[sweep.plan.minus.token_id])
        assert one.after.score == pytest.approx(difference, abs=1e-4)


def test_a_target_of_several_tokens_lists_them(session: Session) -> None:
    with pytest.raises(UsageError, match=r"' Parisians' is \d tokens for this model \(' P', .*\); give text that is one"):
        Sweep(session, "heads", " Parisians")
    with pytest.raises(UsageError, match="type at least one character"):
        Sweep(session, "heads", "")


def test_a_model_without_heads_says_so() -> None:
    session = Session(wrap(tiny("mamba"), WithText(), "mamba"), Settings(prompt="x", measures=()))
    with pytest.raises(UsageError, match=r"^mamba has no heads to ablate$"):
        Sweep(session, "heads")
    with pytest.raises(UsageError, match=r"^mamba has no mlp to ablate: not available: MLP of layer 0: no MLP in this layer$"):
        Sweep(session, "mlp")
    assert len(list(Sweep(session, "layers"))) == 3


def test_layers_without_heads_are_left_out_and_said() -> None:
    session = Session(wrap(tiny("jamba"), WithText(), "jamba"), Settings(prompt="x", measures=()))
    sweep = Sweep(session, "heads")
    assert sorted({one.layer for one in sweep}) == [1, 3]
    assert sorted({one.layer for one in sweep.plan.missing}) == [0, 2]


class WithText(Words):
    def decode(self, ids: list[int], **_: object) -> str:
        return "".join(f"<{i}>" for i in ids)
