"""The first and the last line of the screen, as pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from rich.segment import Segment

from openmav.apps.tui import keys as table
from openmav.apps.tui.keys import Hint
from openmav.paint import PALETTES, Line, cells, fit, fit_line, ink, line_width, one_line
from openmav.panels.health import alarm
from openmav.record import TRUNK, ModelInfo
from openmav.view import View

READING = "token_card"  # a layout with this panel is one to read in
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
    failed = alarm(view)
    if failed:
        facts.append((failed, "warning"))
    if view.interventions:
        more = f" and {len(view.interventions) - 1} more" if len(view.interventions) > 1 else ""
        facts.append((f"▾ {fit(one_line(view.interventions[0]), min(24, cells(view.interventions[0])))}{more}", "warning"))
    if view.pinned is not None:
        other = "" if view.pinned.is_same_text(view.prompt, view.steps, view.cursor) else ", other text"
        facts.append((f"Δ {view.pinned.name}{other}", "accent"))
    if view.branch != TRUNK:
        facts.append((f"└ {one_line(view.branch)}", "accent"))
    if view.undone:
        facts.append((f"{view.undone} undone", "accent"))
    if not view.following and view.step is not None and view.cursor < len(view.steps) - 1:
        facts.append((f"token {view.cursor}, newest {len(view.steps) - 1}", "accent"))
    now = speed(view)
    slowed = now is not None and view.running and view.arrives is not None and view.arrives < 0.8 * now[0]
    if slowed:
        facts.append((f"shown {view.arrives:.1f} tok/s", "text"))
    if now is not None:
        facts.append((f"model {now[0]:.1f} tok/s", "secondary") if slowed else (f"{now[0]:.1f} tok/s", "text"))
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
    end: Line = []
    for text, role in right:
        style = ink(palette, role, bold=role == "text")
        end += [Segment("  "), Segment(text, style)] if style.reverse else [Segment(f"  {text}", style)]
    end += mark
    gap = width - line_width(left) - line_width(end)
    return fit_line([*left, Segment(" " * max(0, gap)), *end], width)


@dataclass(frozen=True)
class LayoutName:
    """A layout in the bar: its key and what stands behind that, from which column, and the layout that a click shows."""

    key: str
    name: str
    x: int
    layout: str
    current: bool

    @property
    def text(self) -> str:
        return self.key + self.name


def layout_names(view: View, width: int) -> list[LayoutName]:
    """The layouts with their keys; where it is narrow, without spaces between, then only the keys of those that are not shown."""
    own = table.keys_of(view.options.keys)
    keys = [table.first_key(own[f"layout_{at}"]) if f"layout_{at}" in own else "" for at in range(1, len(view.options.layouts) + 1)]
    for short, between, gap in ((False, " ", 2), (False, "", 1), (True, " ", 2)):
        placed, x = [], 1
        for key, layout in zip(keys, view.options.layouts):
            current = layout == view.layout
            star = "*" if current and view.rearranged else ""
            name = "" if short and key and not current else f"{between if key else ''}{one_line(layout)}{star}"
            placed.append(LayoutName(key, name, x, layout, current))
            x += cells(key + name) + gap
        if x - gap <= width:
            return placed
    return [one for one in placed if one.x + cells(one.text) < width]


def layout_bar(view: View, width: int) -> Line:
    """The names of the layouts, the shown one marked; a star: its panels have been rearranged."""
    palette, line = PALETTES[view.theme], list[Segment]()
    for one in layout_names(view, width):
        line.append(Segment(" " * (one.x - line_width(line))))
        if one.current:
            line.append(Segment(one.text, ink(palette, "accent", bold=True, underline=True)))
        else:
            line += [Segment(one.key, ink(palette, "key")), Segment(one.name, ink(palette, "secondary"))]
    return fit_line(line, width)


def abilities(view: View, can: frozenset[str], focused: ModuleType) -> frozenset[str]:
    """What the keys can do now: the source's commands, and what Key.needs names besides."""
    model, token = view.info is not None, bool(view.steps)
    reading = token and READING in view.options.layouts.get(view.layout, ())
    there = {"model": model, "token": token, "modes": token and len(getattr(focused, "MODES", ())) > 1, "reading": reading}
    commands = frozenset[str]() if view.status == "failed" else can
    return commands | {name for name, has in there.items() if has}


def notes(view: View) -> str:
    """Notes on this model and prompt, in one line; "" if there are none."""
    message = " · ".join(one_line(note) for note in view.info.notes) if view.info else ""
    return f"note: {message} ({table.key_of('escape', view.options.keys)} closes)" if message else ""


def hints(view: View, can: frozenset[str], width: int) -> list[tuple[Hint, int]]:
    """The hints that fit, each with its first column; the least needed are left out first."""
    offered = [hint for hint in table.hints(view.options.keys) if not hint.needs or hint.needs in can]
    keep = sorted(offered, key=lambda hint: hint.rank)
    while keep and sum(_hint_width(hint, view) for hint in keep) + 1 > width:
        keep.pop()
    placed, x = [], 1
    for hint in offered:
        if hint in keep:
            placed.append((hint, x))
            x += _hint_width(hint, view)
    return placed


def _words(hint: Hint, view: View) -> tuple[str, ...]:
    """What a hint may say in this state; the first is what it says now."""
    if hint.id == "hit_next":
        return ("hit", hint.word) if view.search else (hint.word, "hit")
    if hint.id != "run":
        return (hint.word,)
    if view.status == "ended":
        return ("continue",)
    return ("pause", hint.word) if view.running else (hint.word, "pause")


def _hint_width(hint: Hint, view: View) -> int:
    return cells(hint.keys) + 1 + max(map(cells, _words(hint, view))) + 2


def footer(view: View, can: frozenset[str], width: int) -> Line:
    """Keys and their hints."""
    line: Line = [Segment(" ")]
    palette = PALETTES[view.theme]
    for hint, _ in hints(view, can, width):
        what = _words(hint, view)[0]
        gap = _hint_width(hint, view) - cells(hint.keys) - 1 - cells(what)
        line += [Segment(hint.keys, ink(palette, "key", bold=True)), Segment(f" {what}{' ' * gap}", ink(palette, "secondary"))]
    return fit_line(line, width)
