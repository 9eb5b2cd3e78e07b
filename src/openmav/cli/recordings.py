"""`mav info`, `mav verify` and `mav recover`: what a recording is, whether it is sound, and what is sound in it."""

from __future__ import annotations

import numpy as np

from openmav.cli.output import echo
from openmav.record import Step
from openmav.recording.check import Check, checks
from openmav.recording.diff import gap
from openmav.recording.facts import read_settings
from openmav.recording.reader import Recording
from openmav.recording.recover import recover
from openmav.version import __version__

WIDTH = 14  # of the first column


def info_command(file: str) -> int:
    """Print what the recording says of its run. Raises UsageError for what is no recording."""
    with Recording(file) as recording:
        branches, info, meta = recording.branches(), recording.info, recording.meta
        if info is not None:
            line("model", f"{info.name} · {info.backend} · {info.dtype} on {info.device} · {info.layers} layers")
        versions = meta.get("versions")
        if isinstance(versions, dict):
            line("made with", f"mav {meta.get('version')} · " + " · ".join(f"{name} {number}" for name, number in versions.items()))
        settings = meta.get("settings")
        if isinstance(settings, dict):
            line("seed", str((recording.state("sampling") or {}).get("seed", "")))
        for branch in branches:
            left = f" · left '{branch.parent}' at token {branch.at}" if branch.parent is not None else ""
            line("branch", f"{branch.name} · {len(branch.prompt.token_ids)} tokens of prompt, {len(branch.steps)} generated{left}")
        line("ended", str(recording.state("reason") or "no: it was stopped, or is still going on"))
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
            results.append(run_again(recording))
    for check in results:
        line(check.name, f"{'ok' if check.good else 'FAIL'} · {check.says}")
    return 0 if all(check.good for check in results) else 1


def recover_command(file: str, output: str) -> int:
    """Write the sound part; 0 also where something was left out. Raises UsageError where nothing can be saved."""
    saved = recover(file, output)
    for problem in saved.problems:
        line("left out", problem)
    line("saved", f"{saved.tokens} tokens, in {output}")
    return 0


def line(what: str, value: str) -> None:
    echo(f"{what:<{WIDTH}}{value}")


def run_again(recording: Recording) -> Check:
    """The run once more from its own settings: the same tokens, and the largest difference of any number."""
    branches = recording.branches()
    steps = branches[0].steps
    if len(branches) > 1 or any(step.forced for step in steps) or len({(step.sampling, step.interventions) for step in steps}) > 1:
        return Check("rerun", False, "none: the run was changed while it went on, so that its settings do not give it again")
    from openmav.library import open_session

    settings = read_settings(recording.meta.get("settings"))
    with open_session(settings) as session:
        largest = 0.0
        for step in steps:
            again = session.step()
            if again.token_id != step.token_id:
                return Check("rerun", False, f"token {step.index} is '{again.token}' now, and was '{step.token}'")
            largest = max(largest, difference(step, again))
    return Check("rerun", largest == 0.0, f"the same {len(steps)} tokens; the largest difference of a number is {largest:.3g}")


def difference(step: Step, other: Step) -> float:
    """The largest absolute difference of the numbers that both steps have."""
    pairs = [(step.candidates.logits, other.candidates.logits), (step.logprob, other.logprob), (step.entropy, other.entropy)]
    pairs += [(step.values[name], other.values[name]) for name in step.values if name in other.values]
    largest = 0.0
    for a, b in pairs:
        largest = max(largest, float(np.max(gap(a, b), initial=0.0)))
    return largest
