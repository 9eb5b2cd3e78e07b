"""llama.cpp's libraries, through llama-cpp-python: its structs and prototypes, and the few functions of ggml that it does not declare.

ggml's tensor struct is the one layout that llama-cpp-python does not have; `check_layout` compares it with ggml's own getters.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import logging
import os
import sys
from collections import deque
from functools import cache
from typing import Any

from openmav.backends.base import LoadOptions
from openmav.errors import LoadError, words_of

DIMS, SOURCES, PARAMS, NAME = 4, 10, 64, 64
F32, F16, I32 = 0, 1, 26
OPS = 64  # the names of so many operations can be asked for without harm
CPU_DEVICE, GPU_DEVICES = 0, (1, 2)  # of ggml_backend_dev_type
TESTED = ("0.3.30", "0.3.36")  # the oldest version of llama-cpp-python that may work, and the newest that was tested
INSTALL = "pip install 'openmav[llamacpp]', or add --backend transformers"
_log = logging.getLogger(__name__)
_LEVELS = {3: logging.INFO, 4: logging.INFO}  # else DEBUG; no higher, so that nothing of it is on the screen of who has set up no log


class LayoutError(Exception):
    """llama.cpp's structs are not as mav knows them; the text says which."""


class Tensor(ctypes.Structure):
    """ggml_tensor."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * DIMS),
        ("nb", ctypes.c_size_t * DIMS),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * (PARAMS // 4)),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * SOURCES),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * NAME),
        ("extra", ctypes.c_void_p),
    )


class _InitParams(ctypes.Structure):
    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


_P, _I64, _SIZE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {  # of ggml: what it returns, and its arguments
    "ggml_init": (_P, (_InitParams,)),
    "ggml_free": (None, (_P,)),
    "ggml_new_tensor_4d": (_P, (_P, ctypes.c_int, _I64, _I64, _I64, _I64)),
    "ggml_add": (_P, (_P, _P, _P)),
    "ggml_get_rows": (_P, (_P, _P, _P)),
    "ggml_view_1d": (_P, (_P, _P, _I64, _SIZE)),
    "ggml_set_name": (_P, (_P, ctypes.c_char_p)),
    "ggml_get_name": (ctypes.c_char_p, (_P,)),
    "ggml_get_data": (_P, (_P,)),
    "ggml_nbytes": (_SIZE, (_P,)),
    "ggml_op_name": (ctypes.c_char_p, (ctypes.c_int,)),
    "ggml_unary_op_name": (ctypes.c_char_p, (ctypes.c_int,)),
    "ggml_type_name": (ctypes.c_char_p, (ctypes.c_int,)),
    "ggml_tensor_overhead": (_SIZE, ()),
    "ggml_graph_overhead_custom": (_SIZE, (_SIZE, ctypes.c_bool)),
    "ggml_new_graph_custom": (_P, (_P, _SIZE, ctypes.c_bool)),
    "ggml_build_forward_expand": (None, (_P, _P)),
    "ggml_backend_init_by_type": (_P, (ctypes.c_int, ctypes.c_char_p)),
    "ggml_backend_free": (None, (_P,)),
    "ggml_backend_get_device": (_P, (_P,)),
    "ggml_backend_dev_backend_reg": (_P, (_P,)),
    "ggml_backend_reg_get_proc_address": (_P, (_P, ctypes.c_char_p)),
    "ggml_backend_buffer_get_type": (_P, (_P,)),
    "ggml_backend_buft_get_device": (_P, (_P,)),
    "ggml_backend_dev_type": (ctypes.c_int, (_P,)),
    "ggml_backend_dev_by_type": (_P, (ctypes.c_int,)),
    "ggml_backend_dev_buffer_type": (_P, (_P,)),
    "ggml_backend_reg_by_name": (_P, (ctypes.c_char_p,)),
    "ggml_backend_reg_dev_count": (_SIZE, (_P,)),
    "ggml_backend_reg_dev_get": (_P, (_P, _SIZE)),
    "ggml_set_abort_callback": (_P, (_P,)),
    "ggml_backend_buft_name": (ctypes.c_char_p, (_P,)),
    "ggml_backend_alloc_ctx_tensors_from_buft": (_P, (_P, _P)),
    "ggml_backend_get_default_buffer_type": (_P, (_P,)),
    "ggml_backend_buffer_is_host": (ctypes.c_bool, (_P,)),
    "ggml_backend_tensor_get": (None, (_P, _P, _SIZE, _SIZE)),
    "ggml_backend_tensor_set": (None, (_P, _P, _SIZE, _SIZE)),
    "ggml_backend_graph_compute": (ctypes.c_int, (_P, _P)),
    "ggml_backend_sched_get_n_backends": (ctypes.c_int, (_P,)),
    "ggml_backend_sched_get_backend": (_P, (_P, ctypes.c_int)),
    "ggml_backend_sched_set_eval_callback": (None, (_P, _P, _P)),
    "ggml_gallocr_new": (_P, (_P,)),
    "ggml_gallocr_free": (None, (_P,)),
    "ggml_gallocr_alloc_graph": (ctypes.c_bool, (_P, _P)),
}


SCHEDULER = "_ZNK13llama_context9get_schedEv"  # llama_context::get_sched() const, where the compiler names it so
MOST_BACKENDS = 16


class Native:
    """Both libraries: `llama` is llama-cpp-python's module, `ggml` has the functions above. `said` are the last lines of their log."""

    def __init__(self, llama: Any, ggml: Any, version: str) -> None:
        self.llama = llama
        self.ggml = ggml
        self.version = version
        self.said: deque[str] = deque(maxlen=20)
        self._callback = llama.llama_log_callback(self._keep)  # as long as the library may call it: for ever
        llama.llama_log_set(self._callback, None)
        llama.llama_backend_init()
        self.op_names: dict[int, str] = {}

    def op_name(self, op: int) -> str:
        if op not in self.op_names:
            self.op_names[op] = self.ggml.ggml_op_name(op).decode()
        return self.op_names[op]

    def type_name(self, kind: int) -> str:
        name: str = self.ggml.ggml_type_name(kind).decode()
        return name

    def has_accelerator(self) -> bool:
        """Whether it has one here; a build with RPC says so of any machine, since a worker may have one."""
        llama = self.llama
        if not llama.llama_supports_rpc():
            return bool(llama.llama_supports_gpu_offload())
        return any(self.ggml.ggml_backend_dev_by_type(kind) for kind in GPU_DEVICES)

    def scheduler(self, context: Any) -> int | None:
        """The address of a context's scheduler, which asks at each node; None where llama.cpp's library does not give it.

        C++'s name says all that the getter takes; what it gives is believed where its last backend is the CPU, as always.
        """
        getter = getattr(self.llama._lib, SCHEDULER, None)
        if getter is None:
            return None
        getter.restype, getter.argtypes = _P, (_P,)
        address: int | None = getter(context)
        count = self.ggml.ggml_backend_sched_get_n_backends(address) if address else 0
        if not 1 <= count <= MOST_BACKENDS:
            return None
        device = self.ggml.ggml_backend_get_device(self.ggml.ggml_backend_sched_get_backend(address, count - 1))
        return address if device and self.ggml.ggml_backend_dev_type(device) == CPU_DEVICE else None

    def _keep(self, level: int, text: bytes | None, _data: object) -> None:
        try:
            line = (text or b"").decode("utf-8", "replace").strip()
            if line:
                if level in (3, 4):
                    self.said.append(line)
                _log.log(_LEVELS.get(level, logging.DEBUG), "%s", line)
        except Exception:  # it must not pass through the library
            return

    def why(self) -> str:
        """The last thing that the library complained of, one line."""
        return words_of(RuntimeError(self.said[-1])) if self.said else "llama.cpp gives no reason"


