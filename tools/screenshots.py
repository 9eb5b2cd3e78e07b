"""Take pictures of the real app on a real run: `make screenshots`.

    python tools/screenshots.py                             the pictures of README and gallery, into docs/images
    python tools/screenshots.py --layout lens --out /tmp    one layout
    python tools/screenshots.py --panels --out /tmp --png   every panel alone, to look at; PNG needs chromium
    python tools/screenshots.py page                        the web page of a recording; needs chromium

Each other picture is the app's own SVG: what is on it was computed by the model that its header names.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from openmav.apps.tui.app import MavApp
from openmav.engine import EngineSource
from openmav.plugins import registry
from openmav.settings import CORE_MEASURES, Settings
from openmav.settings.sampling import Sampling
from openmav.view.layouts import COMPARE, LAYOUTS
from openmav.view.options import AppOptions

HOME = (150, 45)
PROMPT = "The history of Rome began"
DRAWN = Sampling(temperature=0.8, top_k=50, top_p=0.95, seed=3)  # greedy, small models soon repeat themselves
STORY = replace(DRAWN, seed=11)
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Shot:
    """One picture: the panels, the size of the terminal in cells, the tokens to wait for, and the keys to press then."""

    name: str
    panels: tuple[str, ...] = LAYOUTS["overview"]
    size: tuple[int, int] = HOME
    tokens: int = 47
    keys: tuple[str, ...] = ()
    prompt: str = PROMPT
    sampling: Sampling = DRAWN
    compared: tuple[str, ...] = ()  # interventions of a second run that this one is compared with


BACK = ("left",) * 9  # to a token that could have been many others
PAGE_MEASURES = ("logit_lens", "attention_rows", "attribution", "sampling_stages", "distribution", "sink_share")
PAGE_SIZE = "1720,1330"  # pixels
WAIT = "wait"  # among the keys: until nothing runs any more
KEYS = {
    "hands-on": (
        *("b",) * 12,
        *("w", *"_Caesar", "enter", "space", WAIT),
        *("a", "ctrl+u", *"amplify_L9.mlp=3", "enter", WAIT),
    ),
    "attention": (*BACK, *["left_square_bracket"] * 17, "right_curly_bracket", "v", "v"),
    "lens": ("left",) * 8,  # one that the layers come to agree on
    "focus": ("home", "n", "n", "n", WAIT),
    "minimal": (*BACK, "down", "down"),
}
FACE = (
    Shot("overview", keys=BACK),
    Shot("small", size=(80, 24), tokens=40, prompt="Once upon a time", sampling=STORY),
    Shot("light", keys=("t", *BACK), prompt="Once upon a time", sampling=STORY),
    Shot("layout-compare", COMPARE["compare"], keys=BACK, compared=("ablate L3.mlp",)),
)


def layout_shot(name: str) -> Shot:
    keys = KEYS.get(name, BACK)
    return Shot(f"layout-{name}", LAYOUTS[name], tokens=110 if name == "minimal" else Shot.tokens, keys=keys)


def panel_shots() -> list[Shot]:
    """Every panel alone, and where it has other kinds of what it shows, each of them."""
    shots = []
    for name in registry.names("panels"):
        for at, _ in enumerate(getattr(registry.load("panels", name), "MODES", ("",))):
            shots.append(Shot(f"panel-{name}-{at}", (name,), (110, 34), 32, ("left", "left", *"v" * at)))
    return shots


async def take(shot: Shot, model: str, out: Path) -> Path:
    """Run the app on the model until there are enough tokens, press the keys, and write the SVG."""
    settings = Settings(model=model, prompt=shot.prompt, max_new_tokens=shot.tokens, threads=1, sampling=shot.sampling)
    if shot.compared:
        settings = replace(settings, measures=CORE_MEASURES)
        settings = replace(settings, compared=replace(settings, interventions=shot.compared))
    source = EngineSource(settings)
    try:
        app = MavApp(source, AppOptions(panels=shot.panels, layouts={**COMPARE, **LAYOUTS} if shot.compared else LAYOUTS))
        async with app.run_test(size=shot.size) as pilot:
            while source.snapshot().status not in ("ended", "failed"):
                await pilot.pause(0.1)
            if error := source.snapshot().error:
                raise SystemExit(error)
            await pilot.pause(0.3)
            for key in shot.keys:
                if key == WAIT:
                    await pilot.pause(4)  # what a key sets going may take a while to begin
                    while source.snapshot().status in ("running", "prefill"):
                        await pilot.pause(0.1)
                else:
                    await pilot.press("space" if key == "_" else key)
            await pilot.pause(0.5)
            path = out / f"{shot.name}.svg"
            path.write_text(app.export_screenshot(title="mav"), encoding="utf-8")
    finally:
        source.close()
    return path


def to_png(svg: Path) -> Path:
    """The picture as PNG. Raises SystemExit where there is no chromium."""
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg.read_text(encoding="utf-8"))
    assert box is not None
    return draw(svg.resolve().as_uri(), svg.with_suffix(".png"), ",".join(str(round(float(side))) for side in box.groups()))


def draw(address: str, png: Path, size: str) -> Path:
    """What the system's chromium shows at an address. Raises SystemExit where there is none."""
    program = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if program is None:
        raise SystemExit("no chromium to draw a PNG with; leave out --png")
    with tempfile.TemporaryDirectory() as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", f"--user-data-dir={profile}"]
        flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        asked = [program, *flags, f"--window-size={size}", f"--screenshot={png}", "--virtual-time-budget=3000", address]
        subprocess.run(asked, check=True, capture_output=True, timeout=120)
    return png


def take_page(model: str, out: Path) -> Path:
    """The page of a recording of the model."""
    with tempfile.TemporaryDirectory() as folder:
        recording, page = Path(folder) / "page.mav", Path(folder) / "page.html"
        measures = [part for name in PAGE_MEASURES for part in ("--measure", name)]
        options = ["--model", model, "--prompt", PROMPT, "--max-new-tokens", "80", "--temp", "0.8", "--seed", "3", *measures]
        command = [sys.executable, "-m", "openmav"]
        subprocess.run([*command, *options, "--record", str(recording)], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([*command, "export", str(recording), "--to", "html", "-o", str(page)], check=True)
        return draw(f"{page.as_uri()}#t=22", out / "page.png", PAGE_SIZE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/SmolLM2-135M-Instruct")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--layout", choices=LAYOUTS, action="append", help="only this layout; may be repeated")
    parser.add_argument("--panels", action="store_true", help="every panel alone instead")
    parser.add_argument("--png", action="store_true", help="a PNG beside each SVG")
    parser.add_argument("names", nargs="*", help="only these pictures")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    layouts = [layout_shot(name) for name in args.layout or LAYOUTS if name != "overview" or args.layout]
    shots = panel_shots() if args.panels else layouts if args.layout else [*FACE, *layouts]
    if args.names == ["page"]:
        print(take_page(args.model, args.out))
    for shot in shots:
        if not args.names or shot.name in args.names:
            path = asyncio.run(take(shot, args.model, args.out))
            print(to_png(path) if args.png else path, flush=True)


if __name__ == "__main__":
    main()
