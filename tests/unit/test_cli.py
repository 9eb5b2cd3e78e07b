"""The command line in this process: what flags become, which face is chosen, and what bad input says."""

from __future__ import annotations

import io
import sys
from dataclasses import fields, replace
from pathlib import Path

import click
import pytest

from openmav.cli import run as run_module
from openmav.cli.config_file.write import save_layout
from openmav.cli.main import main
from openmav.cli.options.commands import ATTRIBUTE, DOCTOR, SWEEP
from openmav.cli.options.flag import Flag, Spec
from openmav.cli.options.run import RUN
from openmav.cli.options.shared import LOADING, THE_MODEL, THE_PROMPT
from openmav.cli.options.values import AttributeOptions, DoctorOptions, RunOptions, SweepOptions
from openmav.cli.parser import command as front
from openmav.cli.parser import gather
from openmav.plugins import registry
from openmav.plugins.summary import HEAD, summary, summary_of
from openmav.settings import CORE_MEASURES, DEMO_PROMPT, OTHER_PROMPT, Settings
from openmav.settings.sampling import Sampling, SamplingOptions
from openmav.view.options import PANELS, AppOptions


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[RunOptions]:
    """The parsed values of each `mav run`, which is not run."""
    calls: list[RunOptions] = []
    monkeypatch.setattr(run_module, "run_command", lambda values: calls.append(values) or 0)
    return calls


def parsed(asked: list[RunOptions], *args: str) -> RunOptions:
    assert main(args) == 0
    return asked.pop()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def sit_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stdout", Terminal())


def test_defaults_are_those_of_the_documentation(asked: list[RunOptions]) -> None:
    values = parsed(asked)
    settings = run_module.make_settings(values, "plain")
    assert settings == Settings(measures=CORE_MEASURES, sampling=SamplingOptions(seed=42))
    assert settings.sampling.over(Sampling()) == Sampling(0.0, 50, 1.0, 0.0, 1.0, 42)
    assert settings.text == DEMO_PROMPT
    options = run_module.make_options(values)
    assert options == AppOptions(limit_chars=0, scale="linear", panels=PANELS, layout="overview", save_layout=save_layout)
    assert parsed(asked, "run") == values


def test_another_model_has_the_other_prompt(asked: list[RunOptions]) -> None:
    assert run_module.make_settings(parsed(asked, "--model", "gpt2"), "plain").text == OTHER_PROMPT


def test_every_flag_reaches_the_settings(asked: list[RunOptions]) -> None:
    flags = "--model m --prompt hello --max-new-tokens 7 --aggregation max_abs --refresh-rate 0.5 --device cuda:1 --temp 0.7 --top-k 0"
    flags += " --top-p 0.9 --min-p 0.05 --repetition-penalty 1.1 --backend toy --seed 3 --chat --stop a --stop b --dtype bfloat16"
    flags += " --measure mlp_norm --trust-remote-code --threads 2 --gpu-layers 5 --rpc 10.0.0.2:1,b:2"
    assert run_module.make_settings(parsed(asked, *flags.split()), "json") == Settings(
        model="m",
        prompt="hello",
        backend="toy",
        device="cuda:1",
        dtype="bfloat16",
        trust_remote_code=True,
        chat=True,
        stop=("a", "b"),
        max_new_tokens=7,
        sampling=SamplingOptions(0.7, 0, 0.9, 0.05, 1.1, 3),
        measures=CORE_MEASURES,
        aggregation="max_abs",
        refresh_rate=0.5,
        threads=2,
        gpu_layers=5,
        rpc=("10.0.0.2:1", "b:2"),
    )


def test_every_flag_of_the_app_reaches_the_options(asked: list[RunOptions], monkeypatch: pytest.MonkeyPatch) -> None:
    known = registry.names("panels")
    monkeypatch.setattr(registry, "names", lambda kind: ["a", "b"] if kind == "panels" else known)
    monkeypatch.setenv("NO_COLOR", "1")
    flags = "--scale log --limit-chars 7 --max-bar-length 9 --selected-panels b a --num-grid-rows 3 --theme light --aggregation max_abs"
    options = run_module.make_options(parsed(asked, *flags.split()))
    wanted = AppOptions("log", 9, 7, ("b", "a"), 3, aggregation="max_abs", theme="light", color=False)
    assert options == replace(wanted, save_layout=save_layout)