class _Ggml:
    """The functions of _FUNCTIONS, from whichever of ggml's libraries has them."""

    def __init__(self, extension: Any, folder: Any) -> None:
        libraries = []
        for name in ("ggml", "ggml-base"):
            try:
                libraries.append(extension.load_shared_library(name, folder))
            except FileNotFoundError:
                continue
        for name, (result, arguments) in _FUNCTIONS.items():
            function = next((getattr(library, name) for library in libraries if hasattr(library, name)), None)
            if function is None:
                raise AttributeError(f"ggml has no {name}")
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)


@cache
def load() -> Native:
    """llama.cpp, checked. Raises LoadError where it is not installed, or not as this version of mav knows it."""
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # else a process that it aborts waits for a debugger to print its stack
    try:
        llama, base = _modules()
    except ImportError as error:
        raise LoadError(f"llama-cpp-python can't be imported ({words_of(error, kind=True)}); {INSTALL}") from error
    except (OSError, RuntimeError) as error:
        raise LoadError(f"llama-cpp-python can't be loaded ({words_of(error, kind=True)}); {INSTALL}") from error
    try:
        version = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    try:
        ggml = _Ggml(base.ctypes_ext, base.libggml_base_path)
        native = Native(llama, ggml, version)
        check_layout(native)
    except (AttributeError, LayoutError, TypeError) as error:
        raise LoadError(unknown(version, words_of(error))) from error
    return native


