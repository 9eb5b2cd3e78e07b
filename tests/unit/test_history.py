"""What a history keeps: all steps, and of their large entries as much as its budget allows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fakes import make_step, with_values
from openmav.protocol.history import History
from openmav.record import LARGE, Step, large, without_large

SIZE = 2 * LARGE


def heavy(index: int) -> Step:
    """A step with one large entry of SIZE bytes."""
    return with_values(make_step(index), attention_rows=np.zeros((1, 1, SIZE // 4), np.float32))


def kept(history: History) -> list[int]:
    return [step.index for step in history.snapshot().steps if "attention_rows" in step.values]


def test_the_newest_large_entries_stay() -> None:
    history = History(budget=3 * SIZE)
    for index in range(10):
        history.append(heavy(index))
    assert kept(history) == [7, 8, 9]
    assert len(history.snapshot().steps) == 10
    assert history.snapshot().steps[0].dropped == ("attention_rows",)
    assert "mlp_norm" in history.snapshot().steps[0].values


def test_the_newest_step_stays_whole_however_large() -> None:
    history = History(budget=1)
    history.append(heavy(0))
    history.append(heavy(1))
    assert kept(history) == [1]


def test_going_back_frees_what_it_takes_away() -> None:
    history = History(budget=3 * SIZE)
    for index in range(3):
        history.append(heavy(index))
    history.truncate(1)
    for index in (1, 2):
        history.append(heavy(index))
    assert kept(history) == [0, 1, 2]
    history.append(heavy(1))
    assert kept(history) == [0, 1]


def test_a_snapshot_never_changes() -> None:
    history = History(budget=SIZE)
    history.append(heavy(0))
    before = history.snapshot()
    history.append(heavy(1))
    assert "attention_rows" in before.steps[0].values


def test_a_step_that_was_looked_at_again_takes_its_place() -> None:
    history = History(budget=3 * SIZE)
    for index in range(6):
        history.append(heavy(index))
    before = history.snapshot()
    history.again(heavy(1))
    assert kept(history) == [1, 4, 5]
    assert history.snapshot().version > before.version
    assert "attention_rows" not in before.steps[1].values
    history.again(replace(heavy(2), token_id=-5))  # another token stands there by now
    history.again(heavy(6))
    assert kept(history) == [1, 4, 5]
    assert [step.index for step in history.snapshot().steps] == list(range(6))
    history.again(heavy(1))
    history.append(heavy(6))
    assert kept(history) == [4, 5, 6]
    history.truncate(4)
    assert kept(history) == []
    history.append(heavy(4))
    assert kept(history) == [4]


def test_small_entries_are_always_kept() -> None:
    history = History(budget=0)
    for index in range(5):
        history.append(make_step(index))
    assert all(step.dropped == () and "mlp_norm" in step.values for step in history.snapshot().steps)


def test_only_what_is_large_is_dropped() -> None:
    step = heavy(0)
    assert large(step) == {"attention_rows": SIZE}
    assert without_large(step).values.keys() == step.values.keys() - {"attention_rows"}
    plain = make_step(0)
    assert without_large(plain) is plain
