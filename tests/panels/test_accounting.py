"""Accounting: times, sizes and memory by hand; what is not known says none."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from drawing import draw, make_view, note

from fakes import make_steps, with_values
from openmav.panels import accounting
from openmav.record import Timing
from openmav.view import View


def view_of(count: int = 30) -> View:
    steps = [
        with_values(replace(step, timing=Timing(0.04 + 0.001 * step.index, 0.002, 0.001)), cache_size=np.array([1000.0 * step.position]))
        for step in make_steps(count)
    ]
    return make_view(steps, draw_seconds=0.0061, memory={"app": 95_400_000, "engine": 1_400_000_000})


def number(view: View, name: str) -> str:
    row = next(line for line in draw("accounting", view, 70, 16) if line.startswith(name))
    return " ".join(row[len(name) :].split()[:2])


def test_times_are_means_of_the_newest_sixteen_tokens() -> None:
    view = view_of()
    models = [step.timing.model for step in view.steps[-16:]]
    assert number(view, "model") == f"{np.mean(models) * 1000:.1f} ms"
    assert number(view, "capture") == "2.0 ms"
    assert number(view, "sampling") == "1.0 ms"
    assert number(view, "draw") == "6.1 ms"
    assert number(view, "speed") == f"{16 / sum(step.timing.total for step in view.steps[-16:]):.1f} tok/s"
    earlier = view.at_step(3)
    assert number(earlier, "model") == f"{np.mean([step.timing.model for step in view.steps[:4]]) * 1000:.1f} ms"


def test_sizes() -> None:
    view = view_of()
    assert number(view, "KV cache") == "43.0 KB"
    assert number(view, "app memory") == "95.4 MB"
    assert number(view, "engine memory") == "1.4 GB"
    parts = ("token_ids", "logits", "probs", "sampled_probs")
    total = sum(array.nbytes for step in view.steps for array in step.values.values())
    total += sum(getattr(step.candidates, name).nbytes for step in view.steps for name in parts)
    assert accounting.history_bytes(view.steps) == (total, True)
    assert number(view, "history") == accounting.size_text(total)


def test_a_long_history_is_sampled_and_says_so() -> None:
    steps = make_steps(4) * 300
    found, exact = accounting.history_bytes(steps)
    assert not exact
    assert found == pytest.approx(accounting.history_bytes(steps[:4])[0] * 300, rel=0.05)
    assert number(make_view(steps), "history").startswith("≈")


def test_what_is_not_known_says_none() -> None:
    view = make_view(5)
    for name in ("draw", "KV cache", "app memory", "engine memory"):
        assert number(view, name).split()[0] == "none"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (912, "912 B"), (46_080, "46.1 KB"), (1_234_567, "1.2 MB"), (284_000, "284 KB"), (2e13, "20.0 TB")]
)
def test_size_text(count: float, text: str) -> None:
    assert accounting.size_text(count) == text


def test_the_speed_over_time_is_condensed_and_says_so() -> None:
    view = view_of(30)
    spark = draw("accounting", view, 40, 10)[-1]
    assert len(spark) == 30
    assert "column: mean of 2 tokens" in note("accounting", view, 26, 16)
    assert "column" not in note("accounting", view, 60, 16)
    speeds = accounting.speeds(view.steps)
    assert [" ▁▂▃▄▅▆▇█".index(char) for char in spark] == pytest.approx([speed / max(speeds) * 8 for speed in speeds], abs=0.51)


def test_rows_that_do_not_fit_are_counted() -> None:
    view = view_of()
    rows = draw("accounting", view, 40, 5)
    assert sum(bool(re.match("[a-zKV]", row)) for row in rows) == 4
    assert "5 more" in note("accounting", view, 40, 5)
    assert "more" not in note("accounting", view, 57, 8), "in two columns"
    whole = "\n".join(draw("accounting", view, 57, 8))
    assert [name for name in ("speed", "draw", "KV cache", "engine memory") if name not in whole] == []
