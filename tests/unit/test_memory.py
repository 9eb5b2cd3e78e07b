"""Memory in use, as the system says it."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys

from openmav.system.memory import out_of_memory, resident_bytes


def test_it_grows_with_what_is_held() -> None:
    before = resident_bytes()
    assert before is not None
    with mmap.mmap(-1, 200_000_000) as held:  # from the system itself: an allocator may have room left over from before
        held.write(b"x" * len(held))
        after = resident_bytes(os.getpid())
    assert after is not None
    assert 150_000_000 < after - before < 450_000_000  # the written bytes may still be there as well


def test_another_process_and_one_that_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", "print(1, flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    assert (resident_bytes(child.pid) or 0) > 1_000_000
    child.communicate(b"\n")
    assert resident_bytes(child.pid) is None


def test_memory_that_ran_out_is_known_in_whatever_way_it_is_said() -> None:
    class OutOfMemoryError(RuntimeError):
        """torch's, by its name: torch is not imported here."""

    for error in (
        MemoryError(),
        OutOfMemoryError("CUDA"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ):
        assert out_of_memory(error), error
    for error in (RuntimeError("shape mismatch"), ValueError("out of memory"), OSError(errno.ENOENT, "no such file"), KeyboardInterrupt()):
        assert not out_of_memory(error), error
