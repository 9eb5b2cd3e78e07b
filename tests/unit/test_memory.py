"""Memory in use, as the system says it."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys

from openmav.memory import resident_bytes


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
