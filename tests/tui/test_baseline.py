"""Pinning a token or the run: the panels show the difference from it, and say from what and where the texts before differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from driving import COMPACT, HOME, make_app, screen_text, sent, tile

from everything import whole_steps
from fakes import make_info, make_prompt, make_step, make_steps
from openmav.paint import line_text
from openmav.panels import draw
from openmav.panels.widgets.difference import difference
from openmav.plugins import registry
from openmav.protocol.snapshot import Snapshot
from openmav.view import View
from openmav.view.pinned import Pinned

INFO = make_info(6, 4)
STEPS = make_steps(12, INFO)
PROMPT = make_prompt()


def signed(value: float, decimals: int) -> str:
    text = f"{value:+.{decimals}f}"
    return text if float(text) else text[1:]


def view_of(steps=STEPS, cursor: int = 11, **changes: object) -> View:  # type: ignore[no-untyped-def]
    return View(**changes).updated(Snapshot(info=INFO, prompt=PROMPT, steps=steps, status="paused")).at_step(cursor)  # type: ignore[arg-type]


async def test_a_pinned_token_is_subtracted_in_layers_and_candidates() -> None:
    app = make_app(12, layers=6)
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("d", "left", "left")
        await pilot.pause()
        shown, pinned = app.view.steps[9], app.view.steps[11]
        for measure, name in (("mlp_norm", "mlp_norm"), ("residual_norm", "residual_norms")):
            rows = [line.text for line in tile(app, name)._strips[1:7]]
            for row, layer in zip(rows, reversed(range(6))):
                assert signed(shown.values[measure][layer] - pinned.values[measure][layer], 1) in row
        heads = [line.text for line in tile(app, "attention_entropy")._strips[1:7]]
        change = shown.values["attention_entropy"].mean(axis=1) - pinned.values["attention_entropy"].mean(axis=1)
        assert all(signed(change[layer], 2) in row for row, layer in zip(heads, reversed(range(6))))
        before = dict(zip(pinned.candidates.token_ids.tolist(), pinned.candidates.probs.tolist()))
        rows = [line.text for line in tile(app, "top_predictions")._strips[2:8]]
        for row, token_id, p in zip(rows, shown.candidates.token_ids.tolist(), shown.candidates.probs.tolist()):
            assert (f"{signed(100 * (p - before[token_id]), 1)} pp" if token_id in before else " · ") in row
        text = screen_text(app)
        assert "Δ MLP ‖x‖₂" in text
        assert "minus token 11" in text
        assert "after different texts" in text
        assert sent(app) == []
        await pilot.press("end", "d")
        await pilot.pause()
        assert "Δ" not in screen_text(app)
        assert app.view.pinned is None


async def test_a_pinned_run_stays_while_the_text_goes_another_way() -> None:
    app = make_app(12, layers=6)
    async with app.run_test(size=HOME) as pilot:
        await pilot.press("D")
        assert "run main (12 tokens) is pinned" in screen_text(app)
        other = replace(make_step(8, " else", make_info(6, 9), seed=3), token_id=77)
        app.source.history.extend((other, *make_steps(12, make_info(6, 9), seed=3)[9:]))  # type: ignore[attr-defined]
        app.tick()
        await pilot.press(*["left"] * 3)
        await pilot.pause()
        assert app.view.cursor == 8
        assert "minus run main (12 tokens)" in screen_text(app)
        assert "different texts" not in screen_text(app), "the texts before token 8 are the same"
        assert app.view.reference is not None
        assert app.view.reference.token_id != 77
        await pilot.press("right")
        await pilot.pause()
        assert "after different texts" in screen_text(app)
        await pilot.press("D")
        assert app.view.pinned is None


async def test_a_small_screen_says_in_the_header_what_is_pinned() -> None:
    app = make_app(12, layers=6)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press("left", "d", "right")
        await pilot.pause()
        assert "Δ token 10" in screen_text(app).splitlines()[0]
        assert "other text" in screen_text(app).splitlines()[0]


@pytest.mark.parametrize("key", ["d", "D"])
async def test_without_a_token_there_is_nothing_to_pin(key: str) -> None:
    app = make_app(0)
    async with app.run_test(size=COMPACT) as pilot:
        await pilot.press(key)
        assert "there is no token yet" in screen_text(app)
        assert app.view.pinned is None


def test_whether_the_same_text_comes_before_both() -> None:
    token = Pinned.token("x", PROMPT, STEPS, 5)
    assert token.is_same_text(PROMPT, STEPS, 5)
    assert not token.is_same_text(PROMPT, STEPS, 6)
    assert not token.is_same_text(make_prompt("another one"), STEPS, 5)
    changed = (*STEPS[:3], replace(STEPS[3], token_id=1), *STEPS[4:])
    assert not token.is_same_text(PROMPT, changed, 5)
    run = Pinned.run("x", PROMPT, STEPS)
    assert [run.is_same_text(PROMPT, changed, at) for at in (0, 3, 4, 11)] == [True, True, False, False]


def test_what_the_pinned_step_lacks_is_named() -> None:
    bare = replace(STEPS[5], values={})
    view = view_of(pinned=Pinned.token("token 5", PROMPT, (*STEPS[:5], bare), 5))
    found = difference(view, "mlp_norm")
    assert found is not None
    assert (found.values, found.note) == (None, "not captured for token 5")
    short = view_of(pinned=Pinned.run("run main (4 tokens)", PROMPT, STEPS[:4]))
    found = difference(short, "mlp_norm")
    assert found is not None
    assert found.note == "run main (4 tokens) has no token 11"
    assert difference(view_of(), "mlp_norm") is None
    other = make_steps(1, make_info(9, 4))
    found = difference(view_of(pinned=Pinned.token("token 0", PROMPT, other, 0)), "mlp_norm")
    assert found is not None
    assert found.values is None, "another model's layers are not these"


def test_nothing_large_is_kept_of_a_pinned_run() -> None:
    rows = np.zeros((6, 4, 3000), dtype=np.float32)
    step = replace(STEPS[0], values={**STEPS[0].values, "attention_rows": rows})
    assert "attention_rows" not in Pinned.run("x", PROMPT, (step,)).steps[0].values


def whole_view(cursor: int = 3, **changes: object) -> View:
    steps = whole_steps(8, INFO)
    view = View().updated(Snapshot(info=INFO, prompt=PROMPT, steps=steps, status="paused"))
    pinned = Pinned.token("token 6", PROMPT, steps, 6)
    return replace(view, pinned=pinned, layer=2, head=1, **changes).at_step(cursor)  # type: ignore[arg-type]


def test_cells_of_heads_show_the_difference_and_its_ramp() -> None:
    view = whole_view()
    assert view.step is not None
    for name, decimals in (("attention_entropy", 1), ("attention_map", 2)):
        module = registry.load("panels", name)
        shown = draw(module, view, 90, 8)
        rows = [line_text(line) for line in shown.lines]
        change = view.step.values["attention_entropy"] - view.steps[6].values["attention_entropy"]
        for row, layer in zip(rows, reversed(range(6))):
            for value in change[layer]:
                assert signed(float(value), 2) in row, (name, layer)
        assert shown.title.startswith("Δ ")
        assert shown.legend is not None
        assert f"{np.abs(change).max():.{decimals}f}" in line_text(shown.legend)
        same = replace(view, pinned=Pinned.token("token 3", PROMPT, view.steps, 3))
        colours = {segment.style.bgcolor for line in list(draw(module, same, 90, 8).lines)[:6] for segment in line[-4:] if segment.style}
        assert len(colours - {None}) == 1, "no difference has one colour"


def test_the_card_says_how_the_token_differs() -> None:
    view, card = whole_view(), registry.load("panels", "token_card")
    step, pinned = view.step, view.steps[6]
    assert step is not None
    text = " ".join(line_text(line) for line in draw(card, view, 90, 30).lines)
    assert f"surprisal {signed(step.surprisal - pinned.surprisal, 2)}" in text
    assert f"entropy {signed(step.entropy - pinned.entropy, 2)} nats" in text
    assert f"p {signed(100 * (np.exp(step.logprob) - np.exp(pinned.logprob)), 1)} pp" in text
    assert "minus token 6" in text
    short = replace(view, pinned=Pinned.run("run main (2 tokens)", PROMPT, view.steps[:2]))
    text = " ".join(line_text(line) for line in draw(card, short, 90, 30).lines)
    assert "none: run main (2 tokens) has no token 3" in text


def test_attribution_shows_the_parts_of_the_difference_and_they_sum_up() -> None:
    view, module = whole_view(), registry.load("panels", "attribution")
    step, pinned = view.step, view.steps[6]
    assert step is not None
    data = module.data(view)
    assert data.sum.parts == pytest.approx(step.values["attribution"].astype(float) - pinned.values["attribution"])
    assert data.sum.explained + data.sum.rest == pytest.approx(data.sum.logit, abs=1e-3)
    assert data.sum.logit == pytest.approx(float(np.ravel(step.values["attribution.logit"] - pinned.values["attribution.logit"])[0]))
    shown = draw(module, view, 100, 30)
    assert "minus token 6" in shown.note
    assert "minus token 6" in shown.title
    assert f"= difference {data.sum.logit:.2f}" in line_text(list(shown.lines)[-1])
