"""Every end of the model's process: it is closed, killed, stuck, left by its app, or takes too long; and what the app then says."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
from engines import DEMO, SETTINGS, raising, wait

from openmav.engine.app_watch import AppState, SlowMeasure
from openmav.plugins import registry
from openmav.protocol.commands import Advance, Back, Pause, Resume, Type, Want

pytestmark = pytest.mark.slow
posix = pytest.mark.skipif(os.name == "nt", reason="stops a process as POSIX does")


@posix
def test_a_stuck_engine_takes_any_number_of_commands_and_can_be_left(start) -> None:
    source = start(max_new_tokens=1000, refresh_rate=0.01)
    wait(source, lambda s: len(s.steps) > 2)
    os.kill(source.pid, signal.SIGSTOP)
    began = time.process_time()
    for number in range(20_000):
        source.send((Advance(), Back(), Type("x"), Want(frozenset(), number), Resume(), Pause())[number % 6])
    assert time.process_time() - began < 5
    assert "busy" in source.snapshot().notice
    source.close()
    assert not source._process.is_alive()


def test_what_the_reader_cannot_read_is_a_failure_and_no_endless_run(start, monkeypatch) -> None:
    source = start(max_new_tokens=1000, refresh_rate=0.01)
    wait(source, lambda s: len(s.steps) > 2)
    monkeypatch.setattr(source._history, "extend", raising(ValueError("no such step")))
    source._reader.join(60)
    end = source.snapshot()
    assert (end.status, end.running, source.exit_code) == ("failed", False, 1)
    assert end.error == "what the model's process sent could not be read: ValueError: no such step"
    assert "Traceback" in source.details


def test_what_can_not_be_loaded_is_said_in_one_line(start, tmp_path) -> None:
    source = start(settings=DEMO, model=str(tmp_path))
    source._reader.join(60)
    end = source.snapshot()
    assert end.status == "failed"
    assert "config.json" in end.error
    assert "\n" not in end.error
    assert source.exit_code == 2


@pytest.mark.parametrize(
    ("by", "why"), [("SIGKILL", "was it killed, or out of memory"), pytest.param("SIGABRT", "a compiled library crashed", marks=posix)]
)
def test_a_killed_engine_is_noticed_and_so_is_one_whose_library_aborts(start, by: str, why: str) -> None:
    source = start(max_new_tokens=500, refresh_rate=0.05)
    wait(source, lambda s: len(s.steps) > 1)
    os.kill(source.pid, getattr(signal, by, signal.SIGTERM))
    source._reader.join(60)
    end = source.snapshot()
    assert end.status == "failed"
    assert "ended unexpectedly" in end.error
    assert why in end.error
    assert len(end.steps) > 1
    assert source.exit_code == 1


@pytest.mark.parametrize("when", ["at once", "loading", "running", pytest.param("stuck", marks=posix)])
def test_closing_takes_less_than_a_second_at_any_time(start, when: str) -> None:
    """Or less than it takes to start, where the machine is so busy that this is longer."""

    def started() -> float:
        began = time.monotonic()
        source = start(settings=SETTINGS, max_new_tokens=1000)
        wait(source, lambda s: len(s.steps) > 1)
        taken = time.monotonic() - began
        source.close()
        return taken

    def seconds() -> float:
        source = start(settings=DEMO if when == "loading" else SETTINGS, max_new_tokens=1000)
        if when == "loading":
            wait(source, lambda s: s.progress != "starting")
        if when in ("running", "stuck"):
            wait(source, lambda s: len(s.steps) > 1)
        if when == "stuck":
            os.kill(source.pid, signal.SIGSTOP)
        began = time.monotonic()
        source.close()
        taken = time.monotonic() - began
        assert not source._process.is_alive()
        return taken

    assert any(seconds() < 1.0 for _ in range(3)) or seconds() < started()


@pytest.mark.skipif(os.name == "nt", reason="looks at process ids as POSIX has them")
@pytest.mark.parametrize("when", ["importing", "running"])
def test_the_engine_is_gone_a_second_after_its_app(tmp_path, when: str) -> None:
    until = {"importing": "time.sleep(0.4)", "running": "while len(source.snapshot().steps) < 1: time.sleep(0.05)"}[when]
    script = tmp_path / "app.py"
    script.write_text(
        "import time\n"
        "from openmav.engine import EngineSource\n"
        "from openmav.settings import Settings\n"
        "if __name__ == '__main__':\n"
        "    source = EngineSource(Settings('toy?endless=1', 'abc', backend='toy', max_new_tokens=100000, refresh_rate=0.05))\n"
        f"    {until}\n"
        "    print(source._process.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )

    def computed_to_end() -> float:
        """Seconds of processor time; the imports take some three of them."""
        with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as app:
            engine = psutil.Process(int(app.stdout.readline()))
            app.kill()
        spent, end = [], time.monotonic() + 60
        with contextlib.suppress(psutil.NoSuchProcess):
            while engine.is_running() and engine.status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < end, "it stays"
                spent.append(sum(engine.cpu_times()[:2]))
                time.sleep(0.01)
        return spent[-1] - spent[0] if spent else 0.0

    assert computed_to_end() < 1


SLOW_MEASURE = """
import time
import numpy as np
TITLE, NEEDS = "Slow", ()
def compute(frame, context):
    time.sleep(60)
    return np.zeros(3)
