"""A panel that has the whole screen tells more than its tile: the whole text, every candidate, earlier tokens, axes and names."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from drawing import draw, make_view, panel

from everything import whole_steps
from fakes import make_info, make_step, make_steps
from openmav.apps.tui.kinds import kind_of
from openmav.apps.tui.layout import place_all
from openmav.paint import PALETTES, line_text
from openmav.plugins import registry
from openmav.view import View
from openmav.view.layouts import LAYOUTS
from openmav.view.options import AppOptions

NORMS = {"mlp_norm": "mlp_norm", "attention_norms": "attention_norm", "residual_norms": "residual_norm"}
SIZE = (140, 40)


def alone(view: View) -> View:
    return replace(view, maximised=True)


def test_the_layout_says_which_panel_has_the_whole_screen() -> None:
    kinds = {name: kind_of(name, registry.load("panels", name)) for name in LAYOUTS["overview"]}
    (tile,) = place_all(kinds, 30, 160, 45, None, "timeline", True)
    assert tile.maximised
    assert not any(tile.maximised for tile in place_all(kinds, 30, 160, 45, None, "timeline", False))
    (small,) = place_all(kinds, 30, 60, 16, None, "timeline", False)
    assert not small.maximised, "a small screen shows one panel at a time, as a tile"


def written(rows: list[str]) -> list[str]:
    """The rows of text, without those of bars."""
    return [row.strip() for row in rows if any(char.isalpha() for char in row)]


def test_the_whole_text_whatever_the_limit_of_the_tile() -> None:
    view = make_view(make_steps(300), options=AppOptions(limit_chars=50))
    tile, whole = (" ".join(written(draw("generated_text", one, *SIZE))) for one in (view, alone(view)))
    assert "The capital of France" not in tile
    assert whole.startswith("The capital of France is Paris.")
    assert len(whole) > 1000
    far = " ".join(draw("generated_text", alone(view).at_step(2), 40, 6))
    assert "museums, the river that" in far, "it scrolls to the token under the cursor"


def test_every_candidate_with_rank_id_sum_and_surprisal() -> None:
    step = make_step(3, candidates=200)
    view = make_view([step])
    assert "rank" not in draw("top_predictions", view, 140, 202)[0]
    head, *rows = draw("top_predictions", alone(view), 140, 202)
    assert head.split()[:6] == ["rank", "id", "token", "p", "sum", "nats"]
    assert len(rows) == 200
    sums = np.cumsum(step.candidates.probs.astype(np.float64))
    for at in (0, 1, 57, 199):
        found = re.search(rf"^[● ]  *{at + 1} +{int(step.candidates.token_ids[at])} .*?(<?[\d.]+) % +([\d.]+) % +([\d.]+) ", rows[at])
        assert found is not None, rows[at]
        assert float(found[2]) == pytest.approx(100 * sums[at], abs=0.051)
        assert float(found[3]) == pytest.approx(-np.log(step.candidates.probs[at]), abs=0.0051)


@pytest.mark.parametrize("name", NORMS)
def test_norms_have_the_tokens_beside_them(name: str) -> None:
    info = make_info(8, 4)
    view = make_view(make_steps(30, info), info).at_step(20)
    assert panel(name).legend(view, 140) is None
    rows = draw(name, alone(view), *SIZE)
    assert len(rows) == 9, "the layers and an axis"
    axis = rows[-1]
    assert "token 20" in axis
    assert [int(one) for one in axis.split("token 20")[1].split()] == [0, 5, 10, 15, 20, 25]
    legend = line_text(panel(name).legend(alone(view), 140)).split()
    table = np.array([step.values[NORMS[name]] for step in view.steps])
    assert float(legend[-2]) == pytest.approx(table.max(), abs=0.051)
    x = rows[-1].index(" 5 ") + 1
    picked = panel(name).pick(alone(view), *SIZE, x, 2)
    assert (picked.layer, picked.cursor) == (5, 5)


def test_a_norms_colours_are_those_of_its_tokens() -> None:
    info = make_info(3, 4)
    view = alone(make_view(make_steps(6, info), info))
    table = np.array([step.values["mlp_norm"] for step in view.steps], dtype=np.float64).T
    low = max(table.min(), table.max() / 1000)
    for layer, line in zip((2, 1, 0), panel("mlp_norm").render(view, *SIZE)):
        cells = [s for s in line if s.style is not None and s.style.bgcolor is not None]
        found = [s.style.bgcolor.name for s in cells for _ in range(len(s.text) // 4)]
        shares = np.log(table[layer] / low) / np.log(table.max() / low)
        assert found == [PALETTES[view.theme].heat[min(int(share * 16), 15)] for share in shares]


def test_attention_names_every_token_in_several_lists() -> None:
    info = make_info(2, 2)
    view = make_view(whole_steps(20, info), info)
    tokens = [*range(len(view.steps[-1].values["attention_rows"][0, 0]))]
    for mode in ("strongest first", "in order"):
        shown = alone(replace(view, modes={"attention_row": mode}))
        rows = draw("attention_row", shown, 140, 15)
        found = [int(one) for row in rows for one in re.findall(r"(?:^|  ) +(\d+) \S", row)]
        assert sorted(found) == tokens, mode
        y, x = next((y, row.index(" 30 ") + 1) for y, row in enumerate(rows) if " 30 " in row)
        picked = panel("attention_row").pick(shown, 140, 15, x, y)
        assert picked.cursor == 30 - len(view.prompt.token_ids)


def test_a_tall_timeline_has_axes() -> None:
    view = make_view(40)
    low, high = draw("timeline", view, 100, 3), draw("timeline", view, 100, 12)
    assert not any(char.isdigit() for char in "".join(low))
    top = max(step.surprisal for step in view.steps)
    assert high[0].split()[0] == f"{top:.1f}"
    assert high[-1].split() == ["0", "5", "10", "15", "20", "25", "30", "35"]
    column = high[-1].index("25")
    assert panel("timeline").pick(view, 100, 12, column, 4).cursor == 25


def test_heads_have_their_numbers_below() -> None:
    info = make_info(4, 8)
    view = make_view(whole_steps(2, info), info)
    assert draw("attention_map", view, 80, 5)[-1].split() == [f"H{head}" for head in range(8)]
    assert draw("attention_map", view, 30, 5)[-1].split()[0] == "0"
    assert len(draw("attention_map", view, 80, 4)) == 4
