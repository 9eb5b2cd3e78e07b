"""Write docs/architectures.md: every family of the suite, measured through mav's backend by the checks that the tests use.

python tools/architectures.py            # write the table
python tools/architectures.py --check    # exit with 1 if a family is out of tolerance; writes nothing
"""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from backends.families import FAMILIES, OTHERS  # noqa: E402
from backends.family_checks import (  # noqa: E402
    CACHED_TOLERANCE,
    DECODED,
    PARTS_TOLERANCE,
    PROMPT,
    RESIDUAL_TOLERANCE,
    ROWS_TOLERANCE,
    Figures,
    measure,
)

TARGET = ROOT / "docs" / "architectures.md"
HEAD = f"""# Architectures

mav has no table of architectures. It finds the layers, what attention and MLP add to the residual stream, and the final norm
by looking at the module tree and at one trial forward pass, and it checks what it found before it shows it. This page is made
by `python tools/architectures.py`: each family is a tiny random model in fp32, built by transformers {{transformers}} (torch
{{torch}}), that reads {PROMPT} tokens and decodes {DECODED} more through mav's backend. Figures are the largest error over all
tokens, layers and heads.

- **rows**: attention rows against the same model's eager attention, absolute (the suite allows {ROWS_TOLERANCE:g}).
- **cached**: logits of cached decoding against one full forward pass, relative to the largest logit ({CACHED_TOLERANCE:g}).
- **residual**: residual stream before and after each layer against own hooks in that pass, relative ({RESIDUAL_TOLERANCE:g}).
- **parts**: residual stream after a layer minus the one before, against attention + MLP, relative ({PARTS_TOLERANCE:g}).
- **same bits**: logits with every site captured against logits with none, bit for bit.

`-` stands where there is nothing to compare. A site that could not be found is shown as missing, with the reason, never as a number.
"""
COLUMNS = ("family", "rows", "cached", "residual", "parts", "same bits", "notes")


def row(name: str) -> tuple[str, ...]:
    """The cells of one family; an error stands in the notes."""
    try:
        figures = measure(name)
    except Exception as error:  # a family that can't run is a result of its own
        return name, *["-"] * (len(COLUMNS) - 2), f"does not run: {type(error).__name__}: {str(error).splitlines()[0][:90]}"
    same = "yes" if figures.bit_identical and not figures.left_behind else "NO"
    errors = (figures.rows, figures.cached, figures.residual, figures.parts)
    return name, *map(scientific, errors), same, "; ".join(remarks(name, figures))


def scientific(value: float | None) -> str:
    return "-" if value is None else f"{value:.0e}".replace("e-0", "e-")


def remarks(name: str, figures: Figures) -> list[str]:
    """What is missing, shortest form: a reason and how many of the layers it holds for; then the notes that a reader of the screen sees."""
    found = []
    for site, label in (("attention.probs", "rows"), ("attention.out", "attention"), ("mlp.out", "MLP"), ("residual.after", "residual")):
        reasons = list(figures.missing.get(site, {}).values())
        found += [f"{label}: {reason} ({reasons.count(reason)} of {figures.layers} layers)" for reason in dict.fromkeys(reasons)]
    if (FAMILIES | OTHERS)[name].drifts:
        found.append("transformers' own cached decoding differs from its full forward pass, so only the prompt is compared")
    return [*found, *figures.notes]


def good(name: str) -> bool:
    """Whether all figures of a family are within what the suite allows."""
    try:
        figures = measure(name)
    except Exception:  # counted as bad, whatever it was
        return False
    errors = (figures.rows, figures.cached, figures.residual, figures.parts)
    allowed = (ROWS_TOLERANCE, CACHED_TOLERANCE, RESIDUAL_TOLERANCE, PARTS_TOLERANCE)
    exact = all((error or 0.0) <= most for error, most in zip(errors, allowed))
    return exact and figures.bit_identical and not figures.left_behind


def table(names: list[str]) -> str:
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row(name))} |" for name in names)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a family is out of tolerance")
    if parser.parse_args().check:
        bad = [name for name in FAMILIES if not good(name)]
        print(f"out of tolerance: {', '.join(bad)}" if bad else f"{len(FAMILIES)} families within tolerance")
        return bool(bad)
    head = HEAD.format(transformers=version("transformers"), torch=version("torch"))
    parts = [head, "## Families of the suite\n", table(list(FAMILIES)), "\n## Others\n"]
    parts += ["Unusual families, here to show how what can't be found is reported.\n", table(list(OTHERS)), ""]
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text("\n".join(parts), encoding="utf-8")
    print(f"wrote {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
