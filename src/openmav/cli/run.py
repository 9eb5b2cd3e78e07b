"""`mav run`: from the flags' values to Settings and AppOptions, checked, and on to the app or to a stream."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Literal, TypeAlias

from openmav.cli.config_file.read import Config, read_config
from openmav.cli.config_file.write import save_layout
from openmav.cli.options.settings import model_settings, read_file
from openmav.cli.options.values import InterventionFlags, RunOptions, SamplingFlags
from openmav.errors import UsageError
from openmav.plugins import registry
from openmav.plugins.user_files import add_measures, add_panels
from openmav.settings import CORE_MEASURES, Settings, interventions
from openmav.settings.constraint import Constraint
from openmav.settings.sampling import SamplingOptions
from openmav.system.terminal import is_terminal
from openmav.view.options import AppOptions

OutputMode: TypeAlias = Literal["tui", "plain", "json"]
OUTPUT_MODES: tuple[OutputMode, ...] = ("tui", "plain", "json")
APP_REFRESH = 0.1  # seconds: a fast model can be watched


def run_command(options: RunOptions) -> int:
    """Check all that can be checked without the model's libraries, then run; the exit code.

    Raises MavError with one line that says what to do.
    """
    output = choose_output(options)
    config = read_config() if output == "tui" else Config()
    settings, app_options = make_settings(options, output, config), make_options(options, config)
    if output == "tui":
        from openmav.cli.app import show_app

        return show_app(settings, app_options, record=options.record)
    from openmav.cli.stream import stream

    return stream(settings, output, options.record)


def choose_output(options: RunOptions) -> OutputMode:
    """The app where stdin and stdout are terminals, else plain text; a flag decides otherwise."""
    requested = [mode for mode in OUTPUT_MODES if getattr(options, mode)]
    terminal = is_terminal(sys.stdin) and is_terminal(sys.stdout)
    if len(requested) > 1:
        raise UsageError(f"--{requested[0]} and --{requested[1]} exclude each other; leave one out")
    if requested == ["tui"] and not terminal:
        raise UsageError("--tui needs a terminal on stdin and stdout; without one use --plain or --json")
    output: OutputMode = requested[0] if requested else "tui" if terminal else "plain"
    if options.interactive and output != "tui":
        raise UsageError("--interactive needs the app in a terminal; leave it out for plain text and JSON lines")
    return output


def make_settings(options: RunOptions, output: OutputMode, config: Config | None = None) -> Settings:
    """What the session is to do. The config file's measures are known to it, and computed where a panel wants them."""
    model = model_settings(options)
    measures, files = add_measures(options.measures)
    refresh = options.refresh_rate
    return replace(
        model,
        stop=tuple(options.stop),
        max_new_tokens=options.max_new_tokens,
        sampling=make_sampling(options),
        ignore_generation_config=options.ignore_generation_config,
        constraint=make_constraint(options),
        measures=tuple(dict.fromkeys((*CORE_MEASURES, *measures))),
        measure_files=tuple(dict.fromkeys((*files, *(config.measures if config else ())))),
        interventions=interventions_of(options),
        breakpoints=conditions_of(options.breakpoints, "truth"),
        aggregation=options.aggregation,
        interactive=options.interactive,
        refresh_rate=refresh if refresh is not None else APP_REFRESH if output == "tui" else 0.0,
        threads=app_threads(model.threads) if output == "tui" else model.threads,
    )


def make_constraint(options: RunOptions) -> Constraint:
    """What the text must look like; its grammar is checked now, before anything is loaded."""
    schema = options.json_schema
    if schema == "-" and options.prompt_file == "-":
        raise UsageError("--json-schema - and --prompt-file - cannot both read stdin; put one of them in a file")
    text = None if schema is None else read_file(schema, "--json-schema", "the schema file")
    constraint = Constraint(options.regex, text, tuple(options.ban), tuple(options.require))
    constraint.grammar()
    return constraint


def make_sampling(options: SamplingFlags) -> SamplingOptions:
    """What the flags say; the model's generation config says the rest."""
    return SamplingOptions(
        temperature=options.temp,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repetition_penalty=options.repetition_penalty,
        seed=options.seed,
    )


def conditions_of(texts: tuple[str, ...], kind: Literal["truth", "any"]) -> tuple[str, ...]:
    """The texts, once each, as they were given. Raises ConditionError for the first that is no condition, or cannot be read."""
    from openmav.conditions import parse, parse_breakpoint

    for text in texts:
        (parse_breakpoint if kind == "truth" else parse)(text)
    return tuple(dict.fromkeys(texts))


def interventions_of(options: InterventionFlags) -> tuple[str, ...]:
    """The interventions of the flags, as whole specs; all of one kind before the next, in the order of interventions.KINDS.

    Raises UsageError for one that can't be read.
    """
    return tuple(str(interventions.parse(f"{kind} {spec}")) for kind in interventions.KINDS for spec in getattr(options, kind))


def make_options(options: RunOptions, config: Config | None = None) -> AppOptions:
    """How the app shows it: the flags win over the config file, named panels over a layout."""
    config = config or Config()
    own = tuple(dict.fromkeys((*config.panels, *add_panels(options.panel_files))))
    chosen = options.selected_panels
    layout = options.layout or config.layout or "overview"
    if layout not in config.layouts:
        raise UsageError(registry.unknown("layout", layout, list(config.layouts)))
    panels = config.layouts[layout] if chosen is None else tuple(chosen.replace(",", " ").split())
    if not panels:
        raise UsageError("--selected-panels needs the name of a panel; mav panels lists them")
    panels = registry.need_known("panels", panels)
    return AppOptions(
        scale=options.scale,
        max_bar_length=options.max_bar_length,
        limit_chars=options.limit_chars,
        panels=tuple(dict.fromkeys((*panels, *own))),
        layouts=config.layouts,
        layout="" if chosen is not None else layout,
        sizes=config.sizes,
        save_layout=save_layout,
        own_panels=own,
        watches=conditions_of(options.watches, "any"),
        keys=config.keys,
        grid_rows=options.num_grid_rows,
        aggregation=options.aggregation,
        theme=options.theme or config.theme,
        color=not os.environ.get("NO_COLOR"),
    )


def app_threads(threads: int | None) -> int:
    """The model's threads beside the app: as many as were asked for, else one core is left for drawing."""
    return threads or max(1, cores() - 1)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
