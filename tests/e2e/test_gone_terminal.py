"""A terminal that goes away takes mav with it, and the model's process too."""

from __future__ import annotations

import os
import select
import subprocess
import time
from pathlib import Path

import pytest

import warm

if os.name == "nt":
    pytest.skip("needs a pseudo terminal", allow_module_level=True)

import fcntl
import pty
import struct
import termios


@pytest.mark.slow
@pytest.mark.parametrize("controlling", [True, False], ids=["a closed window", "no signal comes"])
def test_mav_ends_when_its_terminal_is_gone(controlling: bool, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))

    def own_session() -> None:
        os.setsid()
        if controlling:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    environment = {**os.environ, "TERM": "xterm-256color", "XDG_STATE_HOME": str(tmp_path)}
    command = warm.app("--backend", "toy", "--model", "toy?endless=1", "--prompt", "Hi", "--max-new-tokens", "900")
    app = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=own_session, env=environment)
    os.close(theirs)
    end = time.monotonic() + 60
    seen = b""
    while b"tok/s" not in seen and time.monotonic() < end:
        if select.select([ours], [], [], 0.1)[0]:
            seen += os.read(ours, 65536)
    os.close(ours)
    try:
        assert app.wait(60) == 129
    finally:
        app.kill()
