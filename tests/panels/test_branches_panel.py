"""The branches panel: the tree, two texts side by side, and what differs between them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawing import panel

from fakes import make_info, make_prompt, make_steps, with_values
from openmav.paint import line_text
from openmav.panels import branches as module
from openmav.panels.widgets.branch_tree import branch_rows, label
from openmav.record import Branch
from openmav.view import View

INFO = make_info(4, 4)
TRUNK = make_steps(20, INFO)
LEFT = make_steps(14, INFO, tokens=[f" x{i}" for i in range(14)], seed=5)[8:]
SIDE = (*TRUNK[:8], *(replace(step, token_id=step.token_id + 1000) for step in LEFT))


def view(**changes: object) -> View:
    other = Branch("branch 1", make_prompt(), SIDE, "main", 8)
    given = {"info": INFO, "steps": TRUNK, "branches": {"branch 1": other}, "prompt": make_prompt(), "cursor": 12, **changes}
    return replace(View(), **given)  # type: ignore[arg-type]


def text(shown: View, width: int = 100, height: int = 24) -> str:
    return "\n".join(line_text(line) for line in panel("branches").render(shown, width, height))


def test_one_way_says_how_to_make_another() -> None:
    alone = replace(view(), branches={})
    assert "One branch so far" in text(alone)
    keys = [line.split("  ")[0].strip() for line in text(alone, 60, 8).splitlines() if line.startswith(("b ", "down", "w ", "e "))]
    assert keys == ["down, enter", "w", "b", "e"], "one key a line"
    assert "down, enter choose another candidate" in text(alone, 36, 8), "in a narrow one too"
    short = text(alone, 36, 6)
    assert all(f"· {key}:" in " ".join(short.split()) for key in ("w", "b")), "where they don't fit, one after the other"


def test_the_tree_names_where_each_left_and_how_long_it_is() -> None:
    shown = text(view())
    assert "● main" in shown
    row = next(line for line in shown.splitlines() if "└ branch 1" in line)
    assert row.split()[:5] == ["◇", "└", "branch", "1", "@8"]
    assert "14" in row


def test_the_first_token_that_differs_is_marked() -> None:
    assert module.parting(TRUNK, SIDE) == 8
    lines = panel("branches").render(view(), 100, 24)
    marked = [segment.text for line in lines for segment in line if segment.style and segment.style.underline]
    assert marked == [TRUNK[8].text, SIDE[8].text]


def test_the_numbers_are_those_of_the_steps() -> None:
    other = with_values(SIDE[12], mlp_norm=TRUNK[12].values["mlp_norm"] * np.array([1, 1, 4, 1], dtype=np.float32))
    steps = (*SIDE[:12], other, *SIDE[13:])
    shown = text(view(branches={"branch 1": Branch("branch 1", make_prompt(), steps, "main", 8)}), 100, 60)
    assert f"{TRUNK[12].entropy:.2f}" in shown
    assert f"{other.entropy:.2f}" in shown
    found = module.differences(TRUNK[12], other)
    assert found == sorted(found, key=lambda row: -row[0])
    mlp = next(row for row in found if row[1] == "MLP ‖x‖" and row[2] == 2)
    assert mlp[0] == pytest.approx(0.75, abs=1e-6)
    assert mlp[3:] == (float(TRUNK[12].values["mlp_norm"][2]), float(other.values["mlp_norm"][2]))
    first = found[0]
    assert f"{first[1]} {first[2]}" in shown
    assert f"{first[3]:.2f}" in shown


def test_the_same_place_has_no_differences() -> None:
    assert "all layers the same here" in text(view(cursor=3), 100, 30)


@pytest.mark.parametrize("size", [(10, 4), (24, 5), (40, 9), (76, 12), (156, 40), (236, 66)])
def test_it_fills_its_box_and_no_more(size: tuple[int, int]) -> None:
    width, height = size
    lines = panel("branches").render(view(), width, height)
    assert len(lines) <= height
    assert all(sum(segment.cell_length for segment in line) <= width for line in lines)


def test_many_branches_keep_the_one_in_force_in_sight() -> None:
    many = {f"branch {i}": Branch(f"branch {i}", make_prompt(), TRUNK[: i + 1], "main", i) for i in range(18)}
    shown = text(view(branches=many), 80, 18)
    assert "● main" in shown
    assert "more branches: g lists all" in shown


def test_a_click_puts_a_branch_beside() -> None:
    many = {name: Branch(name, make_prompt(), SIDE, "main", at) for name, at in (("branch 1", 8), ("branch 2", 9))}
    start = view(branches=many)
    assert start.compared is not None
    assert start.compared.name == "branch 1"
    picked = panel("branches").pick(start, 100, 30, 5, 2)
    assert picked.other == "branch 2"
    assert panel("branches").pick(start, 100, 30, 5, 0).other is None


def test_no_two_columns_touch_however_long_the_tokens_are() -> None:
    ends = (*TRUNK[:12], replace(TRUNK[12], token="<|endoftext|>", logprob=-1.5), *TRUNK[13:])
    other = Branch("branch 1", make_prompt(), (*SIDE[:12], replace(SIDE[12], token="<|endoftext|>", logprob=-1.5)), "main", 8)
    for width in range(34, 120):
        rows = text(view(steps=ends, branches={"branch 1": other}), width, 30).splitlines()
        row = next(row for row in rows if row.startswith("at token"))
        assert row.count("22.3 %") == 2, (width, row)
        assert "%<" not in row
        assert width < 60 or all("…" in part or "<|endoftext|>" in part for part in row.split("22.3 %")[:2])


def test_layers_are_listed_in_their_order_and_other_texts_are_said() -> None:
    rows = text(view(), 100, 40).splitlines()
    assert any("after different texts" in row for row in rows), "token 12 stands behind token 8, where they part"
    at = [row.split()[:3] for row in rows if row.startswith("MLP")]
    assert [int(row[2]) for row in at] == sorted((int(row[2]) for row in at), reverse=True)
    assert len(at) > 1
    assert not any("after different texts" in row for row in text(view(cursor=8), 100, 40).splitlines())


def test_ten_thousand_branches_each_of_the_one_before_it_are_a_tree() -> None:
    prompt = make_prompt()
    names = [f"b{number}" for number in range(10_000)]
    parents = dict(zip(names[1:], names))
    branches = {name: Branch(name, prompt, (), parents.get(name), 0) for name in reversed(names)}
    rows = branch_rows(branches, 20)
    assert [(row.name, row.depth) for row in rows] == [(name, depth) for depth, name in enumerate(names)]
    assert len(label(rows[-1], 40)) <= 40
