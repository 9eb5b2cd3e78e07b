"""`mav new panel NAME` and `mav new measure NAME`: a working file to start from."""

from __future__ import annotations

import keyword
from pathlib import Path

from openmav.cli.output import echo
from openmav.errors import UsageError
from openmav.plugins import registry
from openmav.system.files import write_file

PANEL = '''\
"""{title}: a panel of my own. Show it: mav --panel {name}.py"""

from dataclasses import dataclass

import numpy as np

TITLE = "{title}"
NEEDS = ("residual_norm",)  # measures that it draws; `mav measures` lists them
HELP = """\\
What it shows: how large the residual stream is after each layer, as a number.

How to read it: say here what a reader should look for.
"""


@dataclass(frozen=True)
class Norms:
    """All that the panel shows."""

    norms: np.ndarray | None  # one entry a layer; None before the first token


def data(view):
    """Gathers numbers and texts; openmav.paint's `visible` makes a token's text safe to show."""
    return Norms(view.values("residual_norm"))


def render(data, box):
    """Lines of at most `box.width` cells, `box.height` of them: texts, or lists of Rich segments."""
    if data.norms is None:
        return ["no token yet"]
    lines = [f"layer {{layer:>3}}  {{norm:10.2f}}" for layer, norm in enumerate(data.norms)]
    return [line[: box.width] for line in reversed(lines)][: box.height]
'''
MEASURE = '''\
"""{title}: the largest absolute value in what each layer's MLP adds to the residual stream.

[layers], in the units of the residual stream. Compute it: mav --json --measure {name}.py
"""

import numpy as np

TITLE = "{title}"
NEEDS = ("mlp.out",)  # sites of the forward pass; docs/plugins.md lists them


def compute(frame, context):
    """One number a layer; NaN where a layer has no such site."""
    rows = frame.sites["mlp.out"]  # one tensor [width] a layer, or None
    return np.array([np.nan if row is None else float(row.abs().max()) for row in rows], dtype=np.float32)
'''


def write_new(kind: str, name: str) -> int:
    """Writes NAME.py in the working directory.

    Raises UsageError for a name that cannot be one or is taken, and where the file exists or cannot be written.
    """
    name = name.removesuffix(".py")
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        raise UsageError(f"'{name}' cannot be the name of a {kind}; use letters, digits and _, and begin with a letter")
    if name in registry.names("panels" if kind == "panel" else "measures"):
        raise UsageError(f"there is a {kind} '{name}' already; take another name")
    path = Path(f"{name}.py")
    text = (PANEL if kind == "panel" else MEASURE).format(name=name, title=name.replace("_", " ").capitalize())
    try:
        write_file(path, text.encode(), new=True)
    except FileExistsError as error:
        raise UsageError(f"{path} exists already; take another name, or move it away") from error
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
    use = f"mav --panel {path}" if kind == "panel" else f"mav --json --measure {path}"
    echo(f"wrote {path}; try it: {use}")
    return 0
