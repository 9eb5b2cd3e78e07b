"""Every family through the whole backend: what mav shows is what the model computed, and nothing is left behind."""

from __future__ import annotations

import pytest

from backends.families import FAMILIES, OTHERS
from backends.family_checks import CACHED_TOLERANCE, PARTS_TOLERANCE, RESIDUAL_TOLERANCE, ROWS_TOLERANCE, measure

every = pytest.mark.parametrize("name", FAMILIES)
other = pytest.mark.parametrize("name", OTHERS)


@every
def test_attention_rows_are_those_of_eager_attention(name: str) -> None:
    kinds = FAMILIES[name].expected_kinds(measure(name).layers)
    with_rows = sum(kind in ("attention", "sliding attention") for kind in kinds)
    figures = measure(name)
    assert figures.rows_layers == with_rows
    assert (figures.rows is None) == (with_rows == 0)
    assert (figures.rows or 0.0) <= ROWS_TOLERANCE


@every
def test_cached_decoding_equals_the_full_forward_pass(name: str) -> None:
    assert measure(name).cached <= CACHED_TOLERANCE


@every
def test_capture_changes_no_bit_of_the_logits(name: str) -> None:
    assert measure(name).bit_identical


@every
def test_residual_stream_is_the_layers_own(name: str) -> None:
    assert measure(name).residual <= RESIDUAL_TOLERANCE
    assert not {"residual.before", "residual.after"} & measure(name).missing.keys()


@every
def test_what_is_missing_is_not_shown(name: str) -> None:
    assert measure(name).shown_though_missing == ()


@every
def test_parts_add_up_at_every_token(name: str) -> None:
    figures = measure(name)
    assert figures.parts_layers == figures.layers
    assert figures.parts is not None
    assert figures.parts <= PARTS_TOLERANCE


@every
def test_nothing_is_left_behind(name: str) -> None:
    assert measure(name).left_behind == ()


@other
def test_other_families_are_right_or_say_why_not(name: str, request: pytest.FixtureRequest) -> None:
    if name == "rwkv":
        request.applymarker("changes_model")  # it scales its own weights when it first runs in evaluation mode, and back in training
    """Whatever is shown of a family that is not in the list is right; what is not shown has a reason for each layer."""
    figures = measure(name)
    assert figures.cached <= CACHED_TOLERANCE
    assert figures.bit_identical
    assert figures.left_behind == ()
    assert figures.shown_though_missing == ()
    assert (figures.rows or 0.0) <= ROWS_TOLERANCE
    assert (figures.parts or 0.0) <= PARTS_TOLERANCE
    for site, shown in (("attention.probs", figures.rows_layers), ("attention.out", figures.parts_layers)):
        assert shown + len(figures.missing.get(site, {})) >= figures.layers
        assert all(figures.missing.get(site, {}).values())
