"""The text of docs/architectures.md, from the reports of tools/architectures.py."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from backends.tiny_configs import CAUSAL, IMAGE_TEXT, TYPES, VARIANTS
from backends.tiny_report import DECODED, LIMITS, PIECE, PROMPT

Report: TypeAlias = Mapping[str, Any]
Results: TypeAlias = Mapping[str, Report]  # by "type dtype"
SHOWN = ("logits", "rows", "sum")
HEAD = """# Architectures

mav has no table of architectures. It follows the residual stream through one forward pass, and checks what it found before it shows it.
This page is made by `make architectures`. It covers every type of transformers {transformers}: {causal} of the causal and
{image_text} of the image-text mapping, {types} in all, and {variants} variants. Each is a tiny random model of 4 layers, built from
the type's own configuration, in float32 and in bfloat16 (torch {torch}, on a CPU). It reads {prompt} tokens in pieces of {piece}
and continues them with {decoded} more, so that every window, chunk, top-k and rope switch of its configuration, set to less than
that, is crossed.

What is compared, all of it with computations that mav has no part in:

- **logits** of each token: with a full pass of another copy without a cache, with eager attention, and with transformers' `generate`,
  whose greedy tokens must be the same. The figure is mav's error over the error that transformers' own pass makes in that float type
  (against a pass in a wider one, where the model can compute in one); {limit_logits:g} is allowed.
- **rows**: attention weights, and their entropy, with those that eager attention returns, in the same unit; {limit_rows:g} is allowed.
- **sum**: what a layer takes, plus what attention and MLP are said to add, minus what the layer gives, in units of the float type's
  rounding (its eps) of the largest of them; {limit_sum:g} is allowed. The modules that add it are also compared by name, as read in
  transformers' code for {named} types, and by their usual names elsewhere where these explain the layer; to {limit_named:g} eps.
- And: norms with torch's, the residual stream with hooks of our own, the lens of the last layer with the logits, logits with everything
  captured with logits with nothing captured (bit for bit), going back {back} tokens (bit for bit), a layer without its MLP with hooks that
  set it to 0, and the model after closing with the model before.

A figure is given as float32 · bfloat16. What can't be shown is none, with the reason that mav gives; it is never a number.
{made}
"""


def page(results: Results, transformers: str, torch: str) -> str:
    from backends.tiny_names import NAMES
    from backends.tiny_report import BACK

    head = HEAD.format(
        causal=len(CAUSAL),
        image_text=len(IMAGE_TEXT),
        types=len(TYPES),
        variants=len(VARIANTS),
        prompt=PROMPT,
        piece=PIECE,
        decoded=DECODED,
        back=BACK,
        named=len(NAMES),
        transformers=transformers,
        torch=torch,
        made=_made(results),
        **{f"limit_{name}": limit for name, limit in LIMITS.items()},
    )
    groups = _grouped(results)
    notes = _Footnotes()
    parts = [head, *_section("Wrong", _lines(groups["wrong"], results))]
    parts += _section(f"Everything is shown: {len(groups['all'])}", _table(groups["all"], results, None))
    parts += _section(f"Some of it is none: {len(groups['some'])}", [*_table(groups["some"], results, notes), "", *notes.lines()])
    parts += _section(f"Can't be built, or does not continue a text: {len(groups['cannot'])}", _reasons(groups["cannot"], results))
    return "\n".join(parts) + "\n"


def _made(results: Results) -> str:
    """Whether all rows were measured with one state of the code."""
    codes = [report.get("code", "unknown") for report in results.values()]
    newest = max(set(codes), key=codes.count)
    others = [name for name, report in results.items() if report.get("code", "unknown") != newest]
    if not others:
        return f"All {len(codes)} measurements are of one state of the code ({newest})."
    listed = ", ".join(others) if len(others) <= 40 else f"{len(others)} of them"
    return f"{len(codes) - len(others)} of {len(codes)} measurements are of one state of the code ({newest}); of others: {listed}."


def _grouped(results: Results) -> dict[str, list[str]]:
    """Names by the section that they stand in."""
    groups: dict[str, list[str]] = {"wrong": [], "all": [], "some": [], "cannot": []}
    for name in (*TYPES, *VARIANTS):
        both = [results[f"{name} {dtype}"] for dtype in ("float32", "bfloat16") if f"{name} {dtype}" in results]
        if not both:
            continue
        if any(report["failed"] or _wrong(report) for report in both):
            groups["wrong"].append(name)
        elif any(report["cannot"] or report["refused"] for report in both[:1]):
            groups["cannot"].append(name)
        else:
            groups["some" if any(r["none"] or r["cannot"] or r["refused"] for r in both) else "all"].append(name)
    return groups


def _wrong(report: Report) -> list[str]:
    return [name for name, error in report["errors"].items() if not error <= LIMITS[name]]


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", f"## {title}", "", *lines] if any(lines) else []


def _lines(names: Iterable[str], results: Results) -> list[str]:
    """What is wrong, one line each."""
    found = []
    for name in names:
        for dtype in ("float32", "bfloat16"):
            report = results[f"{name} {dtype}"]
            figures = [f"{what} {report['errors'][what]:.2g}" for what in _wrong(report)]
            if figures or report["failed"]:
                found.append(f"- {name}, {dtype}: {report['failed'] or ', '.join(figures)}")
    return found


class _Footnotes:
    """Reasons that many rows share, written once and numbered."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def refer(self, reason: str) -> str:
        return str(self.numbers.setdefault(reason, len(self.numbers) + 1))

    def lines(self) -> list[str]:
        return [f"{number}. {reason}" for reason, number in self.numbers.items()]


