"""The model in a process of its own: events arrive, and commands are obeyed."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from engines import DEMO, wait

from openmav.generation.opening import open_session
from openmav.protocol.commands import (
    Advance,
    Back,
    EditPrompt,
    Force,
    Forward,
    Intervene,
    Pause,
    Rename,
    Resume,
    SetBreakpoints,
    SetPace,
    SetSampling,
    Switch,
    Type,
    Want,
)
from openmav.settings.sampling import Sampling

pytestmark = pytest.mark.slow


def test_it_says_the_same_as_a_session_in_this_process(start) -> None:
    source = start(settings=DEMO)
    end = wait(source, lambda s: s.status == "ended")
    here = list(open_session(DEMO))
    assert [s.token_id for s in end.steps] == [s.token_id for s in here]
    assert all(a.candidates.logits.tobytes() == b.candidates.logits.tobytes() for a, b in zip(end.steps, here, strict=True))
    assert end.reason == "length"
    assert end.info.layers == 6
    assert end.prompt.text.startswith("It is a truth")


def test_interactive_waits_for_each_key_and_goes_back(start) -> None:
    source = start(interactive=True)
    wait(source, lambda s: s.status == "paused")
    source.send(Advance())
    one = wait(source, lambda s: len(s.steps) == 1 and s.status == "paused")
    for _ in range(3):  # keys that come faster than tokens are not lost
        source.send(Advance())
    wait(source, lambda s: len(s.steps) == 4 and s.status == "paused")
    source.send(Back(3))
    back = wait(source, lambda s: len(s.steps) == 1)
    assert back.steps[0].token_id == one.steps[0].token_id
    other = int(one.steps[0].candidates.token_ids[1])
    source.send(Back())
    source.send(Force(other))
    forced = wait(source, lambda s: len(s.steps) == 1 and s.steps[0].forced)
    assert forced.steps[0].token_id == other


def test_a_token_is_put_at_the_place_that_was_read_however_far_the_run_is_by_then(start) -> None:
    source = start(refresh_rate=0.01, max_new_tokens=400)
    seen = wait(source, lambda s: len(s.steps) >= 6)
    other = int(seen.steps[3].candidates.token_ids[4])
    wait(source, lambda s: len(s.steps) >= 12)
    source.send(Force(other, 3, seen.branch))
    forced = wait(source, lambda s: s.status == "paused")
    assert [step.token_id for step in forced.steps] == [*(step.token_id for step in seen.steps[:3]), other]
    source.send(Resume())
    wait(source, lambda s: len(s.steps) >= 9)
    source.send(Type("xy", 5, forced.branch))
    typed = wait(source, lambda s: s.status == "paused" and len(s.steps) > 6)
    assert [step.text for step in typed.steps[5:]] == ["x", "y"]


def test_the_pace_is_changed_while_it_runs(start) -> None:
    source = start(max_new_tokens=5000, refresh_rate=60.0)
    wait(source, lambda s: len(s.steps) == 1)
    assert source.snapshot().pace == 60.0
    source.send(SetPace(0.0))
    assert wait(source, lambda s: len(s.steps) > 100).pace == 0.0


def test_pause_holds_and_run_goes_on(start) -> None:
    source = start(max_new_tokens=500, refresh_rate=0.02)
    wait(source, lambda s: len(s.steps) > 2)
    source.send(Pause())
    held = wait(source, lambda s: s.status == "paused")
    time.sleep(0.3)
    assert len(source.snapshot().steps) == len(held.steps)
    source.send(Resume())
    wait(source, lambda s: len(s.steps) > len(held.steps))


def test_a_token_stays_as_long_as_asked(start) -> None:
    source = start(refresh_rate=0.2, max_new_tokens=6)
    seen: list[float] = []  # before each look
    first = wait(source, lambda s: bool(seen.append(time.monotonic()) or s.steps))
    wait(source, lambda s: s.status == "ended")
    left = 6 - len(first.steps) - 1  # the next one may come at once
    assert left > 0
    assert time.monotonic() - seen[-1] > 0.2 * left


def test_sampling_and_wants_change_on_the_way_and_nonsense_is_answered(start) -> None:
    source = start(interactive=True)
    wait(source, lambda s: s.status == "paused")
    source.send(SetSampling(Sampling(temperature=1.5, seed=3)))
    wait(source, lambda s: s.sampling.temperature == 1.5)
    source.send(Want(frozenset({"mlp_norm"})))
    source.send(Advance())
    assert set(wait(source, lambda s: len(s.steps) == 1).steps[0].values) == {"mlp_norm"}
    source.send(Force(10**9))
    assert "no token" in wait(source, lambda s: bool(s.notice)).notice
    source.send(Want(frozenset({"nonsense"})))
    assert "unknown measure" in wait(source, lambda s: "unknown" in s.notice).notice


def test_each_change_of_sampling_builds_on_the_last_however_late_the_engine_answers(start) -> None:
    source = start(max_new_tokens=500, refresh_rate=0.01)
    wait(source, lambda s: s.status == "running")
    for press in range(1, 41):
        before = source.snapshot().sampling
        source.send(SetSampling(replace(before, temperature=round(before.temperature + 0.1, 1))))
        assert source.snapshot().sampling.temperature == round(0.1 * press, 1)
        source.send(Pause() if press % 2 else Resume())  # so that news of an older state is on its way all the time
        time.sleep(0.002)
    source.send(SetBreakpoints(("entropy > 99",)))  # obeyed after all of them
    wait(source, lambda s: bool(s.breakpoints))
    assert source.snapshot().sampling.temperature == 4.0


def test_branches_prompts_and_words_reach_the_app(start) -> None:
    source = start(interactive=True, max_new_tokens=30)
    wait(source, lambda s: s.status == "paused")
    source.send(Advance(10))
    trunk = wait(source, lambda s: len(s.steps) == 10 and s.status == "paused")
    source.send(Back(6))
    assert wait(source, lambda s: len(s.steps) == 4).undone == 6
    source.send(Forward(2))
    assert wait(source, lambda s: len(s.steps) == 6).undone == 4
    source.send(Type("xy"))
    side = wait(source, lambda s: len(s.steps) == 8 and s.branch != "main" and s.status == "paused")
    assert (side.branch, side.parent, side.at, side.undone) == ("branch 1", "main", 6, 0)
    assert [s.token_id for s in side.branches["main"].steps] == [s.token_id for s in trunk.steps]
    assert [s.text for s in side.steps[6:]] == ["x", "y"]
    source.send(Rename("branch 1", "words"))
    assert wait(source, lambda s: s.branch == "words").steps == side.steps
    source.send(Switch("main"))
    main = wait(source, lambda s: s.branch == "main" and len(s.steps) == 10)
    assert main.branches["words"].text == "".join(s.text for s in side.steps)
    assert set(main.branches) == {"words"}
    source.send(EditPrompt("xyz"))
    other = wait(source, lambda s: s.prompt.text == "xyz" and not s.steps and s.status == "paused")
    assert (other.branch, other.parent, set(other.branches)) == ("branch 2", None, {"main", "words"})
    source.send(Switch("nowhere"))
    assert "unknown branch 'nowhere'" in wait(source, lambda s: bool(s.notice)).notice
    source.send(Switch("words"))
    back = wait(source, lambda s: s.branch == "words" and len(s.steps) == 8)
    assert back.prompt.text == "abc"


def test_the_model_is_touched_and_left_as_it_was(start) -> None:
    source = start(interactive=True)
    wait(source, lambda s: s.status == "paused")
    source.send(Advance(3))
    plain = wait(source, lambda s: len(s.steps) == 3 and s.status == "paused").steps
    source.send(Intervene(("ablate L1.mlp",)))
    touched = wait(source, lambda s: bool(s.interventions)).steps[-1]
    assert touched.interventions == ("ablate L1.mlp",)
    assert touched.before.entropy == plain[-1].entropy
    assert touched.before.candidates.logits[: len(plain[-1].candidates)].tobytes() == plain[-1].candidates.logits.tobytes()
    assert touched.candidates.logits.tobytes() != plain[-1].candidates.logits.tobytes()
    source.send(Intervene(("ablate L9.mlp",)))
    assert "0 to 3" in wait(source, lambda s: bool(s.notice)).notice
    source.send(Intervene())
    after = wait(source, lambda s: not s.interventions).steps[-1]
    assert after.before is None
    assert after.candidates.logits.tobytes() == plain[-1].candidates.logits.tobytes()


def test_what_a_new_layout_wants_is_computed_while_paused(start) -> None:
    source = start(model="toy", backend="toy", prompt="abc", interactive=True, measures=("mlp_norm",))
    wait(source, lambda s: s.status == "paused")
    source.send(Advance(3))
    before = wait(source, lambda s: len(s.steps) == 3 and s.status == "paused").steps
    source.send(Want(frozenset({"mlp_norm", "attention_entropy"})))
    again = wait(source, lambda s: all("attention_entropy" in step.values for step in s.steps)).steps  # the earlier ones as well
    for new, old in zip(again, before, strict=True):
        assert new.candidates.logits.tobytes() == old.candidates.logits.tobytes()
        assert (new.token_id, new.text, new.index) == (old.token_id, old.text, old.index)


def test_a_token_that_the_reader_looks_at_is_looked_at_again_while_the_model_runs(start) -> None:
    source = start(refresh_rate=0.05, max_new_tokens=200, measures=("mlp_norm",))
    wait(source, lambda s: len(s.steps) >= 5)
    source.send(Want(frozenset({"mlp_norm", "logit_lens"}), None, 2))
    seen = wait(source, lambda s: "logit_lens" in s.steps[2].values)
    assert seen.status == "running"
    assert [step.index for step in seen.steps if "logit_lens" in step.values and step.index < 5] == [2]
    source.send(Pause())
    wait(source, lambda s: s.status == "paused" and all("logit_lens" in step.values for step in s.steps))


def test_what_can_be_computed_at_once_does_not_hide_what_cannot(start) -> None:
    """The residual norm is there without another forward pass; the MLP's is not, and comes all the same."""
    source = start(model="toy", backend="toy", prompt="abc", interactive=True, measures=("logit_lens",))
    wait(source, lambda s: s.status == "paused")
    source.send(Advance(3))
    before = wait(source, lambda s: len(s.steps) == 3 and s.status == "paused").steps
    source.send(Want(frozenset({"residual_norm", "mlp_norm"})))
    again = wait(source, lambda s: {"residual_norm", "mlp_norm"} <= s.steps[-1].values.keys()).steps
    assert again[-1].candidates.logits.tobytes() == before[-1].candidates.logits.tobytes()


def test_a_key_after_the_end_goes_on_and_says_how_far(start) -> None:
    source = start(max_new_tokens=4)
    wait(source, lambda s: s.status == "ended")
    source.send(Advance(1))
    one = wait(source, lambda s: len(s.steps) == 5 and s.status == "paused")
    assert one.reason is None
    source.send(Resume())
    assert len(wait(source, lambda s: s.status == "ended").steps) == 8
    source.send(Type("xy"))
    typed = wait(source, lambda s: len(s.steps) == 10)
    assert "".join(step.text for step in typed.steps[8:]) == "xy"
    source.send(Resume())
    assert wait(source, lambda s: "going on" in s.notice or s.status == "ended")
