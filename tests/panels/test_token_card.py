"""The card of a token: the Step's own numbers, what is not known and why, candidates and lens in the room that is left."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from deep import deep_steps
from drawing import draw, make_view, note, panel
from hypothesis import given
from hypothesis import strategies as st

from fakes import make_info, make_step, make_steps, sampled, with_values
from openmav.panels import needs
from openmav.panels.token_card import bytes_of
from openmav.plugins import registry
from openmav.record import Step
from openmav.settings.sampling import Sampling
from openmav.view import View

NAMES = {1: " the", 2: " own", 3: " art"}
INFO = make_info(6, 2)


def facts(view: View, width: int = 60, height: int = 60) -> dict[str, str]:
    """{label: value} of the card."""
    return {row[:10].strip(): row[10:].strip() for row in draw("token_card", view, width, height) if row[:10].strip()}


def lens_view(tops: list[int], probs: list[float] | None = None, **changes: object) -> View:
    """A token whose layers predict these tokens."""
    shown = probs or [(at + 1) / (len(tops) + 1) for at in range(len(tops))]
    values = {"logit_lens": np.array(shown)[:, None], "logit_lens.token_ids": np.array(tops)[:, None]}
    step = with_values(make_step(0, " art", make_info(len(tops), 2)), **values)
    return make_view([replace(step, pieces=NAMES)], make_info(len(tops), 2), **changes)  # type: ignore[arg-type]


def lens_part(view: View, width: int = 60, height: int = 60) -> list[str]:
    rows = draw("token_card", view, width, height)
    return rows[next(at for at, row in enumerate(rows) if row.startswith("lens")) :]


# ---- numbers ---------------------------------------------------------------------------------------------------------------


def test_every_number_is_the_steps_own_to_the_digits_shown() -> None:
    for step in make_steps(40, INFO):
        view = make_view([replace(step, rank=step.index * 7, sampling=sampled())], INFO)
        shown = facts(view)
        p = float(shown["p"].split(" %")[0])
        assert abs(p - math.exp(step.logprob) * 100) <= 0.05 + 1e-9
        assert float(shown["surprisal"].removesuffix(" nats")) == round(-step.logprob, 2)
        assert float(shown["entropy"].removesuffix(" nats")) == round(step.entropy, 2)
        assert shown["rank"] == f"{step.index * 7} of {INFO.vocab:,}"
        assert shown["id"] == str(step.token_id)
        assert shown["place"] == f"token {step.index} · position {step.position}"
        assert shown["time"] == "44.5 ms · model 43.0 · capture 1.0 · sampling 0.5"
        row = step.candidates.token_ids.tolist().index(step.token_id)
        after = float(shown["p"].split("sampled ")[1].removesuffix(" %"))
        assert abs(after - step.candidates.sampled_probs[row] * 100) <= 0.05 + 1e-6
        assert shown["cut"] == f"{(step.candidates.sampled_probs == 0).sum()} of 20 candidates"


def test_a_small_probability_is_not_shown_as_nothing() -> None:
    step = make_step(0, logprob=math.log(1.2e-7))
    assert facts(make_view([step]))["p"] == "1.2e-05 %"


def test_the_data_holds_the_numbers_themselves() -> None:
    step = make_step(3, rank=12)
    data = registry.load("panels", "token_card").data(make_view([step]))
    assert (data.token_id, data.position, data.rank, data.surprisal, data.entropy) == (
        *(step.token_id, step.position, 12, step.surprisal, step.entropy),
    )
    assert data.p == math.exp(step.logprob)
    assert data.candidates.probs is step.candidates.probs


def test_what_is_not_known_says_why() -> None:
    assert facts(make_view([make_step(0)]))["rank"] == "none: not recorded"
    broken = make_step(0, logprob=math.nan, entropy=math.nan)
    shown = facts(make_view([broken]))
    assert (shown["rank"], shown["p"], shown["surprisal"]) == ("none: the logits hold NaN or infinity", "NaN", "NaN nats")
    assert "none: not captured for this token" in draw("token_card", make_view([make_step(0)]), 60, 60)


# ---- text and bytes ----------------------------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_characters="\ufffd<"), min_size=1, max_size=6))
def test_the_bytes_are_the_text_in_utf_8(token: str) -> None:
    step = make_step(0, token)
    assert bytes_of(step) == (token.encode("utf-8", "surrogatepass"), None)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (make_step(0, " é\n"), "20 C3 A9 0A"),
        (make_step(0, "<0xF0>", text=""), "F0"),
        (make_step(0, "<0xF0><0x9f>", text=""), "F0 9F"),
        (make_step(0, "é<0xF0>", text="é"), "C3 A9 F0"),
        (make_step(0, "<0xF0>"), "3C 30 78 46 30 3E"),  # the model wrote these six characters
        (make_step(0, "\ufffd", text=""), "none: a part of a character"),
        (make_step(0, "<|end|>", text="", special=True), "none: a special token"),
    ],
)
def test_bytes_of_odd_tokens(step: Step, expected: str) -> None:
    assert facts(make_view([step]))["bytes"] == expected


def test_every_character_of_the_token_shows() -> None:
    assert facts(make_view([make_step(0, " a\n\t\x1b")]))["token"] == "·a⏎⇥<ESC>"
    assert facts(make_view([make_step(0, "\ufffd", text="é")]))["token"].endswith(", adds é")
    assert facts(make_view([make_step(0, "<|end|>", text="", special=True)]))["id"] == "5000 · special"


# ---- how it was chosen -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank": 0}, "greedy"),
        ({"rank": 2}, "greedy, after penalties, bans or a constraint"),
        ({"rank": 0, "sampling": sampled()}, "drawn · T 0.80 · top-k 40 · top-p 0.95"),
        ({"rank": 5, "forced": True, "sampling": sampled()}, "forced by you"),
        ({"rank": 5, "forced": True, "sampling": Sampling()}, "forced by you"),
    ],
)
def test_how_it_was_chosen(changes: dict[str, object], words: str) -> None:
    assert facts(make_view([make_step(0, **changes)]))["chosen"] == words  # type: ignore[arg-type]


def test_only_what_was_drawn_has_a_probability_after_sampling() -> None:
    assert "sampled" in facts(make_view([make_step(0, sampling=sampled())]))["p"]
    for step in (make_step(0), make_step(0, forced=True, sampling=sampled())):
        assert "sampled" not in facts(make_view([step]))["p"]


def test_greedy_cuts_nothing() -> None:
    rows = draw("token_card", make_view([make_step(0)]), 60, 60)
    assert not [row for row in rows if "cut" in row]


def test_interventions_are_named() -> None:
    assert facts(make_view([make_step(0, interventions=("ablate L1.H0",))]))["modified"] == "ablate L1.H0"


# ---- candidates --------------------------------------------------------------------------------------------------------------


def test_a_bar_over_the_whole_axis_is_100_percent() -> None:
    step = make_step(0)
    probs = np.linspace(1, 0, 20, dtype=np.float32)
    view = make_view([replace(step, candidates=replace(step.candidates, probs=probs))])
    rows = draw("token_card", view, 60, 60)
    at = next(at for at, row in enumerate(rows) if row.startswith("candidates"))
    longest = rows[at].index("100 %") + 5 - rows[at].index(" 0 ") - 1
    bars = [row.count("█") for row in rows[at + 1 : at + 21]]
    assert bars[0] == longest
    assert all(abs(bar - p * longest) < 1 for bar, p in zip(bars, probs.tolist()))


def test_the_chosen_and_the_selected_candidate_are_always_in_sight() -> None:
    step = make_step(0)
    for chosen in (0, 7, 19):
        ids = step.candidates.token_ids.copy()
        ids[:] = np.arange(100, 120)
        ids[chosen] = step.token_id
        view = make_view([replace(step, candidates=replace(step.candidates, token_ids=ids))])
        for selected in (None, 0, 11, 19):
            rows = draw("token_card", replace(view, candidate=selected), 76, 8)
            assert sum("●" in row for row in rows) == (selected != chosen)
            assert sum("▸" in row for row in rows) == (selected is not None)


def test_a_click_selects_a_candidate_or_a_layer() -> None:
    view = make_view(deep_steps(3, INFO), INFO)
    for width, height in ((60, 60), (76, 8), (50, 12)):
        rows = draw("token_card", view, width, height)
        picked = [panel("token_card").pick(view, width, height, x, y) for y in range(len(rows)) for x in (0, width // 2, width - 2)]
        assert {one.candidate for one in picked} > {None, 0, 1}
        assert len({one.layer for one in picked}) >= 3
    assert panel("token_card").pick(View(), 60, 20, 5, 5) == View()


# ---- the lens ----------------------------------------------------------------------------------------------------------------


def test_each_layer_has_a_row_where_there_is_room() -> None:
    rows = lens_part(lens_view([1, 3, 2, 3, 3]))
    candidate = next(row for row in draw("token_card", lens_view([1, 3, 2, 3, 3]), 60, 60) if row.startswith("●"))
    assert {row.index(" %") for row in rows[1:]} == {candidate.index(" %")}, "both columns of numbers stand below each other"
    assert [row.split()[0] for row in rows[1:]] == ["4", "3", "2", "1", "0"]
    assert [row.split("·")[0].split()[-1] for row in rows[1:] if row.split("·")[0].split()[1:]] == ["│", "◆", "◇"]
    assert [row.split(" %")[0].split()[-1] for row in rows[1:]] == ["83.3", "66.7", "50.0", "33.3", "16.7"]


def test_layers_that_predict_the_same_share_a_row_with_the_highest_ones_probability() -> None:
    rows = draw("token_card", lens_view([1, 1, 1, 2, 3, 3, 3]), 76, 5)
    shown = [row[51:].split() for row in rows if "·" in row[51:]]
    assert [row[0] for row in shown] == ["4–6", "3", "0–2"]
    assert shown[0][1:4] == ["◆", "·art", "87.5"]


def test_lower_layers_that_are_left_out_are_counted() -> None:
    rows = draw("token_card", lens_view([1, 2] * 10), 76, 8)
    assert "▼ 13 lower" in rows[0]


def test_a_layer_without_a_prediction_says_why() -> None:
    info = make_info(3, 2, missing={"logit_lens": {1: "a state space"}})
    view = lens_view([1, -1, 3])
    assert any("none: a state space" in row for row in lens_part(replace(view, info=info)))


def test_the_lens_is_wanted_at_rest_and_looking_back_but_not_for_a_run_that_is_followed() -> None:
    view = make_view(9)
    assert "logit_lens" in needs(["token_card"], view=view)
    running = replace(view, status="running")
    assert "logit_lens" not in needs(["token_card"], view=running)
    assert "logit_lens" in needs(["token_card"], view=running.at_step(3))
    assert "none: not computed while the text runs" in draw("token_card", running, 60, 60)


# ---- room --------------------------------------------------------------------------------------------------------------------


def test_the_card_goes_first_then_candidates_and_lens() -> None:
    view = make_view(deep_steps(3, INFO), INFO)
    for width, height in ((16, 3), (30, 12), (40, 26), (46, 34), (76, 8), (76, 60)):
        rows = draw("token_card", view, width, height)
        assert rows[0].startswith("token")
        assert ("m: all of it" in note("token_card", view, width, height)) == (not any("sampling 0.5" in row for row in rows))
    whole = draw("token_card", view, 46, 60)
    assert sum("%" in row for row in whole) == 1 + 1 + 20 + 6
