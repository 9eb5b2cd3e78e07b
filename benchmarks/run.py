"""`make bench`: run the benchmarks, print their tables, say which targets are met; --write keeps them in docs/benchmarks.md."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Sequence
from datetime import date

from common import FULL, QUICK, ROOT, Counts, Section, machine, table

BENCHMARKS = ("decoding", "native", "measures", "startup", "app", "screen", "recording")  # modules with `run(counts) -> sections`
PAGE = ROOT / "docs" / "benchmarks.md"
PREFACE = """# Benchmarks

What mav costs, measured by `make bench`, which prints these tables; `python benchmarks/run.py --write` writes this page as well. Ratios are
what counts: both of their sides ran on this machine in the same minutes. The targets are mav's own.
"""


def main() -> int:
    asked = _arguments()
    began = time.perf_counter()
    before = _load()
    sections = measure(asked.only or BENCHMARKS, QUICK if asked.quick else FULL)
    took = f"Measured on {date.today().isoformat()} in {time.perf_counter() - began:.0f} s{before}."
    print(took, verdict(sections), sep="\n")
    if asked.write:
        page = "\n".join([f"Machine: {machine()}. {took}\n", *_written(sections), verdict(sections)])
        PAGE.write_text(f"{PREFACE}\n{page}\n", encoding="utf-8")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny counts: only shows that the benchmarks run")
    parser.add_argument("--write", action="store_true", help=f"keep the tables in {PAGE.relative_to(ROOT)}")
    parser.add_argument("--only", choices=BENCHMARKS, action="append", help="run this benchmark; may be repeated")
    asked = parser.parse_args()
    if asked.write and (asked.quick or asked.only):
        parser.error("--write keeps whole runs only; leave out --quick and --only")
    return asked


def measure(names: Sequence[str], counts: Counts) -> list[Section]:
    """The sections of these benchmarks; each is printed as soon as it is there, so that a later failure loses nothing."""
    sections: list[Section] = []
    for name in names:
        made = importlib.import_module(name).run(counts)
        print("\n".join(_written(made)), flush=True)
        sections += made
    return sections


def _load() -> str:
    """How busy the machine was before, where the system tells: a busy one gives worse figures."""
    return f", load average before it {os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else ""


def _written(sections: Sequence[Section]) -> list[str]:
    return [line for section in sections for line in (f"## {section.title}", "", section.how, "", *table(section.figures), "")]


def verdict(sections: Sequence[Section]) -> str:
    """How many targets are met, and the names of those that are not."""
    figures = [(section.title, figure) for section in sections for figure in section.figures if figure.has_target]
    missed = [f"{title}: {figure.what}" for title, figure in figures if not figure.met]
    met = f"{len(figures) - len(missed)} of {len(figures)} targets are met"
    return met + ("." if not missed else "; not met: " + "; ".join(missed) + ".")


if __name__ == "__main__":
    sys.exit(main())
