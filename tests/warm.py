"""`mav` as a process that starts at once: forked from one that has imported the model's libraries.

Most of what a short run of the command costs is these imports, some three seconds of a processor. Tests of what the command does start it
here; tests of how a process starts, ends or is signalled start the real one. Where the system can't fork, `run` starts the real one too.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib.util
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FORKS = hasattr(os, "fork") and hasattr(socket, "send_fds") and sys.platform != "darwin"
TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "src" / "openmav"
PRELOADED = (
    "openmav.cli.main",
    "openmav.cli.parser",
    "openmav.cli.run",
    "openmav.cli.stream",
    "openmav.cli.sweep",
    "openmav.cli.attribute",
    "openmav.generation.opening",
    "openmav.generation.sampler",
    "openmav.backends.toy",
    "openmav.backends.transformers.backend",
    "openmav.backends.transformers.discovery.search",
    "openmav.recording.sqlite_writer",
    "openmav.apps.text.plain",
    *sorted(f"openmav.measures.{file.stem}" for file in (PACKAGE / "measures").glob("[!_]*.py")),
    "platformdirs",
    "transformers.utils.chat_template_utils",
    "jinja2.sandbox",
    "warm_templates",
    *(("openmav.backends.llamacpp.backend", "llama_cpp") if importlib.util.find_spec("llama_cpp") else ()),
)
FRAME = struct.Struct("!I")


def run(
    *args: str, input: str | None = None, env: Mapping[str, str] | None = None, cwd: str | os.PathLike[str] | None = None, wait: float = 120
) -> subprocess.CompletedProcess[str]:
    """`mav ARGS` to its end, what it wrote as text. Raises TimeoutExpired."""
    if not FORKS:
        command = [sys.executable, "-m", "openmav", *args]
        return subprocess.run(
            command, input=input, env=env, cwd=cwd, capture_output=True, text=True, encoding="utf-8", timeout=wait, check=False
        )
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write((input or "").encode())
        given.seek(0)
        process = start(args, (given.fileno(), out.fileno(), err.fileno()), env=env, cwd=cwd)
        code = process.wait(wait)
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(["mav", *args], code, out.read().decode(), err.read().decode())


def start(
    args: Sequence[str],
    streams: tuple[int, int, int],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    terminal: bool = False,
) -> Started:
    """Starts `mav ARGS` with these descriptors as its stdin, stdout and stderr; `terminal`: they are its controlling terminal."""
    what = {"args": list(args), "env": dict(os.environ if env is None else env), "cwd": str(cwd or os.getcwd()), "terminal": terminal}
    return Started(_server().ask(what, streams)["pid"])


class Started:
    """A process that `start` made."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.computed = 0.0  # seconds of processor time, of its children too, once it has ended
        self.memory = 0  # bytes that it held at most beyond the imports, once it has ended

    def wait(self, seconds: float = 120) -> int:
        """Its exit code, below 0 for a signal. Raises TimeoutExpired, after which it is gone."""
        end = _server().ask({"wait": self.pid, "seconds": seconds})
        if end["code"] is None:
            self.kill()
            raise subprocess.TimeoutExpired("mav", seconds)
        self.memory, self.computed = int(end["memory"]), float(end["computed"])
        return int(end["code"])

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        _server().ask({"wait": self.pid, "seconds": 10.0})


def app(*args: str) -> list[str]:
    """The command line of `mav ARGS` as a process that starts as a user's does, but whose engine is forked from one that has imported."""
    if not FORKS:
        return [sys.executable, "-m", "openmav", *args]
    quiet = ("-W", "ignore:resource_tracker:UserWarning")  # as the engine's client does for the tracker that it starts
    return [sys.executable, *quiet, str(TESTS / "warm_app.py"), _server().ask({"engines": True})["address"], *args]


def engines() -> list[int]:
    """The processes of the engines that run, of whichever app."""
    import psutil

    return [one.pid for one in psutil.Process(_server().ask({"engines": True})["pid"]).children()] if FORKS else []


# ---- the process that forks --------------------------------------------------------------------------------------------------


