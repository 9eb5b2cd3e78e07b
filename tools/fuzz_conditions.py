"""Throws texts at the language of breakpoints and watches: whatever they say, only its own error may come out.

    python tools/fuzz_conditions.py --runs 100000

With atheris (on Linux) the fuzzer looks for new ways through the parser; without it, texts are drawn from the language's own words.
Every text that is understood is also evaluated, on two of several healthy, broken, empty and touched steps, and written and read
again. Exits with 1 at the first text that fails, and shows it.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

PIECES = (
    *("and", "or", "not", "==", "!=", "<", "<=", ">", ">=", "~", "+", "-", "*", "/", "(", ")", "[", "]", ",", "(", ")", " ", " "),
    *("0", "3", "-1", "29", "30", "4.5", "1e3", "1e308", ".5", "999999999", '"Paris"', '" the"', '"a\\n\\u00e9"', "'x'", '""', '"', "\\"),
    *("norm(mlp, 3)", "lens[8]", "max(norm(mlp))", "prob(lens[-1])", "previous(", "untouched(", "mlp", "entropy", "token", "nan"),
)


def moments() -> list[tuple[object, object, object]]:
    """(step, info, steps) to evaluate at."""
    from everything import spoilt, whole_steps
    from fakes import make_info
    from openmav.record import Baseline

    info = make_info(4, 3, missing={"mlp_norm": {1: "no MLP"}, "attention_entropy": {2: "no attention"}})
    steps = whole_steps(3, info)
    first, last = steps[0], steps[-1]
    before = Baseline(first.candidates, first.logprob, first.entropy, first.values, first.pieces)
    touched = replace(last, before=before, interventions=("ablate L0",), rank=3)
    broken, endless = spoilt(last), spoilt(last, float("inf"))
    empty = replace(last, values={}, pieces={})
    return [(step, info, steps) for step in (first, last, broken, endless, touched, empty)] + [(last, None, ())]


def _check_line(line: str, column: int, length: int) -> None:
    assert line.isprintable(), "the error is no line that a terminal can show"
    assert 0 <= column <= length, "the error names a spot outside of the text"


def understood(text: str, seen: list[tuple[object, object, object]]) -> bool:
    """Whether the text was understood. Raises whatever goes wrong besides the language's own error."""
    from openmav.conditions import ConditionError, parse

    try:
        condition = parse(text)
    except ConditionError as error:
        _check_line(str(error), error.column, len(text))
        return False
    again = parse(str(condition)) if len(str(condition)) <= 500 else condition
    assert again.tree == condition.tree, f"written and read again it is another: {condition}"
    first = zlib.crc32(text.encode("utf-8", "replace"))
    for step, info, steps in (seen[first % len(seen)], seen[first // len(seen) % len(seen)]):
        try:
            if info is not None:
                condition.check(info)
        except ConditionError:
            info = None
        arguments = (step, info, steps)
        value = condition.value(*arguments)
        assert value is None or isinstance(value, bool | float | str), f"a value of type {type(value)}"
        assert condition.holds(*arguments) == (value is True)
        assert isinstance(condition.shown(*arguments) + condition.measured(*arguments), str)
    return True


def made(rng: random.Random, kind: str, depth: int) -> str:
    """A text that the language understands, of this kind."""
    more = depth > 0 and rng.random() < 0.7

    def inner(kind: str) -> str:
        return made(rng, kind, depth - 1)

    layer, head = rng.randrange(-4, 4), rng.randrange(-3, 3)
    if kind == "truth":
        if not more:
            return rng.choice(("nan", "special", "forced", "touched"))
        number, other, text = inner("number"), inner("number"), inner("text")
        return rng.choice(
            (
                f"{number} {rng.choice(('==', '!=', '<', '<=', '>', '>='))} {other}",
                f"{text} {rng.choice(('~', '==', '!='))} {inner('text')}",
                f"not ({inner('truth')})",
                f"({inner('truth')}) {rng.choice(('and', 'or'))} ({inner('truth')})",
                f"previous({inner('truth')})",
            )
        )
    if kind == "text":
        return rng.choice(("token", "text", f"lens[{layer}]", '" the"', "'\\u00e9'", f"previous({inner('text')})" if more else "token"))
    if not more:
        return rng.choice(("entropy", "prob", "rank", "3", "0", "1e308", f"norm(mlp, {layer})", f"sink({layer}, {head})", "cache_size"))
    number, other = inner("number"), inner("number")
    return rng.choice(
        (
            f"({number} {rng.choice('+-*/')} {other})",
            f"-({number})",
            f"{rng.choice(('max', 'min', 'mean'))}({number}, {other}, norm(attention))",
            f"abs({number})",
            f"{rng.choice(('prob', 'logit', 'logprob', 'rank', 'surprisal'))}({inner('text')})",
            f"untouched({number})",
            f"logit_lens[{layer}, {rng.randrange(12)}]",
        )
    )


def soup(rng: random.Random, names: list[str]) -> str:
    """A text that means something, or one of the language's own words, or such a one spoilt; now and then any characters at all."""
    luck = rng.random()
    if luck < 0.1:
        return "".join(chr(rng.randrange(0x11000)) for _ in range(rng.randrange(30)))
    if luck < 0.4:
        return made(rng, rng.choice(("truth", "number", "text")), rng.randrange(5))
    if luck < 0.6:
        text = list(made(rng, "truth", 2))
        for _ in range(rng.randrange(4)):
            text[rng.randrange(len(text))] = rng.choice((*PIECES, *names))
        return "".join(text)
    return rng.choice((" ", "")).join(rng.choice(PIECES if rng.random() < 0.7 else names) for _ in range(rng.randrange(1, 12)))


def run_plain(runs: int, seed: int) -> None:
    from openmav.conditions import known_names

    rng, names, seen, meant = random.Random(seed), known_names(), moments(), 0
    began = time.perf_counter()
    for _ in range(runs):
        text = soup(rng, names)
        try:
            meant += understood(text, seen)
        except Exception:
            print(f"failed: {text!r}")
            raise
    print(f"without atheris: {runs} texts, {meant} understood, {time.perf_counter() - began:.1f} s, only the language's own error")


def run_atheris(runs: int, seed: int) -> None:
    import atheris

    with atheris.instrument_imports(include=["openmav.conditions"]):
        from openmav.conditions import known_names
    names, seen = known_names(), moments()

    def one(data: bytes) -> None:
        provider = atheris.FuzzedDataProvider(data)
        kind = provider.ConsumeIntInRange(0, 3)
        if kind == 0:
            text = provider.ConsumeUnicode(600)
        elif kind == 1:
            text = soup(random.Random(provider.ConsumeInt(8)), names)
        else:
            parts = [*PIECES, *names]
            count = provider.ConsumeIntInRange(1, 20)
            text = " ".join(parts[provider.ConsumeIntInRange(0, len(parts) - 1)] for _ in range(count))
        try:
            understood(text, seen)
        except Exception:
            print(f"failed: {text!r}", flush=True)
            raise

    print(f"with atheris: {runs} texts", flush=True)
    atheris.Setup([sys.argv[0], f"-runs={runs}", f"-seed={seed}", "-rss_limit_mb=0", "-print_final_stats=1", "-verbosity=0"], one)
    atheris.Fuzz()  # ends the process: with 0 where all is well


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="without atheris, even where it is there")
    arguments = parser.parse_args()
    there = importlib.util.find_spec("atheris") is not None and not arguments.plain
    (run_atheris if there else run_plain)(arguments.runs, arguments.seed)


if __name__ == "__main__":
    main()
