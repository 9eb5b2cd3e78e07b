"""`mav info`, `mav verify` and `mav recover`: what a recording is, whether it is sound, and what is sound in it."""

from __future__ import annotations

from openmav.cli.output import echo
from openmav.paint import visible
from openmav.recording.check import checks
from openmav.recording.reader import Recording
from openmav.recording.recover import recover
from openmav.recording.run_sweeps import read_sweeps
from openmav.recording.sweep import RecordedSweep, read_sweep
from openmav.version import __version__

WIDTH = 14  # of the first column


def info_command(file: str) -> int:
    """Print what the recording says of its run. Raises UsageError for what is no recording."""
    with Recording(file) as recording:
        branches, info, meta = recording.branches(), recording.info, recording.meta
        recording.check_arrays()
        if info is not None:
            line("model", f"{info.name} · {info.backend} · {info.dtype} on {info.device} · {info.layers} layers")
        versions = meta.get("versions")
        if isinstance(versions, dict):
            line("made with", f"mav {meta.get('version')} · " + " · ".join(f"{name} {number}" for name, number in versions.items()))
        settings = meta.get("settings")
        if isinstance(settings, dict):
            line("seed", str((recording.state("sampling") or {}).get("seed", "")))
        comparison = recording.state("comparison")
        if isinstance(comparison, dict):
            line("compared", f"with {comparison.get('b')}")
        for branch in branches:
            left = f" · left '{branch.parent}' at token {branch.at}" if branch.parent is not None else ""
            line("branch", f"{branch.name} · {len(branch.prompt.token_ids)} tokens of prompt, {len(branch.steps)} generated{left}")
        sweep = read_sweep(recording)
        if sweep is not None:
            line("sweep", _sweep_text(sweep))
        for one in read_sweeps(recording, info):
            of = f"{visible(one.token)} at token {one.index}{f' of {one.branch}' if len(branches) > 1 else ''}"
            line("sweep", f"{one.what} ablated alone ({one.how}), {of} · {one.done} of {one.total} sites")
        ended = recording.state("reason") if sweep is None else sweep.end
        line("ended", str(ended or "no: it was stopped, or is still going on"))
        count, size = recording.rows("SELECT count(*), total(length(data)) FROM arrays")[0]
        line("arrays", f"{count} with {size / 2**20:.1f} MB; the file has {recording.path.stat().st_size / 2**20:.1f} MB")
        for problem in recording.problems:
            line("problem", problem)
    return 0


def verify_command(file: str, rerun: bool) -> int:
    """Print each check; 1 if one failed, else 0. Raises UsageError for what is no recording."""
    with Recording(file) as recording:
        journal = recording.meta.get("journal")
        line("format", f"version 1 · written by mav {recording.meta.get('version')}, read by mav {__version__} · {journal} while written")
        results = checks(recording)
        if rerun and all(check.good for check in results):
            from openmav.cli.rerun import run_again, sweep_again

            sweep = read_sweep(recording)
            results.append(run_again(recording) if sweep is None else sweep_again(recording, sweep))
    for check in results:
        known = not check.says.startswith("none: ")  # else it could not be checked, and why
        line(check.name, f"{'ok' if check.good else 'FAIL'} · {check.says}" if known else check.says)
    return 0 if all(check.good for check in results) else 1


def recover_command(file: str, output: str) -> int:
    """Write the sound part; 0 also where something was left out. Raises UsageError where nothing can be saved."""
    saved = recover(file, output)
    for problem in saved.problems:
        line("left out", problem)
    line("saved", f"{saved.tokens} tokens{f' and {saved.effects} effects' * (saved.effects > 0)}, in {output}")
    return 0


def _sweep_text(sweep: RecordedSweep) -> str:
    plan = sweep.plan
    minus = f" minus {visible(plan.minus.text)}" if plan.minus is not None else ""
    target = f"logit of {visible(plan.target.text)}{minus}"
    return f"{plan.what} ablated alone ({plan.how}), {target} · {len(sweep.effects)} of {len(plan.sites)} sites"


def line(what: str, value: str) -> None:
    echo(f"{what:<{WIDTH}}{value}")