def test_the_app_gives_each_token_its_time_and_leaves_a_core_for_drawing(asked: list[RunOptions], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "cores", lambda: 4)
    values = parsed(asked)
    app, plain = run_module.make_settings(values, "tui"), run_module.make_settings(values, "plain")
    assert (app.refresh_rate, app.threads) == (0.1, 3)
    assert (plain.refresh_rate, plain.threads) == (0.0, None)
    assert run_module.make_settings(parsed(asked, "--refresh-rate", "0"), "tui").refresh_rate == 0.0
    monkeypatch.setattr(run_module, "cores", lambda: 1)
    assert run_module.make_settings(values, "tui").threads == 1
    assert run_module.make_settings(parsed(asked, "--threads", "2"), "tui").threads == 2, "what was asked for wins"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--p", "a", "b", "--json"], ["--p=a,b", "--json"]),
        (["--p", "a,b", "c"], ["--p=a,b,c"]),
        (["--p=a", "b"], ["--p=a,b"]),
        (["--p"], ["--p="]),
        (["--x", "1", "--p", "a"], ["--x", "1", "--p=a"]),
        ([], []),
    ],
)
def test_several_words_after_one_flag(given: list[str], expected: list[str]) -> None:
    assert gather("--p", given) == expected


def test_a_terminal_gets_the_app_unless_told_otherwise(asked: list[RunOptions], monkeypatch: pytest.MonkeyPatch) -> None:
    sit_at_a_terminal(monkeypatch)
    assert run_module.choose_output(parsed(asked)) == "tui"
    assert run_module.choose_output(parsed(asked, "--tui")) == "tui"
    assert run_module.choose_output(parsed(asked, "--plain")) == "plain"
    assert run_module.choose_output(parsed(asked, "--json")) == "json"


