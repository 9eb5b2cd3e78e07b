"""20,000 keys, pastes and mouse events while the model is busy: mav stays small, and q still ends it at once."""

from __future__ import annotations

import contextlib
import os
import random
import select
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

if os.name == "nt":
    pytest.skip("needs a pseudo terminal", allow_module_level=True)

import fcntl
import pty
import struct
import termios

COMMAND = ["--backend", "toy", "--model", "toy?endless=1&slow=1", "--prompt", "Hi", "--max-new-tokens", "900"]
KEYS = [b".", b" ", b"\x1b[A", b"\x1b[B", b"\x1b[C", b"\x1b[D", b"\t", b"+", b"-"]
PASTE = b"\x1b[200~" + b"pasted text \xe6\x96\x87\xe5\xad\x97\r\n" * 20 + b"\x1b[201~"
EVENTS = 20_000
GROWTH = 30e6  # bytes over the last five sixths of the events: 1.8 kB kept of each; up to 20e6 were measured, and no more of 60,000


class App:
    """mav in a terminal of its own; what it draws is read and dropped."""

    def __init__(self, home: Path) -> None:
        self.terminal, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        env = {**os.environ, "TERM": "xterm-256color", "XDG_STATE_HOME": str(home), "MAV_CONFIG": os.devnull}
        ends = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        self.process = subprocess.Popen([sys.executable, "-m", "openmav", *COMMAND], **ends, start_new_session=True, env=env)
        os.close(theirs)
        os.set_blocking(self.terminal, False)

    def read(self, seconds: float = 0.0) -> bytes:
        if not select.select([self.terminal], [], [], seconds)[0]:
            return b""
        try:
            return os.read(self.terminal, 2**20)
        except OSError:  # the app has closed its end
            return b""

    def write(self, data: bytes, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while data:
            assert time.monotonic() < end, "the app takes no more input"
            if select.select([], [self.terminal], [], 0.02)[1]:
                data = data[os.write(self.terminal, data[:512]) :]
            self.read()

    def memory(self) -> int:
        """Bytes of the app's process."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def computed(self) -> float:
        """Seconds of processor time that the app's process has taken, which hardly depend on what else the machine does."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)


def event(chance: random.Random) -> bytes:
    kind = chance.random()
    if kind < 0.02:
        return PASTE
    if kind < 0.4:  # moves and the wheel
        return b"\x1b[<%d;%d;%dM" % (chance.choice((35, 64, 65)), chance.randrange(1, 100), chance.randrange(2, 29))
    return chance.choice(KEYS)


@pytest.mark.slow
def test_q_ends_it_at_once_amid_a_storm_of_input_and_nothing_piles_up(tmp_path: Path) -> None:
    app = App(tmp_path)
    try:
        seen, end = b"", time.monotonic() + 90
        while b"tok/s" not in seen:
            assert time.monotonic() < end, seen[-2000:]
            seen += app.read(0.1)
        start, chance, sizes = app.computed(), random.Random(0), []
        for number in range(EVENTS):
            app.write(event(chance))
            if number % (EVENTS // 6) == 0:
                sizes.append(app.memory())
        assert max(sizes) - sizes[1] < GROWTH, sizes
        pressed, before = time.monotonic(), app.computed()
        app.write(b"q")
        spent = 0.0
        while app.process.poll() is None and time.monotonic() < pressed + 90:
            with contextlib.suppress(psutil.Error):  # it has just ended
                spent = app.computed() - before
            app.read(0.02)
        assert app.process.poll() == 0
        assert spent < max(start, 1.0), "it ends within a second of work, or, on a slow machine, with less than it did to start"
    finally:
        app.process.kill()
        app.process.wait()
        os.close(app.terminal)
