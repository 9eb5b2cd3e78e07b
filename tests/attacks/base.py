"""One attack: files in a folder of its own, a command line, and the verdict on what the command did.

The command runs in a process of its own. Where the system can fork, that process starts with the libraries of the model imported, so that
an attack costs the command's own time and no more.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import warm

SECONDS = 10.0  # of a processor, after the imports: what else the machine does hardly changes them
HANGS = 100.0  # seconds of the clock after which it would never end
MEMORY = 2_000_000_000  # bytes that a process may hold beyond what its imports take
POWER = tuple("\x1b\x07\x08\x9b\x9d\u202e\u2066\x7f")  # characters that no terminal may get from somebody else's text

Verdict: TypeAlias = Literal["right", "one line"]
Make: TypeAlias = Callable[[Path], Any]  # writes the files of an attack into an empty folder


@dataclass(frozen=True)
class Attack:
    """`args` and the values of `env` may name the folder as {folder}. `may` are the verdicts that are good."""

    name: str
    args: Sequence[str]
    make: Make = lambda folder: None
    env: Mapping[str, str | None] = field(default_factory=dict)  # None: taken out of the environment
    stdin: bytes = b""
    may: tuple[Verdict, ...] = ("right", "one line")
    stdout: str | None = None  # a file in the place of stdout


@dataclass(frozen=True)
class Result:
    """What the command did. `why` says what is wrong; "" where nothing is."""

    attack: Attack
    code: int
    out: str
    err: str
    seconds: float
    memory: int

    @property
    def verdict(self) -> str:
        return "right" if self.code == 0 else "one line" if self.code == 2 else f"exit {self.code}"

    @property
    def why(self) -> str:
        lines = self.err.splitlines()
        if self.seconds > SECONDS:
            return f"ran for {self.seconds:.0f} s"
        if self.code < 0:
            return f"died of {signal.Signals(-self.code).name}"
        if "Traceback" in self.err or "Traceback" in self.out:
            return "a traceback"
        if "internal error" in self.err:
            return next(line for line in lines if "internal error" in line)
        if any(char in self.err for char in POWER):
            return "an escape on stderr"
        if self.verdict not in self.attack.may:
            return f"{self.verdict}, not {' or '.join(self.attack.may)}"
        if self.code == 2 and not (lines and lines[-1].startswith("mav: ")):
            return "no line that begins with mav:"
        if self.code == 2 and sum(not line.startswith("mav: note: ") for line in lines) != 1:
            return f"{len(lines)} lines"
        if self.memory > MEMORY:
            return f"held {self.memory / 1e9:.1f} GB"
        return ""


def warm_up() -> None:
    """The command starts at once from here on."""
    if warm.FORKS:
        warm.run("--version")


def run(attack: Attack, folder: Path) -> Result:
    """Make the attack's files in the empty `folder`, run the command there, and look at the end."""
    attack.make(folder)
    args = [arg.replace("{folder}", str(folder)) for arg in attack.args]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "MAV_CONFIG": os.devnull, "XDG_STATE_HOME": str(folder / ".state"), "OMP_NUM_THREADS": "1"}
    for name, value in attack.env.items():
        env.pop(name, None)
        if value is not None:
            env[name] = value.replace("{folder}", str(folder))
    return (_warm if warm.FORKS else _spawned)(attack, args, env, folder)


def _spawned(attack: Attack, args: Sequence[str], env: dict[str, str], folder: Path) -> Result:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "openmav", *args],
            input=attack.stdin,
            capture_output=True,
            env=env,
            cwd=folder,
            timeout=HANGS,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        return Result(attack, -9, "", str(late.stderr), float("inf"), 0)
    out, err = (data.decode("utf-8", "replace") for data in (done.stdout, done.stderr))
    return Result(attack, done.returncode, out, err, 0.0, 0)


def _warm(attack: Attack, args: Sequence[str], env: dict[str, str], folder: Path) -> Result:
    out, err, given = os.pipe(), os.pipe(), os.pipe()
    stdout = os.open(attack.stdout, os.O_WRONLY) if attack.stdout else os.dup(out[1])
    process = warm.start(args, (given[0], stdout, err[1]), env=env, cwd=folder)
    for end in (out[1], err[1], given[0], stdout):
        os.close(end)
    with contextlib.suppress(BrokenPipeError):  # it may have ended without reading
        os.write(given[1], attack.stdin[:60_000])
    os.close(given[1])
    said, late = _read({out[0]: b"", err[0]: b""}, time.monotonic() + HANGS)
    if late:
        process.kill()
    code = -signal.SIGKILL if late else process.wait()
    seconds = float("inf") if late else process.computed
    texts = [said[end].decode("utf-8", "replace") for end in (out[0], err[0])]
    return Result(attack, code, *texts, seconds, process.memory)


def _read(said: dict[int, bytes], end: float) -> tuple[dict[int, bytes], bool]:
    """Everything from these descriptors until they are closed; whether that took longer than until `end`."""
    waiting = list(said)
    while waiting:
        ready, _, _ = select.select(waiting, [], [], max(0.0, end - time.monotonic()))
        if not ready:
            break
        for one in ready:
            data = os.read(one, 65536)
            said[one] = (said[one] + data)[-2_000_000:]
            if not data:
                waiting.remove(one)
    for one in said:
        os.close(one)
    return said, bool(waiting)
