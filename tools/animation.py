"""Make the moving picture of the README from the real app: `make animation`.

    python tools/animation.py [--model demo] [--out docs/images]

mav.svg: the app's own SVG screens of one real run, laid over each other; what stays the same from screen to screen is kept once,
and CSS shows each part while it belongs to the screen. mav.cast: the real command in a pseudo terminal, as an asciicast (version 2),
which `asciinema play` plays; it needs a POSIX system.
"""

from __future__ import annotations

import argparse
import asyncio
import codecs
import json
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from openmav.apps.tui.app import MavApp
from openmav.engine import EngineSource
from openmav.paint import PALETTES
from openmav.settings import Settings
from openmav.settings.sampling import Sampling
from openmav.view.options import AppOptions

SIZE = (112, 34)
PROMPT = "Elizabeth looked at him, and"
SAMPLING = Sampling(temperature=0.7, seed=7)
TOKENS, EVERY = 36, 2  # of the run; one screen every so many
RUNNING, LOOKING = 0.3, 1.1  # seconds that a screen stays: while tokens come, after a key
MEANWHILE, AFTER = "3", 16  # a key while the model writes, so that its layout has all tokens from there on
KEYS = ("left", "left", "left", "end", "1", "down", "down", "escape", "2", "left_square_bracket", "right_curly_bracket", "1")
TYPED = {"left": "\x1b[D", "down": "\x1b[B", "end": "\x1b[F", "escape": "\x1b", "left_square_bracket": "[", "right_curly_bracket": "}"}
LARGEST = 2_000_000  # bytes of the picture, for a page that opens quickly


# ---- screens ---------------------------------------------------------------------------------------------------------------


async def screens(model: str) -> list[tuple[str, float]]:
    """The app's own SVG after every few tokens of a run, then after each key."""
    source = EngineSource(Settings(model=model, prompt=PROMPT, sampling=SAMPLING, max_new_tokens=TOKENS, refresh_rate=0.25, threads=1))
    taken: list[tuple[str, float]] = []
    try:
        app = MavApp(source, AppOptions())
        async with app.run_test(size=SIZE) as pilot:
            shown = 0
            while source.snapshot().status not in ("ended", "failed"):
                await pilot.pause(0.02)
                if len(app.view.steps) >= shown + EVERY:
                    if shown < AFTER <= len(app.view.steps):
                        await pilot.press(MEANWHILE)
                    shown = len(app.view.steps)
                    taken.append((app.export_screenshot(title="mav"), RUNNING))
            if error := source.snapshot().error:
                raise SystemExit(error)
            for key in KEYS:
                await pilot.press(key)
                await pilot.pause(0.5)
                taken.append((app.export_screenshot(title="mav"), LOOKING))
    finally:
        source.close()
    return taken


# ---- one moving SVG ----------------------------------------------------------------------------------------------------------

STYLE = re.compile(r"\.terminal-\d+-(r\d+) \{([^}]*)\}")
PART = re.compile(r"<rect [^>]*/>|<text [^>]*>.*?</text>", re.DOTALL)
CLASS = re.compile(r'class="terminal-\d+-(r\d+)"')
CLIPPED = re.compile(r' (?:clip-path="[^"]*"|shape-rendering="crispEdges")')
START = '<g transform="translate(9, 41)"'  # of the terminal's own cells


class Styles:
    """The looks of all screens, each under one name: every screen that the app saves has names of its own."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def parts(self, svg: str, ground: str) -> tuple[str, ...]:
        """The cells of a screen, with this object's names; without what has the colour of the ground."""
        known = {name: self.names.setdefault(look.strip(), f"s{len(self.names)}") for name, look in STYLE.findall(svg)}
        found = PART.findall(svg[svg.index(START) :])
        named = [CLASS.sub(lambda match: f'class="{known[match[1]]}"', CLIPPED.sub("", part)) for part in found]
        return tuple(part for part in named if not part.startswith(f'<rect fill="{ground}"'))

    def css(self) -> str:
        return "\n".join(f".{name} {{{look}}}" for look, name in self.names.items())


