"""Whether llama.cpp's AMX kernels work here: where its compiler dropped the sizes of their tiles (GCC 12.2 does), they end the process.

So a process of its own tries them, on processors that have AMX and with files whose weights they would multiply by.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from functools import cache
from typing import Any

import numpy as np

from openmav.backends.llamacpp.native import Native, arena, load
from openmav.backends.llamacpp.tail import Cpu, Weight
from openmav.backends.loading.gguf_metadata import GgufHeader
from openmav.backends.shared.child import child_environment

KINDS = frozenset({2, 3, 8, 12, 13, 14, 23})  # of weights that have such a kernel: Q4_0, Q4_1, Q8_0, Q4_K, Q5_K, Q6_K, IQ4_XS
Q8_0, BLOCK, LARGEST = 8, 32, 127
ROWS, COLUMNS, TOKENS = 64, 256, 20
WAIT = 60.0  # seconds, enough for a busy machine
NOTE = "llama.cpp's AMX kernels crash on this machine, as some compilers make them: it runs at some half of their speed (docs/llamacpp.md)"


def crashes(native: Native, header: GgufHeader) -> bool:
    """Whether llama.cpp would use AMX for this file, and can't."""
    used = any(tensor.kind in KINDS for tensor in header.tensors.values())
    return used and b"AMX_INT8 = 1" in native.llama.llama_print_system_info() and not _works()


@cache
def _works() -> bool:
    command = [sys.executable, "-c", f"from {__name__} import _main; _main()"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=WAIT, env=child_environment(), check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _main() -> None:
    """In that process: a product of several rows with a weight in AMX's order; ends with 0 where it is right."""
    _no_core_file()
    native = load()
    cpu = Cpu(native, 1)
    kind = _buffer_type(native, cpu)
    if kind is None:
        return
    ggml = native.ggml
    context = arena(native, 4 * int(ggml.ggml_tensor_overhead()))
    address = ggml.ggml_new_tensor_4d(context, Q8_0, COLUMNS, ROWS, 1, 1)
    if not ggml.ggml_backend_alloc_ctx_tensors_from_buft(context, kind):
        return
    random = np.random.default_rng(0)
    numbers = random.integers(-LARGEST, LARGEST + 1, (ROWS, COLUMNS)).astype(np.int8)
    inputs = random.integers(-LARGEST, LARGEST + 1, (TOKENS, COLUMNS)).astype(np.float32)
    inputs[:, ::BLOCK] = LARGEST  # so that 8 bits hold each block exactly
    packed = _packed(numbers)
    ggml.ggml_backend_tensor_set(address, packed, 0, len(packed))
    product, exact = Weight(cpu, address).times(inputs), inputs @ numbers.T.astype(np.float32)
    sys.exit(0 if np.abs(product - exact).max() <= 1e-3 * np.abs(exact).max() else 1)


def _packed(numbers: np.ndarray) -> bytes:
    """As blocks of Q8_0 with a factor of 1."""
    blocks = numbers.reshape(-1, BLOCK)
    factors = np.ones((len(blocks), 1), dtype=np.float16).view(np.int8)
    return np.concatenate([factors, blocks], axis=1).tobytes()


def _buffer_type(native: Native, cpu: Cpu) -> Any:
    """ggml's type of buffer for weights in AMX's order; None: it has none."""
    ggml = native.ggml
    device = ggml.ggml_backend_get_device(cpu.handle)
    address = ggml.ggml_backend_reg_get_proc_address(ggml.ggml_backend_dev_backend_reg(device), b"ggml_backend_dev_get_extra_bufts")
    if not address:
        return None
    kinds = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(address)(device)
    at = 0
    while kinds and kinds[at]:
        if ggml.ggml_backend_buft_name(kinds[at]) == b"AMX":
            return kinds[at]
        at += 1
    return None


def _no_core_file() -> None:
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