def _modules() -> tuple[Any, Any]:
    """Its modules of llama.cpp's and of ggml's functions, without what its package imports around them: a quarter of a start.

    Whoever imports the package afterwards gets all of it. Raises LoadError where it is not installed, and what importing raises.
    """
    whole = "llama_cpp" in sys.modules
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None:
        raise LoadError(f"the backend llamacpp needs llama-cpp-python: {INSTALL}")
    if not whole:
        sys.modules["llama_cpp"] = importlib.util.module_from_spec(spec)
    try:
        return importlib.import_module("llama_cpp.llama_cpp"), importlib.import_module("llama_cpp._ggml")
    finally:
        if not whole:
            del sys.modules["llama_cpp"]


def gpu_layers(native: Native, options: LoadOptions) -> int:
    """How many layers go to an accelerator; -1: all that it has room for. Raises LoadError for what this build can't do."""
    device, layers = options.device, options.gpu_layers
    if device not in ("auto", "cpu"):
        raise LoadError(f"llama.cpp runs on the accelerator that it was built for; leave out --device {device}, or say --gpu-layers")
    if layers and device == "cpu":
        raise LoadError("--device cpu and --gpu-layers exclude each other; leave one out")
    if options.rpc:
        return -1 if layers is None else layers
    if layers and not native.has_accelerator():
        raise LoadError("this llama-cpp-python was built without an accelerator; leave out --gpu-layers, or build it anew for one")
    return 0 if device == "cpu" else -1 if layers is None else layers


def unknown(version: str, why: str) -> str:
    """What to do where llama.cpp is not as mav knows it."""
    return f"llama-cpp-python {version} is not as mav expects ({why}); install {TESTED[1]}, or add --backend transformers"


def check_layout(native: Native) -> None:
    """Compare the struct with what ggml's own functions make and return. Raises LayoutError that names what differs."""
    ggml = native.ggml
    context = ggml.ggml_init(_InitParams(1 << 20, None, False))
    try:
        first, second = (ggml.ggml_new_tensor_4d(context, F32, 2, 3, 4, 5) for _ in range(2))
        ggml.ggml_set_name(first, b"first")
        added, view = ggml.ggml_add(context, first, second), ggml.ggml_view_1d(context, first, 2, 8)
        a, b, c = (Tensor.from_address(address) for address in (first, added, view))
        facts = {
            "type": a.type == F32,
            "ne": tuple(a.ne) == (2, 3, 4, 5),
            "nb": tuple(a.nb) == (4, 8, 24, 96),
            "name": a.name == ggml.ggml_get_name(first) == b"first",
            "data": a.data == ggml.ggml_get_data(first) != 0,
            "op": all(0 <= t.op < OPS for t in (a, b, c)) and [native.op_name(t.op) for t in (a, b, c)] == ["NONE", "ADD", "VIEW"],
            "src": (b.src[0], b.src[1], b.src[2]) == (first, second, None),
            "view_src": c.view_src == first and c.view_offs == 8 and not a.view_src,
            "size": ctypes.sizeof(Tensor) <= ggml.ggml_tensor_overhead() and ggml.ggml_nbytes(first) == 480,
        }
        wrong = [name for name, right in facts.items() if not right]
        if wrong:
            raise LayoutError(f"its tensors have another layout: {', '.join(wrong)}")
    finally:
        ggml.ggml_free(context)


def arena(native: Native, size: int) -> Any:
    """A context of ggml for `size` bytes of tensors and graphs without their data; to be freed with ggml_free."""
    return native.ggml.ggml_init(_InitParams(size, None, True))
