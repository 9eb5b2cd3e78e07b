"""What a failure amid a run means, and how the run goes on after it."""

from __future__ import annotations

import gc
import signal
import sys

from openmav.errors import words_of
from openmav.system.memory import out_of_memory

LESS = "a shorter text, fewer panels or --dtype bfloat16 take less"


CRASHES = ("SIGABRT", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE")  # of compiled code


def ended(code: int | None) -> str:
    """How a process ended that did not say so, and why that may be."""
    name = next((one.name for one in signal.Signals if code == -one), "")
    if name in CRASHES:
        return f"by {name}: a compiled library crashed, and its last output is in the log; another model or --backend may do"
    return f"{f'by {name}' if name else f'with exit code {code}'}; was it killed, or out of memory?"


def answer(error: BaseException) -> str:
    """The line that answers a command which failed with this; the run stays as it is."""
    if out_of_memory(error):
        return f"out of memory: that could not be done; {LESS}"
    return f"that could not be done: {words_of(error, kind=True)}"


def free_memory() -> None:
    """Gives back what the failed computation still holds, also to an accelerator; to be called after its exception is gone."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