"""


def test_a_measure_that_takes_long_is_named_and_the_engine_can_be_left(start, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(registry, "_files", {})
    monkeypatch.setattr(registry, "_loaded", {})
    (tmp_path / "sluggish.py").write_text(SLOW_MEASURE)
    name = registry.add_file("measures", str(tmp_path / "sluggish.py"))
    source = start(model="toy?endless=1", backend="toy", prompt="abc", measures=(name,), measure_files=(str(tmp_path / "sluggish.py"),))
    said = wait(source, lambda s: bool(s.notice)).notice
    assert re.fullmatch(r"the measure 'sluggish' has been computing for \d s; the model waits for it, 10 s at most", said)
    source.close()
    assert not source.snapshot().steps, "it waits until the measure is given up"
    assert not source._process.is_alive()


def test_the_line_about_a_measure_goes_when_it_is_done(monkeypatch) -> None:
    state, now = AppState(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    slow = SlowMeasure(state)
    state.name_measure("mine")
    assert slow.notice("other") == "other"
    now[0] = 5.0
    said = slow.notice("other")
    assert "'mine' has been computing for 5 s" in said
    state.name_measure("")
    assert slow.notice(said) == ""
    assert slow.notice("another") == "another"


def test_a_semaphore_that_a_library_leaves_in_the_engine_is_freed_without_a_warning(tmp_path) -> None:
    (tmp_path / "leaves.py").write_text(
        '"""Leaves."""\nimport multiprocessing\nimport numpy as np\nTITLE, NEEDS = "leaves", ("mlp.out",)\n'
        "KEPT = multiprocessing.get_context('spawn').Lock()\n"
        "def compute(frame, context):\n    return np.zeros(len(frame.sites['mlp.out']), dtype=np.float32)\n"
    )
    (tmp_path / "run.py").write_text(
        "import os, sys, time\n"
        "from openmav.apps.live import start_engine\n"
        "from openmav.settings import Settings\n"
        "if __name__ == '__main__':\n"
        "    asked = Settings('toy', 'Hi', backend='toy', measures=('leaves',), measure_files=(sys.argv[1],), max_new_tokens=1)\n"
        "    source = start_engine(asked)\n"
        "    while source.snapshot().status not in ('ended', 'failed'):\n"
        "        time.sleep(0.05)\n"
        "    print(source.snapshot().status, source.snapshot().error)\n"
        "    os.kill(source.pid, 9)\n"
        "    source.close()\n"
    )
    command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "leaves.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.startswith("ended"), done.stdout + done.stderr
    assert done.stderr == ""
