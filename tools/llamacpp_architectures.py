"""Run a tiny random model of each of llama.cpp's architectures through mav, and write docs/llamacpp_architectures.md.

python tools/llamacpp_architectures.py                # what was not run yet, and write the page (about 10 minutes for all)
python tools/llamacpp_architectures.py llama mamba    # these again, with every figure
python tools/llamacpp_architectures.py --fresh        # all again

Results are kept in build/llamacpp_architectures.json, so that a run that was stopped goes on where it was.
Each is built in one process and run in another: where llama.cpp ends it, that is its row. The files are removed as soon as they were run.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
STORE = ROOT / "build" / "llamacpp_architectures.json"
SECONDS = 120  # that one may take
PAGE = ROOT / "docs" / "llamacpp_architectures.md"
sys.path.insert(0, str(ROOT / "tests"))

import llamacpp_settings  # noqa: E402

if TYPE_CHECKING:
    from backends.llamacpp_checks import Report

HEAD = """# llama.cpp's architectures

This page is made by `make llamacpp-architectures`. Each row is a tiny random model in float32, with a cache of float32, run by llama.cpp
(llama-cpp-python {version}) in a process of its own: {total} models of {architectures} architectures. Their settings are those of
llama.cpp's own test of its architectures, with a longer text; llama.cpp itself says which tensors a model has. "+experts" is the same
architecture with a mixture of experts.

Each reads {prompt} tokens and continues them with {decoded} more, across the 256 at which llama.cpp makes another graph, with all
sites captured. What is compared:

- logits with everything captured with llama.cpp's own, decoded without mav, bit for bit; the same after going back {back} tokens, after
  work beside the text, and with nothing captured;
- what a layer takes, plus what attention, MLP and others add, with what it gives, to {sum:g} of the sizes of what is added;
- rows: none below 0, none of a sum over 1, softmax of the scores is the row; to {rows:g};
- the lens of the last layer with the logits, to {lens:g} of the largest;
- values read at few stops with those read at a stop each, bit for bit;
- attention, MLP, a head, a neuron and a layer changed: what is ablated is 0, what follows is other, and the model is as before.