@pytest.mark.parametrize("missing", ["stdin", "stdout"])
def test_a_pipe_on_either_side_gets_plain_text(asked: list[RunOptions], monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    sit_at_a_terminal(monkeypatch)
    for stream in (None, io.StringIO()):
        monkeypatch.setattr(sys, missing, stream)
        assert run_module.choose_output(parsed(asked)) == "plain"


BAD = [
    ("--top-p 2", "top-p"),
    ("--top-p 0", "top-p"),
    ("--temp -1", "temperature"),
    ("--temp nan", "temperature"),
    ("--temp hot", "--temp"),
    ("--top-k -5", "top-k"),
    ("--min-p 1.5", "min-p"),
    ("--repetition-penalty 0", "penalty"),
    ("--seed -1", "seed"),
    ("--max-new-tokens -3", "--max-new-tokens"),
    ("--max-new-tokens 0", "--max-new-tokens"),
    ("--max-new-tokens many", "--max-new-tokens"),
    ("--refresh-rate -1", "--refresh-rate"),
    ("--refresh-rate nan", "refresh-rate"),
    ("--limit-chars -1", "--limit-chars"),
    ("--max-bar-length 0", "--max-bar-length"),
    ("--num-grid-rows 0", "--num-grid-rows"),
    ("--selected-panels nothing", "unknown panel 'nothing'"),
    ("--selected-panels", "mav panels"),
    ("--scale sqrt", "--scale"),
    ("--aggregation l1", "--aggregation"),
    ("--dtype int3", "--dtype"),
    ("--device gpu", "cuda:N"),
    ("--backend onnx", "unknown backend 'onnx'"),
    ("--measure magic", "unknown measure 'magic'"),
    ("--model=", "no name"),
    ("--prompt=", "prompt is empty"),
    ("--stop=", "stop"),
    ("--prompt a --prompt-file b", "--prompt-file"),
    ("--json --plain", "exclude"),
    ("--tui --json", "exclude"),
    ("--tui", "terminal"),
    ("--interactive", "terminal"),
    ("--interactive --json", "--interactive"),
    ("--prompt-file /no/such/file", "cannot read"),
    ("--prompt hello mello", "quotes"),
    ("--promt x", "--prompt"),
    ("hello", "unknown command 'hello'"),
    ("--model", "--model"),
]


@pytest.mark.parametrize(("line", "words"), BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    line: str, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mav: ")
    assert err.count("\n") == 1
    assert words in err
    assert "Traceback" not in err


def test_an_unknown_name_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--backend", "transfomers"]) == 2
    err = capsys.readouterr().err
    assert "Did you mean 'transformers'?" in err
    assert "toy" in err


def test_a_prompt_file_is_read_as_it_is(tmp_path: Path, asked: list[RunOptions]) -> None:
    file = tmp_path / "prompt.txt"
    for data, text in ((b"a b\n", "a b"), (b"a\n\n", "a\n"), ("\ufeffçé\r\n文\r\n".encode(), "çé\n文"), (b"  x", "  x")):
        file.write_bytes(data)
        assert run_module.make_settings(parsed(asked, "--prompt-file", str(file)), "plain").prompt == text


@pytest.mark.parametrize(("data", "words"), [(b"", "prompt is empty"), (b"\n", "prompt is empty"), (b"ab\xff", "not UTF-8 text (byte 2)")])
def test_a_prompt_file_without_a_prompt(tmp_path: Path, data: bytes, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes(data)
    assert main(["--prompt-file", str(file)]) == 2
    assert words in capsys.readouterr().err
    assert main(["--prompt-file", str(tmp_path)]) == 2


def test_a_prompt_from_stdin(monkeypatch: pytest.MonkeyPatch, asked: list[RunOptions], capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("hé\n".encode())))
    values = parsed(asked, "--prompt-file", "-")
    assert run_module.make_settings(values, "plain").prompt == "hé"
    monkeypatch.undo()
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["--prompt-file", "-"]) == 2
    assert "stdin" in capsys.readouterr().err


def test_a_prompt_that_is_not_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--prompt", "a\udcff"]) == 2
    assert "not valid UTF-8" in capsys.readouterr().err


def test_a_bug_is_one_line_with_the_place_of_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def broken(_values: RunOptions) -> int:
        raise ZeroDivisionError("a\nb")

    log = tmp_path / "mav.log"
    monkeypatch.setattr("openmav.system.logs.log_path", lambda: log)
    monkeypatch.setattr(run_module, "run_command", broken)
    assert main([]) == 1
    assert capsys.readouterr().err == f"mav: internal error: ZeroDivisionError: a b; the details are in {log}\n"
    assert "in broken" in log.read_text()


@pytest.mark.parametrize("args", [["--help"], ["-h"], ["run", "--help"], ["--json", "--help"]])
def test_help_shows_every_flag_with_its_default(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 0
    text = capsys.readouterr().out
    flat = " ".join(text.split())
    for name, attributes in ((spec.name, spec.attributes) for spec in RUN):
        assert name in flat
        if attributes.get("default") is not None:
            assert "[default: " in flat.split(f" {name} ", 1)[1].split(" --", 1)[0]
    for section in ("Model:", "Text:", "Sampling:", "Output:", "The app:", "Examples:"):
        assert section in text
    assert "Sentinel" not in text


@pytest.mark.parametrize(
    ("name", "flags", "kind"),
    [
        ("run", RUN, RunOptions),
        ("sweep", SWEEP, SweepOptions),
        ("attribute", ATTRIBUTE, AttributeOptions),
        ("doctor", DOCTOR, DoctorOptions),
    ],
)
def test_every_command_has_the_options_of_a_model(name: str, flags: tuple[Spec, ...], kind: type) -> None:
    """The very rows of one table, so that another row is another option of all commands, which gets it as a field."""
    assert set(LOADING) <= {*flags}
    if name != "doctor":
        assert {*THE_MODEL, *THE_PROMPT} <= {*flags}
    assert {spec.field for spec in flags} == {one.name for one in fields(kind)}
    known = front.commands[name].get_params(click.Context(front))
    assert {parameter.name for parameter in known if isinstance(parameter, Flag)} == {spec.field for spec in flags}


def test_the_examples_of_the_help_parse(capsys: pytest.CaptureFixture[str], asked: list[RunOptions]) -> None:
    import shlex

    assert main(["--help"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.split("Examples:")[1].splitlines() if line.strip()]
    assert len(lines) >= 5
    for line in lines:
        words = shlex.split(line.split("  ")[0].split("|")[0].split(">")[0])
        assert words[0] == "mav"
        parsed(asked, *words[1:])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from openmav import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mav {__version__}\n"


@pytest.mark.parametrize("kind", ["panels", "measures"])
def test_panels_and_measures_are_listed_with_one_line_each(kind: registry.Kind, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = registry.names(kind)
    assert [line.split()[0] for line in lines[: len(names)]] == list(names)
    assert all(len(line.split()) > 3 for line in lines[: len(names)]), "each says what it is"
    assert len(lines) == len(names) + 2


@pytest.mark.parametrize("kind", ["panels", "measures"])
def test_what_is_read_of_a_module_is_what_it_has_when_it_is_run(kind: registry.Kind) -> None:
    for name in registry.names(kind):
        assert HEAD.match(registry.source_of(kind, name) or ""), f"{name} is run to be listed"
        assert summary_of(kind, name) == summary(registry.load(kind, name))


def test_a_panel_or_measure_by_its_name_is_described_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measures", "attention_entropy"]) == 0
    assert "H = -sum_j a_j ln a_j" in capsys.readouterr().out
    assert main(["panels", "timeline"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("timeline  ")
    assert all(f"    {part}: " in text for part in ("What it shows", "How to read it", "Formula"))
    assert main(["panels", "time_line"]) == 2
    assert "Did you mean 'timeline'?" in capsys.readouterr().err


def test_every_command_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in front.commands)
