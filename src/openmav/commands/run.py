"""`mav run`: from the flags' values to Settings and AppOptions, checked, and on to the app or to a stream."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from openmav import interventions, registry
from openmav.apps.options import AppOptions
from openmav.commands.asked import asked_model, read_file
from openmav.commands.config import Config, read_config
from openmav.commands.own import add_measures, add_panels
from openmav.commands.saving import save_layout
from openmav.constraint import Constraint
from openmav.errors import UsageError
from openmav.sampling import Sampling
from openmav.settings import CORE_MEASURES, Settings
from openmav.terminal import is_terminal

Face: TypeAlias = Literal["tui", "plain", "json"]
FACES: tuple[Face, ...] = ("tui", "plain", "json")
APP_REFRESH = 0.1  # seconds: a fast model can be watched


def run_command(values: dict[str, Any]) -> int:
    """Check all that can be checked without the model's libraries, then run; the exit code.

    Raises MavError with one line that says what to do.
    """
    face = choose_face(values)
    config = read_config() if face == "tui" else Config()
    settings, options = make_settings(values, face, config), make_options(values, config)
    if face == "tui":
        from openmav.commands.app import show_app

        return show_app(settings, options)
    from openmav.commands.stream import stream

    return stream(settings, face)


def choose_face(values: dict[str, Any]) -> Face:
    """The app where stdin and stdout are terminals, else plain text; a flag decides otherwise."""
    asked = [face for face in FACES if values[face]]
    terminal = is_terminal(sys.stdin) and is_terminal(sys.stdout)
    if len(asked) > 1:
        raise UsageError(f"--{asked[0]} and --{asked[1]} exclude each other; leave one out")
    if asked == ["tui"] and not terminal:
        raise UsageError("--tui needs a terminal on stdin and stdout; without one use --plain or --json")
    face: Face = asked[0] if asked else "tui" if terminal else "plain"
    if values["interactive"] and face != "tui":
        raise UsageError("--interactive needs the app in a terminal; leave it out for plain text and JSON lines")
    return face


def make_settings(values: dict[str, Any], face: Face, config: Config | None = None) -> Settings:
    """What the session is asked to do. The config file's measures are known to it, and computed where a panel wants them."""
    model = asked_model(values)
    measures, files = add_measures(values["measure"])
    refresh = values["refresh_rate"]
    return replace(
        model,
        stop=tuple(values["stop"]),
        max_new_tokens=values["max_new_tokens"],
        sampling=make_sampling(values),
        constraint=make_constraint(values),
        measures=tuple(dict.fromkeys((*CORE_MEASURES, *measures))),
        measure_files=tuple(dict.fromkeys((*files, *(config.measures if config else ())))),
        interventions=interventions_of(values),
        breakpoints=conditions_of(values["break"], "truth"),
        aggregation=values["aggregation"],
        interactive=values["interactive"],
        refresh_rate=refresh if refresh is not None else APP_REFRESH if face == "tui" else 0.0,
        threads=max(1, cores() - 1) if face == "tui" else None,
    )


def make_constraint(values: dict[str, Any]) -> Constraint:
    """What the text must look like; its grammar is checked now, before anything is loaded."""
    schema = values["json_schema"]
    if schema == "-" and values["prompt_file"] == "-":
        raise UsageError("--json-schema - and --prompt-file - cannot both read stdin; put one of them in a file")
    text = None if schema is None else read_file(schema, "--json-schema", "the schema file")
    made = Constraint(values["regex"], text, tuple(values["ban"]), tuple(values["require"]))
    made.grammar()
    return made


def make_sampling(values: dict[str, Any]) -> Sampling:
    return Sampling(
        temperature=values["temp"],
        top_k=values["top_k"],
        top_p=values["top_p"],
        min_p=values["min_p"],
        repetition_penalty=values["repetition_penalty"],
        seed=values["seed"],
    )


def conditions_of(texts: tuple[str, ...], kind: Literal["truth", "any"]) -> tuple[str, ...]:
    """The texts, once each, as they were given. Raises ConditionError for the first that is no condition, or cannot be read."""
    from openmav.conditions import parse, parse_breakpoint

    for text in texts:
        (parse_breakpoint if kind == "truth" else parse)(text)
    return tuple(dict.fromkeys(texts))


def interventions_of(values: dict[str, Any]) -> tuple[str, ...]:
    """What the flags do to the model, as whole specs; all of one kind before the next, in the order of interventions.KINDS.

    Raises UsageError for one that can't be read.
    """
    return tuple(str(interventions.parse(f"{kind} {spec}")) for kind in interventions.KINDS for spec in values[kind])


def make_options(values: dict[str, Any], config: Config | None = None) -> AppOptions:
    """How the app shows it: the flags win over the config file, named panels over a layout."""
    config = config or Config()
    own = tuple(dict.fromkeys((*config.panels, *add_panels(values["panel"]))))
    chosen = values["selected_panels"]
    layout = values["layout"] or config.layout or "overview"
    if layout not in config.layouts:
        raise UsageError(registry.unknown("layout", layout, list(config.layouts)))
    panels = config.layouts[layout] if chosen is None else tuple(chosen.replace(",", " ").split())
    if not panels:
        raise UsageError("--selected-panels needs the name of a panel; mav panels lists them")
    registry.need_known("panels", panels)
    return AppOptions(
        scale=values["scale"],
        max_bar_length=values["max_bar_length"],
        limit_chars=values["limit_chars"],
        panels=tuple(dict.fromkeys((*panels, *own))),
        layouts=config.layouts,
        layout="" if chosen is not None else layout,
        sizes=config.sizes,
        save_layout=save_layout,
        own_panels=own,
        watches=conditions_of(values["watch"], "any"),
        keys=config.keys,
        grid_rows=values["num_grid_rows"],
        aggregation=values["aggregation"],
        theme=values["theme"] or config.theme,
        color=not os.environ.get("NO_COLOR"),
    )


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