def moving(taken: Sequence[tuple[str, float]], ground: str) -> str:
    """One SVG that shows the screens one after the other, again and again."""
    styles, first = Styles(), taken[0][0]
    where: dict[str, list[int]] = {}
    for at, (svg, _) in enumerate(taken):
        for part in dict.fromkeys(styles.parts(svg, ground)):
            where.setdefault(part, []).append(at)
    groups: dict[tuple[bool, tuple[int, ...]], list[str]] = {}  # grounds below, text above; then by the screens that have them
    for part, at_frames in where.items():
        groups.setdefault((part.startswith("<text"), tuple(at_frames)), []).append(part)
    masks = {mask: f"k{number}" for number, mask in enumerate(dict.fromkeys(mask for _, mask in groups))}
    rules = "\n".join(_rule(name, mask, [seconds for _, seconds in taken]) for mask, name in masks.items())
    body = "\n".join(f'<g class="{masks[mask]}">{"".join(parts)}</g>' for (_, mask), parts in sorted(groups.items(), key=_below_first))
    head, fonts = first[: first.index("<style>")], first[first.index("<style>") + 7 : first.index("</style>")]
    matrix = STYLE.sub("", fonts)
    window = first[first.index("</defs>") + 7 : first.index(START)]
    size = re.search(r'<rect x="0" y="0" width="([\d.]+)" height="([\d.]+)"', first)
    cells = re.search(r'<g class="(terminal-\d+-matrix)">', first)
    assert size is not None
    assert cells is not None
    on = f'<rect fill="{ground}" x="0" y="0" width="{size[1]}" height="{size[2]}"/>'
    style = f"<style>{matrix}\n{styles.css()}\n{rules}\n</style>"
    return f'{head}{style}{window}{START}>{on}<g class="{cells[1]}">\n{body}\n</g></g></svg>\n'


def _below_first(group: tuple[tuple[bool, tuple[int, ...]], list[str]]) -> bool:
    return group[0][0]


def _rule(name: str, mask: tuple[int, ...], seconds: Sequence[float]) -> str:
    """CSS that shows a group while one of its screens is on; nothing for what is always there."""
    if len(mask) == len(seconds):
        return ""
    whole = sum(seconds)
    changes = [at for at in range(len(seconds)) if (at in mask) != (at - 1 in mask) or at == 0]
    steps = [f"{100 * sum(seconds[:at]) / whole:.2f}%{{visibility:{'visible' if at in mask else 'hidden'}}}" for at in changes]
    return f"@keyframes {name}{{{''.join(steps)}}} .{name}{{animation:{name} {whole:.1f}s step-end infinite}}"


# ---- the real command, recorded ------------------------------------------------------------------------------------------------


def record(model: str, out: Path) -> None:
    """An asciicast of `mav` in a pseudo terminal: a run with a key meanwhile, then the same keys, then q."""
    import fcntl
    import pty
    import select
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    command = [sys.executable, "-m", "openmav", "--model", model, "--prompt", PROMPT, "--max-new-tokens", str(TOKENS)]
    command += ["--temp", str(SAMPLING.temperature), "--seed", str(SAMPLING.seed)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True)
    os.close(theirs)
    began, text, events = time.monotonic(), codecs.getincrementaldecoder("utf-8")(), []
    waiting, due, seen, writing = [*KEYS, "q"], float("inf"), "", False
    while True:
        if time.monotonic() >= due and waiting:
            key = waiting.pop(0)
            os.write(ours, TYPED.get(key, key).encode())
            due = time.monotonic() + LOOKING
        if not select.select([ours], [], [], 0.05)[0]:
            if process.poll() is not None:
                break
            continue
        try:
            new = text.decode(os.read(ours, 1 << 16))
        except OSError:  # how Linux says that the command has closed its side
            break
        events.append((round(time.monotonic() - began, 3), "o", new))
        seen = (seen + new)[-20_000:]
        if not writing and "tok/s" in seen:
            writing = True
            time.sleep(LOOKING)
            os.write(ours, MEANWHILE.encode())
        if due == float("inf") and "ended" in seen:
            due = time.monotonic() + LOOKING
    process.wait()
    os.close(ours)
    header = {"version": 2, "width": SIZE[0], "height": SIZE[1], "title": "mav", "env": {"TERM": "xterm-256color"}}
    out.write_text("\n".join(json.dumps(one, ensure_ascii=False) for one in (header, *events)) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if sys.platform != "win32":
        record(args.model, args.out / "mav.cast")
    svg = moving(asyncio.run(screens(args.model)), str(PALETTES["dark"].ground))
    if len(svg.encode()) > LARGEST:
        raise SystemExit(f"the picture has {len(svg.encode())} bytes, more than {LARGEST}: take fewer screens")
    (args.out / "mav.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