No site is shown that fails a check at load: what a model lacks has its reason here, as mav says it. llama.cpp makes all tensors that
a model may have: the factors on the MLP of llama, minicpm, mistral3, nanbeige, qwen3 and others are in few real files, which have the
tokens of neurons then.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of an architecture, as llama.cpp has it")
    parser.add_argument("--fresh", action="store_true", help="run all again")
    parser.add_argument("--build", metavar="FILE", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--run", metavar="FILE", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.build is not None:
        return build(asked.names[0], asked.build)
    if asked.run is not None:
        return run(asked.run)
    from backends.llamacpp_checks import Report

    kept = json.loads(STORE.read_text(encoding="utf-8")) if STORE.is_file() and not asked.fresh else {}
    results = {name: Report(**report) for name, report in kept.items()}
    for name in asked.names or [name for name in llamacpp_settings.names() if name not in results]:
        results[name] = in_processes(name)
        print(line(name, results[name]), flush=True)
        STORE.parent.mkdir(exist_ok=True)
        STORE.write_text(json.dumps({name: asdict(report) for name, report in results.items()}), encoding="utf-8")
    if not asked.names:
        PAGE.write_text(page(dict(sorted(results.items()))), encoding="utf-8")
        print(f"wrote {PAGE.relative_to(ROOT)}")
    return int(any(report.failed or report.wrong for report in results.values()))


def build(name: str, path: Path) -> int:
    """In a process of its own; 3: llama.cpp does not make the model, and the last line says why."""
    from llamacpp_models import NotBuiltError, write
    from openmav.backends.llamacpp import native

    try:
        write(name, path, native.load())
    except NotBuiltError as error:
        print(error)
        return 3
    return 0


def run(path: Path) -> int:
    """In a process of its own: one line for each thing that is begun, and the report as the last."""
    from backends.llamacpp_checks import Report, examine

    try:
        report = examine(path, lambda stage: print(stage, flush=True))
    except Exception as error:
        report = Report(failed=f"{type(error).__name__}: {' '.join(str(error).split())[:160]}")
    print(json.dumps(asdict(report)), flush=True)
    return 0


def in_processes(name: str) -> Report:
    from backends.llamacpp_checks import Report

    with tempfile.TemporaryDirectory(prefix="mav-architecture-") as folder:
        file = str(Path(folder) / "model.gguf")
        built = ended(name, "--build", file)
        if built.returncode:
            said = built.stdout.splitlines()[-1:] if built.returncode == 3 else [how(built)]
            return Report(unusable=f"llama.cpp does not build it: {''.join(said)}")
        whole = ended("--run", file)
    lines = whole.stdout.splitlines()
    if whole.returncode == 0 and lines and lines[-1].startswith("{"):
        return Report(**json.loads(lines[-1]))
    stage = lines[-1] if lines else "it starts"
    what = f"{how(whole)} while {stage}"
    return Report(failed=what) if stage.startswith("mav") else Report(unusable=what)


def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        said = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        return subprocess.CompletedProcess(arguments, -signal.SIGALRM, said, "")


def how(process: subprocess.CompletedProcess[str]) -> str:
    """How a process ended, and what llama.cpp said last."""
    code = process.returncode
    if code == -signal.SIGALRM:
        return f"it takes more than {SECONDS} seconds"
    said = [text for text in process.stderr.splitlines() if "GGML_ASSERT" in text or "Error" in text][-1:]
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"its process ends with {name}" + "".join(f" ({text.split('/')[-1][:120]})" for text in said)


def line(name: str, report: Report) -> str:
    for word in ("failed", "unusable", "refused"):
        if getattr(report, word):
            return f"{name}: {word}: {getattr(report, word)}"
    figures = ", ".join(f"{what} {error:.2g}{' (!)' if what in report.wrong else ''}" for what, error in report.errors.items())
    return f"{name}: {figures}" + "".join(f"; {site}: {why}" for site, why in report.none.items())


# ---- the page --------------------------------------------------------------------------------------------------------------------


def page(results: Mapping[str, Report]) -> str:
    from importlib.metadata import version

    from backends.llamacpp_checks import BACK, DECODED, LIMITS, PROMPT

    head = HEAD.format(
        version=version("llama-cpp-python"),
        total=len(results),
        architectures=len({llamacpp_settings.parted(name)[0] for name in results}),
        prompt=PROMPT,
        decoded=DECODED,
        back=BACK,
        **{name: LIMITS[name] for name in ("sum", "rows", "lens")},
    )
    wrong = {name: report for name, report in results.items() if report.failed or report.wrong}
    run = {name: report for name, report in results.items() if name not in wrong and not (report.unusable or report.refused)}
    whole = [name for name, report in run.items() if not _lacks(report)]
    some = {name: report for name, report in run.items() if _lacks(report)}
    notes: dict[str, int] = {}
    rows = [f"| {name} | {_figures(report)} | {_cell(report, notes)} |" for name, report in some.items()]
    table = ["| model | sum · lens | what it lacks |", "|---|---|---|", *rows, "", *(f"{at}. {why}" for why, at in notes.items())]
    parts = [head, *_section("Wrong", [f"- {name}: {_what_is_wrong(report)}" for name, report in wrong.items()])]
    parts += _section(f"All that such a model can have: {len(whole)}", _whole(whole, run))
    parts += _section(f"Some of it is none: {len(some)}", table if some else [])
    for title, word in (("mav refuses it", "refused"), ("llama.cpp can't run it with these settings", "unusable")):
        by_reason: dict[str, list[str]] = {}
        for name, report in results.items():
            if getattr(report, word):
                by_reason.setdefault(getattr(report, word).removeprefix("model.gguf "), []).append(name)
        count = sum(map(len, by_reason.values()))
        parts += _section(f"{title}: {count}", [f"- {', '.join(same)}: {why}" for why, same in by_reason.items()])
    return "\n".join(parts) + "\n"


def _what_is_wrong(report: Report) -> str:
    return report.failed or ", ".join(f"{what} is off by {error:.2g}" for what, error in report.wrong.items())


def _section(title: str, lines: Iterable[str]) -> list[str]:
    some = list(lines)
    return ["", f"## {title}", "", *some] if some else []


PLAIN = ("its MLP consists of experts", "no router in this layer", "no attention in this layer", "no MLP in this layer")


def _lacks(report: Report) -> dict[str, str]:
    """What is missing that such a model could have: a dense layer has no router, and one of experts no row of neurons."""
    kept = {site: "; ".join(why for why in text.split("; ") if not why.startswith(PLAIN)) for site, text in report.none.items()}
    return {site: why for site, why in kept.items() if why}


def _whole(names: list[str], results: Mapping[str, Report]) -> list[str]:
    return ["| model | sum · lens |", "|---|---|", *(f"| {name} | {_figures(results[name])} |" for name in names)] if names else []


def _figures(report: Report) -> str:
    return " · ".join(f"{report.errors[what]:.1e}" if what in report.errors else "-" for what in ("sum", "lens"))


def _cell(report: Report, notes: dict[str, int]) -> str:
    by_reasons: dict[str, list[str]] = {}
    for site, text in _lacks(report).items():
        by_reasons.setdefault(text, []).append(site)
    found = []
    for text, sites in by_reasons.items():
        what = "all sites" if len(sites) > 10 else ", ".join(sites)
        for reason in text.split("; "):
            plain, _, layers = reason.partition(" (layer")
            number = notes.setdefault(plain.partition(" (off by")[0], len(notes) + 1)
            found.append(f"{what}{f' in layer{layers[:-1]}' if layers else ''} [{number}]")
    return "; ".join(found) + ("" if report.cuts else "; going back restores a copy of its state")


if __name__ == "__main__":
    sys.exit(main())
