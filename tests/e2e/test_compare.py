"""`mav compare` as a command: text, JSON lines, recordings, exit codes, wrong use."""

from __future__ import annotations

import json
import math

import pytest

from e2e import tmux
from e2e.test_command import mav, own_log
from openmav.recording.reader import Recording

__all__ = ["own_log"]
TOY = ["compare", "--backend", "toy", "--model", "toy", "--prompt", "Hi", "--max-new-tokens", "4", "--ablate", "L2.mlp"]


def test_json_lines_recordings_and_the_exit_code(tmp_path):
    done = mav(*TOY, "--json", "--max-kl", "0.001", "--record", str(tmp_path / "run.mav"))
    assert (done.returncode, done.stderr) == (1, "")
    head, *tokens, end = [json.loads(line) for line in done.stdout.splitlines()]
    assert head["b"]["interventions"] == ["ablate L2.mlp"]
    assert head["a"]["interventions"] == []
    assert [one["index"] for one in tokens] == [0, 1, 2, 3]
    for one in tokens:
        assert (one["parting"]["layer"], one["parting"]["part"]) == (2, "MLP")
        assert one["layers"]["residual"]["difference"][:2] == [0, 0]
        assert one["layers"]["MLP"]["cosine"][2] is None
    assert end["kl_max"] == max(one["kl"] for one in tokens)
    assert end["kl_mean"] == pytest.approx(sum(one["kl"] for one in tokens) / 4)
    assert (end["first"]["token"], end["within"]) == (0, False)
    texts = []
    for name in "ab":
        with Recording(tmp_path / {"a": "run.mav", "b": "run.b.mav"}[name]) as recording:
            steps = recording.branches()[0].steps
            texts.append([step.token_id for step in steps])
            assert {step.interventions for step in steps} == {("ablate L2.mlp",) if name == "b" else ()}
            logprobs = [one[name]["logprob"] for one in tokens]
            assert [step.logprob for step in steps] == pytest.approx(logprobs)
    assert texts[0] == texts[1] == [one["token_id"] for one in tokens]
    assert "compared      with toy · ablate L2.mlp · " in mav("info", str(tmp_path / "run.mav")).stdout
    again = mav("verify", "--rerun", str(tmp_path / "run.mav")).stdout
    assert again.endswith("the same 4 tokens; the largest difference of a number is 0\n"), "the comparison is made again too"


def test_text_and_a_limit_that_holds():
    done = mav(*TOY, "--max-kl", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "ablate L2.mlp" in done.stdout
    assert "they part first at token 0, layer 2, MLP" in done.stdout
    assert done.stdout.count(" L2 MLP\n") == 4
    assert max(map(len, done.stdout.splitlines())) <= 110
    assert "\x1b" not in done.stdout
    assert math.isfinite(float(done.stdout.split("A‖B) ")[1].split()[0]))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--model", "toy", "--model", "toy"], "--model can be given twice, for A and for B, and not 3 times"),
        (["--backend", "transformers", "--model", "demo"], "the models have different vocabularies, of"),
        (["--steer", "L9=x.npy"], "there is no layer 9"),
        (["--record", "/no/such/folder/run.mav"], "cannot write"),
        (["--max-kl", "-1"], "--max-kl"),
        (["--plain", "--json"], "--plain and --json exclude each other"),
    ],
)
def test_wrong_use_is_one_line(more, says):
    done = mav(*TOY, *more)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_one_recording_of_two_is_not_left(tmp_path):
    (tmp_path / "run.b.mav").write_text("mine")
    done = mav(*TOY, "--plain", "--record", str(tmp_path / "run.mav"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "run.b.mav exists already" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [(file.name, file.read_bytes()) for file in tmp_path.glob("run*")] == [("run.b.mav", b"mine")]


@pytest.mark.slow
@pytest.mark.skipif(tmux.TMUX is None, reason="needs tmux")
def test_in_a_terminal_it_is_a_live_screen_that_is_recorded_and_replayed(tmp_path):
    record = str(tmp_path / "run.mav")
    with tmux.Terminal(120, 34, home=tmp_path) as terminal:
        terminal.type(tmux.mav(*TOY, "--record", record))
        terminal.wait_for("ended: length")
        live = terminal.wait_for("◆ first at token 0, layer 2, MLP")
        assert "ablate L2.mlp" in live
        terminal.keys("q")
        terminal.wait_for("the recording is in")
        terminal.type(tmux.mav("replay", record))
        replayed = terminal.wait_for("0 compare[^\\0]*◆ first at token 0, layer 2, MLP")
        assert "Two predictions" in replayed
        terminal.keys("q")
        terminal.wait_for(tmux.PROMPT)
