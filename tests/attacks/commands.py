"""Flags, environments, streams, config files and plug-in files as nobody should give them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attacks.base import Attack
from attacks.folders import ESCAPE

TOY = ("--backend", "toy", "--model", "toy", "--plain", "--max-new-tokens", "2")
NUMBERS = ("--temp", "--top-p", "--min-p", "--repetition-penalty", "--refresh-rate")
COUNTS = ("--top-k", "--seed", "--max-new-tokens", "--num-grid-rows", "--max-bar-length", "--limit-chars")
TEXTS = (
    "--prompt",
    "--stop",
    "--regex",
    "--ban",
    "--require",
    "--ablate",
    "--amplify",
    "--steer",
    "--patch",
    "--break",
    "--watch",
    "--measure",
    "--panel",
    "--layout",
    "--theme",
    "--scale",
    "--aggregation",
    "--dtype",
    "--device",
    "--backend",
    "--json-schema",
    "--prompt-file",
    "--selected-panels",
)
READ = (  # variables that mav, Python and the libraries look at
    *("HF_HOME", "HF_HUB_CACHE", "HF_TOKEN", "HF_ENDPOINT", "HF_MODULES_CACHE", "HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_VERBOSITY"),
    *("TRANSFORMERS_VERBOSITY", "TRANSFORMERS_CACHE", "TOKENIZERS_PARALLELISM", "TORCH_HOME", "CUDA_VISIBLE_DEVICES", "TQDM_DISABLE"),
    *("TERM", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "COLORTERM", "TERM_PROGRAM", "LANG", "LC_ALL", "LANGUAGE", "EDITOR", "USER"),
    *("TEXTUAL", "TEXTUAL_DRIVER", "TEXTUAL_FPS", "TEXTUAL_COLOR_SYSTEM", "TEXTUAL_THEME", "TEXTUAL_ANIMATIONS", "TEXTUAL_LOG"),
    *("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "TMPDIR", "HOME", "PATH", "PWD"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GGML_NO_BACKTRACE", "DO_NOT_TRACK"),
)
HOSTILE = {
    "an escape": ESCAPE.replace("\n", ""),
    "a folder": "/",
    "a file": "/etc/passwd",
    "a huge number": "9" * 30,
    "a long text": "x" * 20_000,
    "empty": "",
    "not UTF-8": "\udcff\udcfe",
    "negative": "-1",
}
WORDLESS = "class Own(Exception):\n    def __str__(self): raise ValueError('x')\nraise Own"
PARTS = '"""x"""\nTITLE = "x"\nHELP = "x"\nNEEDS = ()\n'


def _file(name: str, text: str | bytes) -> Any:
    def make(folder: Path) -> None:
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))

    return make


def flags() -> Iterator[Attack]:
    for flag in NUMBERS:
        for value in ("nan", "inf", "-1", "1e400", "x", "", "5e-324", ESCAPE):
            yield Attack(f"{flag} {value[:12]!r}", (*TOY, f"{flag}={value}"))
    for flag in COUNTS:
        for value in ("-1", "1.5", "9" * 30, "x", ESCAPE):
            yield Attack(f"{flag} {value[:12]!r}", (*TOY, f"{flag}={value}"))
    for flag in TEXTS:
        for value in ("", ESCAPE, "(" * 5000, "\udcff"):
            yield Attack(f"{flag} {value[:12]!r}", (*TOY, f"{flag}={value}"))
    for args in (
        ("--no-such-flag",),
        ("--prompt",),
        ("stray",),
        ("run", "run"),
        ("panels", "x"),
        ("config", "x"),
        ("new", "panel", "../x"),
        ("new", "panel", "class"),
        ("new", "measure", ESCAPE),
        ("sweep", "--target", ESCAPE),
        ("sweep", "--json", "--csv"),
        ("attribute", "--method", ESCAPE),
        ("doctor", "--backend", ESCAPE),
        ("--plain", "--json"),
        ("--tui",),
        ("tour",),
        ("export", ".", "--to", "csv"),
        ("compare", *TOY, "--record", "."),
        ("--prompt", "a", "--prompt-file", "b"),
    ):
        yield Attack(f"mav {' '.join(args)[:30]!r}", args)
    yield Attack("a prompt of nothing on stdin", (*TOY, "--prompt-file", "-"), may=("one line",))
    yield Attack("a prompt of zeros on stdin", (*TOY, "--prompt-file", "-"), stdin=b"\0" * 1000)
    yield Attack("a prompt that is not UTF-8 on stdin", (*TOY, "--prompt-file", "-"), stdin=b"\xff\xfe", may=("one line",))
    yield Attack("a prompt file that is a folder", (*TOY, "--prompt-file", "{folder}"), may=("one line",))
    if os.path.exists("/dev/zero"):
        for flag in ("--prompt-file", "--json-schema"):
            yield Attack(f"{flag} without an end", (*TOY, flag, "/dev/zero"), may=("one line",))
    for schema in (
        "{",
        "3",
        "null",
        '"x"',
        "[" * 100_000,
        '{"type": "nothing"}',
        '{"$ref": "#"}',
        '{"$ref": "http://x.y/z"}',
        '{"pattern": "("}',
        '{"minimum": 1e999}',
        '{"maxItems": 1e300}',
        '{"enum": []}',
        '{"type": "string", "minLength": 1000000000}',
        ESCAPE,
    ):
        yield Attack(f"--json-schema {schema[:20]!r}", (*TOY, "--json-schema", "{folder}/s.json"), _file("s.json", schema))


def environments() -> Iterator[Attack]:
    for name, env in (
        ("no HOME", {"HOME": None}),
        ("HOME is a file", {"HOME": "/etc/passwd"}),
        ("HOME is an escape", {"HOME": ESCAPE.replace("\n", "")}),
        ("no PATH", {"PATH": None}),
        ("no TERM", {"TERM": None}),
        ("TERM is an escape", {"TERM": "\x1b[2J"}),
        ("LANG is C", {"LANG": "C", "LC_ALL": "C"}),
        ("COLUMNS is no number", {"COLUMNS": "x"}),
        ("COLUMNS is 0", {"COLUMNS": "0"}),
        ("COLUMNS is huge", {"COLUMNS": "9" * 20}),
        ("TMPDIR is not there", {"TMPDIR": "/nowhere"}),
        ("the log can't be written", {"XDG_STATE_HOME": "/proc/nowhere", "TMPDIR": "/proc"}),
        ("the config is not there", {"MAV_CONFIG": "/nowhere/x"}),
        ("the config is a folder", {"MAV_CONFIG": "/"}),
        ("HF_HOME is a file", {"HF_HOME": "/etc/passwd"}),
        ("OMP_NUM_THREADS is no number", {"OMP_NUM_THREADS": "x"}),
        ("NO_COLOR is empty", {"NO_COLOR": ""}),
        ("nothing at all", dict.fromkeys(os.environ)),
    ):
        yield Attack(f"environment: {name}", TOY, env=env, may=("right",))
    for name, value in HOSTILE.items():
        for args in (TOY, ("doctor",)):
            yield Attack(f"environment: all of it is {name}, {args[0]}", args, env=dict.fromkeys(READ, value))
    for args in (
        ("--help",),
        ("--version",),
        ("panels",),
        ("measures",),
        ("doctor",),
        ("config", "show"),
        TOY,
        (*TOY[:-3], "--json", "--max-new-tokens", "2"),
        ("sweep", "--backend", "toy", "--model", "toy"),
        ("attribute", "--backend", "toy", "--model", "toy"),
    ):
        if os.path.exists("/dev/full"):
            yield Attack(f"a full disk behind {' '.join(args)[:30]}", args, stdout="/dev/full", may=("one line",))


def configs() -> Iterator[Attack]:
    """The reader's own config file; `mav config show` reads it as the app does."""
    for name, text in (
        ("no TOML", "{"),
        ("nested deeply", "a = " + "[" * 100_000),
        ("tables nested deeply", "[" + "a." * 20_000 + "a]"),
        ("an escape for a key", '"\\u001b]0;x\\u0007" = 1'),
        ("an escape in a value", f'theme = "{ESCAPE}"'),
        ("an unknown setting", "x = 1"),
        ("a number for a layout", "layout = 3"),
        ("a layout of nothing", "[layouts]\nx = []"),
        ("an unknown panel", '[layouts]\nx = ["nothing"]'),
        ("sizes that are no numbers", '[sizes]\noverview = { timeline = ["a", 1] }'),
        ("sizes that are NaN", "[sizes]\noverview = { timeline = [nan, 1] }"),
        ("a key twice", '[keys]\nrun = "p"\nhelp = "p"'),
        ("a panel file that is not there", 'panels = ["x.py"]'),
        ("not UTF-8", b"\xff"),
        ("zeros", b"\0" * 100),
        ("a date", "layout = 2020-01-01"),
        ("a huge number", "layout = " + "9" * 5000),
        ("keys without end", "keys = {" + "a={" * 3000),
    ):
        yield Attack(
            f"config file: {name}", ("config", "show"), _file("c.toml", text), env={"MAV_CONFIG": "{folder}/c.toml"}, may=("one line",)
        )


