"""The addresses of --rpc: workers that compute a model's layers."""

from __future__ import annotations

import re

from openmav.errors import UsageError

MOST = 16  # of llama.cpp's devices
LARGEST_PORT = 65535
ADDRESS = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?:[0-9]{1,5}")


def parse_workers(text: str | None) -> tuple[str, ...]:
    """host:port,... as a tuple of addresses; None: no worker. Raises UsageError."""
    if text is None:
        return ()
    return check_workers(tuple(part.strip() for part in text.split(",")))


def check_workers(workers: tuple[str, ...]) -> tuple[str, ...]:
    """The same addresses. Raises UsageError."""
    for worker in workers:
        if not ADDRESS.fullmatch(worker):
            raise UsageError(f"rpc takes workers as host:port, with commas between them (IPv4 or a name), not '{worker}'")
        port = int(worker.partition(":")[2])
        if not 1 <= port <= LARGEST_PORT:
            raise UsageError(f"the port of the rpc worker '{worker}' must be 1 to {LARGEST_PORT}")
    if len({worker.lower() for worker in workers}) < len(workers):
        raise UsageError(f"rpc names a worker twice: {', '.join(workers)}; each serves one connection")
    if len(workers) > MOST:
        raise UsageError(f"rpc takes {MOST} workers at most, not {len(workers)}")
    return workers
