"""Where modules and names of POSIX are absent, as on Windows, the command starts, generates, shows the app and stops all the same."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

WITHOUT = """
import os, signal, sys
import asyncio, concurrent.futures, multiprocessing.context, platform, socket, subprocess, tempfile, threading
import click, textual.app, textual.drivers.headless_driver  # these have their own ways on Windows
import multiprocessing.heap
if os.name == 'posix':
    import textual.drivers.linux_driver
    multiprocessing.heap.BufferWrapper(1)  # memory that processes share is another class's on Windows; this one looks for a disk
for name in ("fcntl", "termios", "resource", "pwd", "grp", "tty", "pty"):
    sys.modules[name] = None
for name in ("SIGHUP", "SIGTSTP", "SIGQUIT", "SIGCONT", "SIGWINCH", "SIGPIPE", "SIGUSR1", "SIGALRM"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in ("getuid", "geteuid", "sched_getaffinity", "sysconf", "fork", "forkpty", "killpg", "setsid", "getpgid", "mkfifo", "statvfs"):
    if hasattr(os, name):
        delattr(os, name)
from openmav.cli.main import main
"""
TOY = ["--backend", "toy", "--model", "toy", "--prompt", "Hi", "--max-new-tokens", "3"]


def run(code: str, first: str = "") -> subprocess.CompletedProcess[str]:
    """`code` where all that is absent; `first` is run before it goes."""
    script = first + WITHOUT + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, encoding="utf-8", timeout=120, check=False)


def test_commands_that_need_no_model_run() -> None:
    done = run(
        """
        for args in (["--help"], ["panels"], ["measures"], ["config", "show"]):
            print("@@@", flush=True)
            try:
                code = main(args)
            except SystemExit as end:
                code = end.code
            assert not code, (args, code)
        """
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert [bool(text.strip()) for text in done.stdout.split("@@@")[1:]] == [True] * 4, done.stdout


@pytest.mark.parametrize("args", [[*TOY, "--plain"], [*TOY, "--json"], ["doctor"]])
def test_a_command_runs(args: list[str]) -> None:
    done = run(f"sys.exit(main({args!r}))")
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "Traceback" not in done.stderr


def test_bad_input_is_one_line() -> None:
    loaded = "import transformers.modeling_utils"  # which has its own ways on Windows too
    done = run("sys.exit(main(['--model', './nowhere', '--plain']))", loaded)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


def test_the_app_starts_shows_and_stops() -> None:
    done = run(
        """
        from openmav.view.options import AppOptions
        from openmav.apps.tui.app import MavApp
        from openmav.apps.live import start_engine
        from openmav.settings import Settings

        async def walk():
            source = start_engine(Settings(backend="toy", model="toy", prompt="Hi", max_new_tokens=3))
            app = MavApp(source, AppOptions())
            async with app.run_test(size=(100, 30)) as pilot:
                for _ in range(600):
                    await pilot.pause(0.1)
                    if source.snapshot().status == "ended":
                        break
                await pilot.press("q")
            source.close()
            print("SEEN", len(source.snapshot().steps))

        if __name__ == "__main__":
            asyncio.run(walk())
        """
    )
    assert done.returncode == 0, done.stderr
    assert "SEEN 3" in done.stdout, done.stdout + done.stderr
