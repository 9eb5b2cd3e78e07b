"""The command line itself: all commands with their flags (options/), in sections; `mav` alone is `mav run`.

Nothing here imports a model's library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from openmav.cli.options.flag import Flagged
from openmav.recording.export import FORMATS
from openmav.version import __version__

if TYPE_CHECKING:
    from openmav.cli.options import values

EXAMPLES = """\
  mav                                      the bundled model, live
  mav --model gpt2 --prompt "hello mello"  a model of the Hugging Face hub
  mav --interactive --temp 0.8             each key makes a token
  mav --layout lens                        other panels
  mav --json --seed 7 | jq .entropy        numbers for scripts
  mav --prompt-file story.txt > more.txt   text for pipes"""
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class RunCommand(Flagged):
    """`mav run`: takes several panels after one flag, shows its flags in sections, and explains a stray word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.allow_extra_args = True
        rest = super().parse_args(ctx, gather("--selected-panels", args))
        if rest and not ctx.resilient_parsing:
            raise click.UsageError(f"unexpected argument '{rest[0]}'; put quotes around a prompt of several words")
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record:
                sections.setdefault(getattr(parameter, "section", "Help"), []).append(record)
        width = max(len(flag) for records in sections.values() for flag, _ in records)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl([(flag.ljust(width), text) for flag, text in records], col_max=32)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(f"\nExamples:\n{EXAMPLES}\n")


