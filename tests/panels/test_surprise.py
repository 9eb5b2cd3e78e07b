"""One scale of surprise: the same steps and colours in the text, on the timeline, in maps and legends, whatever the theme."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from drawing import make_view, panel, without_colour

from fakes import make_info, make_step, with_values
from openmav import panels
from openmav.paint import PALETTES, Palette, line_text, surprise, tile
from openmav.paint.theme import READABLE, contrast, luminance, readable
from openmav.plugins import registry
from openmav.view import View

COLOURED = [palette for palette in PALETTES.values() if palette.color]
NATS = [0.0, 0.2, 0.49, 0.5, 0.9, 1.0, 1.7, 2.0, 2.5, 3.0, 3.9, 4.0, 4.5, 5.0, 6.9, 7.0, 11.0, 40.0]
themes = pytest.mark.parametrize("palette", COLOURED, ids=lambda palette: palette.name)


def run_of(palette: Palette, nats: list[float] = NATS, cursor: int = 0) -> View:
    """A token for each number, each a word of its own; the first one under the cursor."""
    steps = [make_step(at, f" word{at}", logprob=-one) for at, one in enumerate(nats)]
    return make_view(steps, prompt=None, theme=palette.name).at_step(cursor)


def in_the_text(view: View) -> dict[str, str | None]:
    lines = panel("generated_text").render(view, 60, 20)
    return {s.text.strip(): s.style.bgcolor.name if s.style.bgcolor else None for line in lines for s in line}


def on_the_timeline(view: View) -> list[str]:
    """The colour of every column, all of one width."""
    (line,) = panel("timeline").render(view, 60, 1)
    wide = sum(len(s.text) for s in line) // len(view.steps)
    return [s.style.color.name for s in line for _ in range(len(s.text) // wide)]


@themes
def test_a_ramp_is_strictly_monotone_in_lightness(palette: Palette) -> None:
    for ramp in (palette.heat, palette.surprise):
        steps = np.diff([luminance(colour) for colour in ramp])
        assert np.all(steps > 0) if palette.dark else np.all(steps < 0)
    assert len(set(palette.surprise)) == surprise.STEPS == len(surprise.EDGES) + 1 == len(surprise.LABELS)


@themes
def test_low_stands_out_least_from_the_ground_and_is_still_seen(palette: Palette) -> None:
    seen = [contrast(colour, palette.ground) for colour in palette.surprise]
    assert seen == sorted(seen)
    assert seen[0] > 1.1


@themes
def test_text_can_be_read_on_every_colour(palette: Palette) -> None:
    assert [on for on in palette.heat if contrast(readable(palette, on), on) < READABLE] == []


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_steps_begin_at_their_edges() -> None:
    assert [surprise.step_of(nats) for nats in (0, 0.499, 0.5, 1, 1.99, 2, 3, 4, 5, 6.99, 7, 1e9)] == [0, 0, 1, 2, 2, 3, 4, 5, 6, 6, 7, 7]
    assert [surprise.step_of(nats) for nats in (math.nan, math.inf)] == [surprise.NOT_FINITE] * 2
    assert surprise.step_shares(np.array([0.1, 7.0])).tolist() == [0.5 / 8, 7.5 / 8]


@themes
def test_text_and_timeline_agree_for_every_token(palette: Palette) -> None:
    for view in (run_of(palette), make_view(30, theme=palette.name).at_step(0)):
        ramp = palette.surprise
        drawn, columns = in_the_text(view), on_the_timeline(view)
        assert len(columns) == len(view.steps)
        for at, step in enumerate(view.steps):
            assert columns[at] == ramp[surprise.step_of(step.surprisal)]
        if view.prompt is None:
            for at in range(1, len(view.steps)):  # the first is under the cursor
                colour = drawn[f"word{at}"]
                assert (ramp[0] if colour is None else colour) == columns[at]


@themes
def test_a_map_has_the_colours_of_the_text(palette: Palette) -> None:
    info = make_info(1, len(NATS))
    for name in ("attention_entropy", "attention_map"):
        step = with_values(make_step(0, info=info), attention_entropy=np.array([NATS]))
        (line,) = panel(name).render(make_view([step], info, theme=palette.name, layer=-1), 200, 1)
        found = [s.style.bgcolor.name for s in line if s.style and s.style.bgcolor]
        expected = [palette.surprise[surprise.step_of(one)] for one in NATS]
        assert [a for a, b in pairwise([*found, ""]) if a != b] == [a for a, b in pairwise([*expected, ""]) if a != b], name


@themes
def test_the_legend_stands_on_the_frame_where_there_is_room(palette: Palette) -> None:
    view = run_of(palette)
    for name in ("generated_text", "timeline", "attention_entropy"):
        for width, shown in ((60, True), (24, False)):
            found = panels.draw(registry.load("panels", name), view, width, 4, width - 1)
            edge = tile(list(found.lines), width + 4, 6, palette, found.title, legend=found.legend)[0]
            assert (" 0 ½ 1 2 3 4 5 7 nats" in line_text(edge)) == shown, (name, width)
            if shown:
                cells = [s.style.bgcolor.name for s in edge if s.style and s.style.bgcolor]
                assert tuple(cells) == palette.surprise


@themes
def test_the_cursor_has_no_colour_that_means_surprise(palette: Palette) -> None:
    for cursor in range(len(NATS)):
        view = run_of(palette, cursor=cursor)
        mark = in_the_text(view)[f"word{cursor}"]
        assert mark == palette.text
        assert mark not in palette.heat
        assert on_the_timeline(view) == on_the_timeline(run_of(palette)), "the columns keep their colours"


def heights(view: View) -> Iterator[tuple[str, bool]]:
    for line in panel("timeline").render(view, 36, 3):
        for segment in line:
            yield segment.text, bool(segment.style and segment.style.reverse)


def test_without_colour_the_cursors_column_keeps_its_height() -> None:
    for cursor in range(0, len(NATS), 5):
        view = without_colour(run_of(PALETTES["dark"], cursor=cursor))
        drawn = list(heights(view))
        assert not any(reverse for _, reverse in drawn)
        other = list(heights(without_colour(run_of(PALETTES["dark"]))))
        assert "".join(text for text, _ in drawn) == "".join(text for text, _ in other)


def test_the_frame_points_at_the_cursors_column() -> None:
    view = run_of(PALETTES["mono"], cursor=14)
    found = panels.draw(registry.load("panels", "timeline"), view, 60, 2)
    drawn = [
        line_text(line)
        for line in tile(list(found.lines), 64, 4, PALETTES[view.theme], "T", "", legend=found.legend, pointer=found.pointer)
    ]
    assert found.pointer == 14 * 3
    assert drawn[0].index("▼") == drawn[-1].index("▲") == 2 + 14 * 3


def test_the_pointer_is_seen_wherever_the_cursor_is() -> None:
    view = run_of(PALETTES["mono"])
    for cursor in range(len(NATS)):
        found = panels.draw(registry.load("panels", "timeline"), view.at_step(cursor), 36, 1)
        assert found.pointer is not None
        drawn = tile(list(found.lines), 40, 3, PALETTES[view.theme], found.title, found.note, legend=found.legend, pointer=found.pointer)
        assert [line_text(line)[2 + found.pointer] in "▼▲" for line in (drawn[0], drawn[2])].count(True) >= 1
