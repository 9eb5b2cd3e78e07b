"""llama.cpp's RPC workers: processes on this machine or others that keep a model's layers and compute them, for whoever connects.

Where a worker can't be reached, is of another version or dies, llama.cpp ends the whole process. So a process of its own greets the workers
first, and what llama.cpp says before it ends this one becomes the last line.
"""

from __future__ import annotations

import ctypes
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from openmav.backends.base import LoadOptions
from openmav.backends.llamacpp.native import CPU_DEVICE, Native, load
from openmav.backends.shared.child import child_environment
from openmav.errors import LoadError, words_of
from openmav.system import last_words

BUILD = 'CMAKE_ARGS="-DGGML_RPC=ON" pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python llama-cpp-python'
CONNECT, GREET = 5.0, 20.0  # seconds: for a connection to each, and until all have answered
NAME = b"RPC"  # of ggml's backend
HOME = rb"^(token_embd|output|output_norm)\."  # weights that stay here: the end of the graph is computed here for other streams, too
_kept: list[Any] = []  # callbacks and structs that the library has, for ever


class _Override(ctypes.Structure):
    """llama_model_tensor_buft_override."""

    _fields_ = (("pattern", ctypes.c_char_p), ("kind", ctypes.c_void_p))


class Workers:
    """What a model's parameters say of these workers, all of them greeted. Raises LoadError."""

    def __init__(self, native: Native, names: Sequence[str]) -> None:
        self.names = tuple(names)
        _need_support(native)
        _reach(names)
        _greet(names)
        _say_why(native, names)
        devices = [device for name in names for device in _devices(native, name)]
        if len(devices) > native.llama.llama_max_devices():
            raise LoadError(f"the workers of --rpc have {len(devices)} devices; llama.cpp takes {native.llama.llama_max_devices()} at most")
        self._devices = (ctypes.c_void_p * (len(devices) + 1))(*devices, None)
        ggml = native.ggml
        cpu = ggml.ggml_backend_dev_buffer_type(ggml.ggml_backend_dev_by_type(CPU_DEVICE))
        self._overrides = (_Override * 2)(_Override(HOME, cpu), _Override(None, None))

    def into(self, params: Any) -> None:
        """Names them in a model's parameters, which must not outlive this object."""
        params.devices = ctypes.cast(self._devices, ctypes.c_void_p)
        params.tensor_buft_overrides = ctypes.cast(self._overrides, ctypes.c_void_p)


def workers_of(native: Native, options: LoadOptions) -> Workers | None:
    """None where none is asked for. Raises LoadError."""
    if not options.rpc:
        return None
    if options.device == "cpu" or options.gpu_layers == 0:
        raise LoadError("--rpc gives layers to workers, and --device cpu and --gpu-layers 0 keep them here; leave one of the two out")
    return Workers(native, options.rpc)


def _need_support(native: Native) -> None:
    if not native.llama.llama_supports_rpc() or not native.ggml.ggml_backend_reg_by_name(NAME):
        raise LoadError(f"this llama-cpp-python was built without RPC; to build one with it: {BUILD}")


def _reach(names: Sequence[str]) -> None:
    """Raises LoadError for one that can't be reached, or has two names: it serves one connection, and the second would wait for ever."""
    seen: dict[tuple[str, str], str] = {}
    for name in names:
        host, _, port = name.partition(":")
        try:
            address = socket.gethostbyname(host)
            socket.create_connection((address, int(port)), timeout=CONNECT).close()
        except OSError as error:
            why = "no answer" if isinstance(error, TimeoutError) else error.strerror or words_of(error)
            raise LoadError(
                f"the worker {name} of --rpc can't be reached ({why}); start it there: rpc-server -H ADDRESS -p {port}"
            ) from error
        other = seen.setdefault((address, port), name)
        if other != name:
            raise LoadError(f"{other} and {name} of --rpc are the same worker; name it once")


def _greet(names: Sequence[str]) -> None:
    command = [sys.executable, "-c", f"from {__name__} import _main; _main()", *names]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GREET,
            env=child_environment(),
            check=False,
        )
        code, answered, said = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        code, answered, said = None, late.stdout or b"", b""
    except OSError as error:
        raise LoadError(f"the workers of --rpc can't be tried ({words_of(error)})") from error
    if code == 0:
        return
    quiet = names[min(len(answered.split()), len(names) - 1)]
    if code is None:
        raise LoadError(f"{quiet} of --rpc does not answer: it is no RPC worker, or serves somebody else, since it serves one at a time")
    why = words_of(RuntimeError(said.decode("utf-8", "replace").removeprefix("mav: "))) or f"exit code {code}"
    raise LoadError(f"{quiet} of --rpc is no RPC worker of this llama.cpp's version ({why}); build both from the same sources")


def _main() -> None:
    """In that process: greets each worker, and writes a line to stdout for each that answers."""
    native = load()
    _on_abort(native, lambda text: last_words.leave(f"{native.said[-1]}; {text}" if native.said else text))
    for name in sys.argv[1:]:
        _devices(native, name)
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()


def _devices(native: Native, name: str) -> list[int]:
    """The worker's devices. They are not registered, so that a later model without workers does not take them."""
    ggml = native.ggml
    address = ggml.ggml_backend_reg_get_proc_address(ggml.ggml_backend_reg_by_name(NAME), b"ggml_backend_rpc_add_server")
    if not address:
        raise LoadError(f"this llama-cpp-python's RPC is not as mav expects: it adds no worker; to build another: {BUILD}")
    worker = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)(address)(name.encode())
    if not worker:
        raise LoadError(f"the worker {name} of --rpc has no device")
    return [ggml.ggml_backend_reg_dev_get(worker, at) for at in range(ggml.ggml_backend_reg_dev_count(worker))]


def _say_why(native: Native, names: Sequence[str]) -> None:
    """From now on a worker that is lost ends this process with a line that says so."""

    def ended(text: str) -> None:
        if "RPC" not in text and "Failed to connect" not in text:
            last_words.leave(f"llama.cpp ended the model's process: {text}")
        last_words.leave(f"{_lost(names)}; start it again, and then the run")

    _on_abort(native, ended)


def _lost(names: Sequence[str]) -> str:
    """Which workers are gone: a live one accepts a connection."""
    gone = []
    for name in names:
        host, _, port = name.partition(":")
        try:
            socket.create_connection((host, int(port)), timeout=1.0).close()
        except OSError:
            gone.append(name)
    if len(gone) == 1:
        return f"the worker {gone[0]} of --rpc is gone"
    return f"{'workers' if gone else 'one of the workers'} of --rpc ({', '.join(gone or names)}) {'are' if gone else 'is'} gone or fails"


def _on_abort(native: Native, call: Any) -> None:
    def ended(text: bytes | None) -> None:
        call(words_of(RuntimeError((text or b"").decode("utf-8", "replace").rpartition("/")[2])))

    callback = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(ended)
    _kept.append(callback)
    native.ggml.ggml_set_abort_callback(ctypes.cast(callback, ctypes.c_void_p))
