"""Neurons: numbers, activations and tokens are the Step's; what is not known is told apart from what is none."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from drawing import draw, make_view, note, panel

from everything import whole_step
from fakes import HOSTILE, make_info, with_nan, with_values
from openmav.view import View

INFO = make_info(6, 4)


def view_of(layer: int = 3, **changes: object) -> View:
    return replace(make_view([whole_step(0, INFO)], INFO), layer=layer, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(140, 10), (50, 24)])
def test_neurons_and_activations(size: tuple[int, int]) -> None:
    view = view_of()
    assert view.step is not None
    text = "\n".join(draw("neurons", view, *size))
    said = re.findall(r"#(\d+) .*?([+-][\d.]+)", text)
    assert [int(number) for number, _ in said] == view.step.values["neurons.ids"][3].tolist()
    assert [float(value) for _, value in said] == pytest.approx(view.step.values["neurons"][3], abs=0.0051)


def test_tokens_and_how_far_they_move() -> None:
    view = view_of()
    step = view.step
    assert step is not None
    for row, line in enumerate(draw("neurons", view, 200, 8)):
        raised, lowered = line.split("▲")[1].split("▼")
        for way, text in enumerate((raised, lowered)):
            found = re.findall(r"(\S+) +([+-][\d.]+)", text)
            assert len(found) >= 3
            for (name, moved), token, logit in zip(
                found, step.values["neuron_tokens.token_ids"][3, row, way], step.values["neuron_tokens"][3, row, way]
            ):
                assert name == step.pieces[int(token)].replace(" ", "·")
                assert float(moved) == pytest.approx(float(logit), abs=0.0051)


def test_a_token_that_does_not_fit_is_cut_and_not_left_out() -> None:
    view = view_of()
    assert view.step is not None
    long = {token: piece + "longer" * 9 for token, piece in view.step.pieces.items()}
    rows = draw("neurons", replace(view, steps=(replace(view.step, pieces=long),)), 24, 24)
    assert all(row.rstrip().endswith("…") for row in rows if "▲" in row or "▼" in row)


@pytest.mark.parametrize(("way", "said"), [(0, "▲ none: every logit falls"), (1, "▼ none: every logit rises")])
def test_a_neuron_that_moves_every_token_one_way_says_so(way: int, said: str) -> None:
    step = whole_step(0, INFO)
    ids = step.values["neuron_tokens.token_ids"].copy()
    ids[3, 0, way] = -1
    one = replace(make_view([with_values(step, **{"neuron_tokens.token_ids": ids.copy()})], INFO), layer=3)
    assert [said in row for row in draw("neurons", one, 140, 8)] == [True] + [False] * 7
    ids[3, 0] = -1
    neither = replace(make_view([with_values(step, **{"neuron_tokens.token_ids": ids})], INFO), layer=3)
    assert re.search(r"▲ none +▼ none", draw("neurons", neither, 140, 8)[0]), "it adds nothing"


@pytest.mark.parametrize("size", [(200, 8), (50, 24)])
def test_fewer_tokens_stand_in_the_same_columns(size: tuple[int, int]) -> None:
    step = whole_step(0, INFO)
    ids = step.values["neuron_tokens.token_ids"].copy()
    ids[3, 0, 1, 1:] = -1
    few = replace(make_view([with_values(step, **{"neuron_tokens.token_ids": ids})], INFO), layer=3)
    rows = [row[row.index("▼") :] for row in draw("neurons", few, *size) if "▼" in row]
    ends = {match.end() for row in rows if (match := re.match(r"▼ .{2,24}?[+-]\d\.\d\d", row))}
    assert len(rows) > 1
    assert len(ends) == 1


def test_numbers_of_a_narrow_panel_stand_below_each_other() -> None:
    rows = draw("neurons", view_of(), 76, 8)
    assert len({row.index("▼") for row in rows}) == 1
    assert len({re.search(r"▲ \S+ +[+-][\d.]+", row).end() for row in rows}) == 1  # type: ignore[union-attr]


def test_another_layer_has_its_own() -> None:
    assert draw("neurons", view_of(1), 140, 8) != draw("neurons", view_of(2), 140, 8)


def test_tokens_that_were_not_computed_for_this_layer_are_said() -> None:
    step = whole_step(0, INFO)
    only = {name: step.values[name][2:3] for name in ("neuron_tokens", "neuron_tokens.token_ids")}
    step = with_values(step, **only, **{"neuron_tokens.layers": np.array([2])})
    view = replace(make_view([step], INFO), layer=3)
    assert not any("▲" in row for row in draw("neurons", view, 140, 8))
    assert "another layer was selected" in note("neurons", view, 140, 8)
    there = replace(view, layer=2)
    assert all("▲" in row for row in draw("neurons", there, 140, 8))
    assert "another layer" not in note("neurons", there, 140, 8)


def test_why_there_are_none() -> None:
    info = make_info(6, 4, missing={"neurons": {3: "mixture of experts: see router"}, "neuron_tokens": {4: "a norm stands between"}})
    view = make_view([whole_step(0, info)], info)
    assert draw("neurons", replace(view, layer=3), 60, 5) == ["none: mixture of experts: see router"]
    step = with_values(whole_step(0, info), **{"neuron_tokens.layers": np.array([9] * 6)})
    assert "a norm stands between" in note("neurons", replace(make_view([step], info), layer=4), 140, 8)


def test_how_many_do_not_fit() -> None:
    assert "4 of 8 neurons" in note("neurons", view_of(), 50, 9)
    assert "of 8" not in note("neurons", view_of(), 140, 8)


def test_a_neuron_that_is_not_a_number() -> None:
    step = with_nan(whole_step(0, INFO), "neurons", 3, 1)
    assert "! NaN" in draw("neurons", replace(make_view([step], INFO), layer=3), 140, 8)[1]


def test_hostile_tokens_show_as_symbols() -> None:
    step = whole_step(0, INFO)
    pieces = {token: HOSTILE[at % len(HOSTILE)] for at, token in enumerate(step.pieces)}
    view = replace(make_view([replace(step, pieces=pieces)], INFO), layer=3)
    assert all(char.isprintable() for row in draw("neurons", view, 160, 8) for char in row)


def test_the_strongest_of_every_layer_stand_below_where_there_is_room() -> None:
    view = view_of()
    assert view.step is not None
    rows = draw("neurons", view, 160, 20)
    start = next(at for at, row in enumerate(rows) if "strongest neurons of every layer" in row) + 1
    for layer, row in zip(reversed(range(6)), rows[start:]):
        assert int(row.strip("▸ ").split()[0]) == layer
        said = re.findall(r"#(\d+) +([+-]?[\d.]+)", row)
        assert [int(number) for number, _ in said] == view.step.values["neurons.ids"][layer].tolist()
        assert [float(value) for _, value in said] == pytest.approx(view.step.values["neurons"][layer], abs=0.0051)
    assert panel("neurons").pick(view, 160, 20, 3, start + 1).layer == 4
    few = draw("neurons", view, 160, 15)
    assert "layers 1–5 of 6" in "\n".join(few), "the selected layer is among those that fit"
    assert "strongest neurons" not in "\n".join(draw("neurons", view, 160, 11))


def test_the_panel_asks_for_the_rows_that_it_fills() -> None:
    view = view_of()
    assert panel("neurons").rows(replace(view, steps=())) is None
    rows = panel("neurons").rows(view)
    assert draw("neurons", view, 160, rows)[-1].split()[0] == "0"  # the lowest layer is in the last row
    assert draw("neurons", view, 160, rows + 3)[rows:] in ([], ["", "", ""])
