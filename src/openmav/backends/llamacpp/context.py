"""A loaded model of llama.cpp, and one of its contexts: a cache for one sequence, and the passes that fill it."""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmav.backends.base import Progress
from openmav.backends.llamacpp.native import F16, F32, Native, unknown
from openmav.backends.llamacpp.tap import Tap
from openmav.backends.llamacpp.workers import Workers
from openmav.errors import EngineError, LoadError, UsageError

WORK = 3e10  # weights times tokens of one chunk of a prompt: about a second on two cores, so that stopping is never far away
TINY = 1e7  # weights; the bundled model has 5 million
LEAST, MOST = 16, 256  # tokens of a chunk; the smallest context has 256
MARK = 8  # bytes with which the state of a sequence begins
CACHES = {"float16": F16, "float32": F32}


class Weights:
    """A model in memory. `metadata` are the file's keys as text. `packed`: in the order that the kernels here like. Raises LoadError."""

    def __init__(
        self,
        native: Native,
        path: Path,
        progress: Progress | None = None,
        gpu_layers: int = 0,
        *,
        packed: bool = True,
        to: Workers | None = None,
    ) -> None:
        self.native = native
        self.workers = to
        self.path = path
        llama = native.llama
        error: list[BaseException] = []

        def report(share: float, _data: object) -> bool:
            try:
                if progress is not None:
                    progress("loading the weights", float(share))
                return True
            except BaseException as problem:  # raised again below, outside of the library
                error.append(problem)
                return False

        params = llama.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        if not packed:
            params.use_extra_bufts = False
        if to is not None:
            to.into(params)
        self.device = "rpc" if to is not None else "gpu" if gpu_layers != 0 and native.has_accelerator() else "cpu"
        callback = llama.llama_progress_callback(report)
        params.progress_callback = callback
        native.said.clear()
        self.handle: Any = llama.llama_model_load_from_file(os.fsencode(path), params)
        if error:
            if self.handle:
                llama.llama_model_free(self.handle)
            raise error[0]
        if not self.handle:
            raise LoadError(f"llama.cpp can't load {path.name} ({native.why()}); add --backend transformers, or try another file")
        self._free = weakref.finalize(self, llama.llama_model_free, self.handle)
        self.vocab: Any = llama.llama_model_get_vocab(self.handle)
        self.metadata = self._metadata()

    def _metadata(self) -> dict[str, str]:
        llama, result = self.native.llama, {}
        by_key, by_value = llama.llama_model_meta_key_by_index, llama.llama_model_meta_val_str_by_index
        for index in range(llama.llama_model_meta_count(self.handle)):
            key, value = self._text(by_key, index), self._text(by_value, index)
            result[key] = value
        return result

    def _text(self, read: Any, index: int) -> str:
        size = 256
        while True:
            buffer = ctypes.create_string_buffer(size)
            needed = read(self.handle, index, buffer, size)
            if needed < size:
                return buffer.value.decode("utf-8", "replace")
            size = needed + 1

    @property
    def architecture(self) -> str:
        return self.metadata.get("general.architecture", "")

    def own(self, key: str) -> str | None:
        """The value of one of the architecture's own keys."""
        return self.metadata.get(f"{self.architecture}.{key}")

    def count(self, name: str) -> int:
        """What llama_model_NAME says."""
        return int(getattr(self.native.llama, f"llama_model_{name}")(self.handle))

    @property
    def threads(self) -> int:
        """As many as llama.cpp uses where nothing is said; one where threads would wait longer for each other than they compute."""
        return 1 if self.count("n_params") < TINY else max(1, os.cpu_count() or 1)

    @property
    def kind(self) -> str:
        """The type of most weights, such as "Q4_1"."""
        name = self.native.llama.llama_ftype_name(self.native.llama.llama_model_ftype(self.handle)).decode()
        return {"all F32": "float32", "F16": "float16", "BF16": "bfloat16"}.get(name, str(name).split(" - ")[0])

    @property
    def vocabulary(self) -> int:
        return int(self.native.llama.llama_vocab_n_tokens(self.vocab))

    @property
    def stateful(self) -> bool:
        """Whether some layers keep a state of the text instead of its keys and values."""
        return any(getattr(self.native.llama, f"llama_model_is_{kind}")(self.handle) for kind in ("recurrent", "hybrid"))

    @property
    def has_windows(self) -> bool:
        """Whether some layers see a window of the text only."""
        return self.count("n_swa") > 0

    def free(self) -> None:
        self._free()