class Front(click.Group):
    """`mav`: passes what does not start with a subcommand to `mav run`, and shows that command's flags as its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {"--version", *ctx.help_option_names}
        if not args or (args[0].startswith("-") and args[0] not in own):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None:
            from openmav.plugins.registry import unknown

            known = self.list_commands(ctx)
            raise click.UsageError(unknown("command", args[0], known) + "; a prompt goes after --prompt")
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage("mav", "[FLAGS]")
        formatter.write_usage("mav", "COMMAND [FLAGS]", prefix=" " * 7)
        self.format_help_text(ctx, formatter)
        with formatter.section("Commands"):
            formatter.write_dl([(name.ljust(25), one.get_short_help_str(80)) for name, one in self.commands.items()])
        run = self.commands["run"]
        run.format_options(ctx, formatter)
        run.format_epilog(ctx, formatter)


def gather(flag: str, args: list[str]) -> list[str]:
    """`--flag A B C` as `--flag=A,B,C`: all words up to the next flag."""
    out: list[str] = []
    i = 0
    while i < len(args):
        name, _, value = args[i].partition("=")
        i += 1
        if name != flag:
            out.append(args[i - 1])
            continue
        words = [value] if value else []
        while i < len(args) and not args[i].startswith("-"):
            words.append(args[i])
            i += 1
        out.append(f"{flag}={','.join(words)}")
    return out


@click.group(cls=Front, context_settings=SETTINGS, invoke_without_command=False)
@click.version_option(__version__, prog_name="mav", message="%(prog)s %(version)s")
def command() -> None:
    """mav, the Model Activity Visualiser: watch a causal language model while it generates, in the terminal, or as
    text or JSON lines where there is none."""


@command.command(cls=RunCommand, flags="run.RUN", kind="RunOptions", context_settings=SETTINGS)
def run(options: values.RunOptions) -> int:
    """Generate and show it (what mav alone does)."""
    from openmav.cli.run import run_command

    return run_command(options)


@command.command(context_settings=SETTINGS)
@click.argument("name", required=False, metavar="[NAME]")
def panels(name: str | None) -> int:
    """List the panels; with a name, how to read it."""
    from openmav.cli.listing import list_entries

    return list_entries("panels", name)


@command.command(context_settings=SETTINGS)
@click.argument("name", required=False, metavar="[NAME]")
def measures(name: str | None) -> int:
    """List the measures; with a name, its definition."""
    from openmav.cli.listing import list_entries

    return list_entries("measures", name)


@command.command(cls=Flagged, flags="commands.TOUR", kind="TourOptions", context_settings=SETTINGS)
def tour(options: values.TourOptions) -> int:
    """Learn to read it all: a guided tour, key by key."""
    from openmav.cli.tour import take_tour

    return take_tour(options)


@command.command(cls=Flagged, flags="commands.DOCTOR", kind="DoctorOptions", context_settings=SETTINGS)
def doctor(options: values.DoctorOptions) -> int:
    """What is installed; with --model, what was found in a model and whether its numbers are right."""
    from openmav.cli.doctor import doctor_command

    return doctor_command(options)


@command.command(cls=Flagged, flags="commands.SWEEP", kind="SweepOptions", context_settings=SETTINGS)
def sweep(options: values.SweepOptions) -> int:
    """Ablate each head (or sub-block, or layer) and map the effect on a token."""
    from openmav.cli.sweep import sweep_command

    return sweep_command(options)


@command.command(cls=Flagged, flags="commands.ATTRIBUTE", kind="AttributeOptions", context_settings=SETTINGS)
def attribute(options: values.AttributeOptions) -> int:
    """Which tokens of a prompt the next token depends on."""
    from openmav.cli.attribute import attribute_command

    return attribute_command(options)


@command.command(cls=Flagged, flags="commands.COMPARE", kind="CompareOptions", context_settings=SETTINGS)
def compare(options: values.CompareOptions) -> int:
    """Two runs on the same tokens: divergence, and the layer where they part."""
    from openmav.cli.compare import compare_command

    return compare_command(options)


@command.command(cls=Flagged, flags="commands.BATCH", kind="BatchOptions", context_settings=SETTINGS)
@click.argument("prompts", metavar="PROMPTS")
def batch(options: values.BatchOptions) -> int:
    """Run many prompts, a recording each."""
    from openmav.cli.batch import batch_command

    return batch_command(options)


@command.command(context_settings=SETTINGS)
@click.argument("place", metavar="FOLDER")
@click.argument("statement", metavar="SELECT")
@click.option("--csv", is_flag=True, help="A table for programs.")
@click.option("--json", is_flag=True, help="JSON lines.")
def query(place: str, statement: str, csv: bool, json: bool) -> int:
    """SQL over all recordings of a folder."""
    from openmav.cli.query import query_command

    return query_command(place, statement, csv, json)


@command.command(cls=Flagged, flags="commands.REPLAY", kind="ReplayOptions", context_settings=SETTINGS)
@click.argument("file", metavar="FILE")
def replay(options: values.ReplayOptions) -> int:
    """Open a recording in the app; no model is needed."""
    from openmav.cli.replay import replay_command

    return replay_command(options)


@command.command(context_settings=SETTINGS)
@click.argument("file", metavar="FILE")
def info(file: str) -> int:
    """What a recording is of: model, versions, branches."""
    from openmav.cli.recordings import info_command

    return info_command(file)


@command.command(context_settings=SETTINGS)
@click.argument("file", metavar="FILE")
@click.option("--rerun", is_flag=True, help="Also run the model again from the recording's settings, and compare each number.")
def verify(file: str, rerun: bool) -> int:
    """Whether a recording is as it was written."""
    from openmav.cli.recordings import verify_command

    return verify_command(file, rerun)


@command.command(context_settings=SETTINGS)
@click.argument("file", metavar="FILE")
@click.option("-o", "--output", required=True, metavar="FILE", help="The new file.")
def recover(file: str, output: str) -> int:
    """Save what is sound in a damaged recording."""
    from openmav.cli.recordings import recover_command

    return recover_command(file, output)


@command.command(context_settings=SETTINGS)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--json", is_flag=True, help="One JSON object.")
@click.option("--tolerance", default=0.0, type=click.FloatRange(min=0), metavar="X", help="Differences of a number up to X are none.")
def diff(a: str, b: str, json: bool, tolerance: float) -> int:
    """Where two recordings differ; exit code 1 if they do."""
    from openmav.cli.diff import diff_command

    return diff_command(a, b, json, tolerance)


@command.command(context_settings=SETTINGS)
@click.argument("file", metavar="FILE")
@click.option("--to", required=True, type=click.Choice(tuple(FORMATS)), metavar="FORMAT", help=f"One of {', '.join(FORMATS)}.")
@click.option("-o", "--output", metavar="FILE", help="The new file; - is stdout. [default: FILE with the format's suffix]")
@click.option("--force", is_flag=True, help="Write over an existing file.")
def export(file: str, to: str, output: str | None, force: bool) -> int:
    """Write a recording in another format."""
    from openmav.cli.export import export_command

    return export_command(file, to, output, force)


@command.command("import", context_settings=SETTINGS)
@click.argument("file", metavar="FILE")
@click.option("-o", "--output", required=True, metavar="FILE", help="The new recording.")
def import_(file: str, output: str) -> int:
    """Make a recording of JSON lines."""
    from openmav.cli.export import import_command

    return import_command(file, output)


@command.command(context_settings=SETTINGS)
@click.argument("what", type=click.Choice(("path", "show", "edit")), metavar="path|show|edit")
def config(what: str) -> int:
    """Your layouts, keys and theme, in a file."""
    from openmav.cli.config import configure

    return configure(what)


@command.command(context_settings=SETTINGS)
@click.argument("kind", type=click.Choice(("panel", "measure")), metavar="panel|measure")
@click.argument("name", metavar="NAME")
def new(kind: str, name: str) -> int:
    """Write a panel or measure of your own to start from."""
    from openmav.cli.new import write_new

    return write_new(kind, name)
