"""The real command in a real terminal: it starts, obeys keys, resizes, ends, and leaves the terminal as it was."""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import warm
from e2e.tmux import PROMPT, TMUX, Terminal, mav, wait_until, warm_mav

pytestmark = [pytest.mark.skipif(TMUX is None, reason="needs tmux"), pytest.mark.slow]
TOY = ["--backend", "toy", "--model"]
ENDLESS = [*TOY, "toy?endless=1&slow=0.02", "--prompt", "Hi", "--max-new-tokens", "900", "--refresh-rate", "0"]


@pytest.fixture(params=[(80, 24)], ids=["80x24"])
def terminal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Terminal]:
    with Terminal(*request.param, home=tmp_path) as made:
        made.type("echo BEFORE")
        made.wait_for(r"(?m)^BEFORE")
        yield made


def ended(terminal: Terminal, before: dict[str, str]) -> tuple[int, str]:
    """The exit status and the screen, once the shell is back; the terminal is as it was and no process is left."""
    text = terminal.wait_for(r"status=\d+=")
    terminal.wait_for(PROMPT + r"\s*$")
    assert terminal.state() == before
    assert "Traceback" not in text
    assert terminal.processes() == []
    wait_until(lambda: not warm.engines(), "an engine is left")
    return int(re.findall(r"status=(\d+)=", text)[-1]), text


def test_watch_pause_resize_and_quit(terminal: Terminal) -> None:
    before = terminal.state()
    terminal.type(warm_mav(*ENDLESS))
    terminal.wait_for("toy.*tok/s")
    assert terminal.state()["alternate_on"] == "1"
    terminal.keys("Space")
    terminal.wait_for("paused")
    seen = [""]  # each half second; a run draws fifty tokens a second
    wait_until(lambda: seen.append(terminal.text()) or seen[-1] == seen[-2], "it goes on", every=0.5)
    for width, height in ((160, 45), (60, 16), (20, 5), (240, 70), (80, 24)):
        terminal.resize(width, height)
        time.sleep(0.3)
    terminal.wait_for("toy")
    terminal.keys("q")
    status, text = ended(terminal, before)
    assert status == 0
    assert re.search(r"\d+ tokens · [\d.]+ tokens/s · mean surprisal [\d.]+ nats · perplexity [\d.]+", text)


def test_a_window_that_grew_keeps_nothing_of_the_app(terminal: Terminal) -> None:
    before = terminal.state()
    terminal.type(warm_mav(*TOY, "toy?endless=1", "--prompt", "Hi", "--max-new-tokens", "20", "--refresh-rate", "0"))
    terminal.wait_for("toy.*tok/s")
    for width in range(160, 170):  # a busy tmux without a client may forget to resize the pane
        terminal.resize(width, 45)
        with contextlib.suppress(AssertionError):
            terminal.wait_for(r"(?m)^.{120,}╮\s*$", seconds=10)
            break
    assert len(terminal.text().splitlines()) == 45
    terminal.keys("q")
    status, text = ended(terminal, before)
    assert status == 0
    assert "─" not in text
    assert text.splitlines()[1] == "BEFORE"


def test_each_key_makes_one_token(terminal: Terminal) -> None:
    before = terminal.state()
    terminal.type(warm_mav(*TOY, "toy", "--prompt", "Hi", "--interactive"))
    terminal.wait_for(r"toy")
    terminal.wait_for(r"Hi")
    for count in range(3):
        terminal.keys(".")
        terminal.wait_for(re.escape("Hi" + "".join([" it", " is", " a"][: count + 1])))
    terminal.keys("q")
    status, text = ended(terminal, before)
    assert status == 0
    assert "Hi it is a\n" in text
    assert "3 tokens" in text


def test_hostile_tokens_leave_the_screen_alone(terminal: Terminal) -> None:
    before = terminal.state()
    terminal.type(warm_mav(*TOY, "toy", "--prompt", "Hi", "--refresh-rate", "0", "--selected-panels", "generated_text"))
    text = terminal.wait_for(r"&amp; end\.")
    assert "[bold]" in text
    assert "[red]red[/red]" in text
    assert "␛[2J" in text
    assert "文字" in text
    terminal.keys("q")
    status, text = ended(terminal, before)
    assert status == 0
    assert "BEFORE" in text or "␛[2J" in text


def test_ctrl_c_pauses_first_and_then_quits(terminal: Terminal) -> None:
    before = terminal.state()
    terminal.type(warm_mav(*ENDLESS))
    terminal.wait_for("tok/s")
    terminal.keys("C-c")
    terminal.wait_for("paused")
    terminal.keys("C-c")
    assert ended(terminal, before)[0] == 0