def _table(names: Sequence[str], results: Results, notes: _Footnotes | None) -> list[str]:
    if not names:
        return []
    columns = ["type", *SHOWN, "crossed", *(["none"] if notes else [])]
    rows = [_row(name, *(results.get(f"{name} {dtype}") for dtype in ("float32", "bfloat16")), notes) for name in names]
    return [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", *(f"| {' | '.join(row)} |" for row in rows)]


def _row(name: str, single: Report | None, half: Report | None, notes: _Footnotes | None) -> list[str]:
    assert single is not None
    cells = [" · ".join(_figure(report, what) for report in (single, half)) for what in SHOWN]
    crossed = ", ".join(f"{what} {length}" for what, length in single["thresholds"].items())
    return [name, *cells, crossed, *([_none(single, half, notes)] if notes else [])]


def _figure(report: Report | None, what: str) -> str:
    error = None if report is None else report["errors"].get(what)
    return "-" if error is None else f"{error:.2f}" if error >= 0.005 else "0"


def _none(single: Report, half: Report | None, notes: _Footnotes) -> str:
    """What is none, each with the number of its reason and how many of the layers it holds for."""
    found = []
    for site, text in single["none"].items():
        for reason in text.split("; "):
            layers = re.search(r" \((\d+) of (\d+)\)$", reason)
            plain = reason[: layers.start()] if layers else re.sub(r" \(off by .*\)$|\d+\.?\d*e-?\d+", "", reason)
            found.append(f"{site}{f' {layers[1]}/{layers[2]}' if layers else ''} [{notes.refer(plain)}]")
    if half is not None and (half["cannot"] or half["refused"]):
        found.append(f"bfloat16 [{notes.refer(half['cannot'] or half['refused'])}]")
    elif half is not None:
        found += [f"{site} in bfloat16 [{notes.refer(text)}]" for site, text in half["none"].items() if site not in single["none"]]
    return ", ".join(found)


def _reasons(names: Sequence[str], results: Results) -> list[str]:
    """Types with the same reason on one line."""
    by_reason: dict[str, list[str]] = {}
    for name in names:
        report = results[f"{name} float32"]
        by_reason.setdefault(re.sub(r"\b\w+\.forward\(\)", "its forward", report["cannot"] or report["refused"]), []).append(name)
    return [f"- {', '.join(same)}: {reason}" for reason, same in by_reason.items()]
