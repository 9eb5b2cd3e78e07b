"""The model in a process of its own: events arrive, commands are obeyed, and every end is noticed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from openmav.engine import EngineSource
from openmav.opening import open_session
from openmav.sampling import Sampling
from openmav.settings import Settings
from openmav.source import (
    Advance,
    Back,
    EditPrompt,
    Force,
    Forward,
    Intervene,
    Pause,
    Rename,
    Run,
    SetBreakpoints,
    SetSampling,
    Snapshot,
    Switch,
    Type,
    Want,
)

pytestmark = pytest.mark.slow
SETTINGS = Settings(max_new_tokens=12, threads=1)


def wait(source: EngineSource, until: Callable[[Snapshot], bool], seconds: float = 60) -> Snapshot:
    """The first snapshot that fulfils the condition; a failure of the engine fails the test at once."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        now = source.snapshot()
        if until(now):
            return now
        assert now.status != "failed", now.error
        time.sleep(0.01)
    raise AssertionError(f"nothing came of it: {source.snapshot()}")


@pytest.fixture
def start() -> Iterator[Callable[..., EngineSource]]:
    sources: list[EngineSource] = []

    def begin(**changes) -> EngineSource:
        sources.append(EngineSource(replace(SETTINGS, **changes)))
        return sources[-1]

    yield begin
    for source in sources:
        source.close()


def test_it_says_the_same_as_a_session_in_this_process(start) -> None:
    source = start()
    end = wait(source, lambda s: s.status == "ended")
    here = list(open_session(SETTINGS))
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


def test_pause_holds_and_run_goes_on(start) -> None:
    source = start(max_new_tokens=500, refresh_rate=0.02)
    wait(source, lambda s: len(s.steps) > 2)
    source.send(Pause())
    held = wait(source, lambda s: s.status == "paused")
    time.sleep(0.3)
    assert len(source.snapshot().steps) == len(held.steps)
    source.send(Run())
    wait(source, lambda s: len(s.steps) > len(held.steps))


def test_a_token_stays_as_long_as_asked(start) -> None:
    source = start(refresh_rate=0.2, max_new_tokens=6)
    wait(source, lambda s: len(s.steps) >= 1)
    began = time.monotonic()
    wait(source, lambda s: s.status == "ended")
    assert time.monotonic() - began > 0.8


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
        source.send(Pause() if press % 2 else Run())  # so that news of an older state is on its way all the time
        time.sleep(0.002)
    source.send(SetBreakpoints(("entropy > 99",)))  # obeyed after all of them
    wait(source, lambda s: bool(s.breakpoints))
    assert source.snapshot().sampling.temperature == 4.0


def test_what_can_not_be_loaded_is_said_in_one_line(start, tmp_path) -> None:
    source = start(model=str(tmp_path))
    source._reader.join(60)
    end = source.snapshot()
    assert end.status == "failed"
    assert "config.json" in end.error
    assert "\n" not in end.error
    assert source.exit_code == 2


def test_a_killed_engine_is_noticed(start) -> None:
    source = start(max_new_tokens=500, refresh_rate=0.05)
    wait(source, lambda s: len(s.steps) > 1)
    source._process.kill()
    source._reader.join(10)
    end = source.snapshot()
    assert end.status == "failed"
    assert "ended unexpectedly" in end.error
    assert len(end.steps) > 1
    assert source.exit_code == 1


@pytest.mark.parametrize("when", ["at once", "loading", "running"])
def test_closing_takes_less_than_a_second_at_any_time(start, when: str) -> None:
    source = start(max_new_tokens=1000)
    if when == "loading":
        wait(source, lambda s: s.progress != "starting")
    if when == "running":
        wait(source, lambda s: len(s.steps) > 1)
    began = time.monotonic()
    source.close()
    assert time.monotonic() - began < 1.0
    assert not source._process.is_alive()


@pytest.mark.skipif(os.name == "nt", reason="looks at process ids as POSIX has them")
def test_the_engine_does_not_outlive_its_app(tmp_path) -> None:
    import subprocess
    import sys

    script = tmp_path / "app.py"
    script.write_text(
        "import os, time\n"
        "from openmav.engine import EngineSource\n"
        "from openmav.settings import Settings\n"
        "if __name__ == '__main__':\n"
        "    source = EngineSource(Settings(max_new_tokens=100000, refresh_rate=0.05, threads=1))\n"
        "    while len(source.snapshot().steps) < 1: time.sleep(0.05)\n"
        "    print(source._process.pid, flush=True)\n"
        "    os._exit(1)\n"
    )
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    pid = int(run.stdout)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("the engine is still there")


def test_branches_prompts_and_words_reach_the_app(start) -> None:
    source = start(model="toy?endless=1", backend="toy", prompt="abc", interactive=True, max_new_tokens=30)
    wait(source, lambda s: s.status == "paused")
    source.send(Advance(10))
    trunk = wait(source, lambda s: len(s.steps) == 10 and s.status == "paused")
    source.send(Back(6))
    assert wait(source, lambda s: len(s.steps) == 4).ahead == 6
    source.send(Forward(2))
    assert wait(source, lambda s: len(s.steps) == 6).ahead == 4
    source.send(Type("xy"))
    side = wait(source, lambda s: len(s.steps) == 8 and s.branch != "main" and s.status == "paused")
    assert (side.branch, side.parent, side.at, side.ahead) == ("branch 1", "main", 6, 0)
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
    source = start(model="toy?endless=1", backend="toy", prompt="abc", interactive=True)
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
    source = start(model="toy?endless=1", backend="toy", prompt="abc", refresh_rate=0.05, max_new_tokens=200, measures=("mlp_norm",))
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
