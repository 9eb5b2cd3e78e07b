"""The heat map of heads."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from deep import deep_steps, deepen
from drawing import draw, make_view, note, panel, without_colour

from fakes import make_info, make_step, with_values
from openmav import panels
from openmav.paint import PALETTES, line_text, surprise, tile
from openmav.record import Step
from openmav.view import View

KINDS = {"entropy": "attention_entropy", "relative entropy": "relative_attention_entropy", "sink share": "sink_share"}


def kind(view: View, name: str) -> View:
    return replace(view, modes={"attention_map": name})


@pytest.mark.parametrize("name", KINDS)
def test_cells_hold_the_numbers_of_the_step(name: str) -> None:
    view = kind(make_view(deep_steps(4)), name)
    assert view.step is not None
    for row in draw("attention_map", view, 70, 30):
        label, *numbers = re.findall(r"\d+\.\d\d|\d+", row)
        assert [float(text) for text in numbers] == pytest.approx(view.step.values[KINDS[name]][int(label)], abs=0.0051)


@pytest.mark.parametrize("name", KINDS)
def test_the_selected_number_stands_on_the_edge(name: str) -> None:
    view = kind(make_view(deep_steps(4), layer=7, head=3), name)
    assert view.step is not None
    value = float(view.step.values[KINDS[name]][7, 3])
    assert f"layer 7 head 3: {value:.2f}" in note("attention_map", view, 80, 30)
    assert f"L7.H3 {value:.2f}" in note("attention_map", view, 30, 30)


def test_a_key_goes_through_the_kinds() -> None:
    view = make_view(deep_steps(2))
    seen = []
    for _ in range(4):
        seen.append(panel("attention_map").heading(view, 100))
        view = view.in_next_mode("attention_map", panel("attention_map").MODES)
    assert [part.split(" · ")[1] for part in seen] == ["entropy, nats", "relative entropy", "sink share", "entropy, nats"]


def one_layer(values: list[float], measure: str = "sink_share") -> tuple[Step, View]:
    info = make_info(1, len(values))
    step = with_values(deepen(make_step(0, info=info), info), **{measure: np.array([values])})
    return step, make_view([step], info, head=len(values) - 1)


def test_without_colour_cells_get_denser() -> None:
    _, view = one_layer([0.0, 0.3, 0.5, 0.7, 0.99])
    row = draw("attention_map", without_colour(kind(view, "sink share")), 20, 1)[0]
    assert re.sub(r"(.)\1*", r"\1", row[3:].replace("◆", "█")) == " ░▒▓█"


def test_shares_are_seen_against_one_and_entropy_in_the_steps_of_the_text() -> None:
    _, view = one_layer([0.1, 0.2])
    low, high = (
        line_text(panel("attention_map").legend(kind(view, name), 80)).split()[i] for name, i in (("sink share", 0), ("sink share", 1))
    )
    assert (low, high) == ("0.00", "1.00")
    assert panel("attention_map").legend(view, 80) == panel("generated_text").legend(view, 80) == surprise.legend(PALETTES[view.theme])


def test_heads_that_do_not_fit_are_averaged_and_said() -> None:
    _, view = one_layer([0.0, 0.0, 0.9, 0.9] * 16)
    view = without_colour(kind(view, "sink share"))
    assert draw("attention_map", view, 36, 1)[0][4:].replace("◆", "█") == " █" * 16
    assert "2 heads/cell" in note("attention_map", view, 36, 1)
    assert "cell: mean of 2 heads" in note("attention_map", view, 60, 1)


def test_the_selected_head_is_marked_and_a_click_selects() -> None:
    view = make_view(deep_steps(2), layer=27, head=4)
    rows = draw("attention_map", view, 70, 30)
    assert [at for at, row in enumerate(rows) if "◆" in row] == [2]
    assert rows[2][: rows[2].index("◆")].count(".") == 5
    picked = panel("attention_map").pick(view, 70, 30, 5 + 7 * 7 + 2, 3)
    assert (picked.layer, picked.head) == (26, 7)


@pytest.mark.parametrize("theme", ["dark", "light", "mono"])
def test_the_legend_stands_in_the_frame_of_a_narrow_map_too(theme: str) -> None:
    view = replace(make_view(12), theme=theme)
    shown = panels.draw(panel("attention_map").module, view, 36, 8, 35)
    frame = line_text(tile(shown.lines, 40, 10, PALETTES[theme], shown.title, legend=list(shown.legend or []))[0])
    assert "nats" in frame
    assert "Entropy" in frame
