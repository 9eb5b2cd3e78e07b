"""The first and the last line of the screen, as pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from rich.segment import Segment

from openmav.apps.tui import keys as table
from openmav.apps.tui.keys import Hint
from openmav.paint import PALETTES, Line, cells, fit, fit_line, ink, line_width, one_line
from openmav.record import TRUNK, ModelInfo
from openmav.view import View

RECENT = 16  # tokens that the speed is measured over
GLYPHS = {"loading": "…", "prefill": "…", "running": "▶", "paused": "▮▮", "ended": "■", "failed": "✖"}


def speed(view: View) -> tuple[float, float, float] | None:
    """(tokens/s, model ms, capture ms) over the newest tokens, from the session's own timings; None before the first token."""
    recent = [step.timing for step in view.steps[-RECENT:]]
    total = sum(timing.total for timing in recent)
    if not recent or total <= 0:
        return None
    count = len(recent)
    return count / total, sum(t.model for t in recent) / count * 1000, sum(t.capture for t in recent) / count * 1000


def state(view: View) -> str:
    """The state in a word, and the reason if the run has ended."""
    return f"ended: {view.reason}" if view.status == "ended" and view.reason else view.status


def _facts(view: View) -> list[tuple[str, str]]:
    """(text, role) of the right half, the least important last."""
    facts: list[tuple[str, str]] = []
    alarms = view.alarms()
    if alarms:
        facts.append((f"! NaN or inf in {', '.join(alarms)}", "warning"))
    if view.interventions:
        more = f" and {len(view.interventions) - 1} more" if len(view.interventions) > 1 else ""
        facts.append((f"▾ {fit(one_line(view.interventions[0]), min(24, cells(view.interventions[0])))}{more}", "warning"))
    if view.branch != TRUNK:
        facts.append((f"└ {one_line(view.branch)}", "accent"))
    if view.undone:
        facts.append((f"{view.undone} undone", "accent"))
    if not view.following and view.step is not None:
        facts.append((f"token {view.cursor} of {len(view.steps)}", "accent"))
    now = speed(view)
    if now is not None:
        facts.append((f"{now[0]:.1f} tok/s", "text"))
    if view.prompt is not None:
        used = view.steps[-1].position + 1 if view.steps else len(view.prompt.token_ids)
        facts.append((f"ctx {used}/{view.info.context}" if view.info and view.info.context else f"ctx {used}", "secondary"))
    if now is not None:
        facts += [(f"model {now[1]:.1f} ms", "secondary"), (f"capture {now[2]:.1f} ms", "secondary")]
    return facts


def _about(info: ModelInfo) -> list[str]:
    """The backend, device and size."""
    return [one_line(info.backend), one_line(f"{info.device} {info.dtype}"), f"{info.layers} layers × {info.heads} heads"]


def header(view: View, width: int) -> Line:
    """Name and model on the left; state, speed and context on the right. On narrow screens whole facts are left out."""
    palette = PALETTES[view.theme]
    chip = Segment(" mav ", ink(palette, palette.ground or "text", "key", bold=True))
    mark = [Segment(f"  {state(view)} ", ink(palette, "secondary")), Segment(f"{GLYPHS[view.status]} ", ink(palette, "accent", bold=True))]
    facts = _facts(view)
    info = view.info
    name = one_line(info.name) if info else one_line(view.progress) or "loading"
    rest = _about(info) if info else []
    room = width - cells(chip.text) - line_width(mark) - 2
    right: list[tuple[str, str]] = []
    for text, role in facts:
        if cells(text) + 2 > room - min(cells(name), 16):
            continue
        right.append((text, role))
        room -= cells(text) + 2
    left = [chip, Segment(f" {fit(name, min(cells(name), max(room, 0)))}", ink(palette, "text", bold=True))]
    room -= cells(name) + 2
    for part in rest:
        if cells(part) + 3 <= room:
            left.append(Segment((" · " if len(left) > 2 else "  ") + part, ink(palette, "secondary")))
            room -= cells(part) + 3
    end: Line = [Segment(f"  {text}", ink(palette, role, bold=role == "text")) for text, role in right] + mark
    gap = width - line_width(left) - line_width(end)
    return fit_line([*left, Segment(" " * max(0, gap)), *end], width)


def abilities(can: frozenset[str], focused: ModuleType) -> frozenset[str]:
    """What the keys can do now: the source's commands, and "modes" if the focused panel has several."""
    return can | {"modes"} if len(getattr(focused, "MODES", ())) > 1 else can


def notes(view: View) -> str:
    """Notes on this model and prompt, in one line; "" if there are none."""
    message = " · ".join(one_line(note) for note in view.info.notes) if view.info else ""
    return f"note: {message} ({table.key_of('escape', view.options.keys)} closes)" if message else ""


def hints(can: frozenset[str], running: bool, width: int, keys: Mapping[str, str]) -> list[tuple[Hint, int]]:
    """The hints that fit, each with its first column; the least needed are left out first. `keys`: the user's own."""
    offered = [hint for hint in table.hints(keys) if not hint.needs or hint.needs in can]
    keep = sorted(offered, key=lambda hint: hint.rank)
    while keep and sum(_hint_width(hint, running) for hint in keep) + 1 > width:
        keep.pop()
    placed, x = [], 1
    for hint in offered:
        if hint in keep:
            placed.append((hint, x))
            x += _hint_width(hint, running)
    return placed


def _what(hint: Hint, running: bool) -> str:
    return "pause" if hint.id == "run" and running else hint.word


def _hint_width(hint: Hint, running: bool) -> int:
    return cells(hint.keys) + 1 + max(cells(_what(hint, flag)) for flag in (True, False)) + 2


def footer(view: View, can: frozenset[str], width: int) -> Line:
    """Keys and their hints."""
    line: Line = [Segment(" ")]
    running, palette = view.running, PALETTES[view.theme]
    for hint, _ in hints(can, running, width, view.options.keys):
        what = _what(hint, running)
        gap = _hint_width(hint, running) - cells(hint.keys) - 1 - cells(what)
        line += [Segment(hint.keys, ink(palette, "key", bold=True)), Segment(f" {what}{' ' * gap}", ink(palette, "secondary"))]
    return fit_line(line, width)
