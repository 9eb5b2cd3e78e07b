"""The page from its parts: markup, style, script and colours, under a policy that lets nothing else run or load."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from openmav.paint.surprise import EDGES, LABELS
from openmav.paint.theme import PALETTES, READABLE, Palette, contrast, mix, readable
from openmav.recording.export.page import squeeze

FOLDER = Path(__file__).parent
SCRIPTS = ("numbers", "recording", "state", "dom", "text", "card", "timeline", "lens", "layers", "about")
OF_A_RUN, OF_A_SWEEP = ("attribution", "inside"), ("sweep",)  # what only one kind of page needs
ROLES = ("ground", "text", "frame", "select", "probability", "mlp", "attention", "entropy", "residual")
INKS = ("secondary", "accent", "warning", "key")  # text is written in these


def page_text(data: str, of_sweep: bool = False) -> str:
    """The whole file; `data` is base64."""
    parts = dict(code(of_sweep))
    for name in ("style", "theme", "script"):
        parts["page"] = parts["page"].replace(f"@{name}@", parts[name])
    return parts["page"].replace("@policy@", policy(parts)).replace("@data@", data)


def _read(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


@cache
def code(of_sweep: bool = False) -> dict[str, str]:
    """Markup, style and the two scripts: the one that sets the theme before anything is drawn, and all others."""
    steps = f"const SURPRISE_EDGES = {list(EDGES)}, SURPRISE_LABELS = {list(LABELS)};"
    names = (*SCRIPTS, *(OF_A_SWEEP if of_sweep else OF_A_RUN), "main")
    scripts = "\n".join([steps, *(_read(f"js/{name}.js") for name in names)])
    return {
        "page": squeeze.lines(_read("page.html")),
        "style": squeeze.style(f"{colours()}\n{_read('page.css')}"),
        "theme": squeeze.script(_read("js/theme.js")),
        "script": squeeze.script(f'"use strict";\n(() => {{\n{scripts}\n}})();\n'),
    }


def policy(parts: dict[str, str]) -> str:
    """The Content-Security-Policy: scripts and style by their hashes, and no network at all."""
    scripts = " ".join(_hash(parts[name]) for name in ("theme", "script"))
    rest = "img-src data:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {scripts}; style-src {_hash(parts['style'])}; {rest}"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# ---- colours ------------------------------------------------------------------------------------------------------------------


def colours() -> str:
    """The app's palettes as CSS variables; print is on a light ground."""
    light, dark = ("".join(f"--{name}:{value};" for name, value in _variables(PALETTES[name])) for name in ("light", "dark"))
    steps = "".join(f'[data-step="{at}"]{{background:var(--surprise-{at});color:var(--surprise-ink-{at})}}' for at in range(1, len(LABELS)))
    return f':root{{{light}color-scheme:light}}\n@media screen{{:root[data-theme="dark"]{{{dark}color-scheme:dark}}}}\n{steps}'


def _variables(palette: Palette) -> Iterator[tuple[str, str]]:
    panel = mix(palette.ground, "#ffffff", 0.035) if palette.dark else "#ffffff"
    yield "panel", panel
    for role in ROLES:
        yield role, getattr(palette, role)
    for role in INKS:
        yield role, legible(getattr(palette, role), palette.text, (palette.ground, panel, palette.select))
    yield "lowers", palette.diverging[0]
    yield "raises", palette.diverging[-1]
    for name, ramp in (("surprise", palette.surprise), ("heat", palette.heat), ("diverging", palette.diverging)):
        for at, colour in enumerate(ramp):
            yield f"{name}-{at}", colour
            yield f"{name}-ink-{at}", readable(palette, colour)


def legible(colour: str, text: str, grounds: tuple[str, ...]) -> str:
    """The colour, moved towards that of text until it can be read on each of the grounds."""
    mixed = (mix(colour, text, share / 20) for share in range(21))
    return next((one for one in mixed if min(contrast(one, ground) for ground in grounds) >= READABLE), text)
