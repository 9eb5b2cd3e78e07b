"""Characters with power over a terminal, in every string that a user, a folder or a library can supply: none comes through, in any face.

A row of the table is a command in a terminal of its own; each place that it fills has a word that must be seen there, so that a place which
shows nothing is not taken for one that is safe.
"""

from __future__ import annotations

import json
import os
import re
import select
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import warm
from attacks.models import sound, with_json

pytestmark = [pytest.mark.skipif(not warm.FORKS, reason="needs a pseudo-terminal, and fork for its many commands"), pytest.mark.slow]
WAIT = float(os.environ.get("MAV_TEST_WAIT", "90"))
OURS = re.compile(r"\x1b\[[0-9;?<>=$ ]*[a-zA-Z]|\x1b\]22;[a-z-]+\x07|\x1b[=>78]|\x1b\(B")  # what Textual and rich write themselves
EVIL = re.compile(r"\x1b\[[0-9;]*(?:7777)[0-9;]*[a-zA-Z]")  # a sequence of the attack's own
QUIET = 0.35  # seconds without output: less than between two blinks of the cursor
READY = re.compile("[■✖]")  # the app's sign of a run that has ended
POWER = frozenset(
    "\x07\x7f\u061c\u200e\u200f\u2028\u2029\ufeff" + "".join(map(chr, (*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))))
)
TOY = ("--backend", "toy", "--prompt", "Hi", "--max-new-tokens", "2")


def evil(word: str) -> str:
    """OSC 52 that writes the clipboard, BEL, CSI, DCS, C1 controls and direction marks around a word."""
    return f"{word}\x1b]52;c;aGk=\x07\x1b[7777m\x1bPq\x9b31m\x9d0;x\x9c\u202e\u2066\u200f\x7f\x1b[7777H"


@dataclass(frozen=True)
class Row:
    """`args` may name the folder as {folder}; `seen` are words that must stand on the screen, after `keys` were pressed in the app."""

    name: str
    args: tuple[str, ...]
    seen: tuple[str, ...]
    make: Callable[[Path], object] = lambda folder: None
    keys: tuple[str, ...] = ()
    codes: tuple[int, ...] = (0,)
    app: bool = False
    env: dict[str, str] = field(default_factory=dict)


def screen_of(row: Row, folder: Path) -> tuple[int, str]:
    """The exit code, and all that the command wrote to its terminal."""
    import fcntl
    import pty
    import termios

    row.make(folder)
    args = [arg.replace("{folder}", str(folder)) for arg in row.args]
    env = {**os.environ, "TERM": "xterm-256color", "HF_HUB_OFFLINE": "1", "XDG_STATE_HOME": str(folder / "state"), "MAV_CONFIG": os.devnull}
    env.pop("COLUMNS", None)
    env |= {name: value.replace("{folder}", str(folder)) for name, value in row.env.items()}
    terminal, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 45, 160, 0, 0))
    process = warm.start(args, (theirs, theirs, theirs), env=env, cwd=folder, terminal=True)
    os.close(theirs)
    seen, end, keys, leaving = b"", time.monotonic() + WAIT, list(row.keys), ["\x1b", *"qqqqqqqq"]
    waiting = list(row.seen) if row.app else []
    quiet = time.monotonic() + QUIET
    try:
        while time.monotonic() < end:
            if select.select([terminal], [], [], 0.2)[0]:
                try:
                    part = os.read(terminal, 65536)
                except OSError:  # how Linux says that the other side is closed
                    break
                if not part:
                    break
                seen += part
                quiet = time.monotonic() + QUIET
            text = shown(seen)
            if row.app and READY.search(text) and time.monotonic() > quiet and (keys or all(word in text for word in waiting)):
                os.write(terminal, (keys or leaving).pop(0).encode())
                quiet = time.monotonic() + QUIET
        else:
            process.kill()
            pytest.fail(f"no end; {shown(seen)[-3000:]}")
    finally:
        os.close(terminal)
    return process.wait(), seen.decode("utf-8", "replace")


def shown(data: bytes) -> str:
    return OURS.sub("", data.decode("utf-8", "replace"))


def through(text: str) -> list[str]:
    """What came through that has power over a terminal."""
    left = [match[0] for match in EVIL.finditer(text)]
    rest = OURS.sub("", text)
    return left + sorted({repr(char) for char in rest if char in POWER or (ord(char) < 32 and char not in "\n\r\t")})