@pytest.mark.parametrize("model", ["toy?slow=900", "toy?load=900"], ids=["in a long pass", "while loading"])
def test_quitting_early_does_not_wait_for_the_model(terminal: Terminal, model: str) -> None:
    before = terminal.state()
    terminal.type(warm_mav(*TOY, model, "--prompt", "Hi"))
    terminal.wait_for("quit|loading|starting|reading")
    terminal.keys("q")
    assert ended(terminal, before)[0] == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_restores_the_terminal(terminal: Terminal, number: int, code: int) -> None:
    before = terminal.state()
    terminal.type(mav(*ENDLESS))
    terminal.wait_for("tok/s")
    terminal.process("-m openmav --backend").send_signal(number)
    assert ended(terminal, before)[0] == code


def test_the_app_survives_the_end_of_the_models_process(terminal: Terminal) -> None:
    before = terminal.state()
    terminal.type(mav(*TOY, "toy?crash=3", "--prompt", "Hi"))
    terminal.wait_for("ended unexpectedly")
    terminal.keys("q")
    status, text = ended(terminal, before)
    assert status == 1
    assert re.search(r"mav: the model's process ended\s+unexpectedly", text)
    assert "3 tokens" in text


def test_a_model_that_cannot_be_loaded(terminal: Terminal, tmp_path: Path) -> None:
    before = terminal.state()
    terminal.type(warm_mav("--model", str(tmp_path)))
    terminal.wait_for("mav  .*|q quit|config")
    terminal.wait_for(re.escape(tmp_path.name))
    terminal.keys("q")
    status, text = ended(terminal, before)
    assert status == 2
    assert "mav: " in text


BROKEN = """
import sys
from openmav.apps.tui.app import MavApp
from openmav.cli.main import main

def redraw(self):
    raise ZeroDivisionError("drawn badly")

MavApp.redraw = redraw
sys.exit(main(["--backend", "toy", "--model", "toy", "--prompt", "Hi"]))
"""


def test_a_bug_in_the_app_is_one_line_and_not_a_normal_end(terminal: Terminal, tmp_path: Path) -> None:
    before = terminal.state()
    script = tmp_path / "broken.py"
    script.write_text(BROKEN)
    terminal.type(f"{shlex.join([sys.executable, str(script)])}; echo status=$?=")
    status, text = ended(terminal, before)
    assert status == 1
    assert "mav: internal error: ZeroDivisionError: drawn badly" in text


@pytest.mark.parametrize("flag", ["--plain", "--json"])
def test_ctrl_c_on_a_stream_in_a_terminal(terminal: Terminal, flag: str) -> None:
    before = terminal.state()
    terminal.type(mav(*ENDLESS, flag))
    terminal.wait_for("truth" if flag == "--plain" else '"nonfinite"')
    terminal.keys("C-c")
    assert ended(terminal, before)[0] == 130


def test_the_bundled_model_lives(terminal: Terminal) -> None:
    before = terminal.state()
    terminal.type(mav("--max-new-tokens", "20"))
    terminal.wait_for("demo")
    terminal.wait_for(r"token \d")
    terminal.keys("q")
    status, text = ended(terminal, before)
    assert status == 0
    assert "universally acknowledged" in text


def test_a_script_without_a_guard_may_call_the_old_door(terminal: Terminal, tmp_path: Path) -> None:
    before = terminal.state()
    script = tmp_path / "script.py"
    script.write_text("from openmav.mav import MAV\n\nMAV('toy?endless=1', 'Hi', backend='toy')\nprint('after')\n")
    terminal.type(f"{shlex.join([sys.executable, str(script)])}; echo status=$?=")
    terminal.wait_for("tok/s")
    terminal.keys("q")
    status, text = ended(terminal, before)
    assert status == 0
    assert "after" in text


ENDS = {"exit": "os._exit(3)", "crash": "ctypes.string_at(0)", "kill": "os.kill(os.getpid(), signal.SIGKILL)"}


