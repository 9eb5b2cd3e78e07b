"""The branches of a text as rows of a tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from openmav.paint import cells, fit, one_line, printable
from openmav.record import Branch


@dataclass(frozen=True)
class BranchRow:
    """A row of the tree."""

    name: str
    label: str  # the name, safe to show
    depth: int  # 0: a root
    at: int | None  # the token where it left its parent; None: a root
    tokens: int  # its length
    words: str  # its first words after that token; of a root, the prompt and its words


def branch_rows(branches: Mapping[str, Branch], words: int | None = None) -> tuple[BranchRow, ...]:
    """The rows of the tree, each with so many cells of its first words at least; all where that is None."""
    return tuple(
        BranchRow(
            name=branch.name,
            label=one_line(branch.name),
            depth=depth,
            at=None if branch.parent is None else branch.at,
            tokens=len(branch.steps),
            words=_words(branch, words),
        )
        for branch, depth in tree(branches)
    )


def _words(branch: Branch, most: int | None) -> str:
    text = f"{printable(branch.prompt.text)} ▸" if branch.parent is None else ""
    shown, used = [text], cells(text)
    for step in branch.steps[branch.at :]:
        if most is not None and used > most:
            break
        shown.append(printable(step.text))
        used += cells(shown[-1])
    return "".join(shown).replace("\n", "⏎")


def tree(branches: Mapping[str, Branch]) -> Iterator[tuple[Branch, int]]:
    """(branch, depth) in the order of a tree: roots in the order of their making, each followed by what left it, earliest first."""

    children: dict[str | None, list[Branch]] = {}
    for branch in branches.values():
        children.setdefault(branch.parent, []).append(branch)
    waiting = [(branch, 0) for branch in sorted(children.get(None, ()), key=_order, reverse=True)]
    while waiting:  # without recursion: a file may have ten thousand branches, each of the one before it
        branch, depth = waiting.pop()
        yield branch, depth
        waiting += [(child, depth + 1) for child in sorted(children.get(branch.name, ()), key=_place, reverse=True)]


def _order(branch: Branch) -> tuple[bool, int, str]:
    return branch.name != "main", len(branch.name), branch.name


def _place(branch: Branch) -> tuple[int, int, str]:
    return branch.at, len(branch.name), branch.name


def label(row: BranchRow, width: int) -> str:
    """A row of the tree: the name, where it left, its length, and its first words from there on."""
    name = f"{'  ' * min(row.depth - 1, width)}└ {row.label}" if row.depth else row.label
    where = "" if row.at is None else f"@{row.at}"
    left = f"{fit(name, max(8, min(22, width // 3)))} {where:>5} {row.tokens:>5}  "
    return left + fit(row.words, max(0, width - cells(left)))
