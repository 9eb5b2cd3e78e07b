"""Measure tiny models of every type of transformers through mav, and write docs/architectures.md.

python tools/architectures.py                 # measure what is not measured yet, and write the page
python tools/architectures.py llama gemma3    # measure these types again and print every figure
python tools/architectures.py --failed        # measure those again that were wrong or raised
python tools/architectures.py --fresh         # measure all again
python tools/architectures.py --check         # write nothing; exit with 1 if a number is wrong

Results are kept in build/architectures.json, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import time
import traceback
import warnings
from dataclasses import asdict
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STORE = ROOT / "build" / "architectures.json"
OF_THE_RUN = ("seconds", "code")  # what is kept of a row beside its report
SECONDS, BYTES = 180, 8 << 30  # what one type may take in one float type
DTYPES = ("float32", "bfloat16")
sys.path.insert(0, str(ROOT / "tests"))

from architecture_page import page  # noqa: E402
from backends.tiny_configs import TYPES, VARIANTS  # noqa: E402

PAGE = ROOT / "docs" / "architectures.md"
ALL = (*TYPES, *VARIANTS)


def work(pipe: Connection) -> None:
    """In a process of its own: takes (type, float type), gives the report as a dictionary, until the pipe ends."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.simplefilter("ignore")
    import torch
    import transformers

    from backends.tiny_checks import examine

    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    while (task := pipe.recv()) is not None:
        try:
            pipe.send(asdict(examine(task[0], getattr(torch, task[1]))))
        except Exception as error:
            pipe.send({"failed": _one_line(error)})


def _one_line(error: Exception) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())[:160]
    return f"{type(error).__name__}: {text} ({Path(place.filename).name}, line {place.lineno})"


class Worker:
    """A process that measures; one that takes too long, too much memory, or dies is replaced, and that is the result."""

    def __init__(self) -> None:
        self.process: Any = None

    def measure(self, model_type: str, dtype: str) -> dict[str, Any]:
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.pipe, theirs = context.Pipe()
            self.process = context.Process(target=work, args=(theirs,), daemon=True)
            self.process.start()
        began = time.monotonic()
        self.pipe.send((model_type, dtype))
        why = ""
        while not self.pipe.poll(0.2):
            if time.monotonic() - began > SECONDS:
                why = f"took more than {SECONDS} seconds"
            elif not self.process.is_alive():
                why = "ended the process"
            elif _memory(self.process.pid) > BYTES:
                why = f"took more than {BYTES >> 30} GiB"
            if why:
                self.stop()
                return {"failed": why}
        result: dict[str, Any] = self.pipe.recv()
        return {**result, "seconds": round(time.monotonic() - began, 2)}

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.join()
            self.process = None


def _memory(pid: int) -> int:
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def bad(result: dict[str, Any]) -> bool:
    from backends.tiny_report import Report

    return not Report(**{name: value for name, value in result.items() if name not in OF_THE_RUN}).good


def measure(types: list[str], results: dict[str, dict[str, Any]], again: bool) -> None:
    """Fill `results` ("type dtype" -> report) and keep them on disk after each type."""
    worker, code = Worker(), fingerprint()
    try:
        for model_type in types:
            for dtype in DTYPES:
                key = f"{model_type} {dtype}"
                if again or key not in results:
                    results[key] = {**worker.measure(model_type, dtype), "code": code}
                    print(line(key, results[key]), flush=True)
            STORE.parent.mkdir(exist_ok=True)
            STORE.write_text(json.dumps({**_versions(), "results": results}, indent=0), encoding="utf-8")
    finally:
        worker.stop()


def line(key: str, result: dict[str, Any]) -> str:
    from backends.tiny_report import LIMITS

    for word in ("failed", "cannot", "refused"):
        if result.get(word):
            return f"{key}: {word}: {result[word]}"
    errors = result["errors"].items()
    verdict = "WRONG " if bad(result) else ""
    shown = ", ".join(f"{name} {error:.2g}{'' if error <= LIMITS[name] else ' (!)'}" for name, error in errors)
    none = "".join(f"; {name}: none: {reason}" for name, reason in result["none"].items())
    return f"{key}: {verdict}{shown}{none}"


def fingerprint() -> str:
    """Of the code that the figures depend on: mav's own, and the checks."""
    digest = hashlib.sha256()
    for folder, pattern in ((ROOT / "src" / "openmav", "**/*.py"), (ROOT / "tests" / "backends", "tiny_*.py")):
        for path in sorted(folder.glob(pattern)):
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:10]


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("transformers", "torch")}


def kept() -> dict[str, dict[str, Any]]:
    """The results on disk, if they were made with these versions."""
    if not STORE.exists():
        return {}
    found = json.loads(STORE.read_text(encoding="utf-8"))
    results: dict[str, dict[str, Any]] = found.pop("results")
    return results if found == _versions() else {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", metavar="TYPE", help="measure these again")
    parser.add_argument("--failed", action="store_true", help="measure those again that were wrong or raised")
    parser.add_argument("--fresh", action="store_true", help="measure all again")
    parser.add_argument("--check", action="store_true", help="write no page; exit with 1 if a number is wrong")
    asked = parser.parse_args()
    results = {} if asked.fresh else kept()
    types = asked.types or list(ALL)
    if asked.failed:
        types = [t for t in types if any(f"{t} {d}" not in results or bad(results[f"{t} {d}"]) for d in DTYPES)]
    measure(types, results, again=bool(asked.types or asked.failed or asked.fresh))
    wrong = [key for key, result in results.items() if bad(result)]
    print(f"wrong or raised: {', '.join(wrong)}" if wrong else "no number is wrong")
    if not (asked.check or asked.types):
        PAGE.write_text(page(results, **_versions()), encoding="utf-8")
        print(f"wrote {PAGE}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
