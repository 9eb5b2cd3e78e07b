"""The flags of `mav run`: one table, in the order in which the help shows them."""

from __future__ import annotations

from typing import Any

import click

from openmav.apps.layouts import LAYOUTS
from openmav.apps.options import AppOptions
from openmav.settings import DEMO, DEMO_PROMPT, OTHER_PROMPT

DTYPES = ("auto", "float32", "float16", "bfloat16")
MODEL, TEXT, SAMPLING, OUTPUT, APP = "Model", "Text", "Sampling", "Output", "The app"
HANDS = "Hands on"


class Flag(click.Option):
    """An option that knows the section of the help in which it stands, and a default that depends on other things (`otherwise`)."""

    def __init__(self, *args: Any, section: str, otherwise: str | None = None, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.section = section
        self.otherwise = otherwise

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        shown = self.otherwise
        if shown is None and not self.is_flag and isinstance(self.default, (str, int, float)):
            shown = f"{self.default:g}" if isinstance(self.default, float) else str(self.default)
        note = f" [default: {shown}]" if shown else ""
        return ", ".join(self.opts) + (f" {self.metavar}" if self.metavar else ""), f"{self.help}{note}"


def _flag(section: str, name: str, help: str, **attributes: Any) -> tuple[str, dict[str, Any]]:
    return name, {"section": section, "help": help, **attributes}


FLAGS = [
    _flag(MODEL, "--model", "A model of the hub, a folder, a GGUF file, or the bundled one.", default=DEMO, metavar="NAME"),
    _flag(MODEL, "--backend", "What runs the model.", default="transformers", metavar="NAME"),
    _flag(MODEL, "--device", "auto, cpu, cuda, cuda:N or mps.", default="auto", metavar="DEVICE"),
    _flag(MODEL, "--dtype", f"Of the weights: {', '.join(DTYPES)}.", default="auto", type=click.Choice(DTYPES), metavar="DTYPE"),
    _flag(MODEL, "--trust-remote-code", "Run code that comes with the model.", is_flag=True),
    _flag(
        TEXT,
        "--prompt",
        "What the model goes on from.",
        metavar="TEXT",
        otherwise=f"'{DEMO_PROMPT}' for the bundled model, else '{OTHER_PROMPT}'",
    ),
    _flag(TEXT, "--prompt-file", "The prompt is in this UTF-8 file; - is stdin. One last newline is dropped.", metavar="FILE"),
    _flag(TEXT, "--chat", "Wrap the prompt in the model's chat template.", is_flag=True),
    _flag(TEXT, "--max-new-tokens", "Stop after this many tokens.", default=200, type=click.IntRange(min=1), metavar="N"),
    _flag(TEXT, "--stop", "Stop when this text appears; may be repeated.", multiple=True, metavar="TEXT"),
    _flag(TEXT, "--regex", "The generated text must match this regular expression as a whole.", metavar="PATTERN"),
    _flag(TEXT, "--json-schema", "The generated text must be JSON as this schema says; - is stdin.", metavar="FILE"),
    _flag(TEXT, "--ban", "This must never stand in the generated text; may be repeated.", multiple=True, metavar="TEXT"),
    _flag(TEXT, "--require", "The model can't end before this was written; may be repeated.", multiple=True, metavar="TEXT"),
    _flag(SAMPLING, "--temp", "Temperature; 0 takes the likeliest token (greedy).", default=0.0, type=float, metavar="T"),
    _flag(SAMPLING, "--top-k", "Draw from the K likeliest tokens; 0 is off.", default=50, type=int, metavar="K"),
    _flag(SAMPLING, "--top-p", "Draw from the fewest tokens that reach this probability; 1 is off.", default=1.0, type=float, metavar="P"),
    _flag(SAMPLING, "--min-p", "Drop tokens below this share of the likeliest; 0 is off.", default=0.0, type=float, metavar="P"),
    _flag(SAMPLING, "--repetition-penalty", "Above 1 discourages repetition; 1 is off.", default=1.0, type=float, metavar="R"),
    _flag(SAMPLING, "--seed", "The same seed gives the same text.", default=42, type=int, metavar="N"),
    _flag(HANDS, "--ablate", "Zero a site of the model: L5.H3, L5.attn, L7.mlp, L7, L3.N120; =mean; @5.", multiple=True, metavar="SITE"),
    _flag(HANDS, "--amplify", "Multiply a site: L5.attn=0.5.", multiple=True, metavar="SITE=X"),
    _flag(HANDS, "--steer", 'Add a vector after a layer: L8=vector.npy*4, or L8=\'"love"-"hate"*4\'.', multiple=True, metavar="L=VECTOR"),
    _flag(HANDS, "--patch", "Take a site's value from another text: L6.resid@5=other text.", multiple=True, metavar="SITE=TEXT"),
    _flag(
        HANDS,
        "--break",
        "Stop where this holds: 'entropy > 4', 'token ~ \"Paris\"'; may be repeated. docs/conditions.md names all.",
        multiple=True,
        metavar="COND",
    ),
    _flag(
        HANDS,
        "--watch",
        "Show this at every token, in the panel watches: 'norm(mlp, 3)'; may be repeated.",
        multiple=True,
        metavar="EXPR",
    ),
    _flag(OUTPUT, "--tui", "The app; the default in a terminal.", is_flag=True),
    _flag(OUTPUT, "--plain", "The text alone; the default in a pipe.", is_flag=True),
    _flag(OUTPUT, "--json", "One JSON object a line: a header, each token, an end.", is_flag=True),
    _flag(OUTPUT, "--aggregation", "What a norm is: l2 or max_abs.", default="l2", type=click.Choice(("l2", "max_abs")), metavar="KIND"),
    _flag(
        OUTPUT,
        "--measure",
        "Compute this too: a name (mav measures lists them) or a Python file of your own; may be repeated.",
        multiple=True,
        metavar="NAME",
    ),
    _flag(
        OUTPUT,
        "--refresh-rate",
        "How long each token stays at least.",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        otherwise="0.1 in the app, else 0",
    ),
    _flag(APP, "--interactive", "Each key makes one token.", is_flag=True),
    _flag(APP, "--layout", f"Which panels: {', '.join(LAYOUTS)}, or your own.", metavar="NAME", otherwise="overview"),
    _flag(APP, "--selected-panels", "Show these panels instead of a layout. mav panels lists them.", metavar="A B ..."),
    _flag(APP, "--panel", "A panel of your own, in this Python file; may be repeated.", multiple=True, metavar="FILE"),
    _flag(APP, "--num-grid-rows", "Rows of panels.", type=click.IntRange(min=1), metavar="N", otherwise="what fits the screen"),
    _flag(
        APP,
        "--scale",
        "Of bars: linear, log or minmax. Numbers are never scaled.",
        default="linear",
        type=click.Choice(("linear", "log", "minmax")),
        metavar="KIND",
    ),
    _flag(APP, "--max-bar-length", "Longest bar.", type=click.IntRange(min=1), metavar="CELLS", otherwise="what fits the panel"),
    _flag(
        APP,
        "--limit-chars",
        "Show the newest N characters of the text; 0 is all.",
        default=AppOptions.limit_chars,
        type=click.IntRange(min=0),
        metavar="N",
    ),
    _flag(APP, "--theme", "Colours of the app.", metavar="NAME"),
]
