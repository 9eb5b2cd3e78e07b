"""The flags of `mav run`, in the order in which the help shows them: a row each, and a field in values.py.

How a flag is declared, and the flags that all commands with a model share, are in flag.py and shared.py.
"""

from __future__ import annotations

from typing import get_args

import click

from openmav.cli.options.flag import flag
from openmav.cli.options.shared import TEXT, THE_MODEL, THE_PROMPT
from openmav.settings import Aggregation
from openmav.view.layouts import LAYOUTS
from openmav.view.options import AppOptions, Scale

SAMPLING, INTERVENTIONS, BREAKPOINTS, OUTPUT, APP = "Sampling", "Interventions", "Breakpoints", "Output", "The app"
OWN = "the model's own, else {}"  # its generation_config.json
REPEATED = "may be repeated"

RUN = (
    *THE_MODEL,
    *THE_PROMPT,
    flag(TEXT, "--max-new-tokens", "Stop after this many tokens.", type=click.IntRange(min=1), metavar="N", otherwise=OWN.format(200)),
    flag(TEXT, "--stop", f"Stop when this text appears; {REPEATED}.", multiple=True, metavar="TEXT"),
    flag(TEXT, "--regex", "The generated text must match this regular expression as a whole.", metavar="PATTERN"),
    flag(TEXT, "--json-schema", "The generated text must be JSON that matches this schema; - is stdin.", metavar="FILE"),
    flag(TEXT, "--ban", f"Never generate this string; {REPEATED}.", multiple=True, metavar="TEXT"),
    flag(TEXT, "--require", f"Don't stop before this string is generated; {REPEATED}.", multiple=True, metavar="TEXT"),
    flag(SAMPLING, "--temp", "Temperature; 0 takes the most likely token (greedy).", type=float, metavar="T", otherwise=OWN.format(0)),
    flag(SAMPLING, "--top-k", "Sample from the K most likely tokens; 0 is off.", type=int, metavar="K", otherwise=OWN.format(50)),
    flag(
        SAMPLING,
        "--top-p",
        "Sample from the fewest tokens whose probability reaches P; 1 is off.",
        type=float,
        metavar="P",
        otherwise=OWN.format(1),
    ),
    flag(
        SAMPLING,
        "--min-p",
        "Drop tokens below this share of the most likely one's probability; 0 is off.",
        type=float,
        metavar="P",
        otherwise=OWN.format(0),
    ),
    flag(SAMPLING, "--repetition-penalty", "Above 1 discourages repetition; 1 is off.", type=float, metavar="R", otherwise=OWN.format(1)),
    flag(SAMPLING, "--ignore-generation-config", "Ignore the model's generation config, but for its end tokens.", is_flag=True),
    flag(SAMPLING, "--seed", "The same seed gives the same text.", default=42, type=int, metavar="N"),
    flag(
        INTERVENTIONS,
        "--ablate",
        "Zero a site of the model: L5.H3, L5.attn, L7.mlp, L7, L3.N120; =mean; @5.",
        multiple=True,
        metavar="SITE",
    ),
    flag(INTERVENTIONS, "--amplify", "Multiply a site: L5.attn=0.5.", multiple=True, metavar="SITE=X"),
    flag(
        INTERVENTIONS,
        "--steer",
        'Add a vector after a layer: L8=vector.npy*4, or L8=\'"love"-"hate"*4\'.',
        multiple=True,
        metavar="L=VECTOR",
    ),
    flag(
        INTERVENTIONS,
        "--patch",
        "Take a site's value from a run of another text: L6.resid@5=other text.",
        multiple=True,
        metavar="SITE=TEXT",
    ),
    flag(
        BREAKPOINTS,
        "--break",
        f"Stop where this condition is met: 'entropy > 4', 'token ~ \"Paris\"'; {REPEATED}. docs/conditions.md names all.",
        into="breakpoints",
        multiple=True,
        metavar="COND",
    ),
    flag(
        BREAKPOINTS,
        "--watch",
        f"Show this value at every token, in the panel watches: 'norm(mlp, 3)'; {REPEATED}.",
        into="watches",
        multiple=True,
        metavar="EXPR",
    ),
    flag(OUTPUT, "--tui", "The app; the default in a terminal.", is_flag=True),
    flag(OUTPUT, "--plain", "The text alone; the default in a pipe.", is_flag=True),
    flag(OUTPUT, "--json", "One JSON object a line: a header, each token, an end.", is_flag=True),
    flag(OUTPUT, "--aggregation", "Norm to report: l2 or max_abs.", default="l2", type=click.Choice(get_args(Aggregation)), metavar="KIND"),
    flag(
        OUTPUT,
        "--measure",
        f"Also compute this measure: a name (mav measures lists them) or a Python file of your own; {REPEATED}.",
        into="measures",
        multiple=True,
        metavar="NAME",
    ),
    flag(
        OUTPUT,
        "--refresh-rate",
        "Minimum seconds per token.",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        otherwise="0.1 in the app, else 0",
    ),
    flag(OUTPUT, "--record", "Also write the run into this new file, to be replayed, checked and exported.", metavar="FILE"),
    flag(APP, "--interactive", "Start paused; each key generates one token.", is_flag=True),
    flag(APP, "--layout", f"Layout of panels: {', '.join(LAYOUTS)}, or your own.", metavar="NAME", otherwise="overview"),
    flag(APP, "--selected-panels", "Show these panels instead of a layout. mav panels lists them.", metavar="A B ..."),
    flag(APP, "--panel", f"A panel of your own, in this Python file; {REPEATED}.", into="panel_files", multiple=True, metavar="FILE"),
    flag(APP, "--num-grid-rows", "Rows of panels.", type=click.IntRange(min=1), metavar="N", otherwise="what fits the screen"),
    flag(
        APP,
        "--scale",
        "Bar scale: linear, log or minmax. Numbers are never scaled.",
        default="linear",
        type=click.Choice(get_args(Scale)),
        metavar="KIND",
    ),
    flag(APP, "--max-bar-length", "Longest bar.", type=click.IntRange(min=1), metavar="CELLS", otherwise="what fits the panel"),
    flag(
        APP,
        "--limit-chars",
        "Show the newest N characters of the text; 0: as many as fit.",
        default=AppOptions.limit_chars,
        type=click.IntRange(min=0),
        metavar="N",
    ),
    flag(APP, "--theme", "Colours of the app.", metavar="NAME"),
)