OWN = f'''"""x"""
import numpy as np
TITLE = {evil("eviltitle")!r}
HELP = {evil("evilhelp")!r}
NEEDS = ()
def heading(view, width):
    return {evil("evilheading")!r}
def render(view, width, height):
    print({evil("evilprint")!r})
    return [{evil("evilrender")!r}]
'''
BROKEN = OWN.replace("    return [", "    raise ValueError(").replace("']\n", "')\n").replace('"]\n', '")\n')


def own_panel(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "own.py").write_text(text, encoding="utf-8")


def file_named(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def named_folder(folder: Path) -> None:
    sound(folder).rename(folder / evil("evilfolder").replace("/", ""))


MODEL = ("--model", "{folder}/model")
FOLDER = "{folder}/" + evil("evilfolder")
TOML = f"layout = {json.dumps(evil('evillayout'))}\n[layouts]\n{json.dumps(evil('evillayout'))} = ['generated_text', 'timeline']\n"
ROWS = (
    Row(
        "the app: model, prompt, watch, breakpoint, own panel",
        (
            *TOY[:2],
            "--model",
            f"{evil('evilmodel')}",
            "--prompt",
            evil("evilprompt"),
            "--max-new-tokens",
            "2",
            "--watch",
            f'token == "{evil("evilwatch")}"',
            "--break",
            f'token == "{evil("evilbreak")}"',
            "--panel",
            "{folder}/own.py",
            "--selected-panels",
            "generated_text",
            "watches",
        ),
        ("evilmodel", "evilprompt", "evilwatch", "evilheading", "evilrender"),
        own_panel(OWN),
        app=True,
    ),
    Row(
        "the app: its breakpoints",
        (*TOY, "--model", "toy", "--break", f'token == "{evil("evilbreak")}"'),
        ("evilbreak",),
        keys=("k",),
        app=True,
    ),
    Row(
        "the app: help of an own panel",
        (*TOY, "--model", "toy", "--panel", "{folder}/own.py", "--selected-panels", "own"),
        ("evilhelp",),
        own_panel(OWN),
        keys=("?",),
        app=True,
    ),
    Row(
        "the app: an own panel that raises",
        (*TOY, "--model", "toy", "--panel", "{folder}/own.py"),
        ("evilre",),  # the panel may be so narrow that the word is broken
        own_panel(BROKEN),
        app=True,
    ),
    Row(
        "the app: a branch that is named by a paste",
        (*TOY, "--model", "toy"),
        ("evilbranch",),
        keys=("g", "n", f"\x1b[200~{evil('evilbranch')}\x1b[201~"),
        app=True,
    ),
    Row(
        "the app: a layout of the config file",
        (*TOY, "--model", "toy"),
        ("evillayout",),
        file_named("c.toml", TOML),
        env={"MAV_CONFIG": "{folder}/c.toml"},
        keys=("\x10", "evil"),
        app=True,
    ),
    Row(
        "the app: a folder that is no model",
        ("--model", FOLDER),
        ("evilfolder",),
        lambda folder: (folder / evil("evilfolder")).mkdir(),
        codes=(2,),
        app=True,
    ),
    Row("doctor: the folder's name, model type", ("doctor", "--model", FOLDER), ("evilfolder",), named_folder),
    Row("attribute: model, prompt", ("attribute", *TOY[:2], "--model", evil("evilmodel"), "--prompt", evil("evilprompt")), ("evilmodel",)),
    Row("attribute: a table", ("attribute", *MODEL, "--prompt", evil("evil")), (), with_json("config.json", lambda c: None)),
    Row("sweep: model, prompt", ("sweep", *TOY[:2], "--model", evil("evilmodel"), "--prompt", evil("evilprompt")), ("evilprompt",)),
    Row("plain: prompt", ("--plain", *TOY, "--model", evil("evilmodel")), ()),
    Row("config show", ("config", "show"), ("evillayout",), file_named("c.toml", TOML), env={"MAV_CONFIG": "{folder}/c.toml"}),
    Row(
        "a key of the config file",
        (*TOY, "--model", "toy"),
        ("evilkey",),
        file_named("c.toml", f"{json.dumps(evil('evilkey'))} = 1"),
        env={"MAV_CONFIG": "{folder}/c.toml"},
        codes=(2,),
    ),
    Row(
        "a value of the config file",
        (*TOY, "--model", "toy"),
        ("evilvalue",),
        file_named("c.toml", f"theme = {json.dumps(evil('evilvalue'))}"),
        env={"MAV_CONFIG": "{folder}/c.toml"},
        codes=(2,),
    ),
    Row(
        "the config file's name",
        (*TOY, "--model", "toy"),
        ("evilfile",),
        file_named(evil("evilfile"), "{"),
        env={"MAV_CONFIG": "{folder}/" + evil("evilfile")},
        codes=(2,),
    ),
    Row(
        "the model type",
        ("--plain", *MODEL),
        ("eviltype",),
        with_json("config.json", lambda c: c.update(model_type=evil("eviltype"))),
        codes=(2,),
    ),
    Row(
        "the quantisation method",
        ("--plain", *MODEL),
        ("evilquant",),
        with_json("config.json", lambda c: c.update(quantization_config={"quant_method": evil("evilquant")})),
    ),
    Row(
        "the attention's name",
        ("--plain", *MODEL, "--max-new-tokens", "1"),
        (),
        with_json("config.json", lambda c: c.update(_attn_implementation=evil("evilattention"), attn_implementation=evil("x"))),
        codes=(0, 2),
    ),
    Row(
        "a template's error",
        ("--plain", "--chat", *MODEL),
        ("eviltemplate",),
        lambda folder: (sound(folder) / "chat_template.jinja").write_text(
            "{{ raise_exception('" + evil("eviltemplate") + "') }}", encoding="utf-8"
        ),
        codes=(2,),
    ),
    *(
        Row(f"the value of {flag}", ("--plain", *TOY, "--model", "toy", flag, evil("evilvalue")), ("evilvalue",), codes=(2,))
        for flag in (
            "--ablate",
            "--amplify",
            "--steer",
            "--patch",
            "--break",
            "--watch",
            "--measure",
            "--panel",
            "--layout",
            "--scale",
            "--dtype",
            "--device",
            "--backend",
            "--json-schema",
            "--selected-panels",
            "--temp",
            "--seed",
            "--load-timeout",
        )
    ),
    Row("a prompt file's name", ("--plain", "--backend", "toy", "--prompt-file", evil("evilfile")), ("evilfile",), codes=(2,)),
    Row("an unknown flag", (f"--{evil('evilflag')}",), ("evilflag",), codes=(2,)),
    Row("an unknown command", (evil("evilcommand"),), ("evilcommand",), codes=(2,)),
    Row("the name of a new panel", ("new", "panel", evil("evilname")), ("evilname",), codes=(2,)),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_nothing_with_power_comes_through(row: Row, tmp_path: Path) -> None:
    code, text = screen_of(row, tmp_path)
    assert through(text) == []
    plain = OURS.sub("", text)
    assert "Traceback" not in plain
    assert "internal error" not in plain
    assert [word for word in row.seen if word not in plain] == [], plain[-3000:]
    assert code in row.codes, plain[-2000:]
    for file in (tmp_path / "state").rglob("*"):
        if file.is_file():
            assert through(file.read_text(encoding="utf-8", errors="replace")) == []


def test_the_check_sees_what_comes_through() -> None:
    assert through("a\x1b[31mb\x1b[0m ␛]52\n") == []
    for bad in ("\x07", "\x9b", "\u202e", "\x1b]0;x", "\x1b[7777m", "\x1b[1;7777H", "\x1bPq", "\x08"):
        assert through(f"a{bad}b") != []


@pytest.mark.asyncio
async def test_a_widget_that_forgets_it_is_drawn_without() -> None:
    from rich.text import Text
    from textual.geometry import Region
    from textual.widgets import Static

    from fakes import ListSource
    from openmav.apps.tui.app import MavApp
    from openmav.view.options import AppOptions

    app = MavApp(ListSource([]), AppOptions())
    async with app.run_test(size=(80, 24)) as pilot:
        forgetful = Static(Text(evil("word")))
        await app.mount(forgetful)
        await pilot.pause()
        lines = forgetful.render_lines(Region(0, 0, forgetful.size.width, forgetful.size.height))
        text = "".join(segment.text for line in lines for segment in line)
        assert "word" in text
        assert through(text) == []
        assert all(line.cell_length == forgetful.size.width for line in lines)
