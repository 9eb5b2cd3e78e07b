"""The number on the screen is the Step's: one panel after the other, read off the drawn text."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from drawing import draw, make_view, note, panel

from fakes import make_info, make_preview, make_step, make_steps, sampled, with_nan
from openmav.record import RANK_EDGES


@pytest.mark.parametrize(
    ("name", "measure"), [("mlp_norm", "mlp_norm"), ("attention_norms", "attention_norm"), ("residual_norms", "residual_norm")]
)
def test_norms(name: str, measure: str) -> None:
    view = make_view()
    assert view.step is not None
    for row in draw(name, view, 60, 30):
        label, *_, number = row.replace("▸", " ").split()
        assert float(number) == pytest.approx(view.step.values[measure][int(label)], abs=0.051)


def test_entropy_is_the_mean_over_heads() -> None:
    view = make_view()
    assert view.step is not None
    values = view.step.values["attention_entropy"]
    for row in draw("attention_entropy", view, 60, 30):
        label, number = re.match(r"[▸ ]*(\d+)[ █▏▎▍▌▋▊▉]+([\d.]+)", row).groups()  # type: ignore[union-attr]
        assert float(number) == pytest.approx(values[int(label)].mean(), abs=0.0051)


def test_a_wide_entropy_panel_says_each_head() -> None:
    view = make_view()
    assert view.step is not None
    row = draw("attention_entropy", view, 140, 30)[3]
    numbers = [float(text) for text in re.findall(r"\d+\.\d\d", row)]
    assert numbers[1:] == pytest.approx(view.step.values["attention_entropy"][26], abs=0.0051)


def test_heat_cells_without_colour_follow_the_values() -> None:
    from drawing import without_colour

    info = make_info(1, 5)
    step = make_step(0, info=info)
    from fakes import with_values

    step = with_values(step, attention_entropy=np.array([[0.0, 1.5, 2.5, 4.5, 8.0]]))
    row = draw("attention_entropy", without_colour(make_view([step], info, head=4)), 40, 1)[0]
    cells = row[-1] and re.sub(r"(.)\1*", r"\1", row[row.index("3.30") + 5 :])
    assert cells == " ░▒▓█◆█", "the selected head bears its mark"


def test_more_heads_than_cells_are_averaged_and_said() -> None:
    info = make_info(4, 128)
    view = make_view(make_steps(1, info), info)
    assert re.search(r"cell: mean of \d+ heads", note("attention_entropy", view, 40, 4))


def test_a_head_that_is_not_a_number_is_marked_in_its_cell() -> None:
    info = make_info(2, 4)
    step = with_nan(make_step(0, info=info), "attention_entropy", 0, 2)
    assert "!" in draw("attention_entropy", make_view([step], info), 40, 2)[1]


def test_predictions() -> None:
    view = make_view(sampling=sampled())
    assert view.step is not None
    candidates = view.step.candidates
    rows = draw("top_predictions", view, 80, 21)[1:]
    assert len(rows) == len(candidates)
    for at, row in enumerate(rows):
        assert ("●" in row) == (candidates.token_ids[at] == view.step.token_id)
        assert candidates.tokens[at].replace(" ", "·") in row
        p, after = re.search(r"(<?[\d.]+) % +(cut|[\d.]+)", row).groups()  # type: ignore[union-attr]
        assert float(p) == pytest.approx(candidates.probs[at] * 100, abs=0.051)
        assert (
            after == "cut"
            if candidates.sampled_probs[at] == 0
            else float(after) == pytest.approx(candidates.sampled_probs[at] * 100, abs=0.051)
        )
        assert float(row.split()[-1]) == pytest.approx(candidates.logits[at], abs=0.0051)
    assert f"entropy {view.step.entropy:.2f} nats" in note("top_predictions", view)


def test_the_chosen_token_is_always_in_sight() -> None:
    for step in make_steps(40):
        assert any("●" in row for row in draw("top_predictions", make_view([step]), 40, 4))


def test_distribution() -> None:
    view = make_view(sampling=sampled())
    assert view.step is not None
    values = view.step.values["distribution"]
    rows = draw("output_distribution", view, 60, 12)[1:]
    assert [row.split()[0] for row in rows[:4]] == ["1", "2", "3-4", "5-8"]
    assert rows[-1].split()[0] == f"{RANK_EDGES[-1] + 1}+"
    for row, (raw, _) in zip(rows, values):
        assert float(row.split()[1]) == pytest.approx(raw * 100, abs=0.051)
    assert "cut" in rows[-1]


def test_how_a_token_was_chosen_is_that_of_its_step_not_of_the_next() -> None:
    view = make_view()
    view = replace(view, sampling=sampled())  # set after this token was chosen
    for name in ("top_predictions", "output_distribution"):
        assert "sampled" not in draw(name, view, 80, 21)[0]
    assert "greedy" in note("top_predictions", view, 80, 21)
    assert "next token" not in note("top_predictions", view, 80, 21), "before its preview is there, nothing is said of it"
    later = replace(view, steps=tuple(replace(step, sampling=sampled()) for step in view.steps))
    assert "sampled" in draw("top_predictions", later, 80, 21)[0]
    assert "next token" not in note("top_predictions", later, 80, 21)
    assert view.step is not None
    coming = replace(view, preview=make_preview(view.step, sampled()))
    assert "preview" in panel("top_predictions").heading(coming, 80)
    assert "sampled" in draw("top_predictions", coming, 80, 21)[0]
    assert note("top_predictions", coming, 80, 21).startswith("entropy")
    assert "T 0.80 · top-k 40 · top-p 0.95, from the next token on" in note("top_predictions", coming, 80, 21)
    assert "greedy" not in note("top_predictions", coming, 80, 21)


def test_a_short_distribution_sums_up_the_rest() -> None:
    view = make_view()
    assert view.step is not None
    last = draw("output_distribution", view, 40, 5)[-1].split()
    assert last[0] == "9+"
    assert float(last[1]) == pytest.approx(view.step.values["distribution"][4:, 0].sum() * 100, abs=0.051)


def test_timeline() -> None:
    view = make_view(40)
    assert view.step is not None
    mean = float(np.mean([step.surprisal for step in view.steps]))
    said = note("timeline", view, 100)
    assert f"{view.step.surprisal:.2f} nats" in said
    assert f"mean {mean:.2f}" in said
    assert f"perplexity {math.exp(mean):.1f}" in said
    row = draw("timeline", view, 60, 1)[0]
    heights = [" ▁▂▃▄▅▆▇█".index(char) for char in row]
    top = max(step.surprisal for step in view.steps)
    assert heights == pytest.approx([max(1, step.surprisal / top * 8) for step in view.steps], abs=0.51)


def test_a_long_timeline_shows_a_window_and_says_which() -> None:
    view = make_view(100)
    assert "◂ 40–99 of 100" in note("timeline", view, 60, 3)
    assert "0–59 of 100 ▸" in note("timeline", view.at_step(3), 60, 3)


def test_perplexity_of_the_impossible() -> None:
    view = make_view([make_step(0, logprob=-math.inf)])
    assert "perplexity inf" in note("timeline", view)
    assert "!" in draw("timeline", view, 20, 1)[0]
