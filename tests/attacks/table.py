"""Run the attacks and print the table: python -m attacks [--kind NAME] [--only TEXT] [--all-lines]."""

from __future__ import annotations

import argparse
import shutil
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import mkdtemp

from attacks import commands, folders, fuzz, gguf_files, tokenizers
from attacks.base import Attack, Result, run, warm_up

FUZZ = "fuzz"
KINDS = {"folders": folders.attacks, "tokenizers": tokenizers.attacks, "gguf": gguf_files.attacks, "commands": commands.attacks}


def attack_of(kind: str, index: int) -> Attack:
    return next(fuzz.attacks(index, 1)) if kind == FUZZ else list(KINDS[kind]())[index]


def run_one(place: tuple[str, int]) -> tuple[str, str, str, float, str]:
    """(name, verdict, what is wrong, seconds, the last line on stderr) of one attack, in a folder that is gone afterwards."""
    attack = attack_of(*place)
    folder = Path(mkdtemp(prefix="mav-attack-"))
    try:
        result: Result = run(attack, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return attack.name, result.verdict, result.why, result.seconds, (result.err.splitlines() or [""])[-1]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m attacks")
    parser.add_argument("--kind", choices=list(KINDS), action="append", help="only these")
    parser.add_argument("--fuzz", type=int, default=0, metavar="N", help="N random changes of a model's files in place of the table")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the number of the first of them")
    parser.add_argument("--only", default="", help="only attacks whose name holds this")
    parser.add_argument("--all-lines", action="store_true", help="a line for each attack, not only for what is wrong")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    kinds = [FUZZ] if asked.fuzz else list(asked.kind or KINDS)
    if asked.fuzz:
        places = [(FUZZ, asked.first + i) for i in range(asked.fuzz)]
    else:
        places = [(kind, i) for kind in kinds for i, attack in enumerate(KINDS[kind]()) if asked.only in attack.name]
    began, ended, wrong = time.perf_counter(), Counter[str](), 0
    with ProcessPoolExecutor(asked.processes, get_context("spawn"), warm_up) as pool:
        for (kind, _), (name, verdict, why, seconds, line) in zip(places, pool.map(run_one, places, chunksize=1), strict=True):
            ended[kind, "wrong" if why else verdict] += 1
            wrong += bool(why)
            if why or asked.all_lines:
                print(
                    f"{'WRONG' if why else 'ok':<5} {kind:<10} {name!r:<60.60} {verdict:<9} {seconds:5.1f} s  {why}  | {line!r:.220}",
                    flush=True,
                )
    print(f"{'kind':<12}{'right':>8}{'one line':>10}{'wrong':>8}")
    for kind in kinds:
        print(f"{kind:<12}{ended[kind, 'right']:>8}{ended[kind, 'one line']:>10}{ended[kind, 'wrong']:>8}")
    print(f"{len(places)} attacks, {wrong} wrong, {time.perf_counter() - began:.0f} s")
    return 1 if wrong else 0
