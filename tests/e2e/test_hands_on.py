"""The flags that touch the model, by the real command: JSON lines hold both models, plain text another story, wrong use is one line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from e2e.test_command import mav, own_log

__all__ = ["own_log"]
TEXT = ["--prompt", "It is a truth", "--max-new-tokens", "5"]


def steps(*flags: str) -> tuple[dict, list[dict]]:
    done = mav(*TEXT, "--json", *flags)
    assert (done.returncode, done.stderr) == (0, "")
    head, *found, end = [json.loads(line) for line in done.stdout.splitlines()]
    assert end["type"] == "end"
    return head, found


def test_each_step_has_the_untouched_model_beside_it(tmp_path) -> None:
    np.save(tmp_path / "v.npy", np.linspace(-1, 1, 256))
    flags = ["--steer", f"L2={tmp_path}/v.npy*3", "--ablate", "L1.H3=mean", "--ablate", "L0.mlp@1-2", "--patch", "L4.resid@0=Once"]
    flags += ["--amplify", "L3.attn=0.5"]
    head, touched = steps(*flags)
    specs = ["ablate L1.H3=mean", "ablate L0.mlp@1-2", "amplify L3.attn=0.5", f"steer L2={tmp_path}/v.npy*3", "patch L4.resid@0=Once"]
    assert head["interventions"] == specs
    _, plain = steps()
    assert [step["interventions"] for step in touched] == [specs] * 5
    assert all("before" not in step for step in plain)
    first, untouched = touched[0], plain[0]  # the same text up to here
    top = {c["token_id"]: c for c in first["before"]["candidates"]}
    for candidate in untouched["candidates"]:
        assert top[candidate["token_id"]]["logit"] == candidate["logit"]  # the same bits
    assert first["before"]["entropy"] == untouched["entropy"]
    assert first["entropy"] != untouched["entropy"]


def test_what_changes_nothing_writes_the_same_text() -> None:
    _, plain = steps()
    _, same = steps("--amplify", "L2.attn=1", "--ablate", "L1.mlp@400")
    assert [step["token_id"] for step in same] == [step["token_id"] for step in plain]
    for touched, untouched in zip(same, plain):
        assert touched["candidates"] == untouched["candidates"] == touched["before"]["candidates"]


def test_plain_text() -> None:
    plain, touched = (mav(*TEXT, "--plain", *flags) for flags in ([], ["--ablate", "L0"]))
    assert plain.returncode == touched.returncode == 0
    assert plain.stdout != touched.stdout


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--ablate", "L5.Q3"], "cannot read the intervention 'ablate L5.Q3' at column 11, 'Q3': known: H3"),
        (["--amplify", "L5.attn"], "at column 16, the end: =FACTOR follows"),
        (["--ablate", "L6"], "there is no layer 6: this model has layers 0 to 5"),
        (["--steer", "L1=nowhere.npy"], "there is no file 'nowhere.npy' to read a steering vector from"),
    ],
)
def test_wrong_use_is_one_line(flags: list[str], why: str) -> None:
    done = mav(*TEXT, "--json", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_breakpoint_ends_a_run_without_an_app() -> None:
    done = mav(*TEXT[:2], "--json", "--break", "index == 2 and lens[-1] == token", "--break", "nan")
    assert (done.returncode, done.stderr) == (0, "")
    head, *found, end = [json.loads(line) for line in done.stdout.splitlines()]
    assert head["breakpoints"] == ["index == 2 and lens[-1] == token", "nan"]
    assert len(found) == 3
    assert (end["reason"], end["breakpoint"]) == ("break", "index == 2 and lens[-1] == token")
    assert end["measured"].startswith("2, ")
    plain = mav(*TEXT[:2], "--plain", "--break", "index == 2")
    assert plain.stderr.endswith("· breakpoint index == 2: 2 at token 2\n")
    assert plain.stdout == "".join(step["text"] for step in found) + "\n"


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--break", "entropie > 4"], "at column 1, 'entropie > 4': unknown name 'entropie'. Did you mean 'entropy'? Known: entropy,"),
        (["--break", "entropy"], "this is a value to watch, not a condition to stop at; compare it, such as entropy > 4"),
        (["--watch", "norm(mlp"], "at column 9, the end: ')' is expected here"),
        (["--break", "norm(mlp, 6) > 1"], "at column 11, '6) > 1': this model has no such layer: it has 0 to 5"),
    ],
)
def test_a_wrong_condition_is_one_line(flags: list[str], why: str) -> None:
    done = mav(*TEXT, "--json", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr
    assert len(done.stderr.splitlines()) == 1
