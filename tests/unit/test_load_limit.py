"""A model that takes longer to load than it may: one line that says how to raise the limit, in every face, whatever it hangs in."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import pytest

import warm
from openmav.engine import EngineSource
from openmav.errors import UsageError
from openmav.settings import LONGEST_WAIT, Settings

LINE = "mav: the model was not loaded within 0.5 s; --load-timeout SECONDS raises that limit, and 0 takes it away"
SLOW = ["--backend", "toy", "--model", "toy?load=900"]  # longer than a test waits


@pytest.mark.parametrize("command", [["--plain"], ["--json"], ["sweep"], ["attribute"], ["doctor"]], ids=lambda one: one[0])
def test_each_command_gives_up_in_one_line(command: list[str]) -> None:
    done = warm.run(*command, *SLOW, "--load-timeout", "0.5")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(LINE)


@pytest.mark.parametrize("limit", ["30", "0", "1e9"])
def test_a_model_that_is_quick_enough_is_shown(limit: str) -> None:
    done = warm.run("--plain", *SLOW[:3], "toy?load=0.1", "--max-new-tokens", "2", "--load-timeout", limit)
    assert (done.returncode, bool(done.stdout.strip())) == (0, True), done.stderr


@pytest.mark.parametrize("limit", ["-1", "nan", "x"])
def test_a_limit_that_is_none_is_refused(limit: str) -> None:
    done = warm.run("--plain", *SLOW, "--load-timeout", limit)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    with pytest.raises(UsageError, match="load-timeout"):
        Settings(load_timeout=float("nan"))


def test_the_app_ends_its_engine() -> None:
    source = EngineSource(Settings(backend="toy", model="toy?load=900", load_timeout=0.5))
    try:
        end = time.monotonic() + 60
        while source.snapshot().status != "failed" and time.monotonic() < end:
            time.sleep(0.05)
        assert (source.snapshot().error or "").startswith(LINE.removeprefix("mav: "))
        assert source.exit_code == 2
        source._process.join(60)
        assert not source._process.is_alive()
    finally:
        source.close()


def test_the_apps_engine_may_load_for_as_long_as_it_likes_without_a_limit() -> None:
    for limit in (0.0, LONGEST_WAIT * 2):
        source = EngineSource(Settings(backend="toy", model="toy", prompt="Hi", max_new_tokens=1, load_timeout=limit))
        try:
            assert source._left_to_load() is None
            end = time.monotonic() + 60
            while source.snapshot().status != "ended" and time.monotonic() < end:
                time.sleep(0.05)
            assert source.snapshot().status == "ended", source.snapshot().error
        finally:
            source.close()


STUCK = """
    import ctypes, sys, time
    from openmav.system import signals
    from openmav.cli import load_limit
    from openmav.errors import MavError
    from openmav.system.logs import redirect, say
    load_limit.GRACE = 0.5
    redirect(descriptors=True)
    def deaf():
        while True:
            try:
                time.sleep(900)
            except BaseException:
                pass
    with signals.watch_signals():
        try:
            with load_limit.load_limit(0.5):
                {what}
        except MavError as error:
            say(f"mav: {{error}}")
            sys.exit(2)
"""


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("time.sleep(900)", 2),
        ("deaf()", 2),
        pytest.param(
            "ctypes.PyDLL(None).sleep(900)",
            2 if sys.platform == "linux" else 1,
            marks=pytest.mark.skipif(os.name == "nt", reason="a sleep in C that keeps the lock"),
        ),
    ],
)
def test_whatever_it_hangs_in_the_process_ends(what: str, code: int, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    script = textwrap.dedent(STUCK).format(what=what)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    if code == 2:
        assert done.stderr.startswith(LINE)
        assert done.stderr.count("\n") == 1
    else:
        assert "sleep" not in done.stderr
