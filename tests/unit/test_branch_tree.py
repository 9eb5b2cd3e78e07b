"""The state machine of a text's branches on its own: no model, and numbers in the place of a sampler's states."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import make_step
from openmav.errors import UsageError
from openmav.generation.branches import BranchTree
from openmav.record import Prompt

ENDS = 7  # the token that ends a text


def prompt_of(text: str = "a") -> Prompt:
    return Prompt(text, (1,), (text,))


@dataclass
class Line:
    """A branch as it should be: its tokens, the sampler's state before each and after the last, and how many are not undone."""

    prompt: Prompt
    states: list[int]
    tokens: list[int] = field(default_factory=list)
    length: int = 0


class Walk:
    """The machine beside a plain list of tokens for each branch, both moved the same way."""

    def __init__(self) -> None:
        self.tree: BranchTree[int] = BranchTree(prompt_of())
        self.sampler = self.newest = 0
        self.lines = {"main": Line(self.tree.prompt, [0])}
        self.name = "main"

    @property
    def line(self) -> Line:
        return self.lines[self.name]

    def add(self, token: int) -> None:
        line = self.line
        if line.tokens[: line.length][-1:] == [ENDS]:
            return  # the text has ended
        self.tree.add(make_step(line.length, token_id=token), self.sampler, "eos" if token == ENDS else None)
        if line.length < len(line.tokens) and line.tokens[line.length] != token:
            kept = Line(line.prompt, line.states[: line.length], line.tokens[: line.length], line.length)
            line.length = len(line.tokens)  # what was undone is part of the branch that is left
            self.name, line = self.tree.name, kept
            assert self.name not in self.lines
            self.lines[self.name] = line
        self.newest += 1
        if line.length == len(line.tokens):
            line.tokens.append(token)
            line.states[line.length :] = [self.sampler, self.newest]
            self.sampler = self.newest
        else:
            line.states[line.length] = self.sampler
            self.sampler = line.states[line.length + 1]  # the same token from the same state leaves the same state
        line.length += 1

    def undo(self, count: int) -> None:
        assert self.tree.undo(count, self.sampler) == min(count, self.line.length)
        if count and self.line.length:
            self.line.length -= min(count, self.line.length)
            self.arrive()

    def redo(self, count: int) -> None:
        again = self.tree.redo(count)
        assert [step.token_id for step in again] == self.line.tokens[self.line.length : self.line.length + count]
        self.line.length += len(again)
        if again:
            self.arrive()

    def switch(self, number: int) -> None:
        name = self.tree.names[number % len(self.tree.names)]
        self.tree.switch(name, self.sampler)
        self.name = name
        self.arrive()

    def start(self) -> None:
        prompt = prompt_of("b")
        self.tree.start(prompt, self.sampler)
        self.name, self.sampler = self.tree.name, 0
        self.lines[self.name] = Line(prompt, [0])

    def rename(self, number: int) -> None:
        old, new = self.tree.names[number % len(self.tree.names)], f"name {self.newest} {len(self.lines)} {number}"
        if new in self.lines:
            return
        self.tree.rename(old, new)
        self.lines[new] = self.lines.pop(old)
        self.name = new if self.name == old else self.name

    def arrive(self) -> None:
        """The sampler goes on from where it was at this place."""
        self.sampler = self.line.states[self.line.length]
        assert self.tree.sampler_state == self.sampler

    def check(self) -> None:
        tree, line = self.tree, self.line
        assert tree.name == self.name
        assert [step.token_id for step in tree.steps] == line.tokens[: line.length]
        assert tree.undone == len(line.tokens) - line.length
        assert tree.reason == ("eos" if line.tokens[: line.length][-1:] == [ENDS] else None)
        assert tree.prompt is line.prompt
        branches = tree.branches()
        assert {name: [step.token_id for step in branch.steps] for name, branch in branches.items()} == {
            name: one.tokens for name, one in self.lines.items()
        }
        for branch in branches.values():
            if branch.parent is not None:
                assert branches[branch.parent].steps[: branch.at] == branch.steps[: branch.at]


MOVES = st.one_of(
    st.tuples(st.just("add"), st.integers(1, ENDS)),
    st.tuples(st.sampled_from(["undo", "redo"]), st.integers(0, 4)),
    st.tuples(st.sampled_from(["switch", "rename"]), st.integers(0, 5)),
    st.tuples(st.just("start")),
)


@given(st.lists(MOVES, max_size=40))
def test_any_moves_end_where_a_plain_list_says(moves: list[tuple]) -> None:
    walk = Walk()
    for move, *arguments in moves:
        getattr(walk, move)(*arguments)
        walk.check()


def test_another_token_than_the_undone_one_leaves_it_on_its_branch() -> None:
    tree: BranchTree[int] = BranchTree(prompt_of())
    for at in range(3):
        tree.add(make_step(at, token_id=at), at)
    tree.undo(2, 3)
    tree.add(make_step(1, token_id=9), tree.sampler_state)
    assert (tree.name, tree.parent, tree.at, tree.undone) == ("branch 1", "main", 1, 0)
    tree.switch("main", 5)
    assert ([step.token_id for step in tree.steps], tree.sampler_state) == ([0, 1, 2], 3)


def test_names() -> None:
    tree: BranchTree[int] = BranchTree(prompt_of())
    tree.start(prompt_of("b"), 0)
    tree.rename("branch 1", "other prompt")
    assert tree.names == ["main", "other prompt"]
    assert tree.name == "other prompt"
    for wrong, why in ((("no", "x"), "unknown branch"), (("main", "other prompt"), "already"), (("main", " "), "needs a name")):
        with pytest.raises(UsageError, match=why):
            tree.rename(*wrong)
    with pytest.raises(UsageError, match=r"unknown branch 'maim'\. Did you mean 'main'"):
        tree.switch("maim", 0)