@pytest.mark.parametrize("how", ENDS)
def test_a_panel_that_ends_the_process_leaves_the_terminal_as_it_was(tmp_path: Path, how: str) -> None:
    (tmp_path / "deadly.py").write_text(
        "import ctypes, os, signal\nTITLE, NEEDS, HELP = 'Deadly', (), 'What it shows: nothing.'\n"
        "def render(view, width, height):\n"
        f"    if len(view.steps) > 1: {ENDS[how]}\n"
        "    os.system('echo NOISE; echo NOISE >&2')\n    print('NOISE')\n    return ['alive']\n"
    )
    with Terminal(width=160, home=tmp_path) as terminal:  # wide enough for the line that names the panel
        before = terminal.state()
        terminal.type(mav("--max-new-tokens", "20", "--refresh-rate", "0.3", "--panel", str(tmp_path / "deadly.py")))
        assert "NOISE" not in terminal.wait_for("alive")
        terminal.wait_for("mav: the (app's process ended .*'Deadly'|panel 'Deadly' ended the program)")
        wait_until(lambda: terminal.state() == before and not terminal.processes(), "the terminal is not as it was")
        terminal.type("echo still $((40 + 2))")
        terminal.wait_for("still 42")


def test_sigquit_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    with Terminal(home=tmp_path) as terminal:
        before = terminal.state()
        terminal.type(mav("--max-new-tokens", "2000"))
        terminal.wait_for("token 3")
        terminal.process("openmav").send_signal(signal.SIGQUIT)
        terminal.wait_for(r"status=131")
        assert terminal.state() == before


def test_the_app_fills_the_terminal_whatever_its_size(tmp_path: Path) -> None:
    with Terminal(150, 40, home=tmp_path) as terminal:
        terminal.type(warm_mav(*ENDLESS))
        terminal.wait_for("toy.*tok/s")
        for width, height in ((150, 40), (100, 30), (200, 50)):
            end = time.monotonic() + 60
            while not shows(terminal, width, height):  # a busy tmux without a client may forget to resize the pane
                assert time.monotonic() < end, terminal.text()
                terminal.resize(width - 1, height)
        terminal.keys("q")


def shows(terminal: Terminal, width: int, height: int) -> bool:
    """Whether the app fills the terminal within seconds after it got this size."""
    terminal.resize(width, height)
    end = time.monotonic() + 10
    while not fills(terminal.text(), width, height):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def fills(text: str, width: int, height: int) -> bool:
    """Whether frames reach the right edge and the keys stand on the last row, and nowhere else."""
    rows = text.split("\n")
    framed = max((len(row.rstrip()) for row in rows if row.rstrip().endswith("╮")), default=0)
    return framed == width and [at for at, row in enumerate(rows) if "quit" in row] == [height - 1]


HOLDS = """
import re
TITLE, NEEDS, HELP = "Greedy", (), "What it shows: nothing."
def render(view, width, height):
    if len(view.steps) > 1:
        re.match("(a+)+$", "a" * 60 + "b")
    return ["alive"]
"""


@pytest.mark.parametrize("key", ["q", "C-c"])
def test_a_panel_that_never_lets_go_can_be_left_and_is_named(tmp_path: Path, key: str) -> None:
    (tmp_path / "greedy.py").write_text(HOLDS)
    with Terminal(home=tmp_path) as terminal:
        before = terminal.state()
        terminal.type(mav(*ENDLESS, "--panel", str(tmp_path / "greedy.py")))
        terminal.wait_for("the panel 'Greedy' holds the program; q or ctrl.c ends mav")
        terminal.keys(key)
        text = terminal.wait_for("mav: the panel 'Greedy' held the program for .* and did not let go")
        terminal.wait_for("status=137=")
        assert "Traceback" not in text
        assert terminal.state() == before
        assert not terminal.processes()


@pytest.mark.parametrize("stop", [signal.SIGTSTP, signal.SIGSTOP])
def test_it_works_after_a_storm_of_stops(tmp_path: Path, stop: signal.Signals) -> None:
    with Terminal(home=tmp_path) as terminal:
        before = terminal.state()
        terminal.type(shlex.join(warm.app(*TOY, "toy?endless=1", "--prompt", "Hi", "--interactive")))
        terminal.wait_for("paused")
        app = terminal.process("warm_app|openmav")
        threads = app.num_threads()
        for _ in range(40):
            app.send_signal(stop)
            app.send_signal(signal.SIGCONT)
        app.send_signal(signal.SIGTSTP)
        screen = ("alternate_on", "cursor_flag", "mouse_any_flag")
        shell = {name: before[name] for name in screen}  # whose word may be gone with the app's screen
        wait_until(lambda: app.status() == psutil.STATUS_STOPPED and shell.items() <= terminal.state().items(), "it does not stop")
        terminal.type("fg")
        terminal.wait_for("paused.*")
        terminal.keys(".")
        terminal.wait_for("token 0")
        assert app.num_threads() <= threads
        terminal.keys("q")
        wait_until(lambda: terminal.state() == before and not terminal.processes(), "the terminal is not as it was")
        terminal.wait_for("1 tokens? ·")
