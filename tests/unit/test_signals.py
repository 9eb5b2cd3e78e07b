"""Signals: one exception, no torn line, and a way out where a writer is stuck."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from openmav.cli import main as main_module
from openmav.system.signals import Interrupted, check, hold, ignored_by_children, watch_signals

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_an_exception_with_the_exit_code(number: int, code: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught, watch_signals():
        send(number)
    assert caught.value.exit_code == code
    assert signal.getsignal(number) is before


def test_what_is_held_is_finished_first() -> None:
    done = []

    def write() -> None:
        with hold():
            with hold():
                send(signal.SIGINT)
            done.append("all")
        done.append("never")

    with watch_signals(), pytest.raises(Interrupted):
        write()
    assert done == ["all"]


def test_the_second_signal_does_not_wait() -> None:
    done = []

    def write() -> None:
        with hold():
            send(signal.SIGINT)
            done.append("once")
            send(signal.SIGINT)
            done.append("twice")

    with watch_signals(), pytest.raises(Interrupted):
        write()
    assert done == ["once"]


def test_a_signal_that_a_library_swallowed_comes_back() -> None:
    with watch_signals():
        with contextlib.suppress(BaseException):
            send(signal.SIGTERM)
        with pytest.raises(Interrupted) as caught:
            check()
    assert caught.value.exit_code == 143


@pytest.mark.skipif(os.name == "nt", reason="a signal can't be sent to the own process there")
def test_an_error_that_a_library_made_of_a_signal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As NumPy's C code does where a signal comes while it is imported."""

    def run(_args: object) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("no signal")
        except Interrupted as error:
            raise ImportError("numpy.core.multiarray failed to import") from error

    monkeypatch.setattr(main_module, "_run", run)
    assert main_module.main([]) == 143
    assert capsys.readouterr().err == ""


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with watch_signals():
            send(signal.SIGINT)
            check()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_child_is_born_deaf_to_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGINT)
    with ignored_by_children():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="this system holds no signals")
def test_signals_that_are_held_come_when_they_are_let_go() -> None:
    code = (
        "import os, signal, sys, time\nfrom openmav.system import signals\n"
        "with signals.held():\n    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(0.1)\n"
        "    print('whole', flush=True)\nprint('never')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "whole\n")


def test_ctrl_c_while_the_command_is_imported_ends_it_without_a_word() -> None:
    code = """
import os, signal, sys
class Finder:
    def find_spec(self, name, *rest):
        if name == "openmav.system.logs":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from openmav.__main__ import main
sys.exit(main())"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
