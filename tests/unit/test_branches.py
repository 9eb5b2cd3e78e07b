"""Branches of a text: whichever way one came to it, its numbers are those of a fresh run of the same tokens, bit for bit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from openmav.backends.transformers import wrap
from openmav.errors import LoadError, UsageError
from openmav.generation.opening import open_session
from openmav.generation.session import Session
from openmav.record import Step
from openmav.settings import CORE_MEASURES, Settings
from openmav.settings.sampling import Sampling

NEWEST = re.findall(r"^transformers==(\S+)", (Path(__file__).parents[2] / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)[0]
PROMPT = "hello mello"
WINDOW = {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1}
SMALL: dict[str, Any] = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "eos_token_id": None, "bos_token_id": None}
HEADS: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 300}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {**SMALL, **HEADS},
    "mistral": {**SMALL, **HEADS, "sliding_window": 8},
    "gemma2": {**SMALL, **HEADS, "sliding_window": 8, "head_dim": 8},
    "mamba": {**SMALL, "state_size": 8},
    "lfm2": {**SMALL, **HEADS, "layer_types": ["conv", "full_attention"]},
    "recurrent_gemma": {  # its states are attributes of its modules
        **SMALL,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "intermediate_size": 48,
        "lru_width": 32,
        "attention_window_size": 16,
        "block_types": ["recurrent", "attention"],
    },
    "phi3": {  # drops its cache when the text grows longer than 40 tokens
        **SMALL,
        **HEADS,
        "pad_token_id": 0,
        "sliding_window": None,
        "original_max_position_embeddings": 40,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 4,
            "long_factor": [1.0, 2.0, 3.0, 4.0],
            "original_max_position_embeddings": 40,
        },
    },
    "qwen2": {  # its rotary frequencies depend on the longest text so far
        **SMALL,
        **HEADS,
        "max_position_embeddings": 40,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    },
}


def identical(a: Step, b: Step) -> bool:
    """Every number and text the same, bit for bit, but for the time it took."""
    values = all(np.array_equal(a.values[name], b.values[name], equal_nan=True) for name in a.values.keys() & b.values.keys())
    arrays = ("token_ids", "logits", "probs")
    candidates = all(np.array_equal(getattr(a.candidates, name), getattr(b.candidates, name)) for name in arrays)
    return values and candidates and (a.token_id, a.text, a.logprob, a.entropy) == (b.token_id, b.text, b.logprob, b.entropy)


@pytest.fixture
def begin(id_tokenizer) -> Iterator[Callable[..., Session]]:
    """Sessions on a tiny random model of a kind; one model a kind and test."""
    import torch

    models: dict[str, Any] = {}
    made: list[Session] = []

    def session(kind: str = "llama", **changes: Any) -> Session:
        if kind not in models:
            torch.manual_seed(3)
            models[kind] = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, initializer_range=0.3, **KINDS[kind])).eval()
        given = {"prompt": PROMPT, "max_new_tokens": 90, "measures": (*CORE_MEASURES, "logit_lens"), **changes}
        try:
            made.append(Session(wrap(models[kind], id_tokenizer, kind), Settings(**given)))
        except LoadError as error:
            apart = str(error) if "not those of transformers' generate()" in str(error) else None
            if apart is None:
                raise
        else:
            apart = next((note for note in made[-1].info.notes if "mav's logits are not those of generate()" in note), None)
        if apart is not None and version("transformers") != NEWEST:  # the reader is told, which is all that can be done there
            pytest.skip(f"transformers {version('transformers')}, {kind}: {apart}")
        assert apart is None
        return made[-1]

    yield session
    for one in made:
        one.close()


def fresh(begin: Callable[..., Session], kind: str, steps: Sequence[Step]) -> list[Step]:
    """A run of its own in which the same tokens are put one after the other."""
    tokens = [step.token_id for step in steps]
    session = begin(kind, sampling=steps[0].sampling)
    return [session.force(token_id) for token_id in tokens]


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_to_a_text_gives_the_numbers_of_a_fresh_run(begin, kind: str) -> None:
    session = begin(kind, sampling=Sampling(temperature=1.0, seed=11))
    trunk = [session.step() for _ in range(60)]
    session.back(50)
    session.force((trunk[10].token_id + 1) % 256)
    for _ in range(8):
        session.step()
    assert session.branch == "branch 1"
    assert session.branches["branch 1"].parent == "main"
    assert session.branches["branch 1"].at == 10
    side = list(session.steps)
    session.back(4)
    session.forward(2)
    session.forward(9)
    assert all(a is b for a, b in zip(session.steps, side, strict=True))
    side.append(session.step())
    session.switch("main")
    assert all(a is b for a, b in zip(session.steps, trunk, strict=True))
    trunk.append(session.step())
    session.switch("branch 1")
    side.append(session.step())
    for steps in (trunk, side):
        again = fresh(begin, kind, steps)
        assert [s.text for s in again] == [s.text for s in steps]
        assert all(map(identical, again, steps))


def test_the_draws_go_on_as_if_nothing_had_been(begin) -> None:
    session, other = (begin(sampling=Sampling(temperature=1.0, seed=4), max_new_tokens=40) for _ in range(2))
    for _ in range(20):
        session.step()
    session.back(15)
    session.forward(3)
    session.back(8)
    session.force(7)
    session.step()
    session.switch("main")
    session.forward(99)
    list(session)
    assert [s.token_id for s in session.steps] == [s.token_id for s in other]


def test_the_same_token_again_is_no_branch(begin) -> None:
    session = begin()
    first = [session.step() for _ in range(5)]
    session.back(3)
    session.step()
    session.force(first[3].token_id)
    assert (session.branch, session.undone, list(session.branches)) == ("main", 1, ["main"])


def test_the_end_of_a_branch_is_known_again(begin) -> None:
    session = begin(max_new_tokens=6)
    list(session)
    session.back(3)
    assert session.reason is None
    session.forward(3)
    assert session.reason == "length"
    session.back(5)
    session.force((session.branches["main"].steps[1].token_id + 1) % 256)
    assert session.reason is None
    session.switch("main")
    assert session.reason == "length"
    with pytest.raises(UsageError, match="has ended"):
        session.step()


def test_another_prompt_stands_beside_the_old_one(begin) -> None:
    session = begin(sampling=Sampling(temperature=1.0, seed=2), max_new_tokens=12)
    old = [session.step() for _ in range(6)]
    session.edit_prompt("jello")
    assert (session.prompt.text, session.steps, session.branch) == ("jello", [], "branch 1")
    new = list(session)
    alone = list(begin(prompt="jello", sampling=Sampling(temperature=1.0, seed=2), max_new_tokens=12))
    assert all(map(identical, new, alone))
    session.switch("main")
    assert session.prompt.text == PROMPT
    old.append(session.step())
    assert all(map(identical, fresh(begin, "llama", old), old))
    with pytest.raises(UsageError, match="empty"):
        session.edit_prompt("")
    assert session.branch == "main"


def test_words_are_put_token_by_token(begin) -> None:
    session = begin(max_new_tokens=4)
    assert [step.token_id for step in session.type(" Paris")] == list(b" Par")
    assert all(step.forced for step in session.steps)
    assert session.reason == "length"


def test_words_on_the_bundled_model_go_on_with_no_special_tokens() -> None:
    session = open_session(Settings())
    steps = list(session.type(" and Elizabeth"))
    assert session.text == " and Elizabeth"
    assert not any(step.special for step in steps)
    with pytest.raises(UsageError, match="at least one character"):
        list(session.type(""))
    session.close()


@pytest.mark.real
def test_words_on_the_real_model(real_folder: Path) -> None:
    session = open_session(Settings(model=str(real_folder), prompt="The capital of France is"))
    assert [step.text for step in session.type(" Paris.\n\n")][:2] == [" Paris", "."]
    assert session.text == " Paris.\n\n"
    session.close()


def test_the_newest_step_is_taken_again(begin) -> None:
    session, plain = begin(measures=("mlp_norm",)), begin(measures=("mlp_norm", "logit_lens"))
    for _ in range(5):
        session.step()
        plain.step()
    session.want(("mlp_norm", "logit_lens"))
    assert session.lacks()
    again = session.retake()
    assert again is not None
    assert not session.lacks()
    assert identical(again, plain.steps[-1])
    assert "logit_lens" in again.values
    assert identical(session.step(), plain.step())


MOVES = st.lists(
    st.one_of(
        st.just(("step", 0)),
        st.tuples(st.just("force"), st.integers(0, 3)),
        st.tuples(st.just("back"), st.integers(0, 6)),
        st.tuples(st.just("forward"), st.integers(0, 6)),
        st.tuples(st.just("switch"), st.integers(0, 9)),
        st.tuples(st.just("edit"), st.integers(0, 1)),
    ),
    max_size=30,
)


@settings(max_examples=40)
@given(MOVES)
def test_any_moves_keep_each_branch_as_it_was(moves: list[tuple[str, int]]) -> None:
    """Whatever is done, the steps of a branch that is not in force never change, and those in force are what a fresh run says."""
    session = open_session(Settings(model="toy?endless=1", backend="toy", prompt="abc", measures=("mlp_norm",)))
    for move, number in moves:
        others = {name: branch for name, branch in session.branches.items() if name != session.branch}
        names = list(session.branches)
        if move == "step":
            session.step()
        elif move == "force":
            session.force(number + 1)  # 0 ends a text
        elif move == "edit":
            session.edit_prompt("xy" if number else "abc")
        elif move == "switch":
            session.switch(names[number % len(names)])
        else:
            getattr(session, move)(number)
        after = session.branches
        assert all(after[name].steps == branch.steps for name, branch in others.items() if name != session.branch)
        assert [step.index for step in session.steps] == list(range(len(session.steps)))
        for branch in after.values():
            if branch.parent is not None:
                assert all(a.token_id == b.token_id for a, b in zip(branch.steps[: branch.at], after[branch.parent].steps))
    again = open_session(Settings(model="toy?endless=1", backend="toy", prompt=session.prompt.text, measures=("mlp_norm",)))
    assert all(identical(again.force(step.token_id), step) for step in session.steps)
    assert again.text == session.text


@pytest.mark.parametrize("kind", KINDS)
def test_how_tokens_are_taken_back_is_said(begin, kind: str) -> None:
    session = begin(kind)
    cut = kind not in ("mamba", "lfm2", "recurrent_gemma")
    assert cut == (not any("cannot be cut" in note for note in session.info.notes))
    assert dict(session.backend.describe())["taking tokens back"].startswith("the cache is cut" if cut else "from a snapshot")
