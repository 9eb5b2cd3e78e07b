"""The map of a sweep: what is computed, what is not yet, the strongest head, and what a click selects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawing import draw, make_view, note, panel

from fakes import make_info, make_step, make_sweep
from openmav.record import frozen
from openmav.view import View

NAME = "sweep"
INFO = make_info(6, 4)


def view_of(known: int | None = None, **changes: object) -> View:
    step = make_step(0, info=INFO)
    return make_view([step], INFO, sweep=make_sweep(step, INFO, known, **changes))


def test_every_number_stands_in_its_row_and_what_is_not_computed_is_a_dot() -> None:
    view = view_of(known=10)
    rows = draw(NAME, view, 60, 8)
    sweep = view.sweep
    assert sweep is not None
    for row, layer in zip(rows, reversed(range(6))):
        for head in range(4):
            if sweep.known[layer, head]:
                text = f"{sweep.changes[layer, head]:+.2f}"
                assert (text if float(text) else text[1:]) in row
        assert row.count("·") == int((~sweep.known[layer]).sum())


def test_the_lower_edge_counts_and_names_the_strongest() -> None:
    view = view_of(known=10)
    sweep = view.sweep
    assert sweep is not None
    layer, head = np.unravel_index(int(np.abs(sweep.changes).argmax()), sweep.changes.shape)
    assert f"computing 10 of 24 heads · strongest: L{layer}.H{head} {sweep.changes[layer, head]:+.2f}" in note(NAME, view, 100, 8)
    assert "stopped at 10 of 24 heads" in note(NAME, replace(view, sweep=replace(sweep, stopped=True)), 100, 8)
    assert "of 24" not in note(NAME, view_of(), 100, 8)
    assert "without the interventions" in note(NAME, view_of(of_baseline=True), 100, 8)


def test_what_is_not_finite_is_flagged() -> None:
    changes = np.zeros((6, 4), dtype=np.float32)
    changes[2, 1] = np.nan
    for width in (20, 60):
        row = draw(NAME, view_of(changes=frozen(changes)), width, 8)[3]
        assert "!" in row


@pytest.mark.parametrize("width", [12, 30, 60])
def test_a_click_selects_layer_and_head(width: int) -> None:
    view = view_of()
    columns = {panel(NAME).pick(view, width, 8, x, 1).head for x in range(width)}
    assert columns == set(range(4))
    assert panel(NAME).pick(view, width, 8, 5, 1).layer == 4


def test_another_models_sweep_is_not_shown() -> None:
    view = replace(make_view(2), sweep=view_of().sweep)
    assert "no sweep yet" in draw(NAME, view, 60, 8)[0]


@pytest.mark.parametrize(
    ("what", "site", "names"), [("attn", "L{}.attn", "attention blocks"), ("mlp", "L{}.mlp", "MLPs"), ("layers", "L{}", "layers")]
)
def test_where_whole_parts_are_ablated_each_layer_has_a_bar_and_a_number(what: str, site: str, names: str) -> None:
    view = view_of(known=5, what=what, how="mean")
    sweep = view.sweep
    assert sweep is not None
    rows = draw(NAME, view, 60, 8)
    for row, layer in zip(rows, reversed(range(6))):
        change = float(sweep.changes[layer, 0])
        assert (f"{change:+.2f}" in row) == bool(sweep.known[layer, 0])
        assert any(part in row for part in "█▐▏▕▎▍▌▋▊▉") == bool(sweep.known[layer, 0])
    strongest = int(np.abs(sweep.changes[:, 0]).argmax())
    assert f"computing 5 of 6 {names} · strongest: {site.format(strongest)} " in note(NAME, view, 120, 8)
    assert f"Sweep of {names}" in panel(NAME).heading(view, 120)
    assert "set to its mean" in panel(NAME).heading(view, 120)
    assert panel(NAME).pick(view, 60, 8, 30, 1).layer == 4