def plugins() -> Iterator[Attack]:
    """Files of somebody's own: what they raise when they are read, and when a measure of theirs runs."""
    for name, line in (
        ("raises", "raise ValueError('x')"),
        ("raises an escape", f"raise ValueError({ESCAPE!r})"),
        ("exits", "raise SystemExit(3)"),
        ("interrupts", "raise KeyboardInterrupt"),
        ("raises a base exception", "raise BaseException('x')"),
        ("stops a generator", "raise GeneratorExit"),
        ("raises what has no words", WORDLESS),
        ("recurses", "f = lambda: f()\nf()"),
        ("does not parse", "def"),
        ("prints", f"print({ESCAPE!r})"),
        ("closes stdout", "import os; os.close(1)"),
        ("lacks a function", ""),
        ("is not UTF-8", "#\udcff"),
    ):
        yield Attack(
            f"a panel file that {name}",
            (*TOY, "--panel", "{folder}/own.py"),
            _file("own.py", PARTS + line + "\n" + ("" if name == "lacks a function" else "def render(view, width, height): return []\n")),
        )
        yield Attack(
            f"a measure file that {name}",
            (*TOY, "--measure", "{folder}/own.py"),
            _file(
                "own.py",
                PARTS
                + line
                + "\n"
                + ("" if name == "lacks a function" else "import numpy as np\ndef compute(frame, context): return np.zeros(3)\n"),
            ),
        )
    for name, body in (
        ("raises", "raise ValueError('x')"),
        ("raises an escape", f"raise ValueError({ESCAPE!r})"),
        ("exits", "raise SystemExit(3)"),
        ("interrupts", "raise KeyboardInterrupt"),
        ("raises a base exception", "raise BaseException('x')"),
        ("gives a text", "return 'x'"),
        ("gives nothing", "return None"),
        ("gives objects", "import numpy as np; return np.array([object()])"),
        ("gives another name", "import numpy as np; return {'other': np.zeros(2)}"),
        ("raises what has no words", WORDLESS.replace("\n", "\n    ")),
        ("gives ids beyond the vocabulary", "import numpy as np; return {'own.token_ids': np.array([10**9])}"),
        ("gives ids that are halves", "import numpy as np; return {'own.token_ids': np.array([1.5])}"),
        ("gives 20 GB", "import numpy as np; return np.zeros((50_000, 50_000))"),
        ("prints", f"print({ESCAPE!r}); import numpy as np; return np.zeros(2)"),
        ("recurses", "return compute(frame, context)"),
    ):
        yield Attack(
            f"a measure that {name}",
            (*TOY, "--measure", "{folder}/own.py"),
            _file("own.py", PARTS + f"def compute(frame, context):\n    {body}\n"),
        )

    if hasattr(os, "mkfifo"):
        for flag in ("--panel", "--measure"):
            yield Attack(
                f"{flag} with a pipe", (*TOY, flag, "{folder}/own.py"), lambda folder: os.mkfifo(folder / "own.py"), may=("one line",)
            )


def attacks() -> Iterator[Attack]:
    yield from flags()
    yield from environments()
    yield from configs()
    yield from plugins()