@dataclass(frozen=True)
class ContextSettings:
    """`cache` is the type of keys and values, `threads` those of llama.cpp, `limit` the most tokens that a context may hold."""

    cache: str = "float16"
    threads: int | None = None
    limit: int | None = None


class Context:
    """One sequence's cache of `size` tokens, and the callback on its passes. Raises LoadError where it can't be had."""

    def __init__(self, weights: Weights, settings: ContextSettings, size: int) -> None:
        self.weights = weights
        self.native = native = weights.native
        self.settings = settings
        self.tap = Tap(native)
        self.chunk = chunk_of(weights.count("n_params"))
        llama = native.llama
        params = llama.llama_context_default_params()
        threads = settings.threads or weights.threads
        wanted = {
            "n_ctx": max(size, MOST),
            "n_batch": self.chunk,
            "n_ubatch": self.chunk,
            "n_seq_max": 1,
            "n_threads": threads,
            "n_threads_batch": threads,
            "flash_attn_type": llama.LLAMA_FLASH_ATTN_TYPE_DISABLED,
            "type_k": CACHES[settings.cache],
            "type_v": CACHES[settings.cache],
            "swa_full": True,
            "no_perf": False,
        }
        for name, value in wanted.items():
            if not hasattr(params, name):
                raise LoadError(unknown(native.version, f"its contexts have no {name}"))
            setattr(params, name, value)
        params.cb_eval = self.tap.callback
        native.said.clear()
        self.handle: Any = llama.llama_init_from_model(weights.handle, params)
        if not self.handle:
            raise LoadError(f"llama.cpp can't make a context for {weights.path.name} ({native.why()})")
        self._free = weakref.finalize(self, _free, llama, self.handle, self.tap, weights)
        self.memory = llama.llama_get_memory(self.handle)
        self.size = int(llama.llama_n_ctx(self.handle))
        self._check(threads)
        self._scheduler = native.scheduler(self.handle)
        self._callback = ctypes.cast(self.tap.callback, ctypes.c_void_p)
        self._mark: NDArray[np.uint8] | None = None
        if weights.has_windows and not weights.stateful:
            self._mark = self.state()[:MARK].copy()
        self._ids = (llama.llama_token * self.chunk)()
        self._outputs = (ctypes.c_int8 * self.chunk)()

    def _check(self, threads: int) -> None:
        """Whether what was asked for arrived: else the struct of parameters has another layout than llama-cpp-python says."""
        llama = self.native.llama
        facts = {
            "n_ctx": self.size >= 1,
            "n_batch": llama.llama_n_batch(self.handle) == self.chunk,
            "n_ubatch": llama.llama_n_ubatch(self.handle) == self.chunk,
            "n_seq_max": llama.llama_n_seq_max(self.handle) == 1,
            "n_threads": llama.llama_n_threads(self.handle) == threads == llama.llama_n_threads_batch(self.handle),
        }
        wrong = [name for name, right in facts.items() if not right]
        if wrong:
            raise LoadError(unknown(self.native.version, f"the parameter {wrong[0]} does not arrive"))

    # ---- passes ----------------------------------------------------------------------------------------------------------

    def decode(self, ids: Sequence[int], outputs: str = "last") -> None:
        """One pass over these tokens, after those in the cache; logits for the "last", for "all" or for "none" of them.

        Raises EngineError where llama.cpp fails.
        """
        llama, count = self.native.llama, len(ids)
        self._ids[:count] = ids
        for at in range(count):
            self._outputs[at] = outputs == "all" or (outputs == "last" and at == count - 1)
        batch = llama.llama_batch(count, self._ids, None, None, None, None, self._outputs)
        code = llama.llama_decode(self.handle, batch)
        if code:
            what = {1: "the cache has no room", 2: "it was aborted", -3: "memory ran out or the graph can't be computed"}.get(code, "")
            raise EngineError(f"llama.cpp can't compute this token ({what or self.native.why()}, code {code})")

    def ask(self, at_nodes: bool) -> None:
        """Whether the next pass calls back at each node, which takes half a millisecond; where its scheduler can't be had, it does.

        One that makes a new graph does too.
        """
        if self._scheduler:
            self.native.ggml.ggml_backend_sched_set_eval_callback(self._scheduler, self._callback if at_nodes else None, None)

    def logits(self) -> NDArray[np.float32]:
        """[vocab]: a copy of the last pass's last row of logits."""
        pointer = self.native.llama.llama_get_logits_ith(self.handle, -1)
        if not pointer:
            raise EngineError("llama.cpp gave no logits")
        logits: NDArray[np.float32] = np.ctypeslib.as_array(pointer, shape=(self.weights.vocabulary,)).copy()
        return logits

    @property
    def reused(self) -> int:
        """How many passes used the graph of the pass before."""
        return int(self.native.llama.llama_perf_context(self.handle).n_reused)

    # ---- the cache -------------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        self.native.llama.llama_memory_clear(self.memory, True)

    def cut(self, length: int) -> bool:
        """Drop all tokens from position `length` on; False: this cache can't be cut."""
        return bool(self.native.llama.llama_memory_seq_rm(self.memory, 0, length, -1))

    def state(self) -> NDArray[np.uint8]:
        """The sequence's cache, to be given to `restore` of a context of the same model. Raises EngineError."""
        if self._mark is not None:
            return self._whole_state(self._mark)
        llama = self.native.llama
        data = np.empty(int(llama.llama_state_seq_get_size(self.handle, 0)), dtype=np.uint8)
        return data[: llama.llama_state_seq_get_data(self.handle, _bytes(data), len(data), 0)]

    def _whole_state(self, mark: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The same with the tokens beyond a sliding window, which llama.cpp leaves out of a sequence's state.

        Without them the tokens that follow would take their places: rows would be in no order, and going back would be wrong.
        """
        llama, name = self.native.llama, self.weights.architecture.encode()
        data = np.empty(int(llama.llama_state_get_size(self.handle)), dtype=np.uint8)
        written = llama.llama_state_get_data(self.handle, _bytes(data), len(data))
        head = len(name).to_bytes(4, sys.byteorder) + name  # then comes what follows the mark in the state of a sequence
        if data[: len(head)].tobytes() != head or len(head) < len(mark):
            raise EngineError("llama.cpp's state of a text has another form than mav knows; begin again with --backend transformers")
        data[len(head) - len(mark) : len(head)] = mark
        return data[len(head) - len(mark) : written]

    def restore(self, state: NDArray[np.uint8]) -> None:
        self.clear()
        if len(state) and not self.native.llama.llama_state_seq_set_data(self.handle, _bytes(state), len(state), 0):
            raise EngineError(f"llama.cpp can't restore its cache ({self.native.why()})")

    def close(self) -> None:
        self._free()


def _bytes(data: NDArray[np.uint8]) -> Any:
    return data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


def _free(llama: Any, handle: Any, _tap: Tap, _weights: Weights) -> None:
    llama.llama_free(handle)


def chunk_of(parameters: int) -> int:
    """Tokens of a prompt in one pass: always the same for a model, so that a prompt is computed to the same bits each time."""
    chunk = MOST
    while chunk > LEAST and chunk * parameters > WORK:
        chunk //= 2
    return chunk


def cache_type(dtype: str) -> str:
    """The type of keys and values for --dtype. Raises UsageError."""
    if dtype == "auto":
        return "float16"
    if dtype not in CACHES:
        known = " or ".join(sorted(CACHES))
        raise UsageError(f"llama.cpp runs the weights as the file has them: --dtype is that of its cache, {known}, not {dtype}")
    return dtype