class Server:
    """The connection to it."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(TESTS)!r}); import warm; warm.serve({theirs.fileno()})"]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}  # read at the import: what a fork is given later comes too late
        self._process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, start_new_session=True, env=env)
        theirs.close()
        atexit.register(self._process.kill)

    def ask(self, what: Mapping[str, Any], streams: Sequence[int] = ()) -> dict[str, Any]:
        body = json.dumps(what).encode()
        socket.send_fds(self._ours, [FRAME.pack(len(body))], list(streams))
        self._ours.sendall(body)
        return _answer(self._ours)


@functools.cache
def _server() -> Server:
    return Server()


def _answer(connection: socket.socket) -> dict[str, Any]:
    size = FRAME.unpack(_exactly(connection, FRAME.size))[0]
    return json.loads(_exactly(connection, size))


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def serve(descriptor: int) -> None:
    """In that process: imports, then forks as it is asked until its maker is gone."""
    from multiprocessing import forkserver, resource_tracker

    connection = socket.socket(fileno=descriptor)
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # what is imported stays: no child looks through it for what it may free
    forkserver.util.spawnv_passfds = _fork_in_place  # type: ignore[attr-defined]
    forkserver.ensure_running()  # engines come from it: they start at once as well
    resource_tracker.ensure_running()
    while True:
        try:
            head, streams, _, _ = socket.recv_fds(connection, FRAME.size, 3)
            what = json.loads(_exactly(connection, FRAME.unpack(head)[0]))
        except (EOFError, struct.error):
            return
        if "wait" in what:
            answer = _end_of(what["wait"], what["seconds"])
        elif "engines" in what:
            running = forkserver._forkserver
            answer = {"pid": running._forkserver_pid, "address": running._forkserver_address}  # type: ignore[attr-defined]
        else:
            pid = os.fork()
            if pid == 0:
                connection.close()
                _be_the_command(what["args"], what["env"], what["cwd"], streams, what["terminal"])
            for one in streams:
                os.close(one)
            answer = {"pid": pid}
        body = json.dumps(answer).encode()
        connection.sendall(FRAME.pack(len(body)) + body)


def _fork_in_place(_path: str, args: Sequence[str], kept: Sequence[int]) -> int:
    """Starts the forkserver as a fork of this process, which has imported what it would import anew."""
    pid = os.fork()
    if pid == 0:
        first = 3
        for one in (*sorted(kept), 4096):
            os.closerange(first, one)
            first = one + 1
        try:
            exec(args[-1])
        finally:
            os._exit(0)
    return pid


def take_engines(address: str | None = None) -> None:
    """From now on this process forks its engines from the forkserver at this address, or from the one that it has inherited."""
    import multiprocessing
    from multiprocessing import forkserver, resource_tracker

    if address is not None:
        forkserver._forkserver._forkserver_address = address  # type: ignore[attr-defined]
        forkserver._forkserver._forkserver_alive_fd = os.pipe()[1]  # type: ignore[attr-defined]
        resource_tracker.ensure_running()
    forkserver._forkserver.ensure_running = lambda: None  # type: ignore[attr-defined]  # it runs, but is no child of this process
    context = multiprocessing.get_context("forkserver")
    multiprocessing.get_context = lambda method=None: context  # type: ignore[assignment,misc]


def _end_of(pid: int, seconds: float) -> dict[str, Any]:
    import resource

    before, end = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic() + seconds
    while True:
        try:
            ended, status, usage = os.wait4(pid, os.WNOHANG)
        except ChildProcessError:
            return {"code": -signal.SIGKILL, "memory": 0, "computed": 0.0}  # waited for before
        if ended:
            code, memory = os.waitstatus_to_exitcode(status), 1024 * max(0, usage.ru_maxrss - before)
            return {"code": code, "memory": memory, "computed": usage.ru_utime + usage.ru_stime}
        if time.monotonic() > end:
            return {"code": None}
        time.sleep(0.005)


def _be_the_command(args: Sequence[str], env: Mapping[str, str], folder: str, streams: Sequence[int], terminal: bool) -> None:
    """In the child: its descriptors, its environment, its engines, then the command; never returns."""
    code = 70
    try:
        os.setsid()
        if terminal:
            import fcntl
            import termios

            fcntl.ioctl(streams[0], termios.TIOCSCTTY, 0)
        for number, one in enumerate(streams):
            os.dup2(one, number)
            os.close(one)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(env)
        sys.argv = ["mav", *args]
        sys.stdin = sys.__stdin__ = open(0, encoding="utf-8")  # type: ignore[misc]  # noqa: SIM115
        sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8")  # type: ignore[misc]  # noqa: SIM115
        sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace")  # type: ignore[misc]  # noqa: SIM115
        take_engines()
        import warm_templates
        from openmav.cli.main import main

        warm_templates.install()
        try:
            code = main()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)
