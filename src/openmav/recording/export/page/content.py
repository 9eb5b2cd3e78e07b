"""What the page shows of a recording: the numbers of its Steps, texts that are safe to show, and why something is missing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from openmav.paint import one_line, printable, visible
from openmav.panels.generated_text import EIGHTHS
from openmav.protocol.snapshot import Snapshot
from openmav.record import ENDS, Branch, Prompt, Step
from openmav.recording.export.page.extras import add_input, add_sweep
from openmav.recording.export.page.measures import add_measures
from openmav.recording.export.page.numbers import add_attention, add_layers, add_lens, add_steps
from openmav.recording.export.page.pack import Pack
from openmav.recording.reader import Recording
from openmav.recording.sweep import RecordedSweep
from openmav.view import View

OF_A_RUN = ("sampling", "seed", "ended")  # facts that a sweep has not
LONGEST = 2000  # characters of one fact


def encoded_content(recording: Recording, now: Snapshot, sweep: RecordedSweep | None = None) -> str:
    """All of it as one block of text; `now`: the run as the app shows it; `sweep`: where the recording is of one."""
    branches = list(View().updated(now).all_branches().values())
    branches.sort(key=lambda branch: branch.name != now.branch)
    steps = list({id(step): step for branch in branches for step in branch.steps}.values())  # branches share those before they part
    numbers = {id(step): at for at, step in enumerate(steps)}
    pack = Pack()
    header: dict[str, Any] = {
        "facts": [fact for fact in facts(recording, now) if sweep is None or fact[0] not in OF_A_RUN],
        "model": model(now),
        "problems": list(map(one_line, recording.problems)),
    }
    header["contexts"] = add_steps(pack, steps, now)
    header["lens"] = add_lens(pack, steps, now)
    header["measures"] = add_layers(pack, steps, now)
    header["attention"] = add_attention(pack, steps, now)
    header["more"] = add_measures(pack, steps, branches, now)
    header["input"] = add_input(pack, now.attribution)
    header["sweep"] = None if sweep is None else add_sweep(pack, sweep)
    header["eighths"] = EIGHTHS
    settings = recording.meta.get("settings")
    most = isinstance(settings, Mapping) and settings.get("aggregation") == "max_abs"
    header["norm"] = "norms are max |x|" if most else "norms are L2"
    header["branches"] = [add_branch(pack, branch, at, numbers) for at, branch in enumerate(branches)]
    return pack.encoded(header)


def add_branch(pack: Pack, branch: Branch, at: int, numbers: Mapping[int, int]) -> dict[str, Any]:
    """A branch: its prompt, and where its steps are in the list of all."""
    prompt = branch.prompt
    pack.add(f"branch{at}.steps", [numbers[id(step)] for step in branch.steps], "u4")
    pack.add(f"branch{at}.prompt", [pack.text(piece) for piece in prompt_pieces(prompt)], "u4")
    pack.add(f"branch{at}.prompt.ids", prompt.token_ids, "f8")
    return {
        "name": one_line(branch.name)[:LONGEST],
        "parent": None if branch.parent is None else one_line(branch.parent)[:LONGEST],
        "at": branch.at,
        "changes": [{"token": token, "kind": kind, "text": text[:LONGEST]} for token, kind, text in changes(branch)],
    }


def prompt_pieces(prompt: Prompt) -> list[str]:
    """The tokens as running text; a part of a character, or what shows nothing, by its name."""
    pieces = []
    for at, token in enumerate(prompt.tokens):
        special = at < len(prompt.special) and prompt.special[at]
        part = prompt.parts.get(at)
        pieces.append(visible(part if part is not None else token) if special or part is not None else printable(token))
    return pieces


def changes(branch: Branch) -> Iterator[tuple[int, str, str]]:
    """(token, kind, what) of everything that was changed on the way: forced tokens, sampling, interventions."""
    before: Step | None = None
    for step in branch.steps:
        if step.forced:
            yield step.index, "forced", f"{visible(step.token)} was put there, not drawn"
        if before is not None and step.sampling != before.sampling:
            seed = f" · seed {step.sampling.seed}" if step.sampling.seed != before.sampling.seed else ""
            yield step.index, "sampling", f"{before.sampling.describe()} → {step.sampling.describe()}{seed}"
        old: Sequence[str] = () if before is None else before.interventions
        for text in step.interventions:
            if text not in old:
                yield step.index, "intervention", one_line(text)
        for text in old:
            if text not in step.interventions:
                yield step.index, "intervention", f"{one_line(text)} removed"
        before = step


def model(now: Snapshot) -> dict[str, Any]:
    info = now.info
    assert info is not None
    return {
        "name": one_line(info.name)[:LONGEST],
        "layers": info.layers,
        "heads": info.heads,
        "layer_heads": list(info.layer_heads),
        "vocab": info.vocab,
        "missing": {
            one_line(str(measure)): {str(layer): one_line(str(why)) for layer, why in layers.items()}
            for measure, layers in info.missing.items()
        },
    }


def facts(recording: Recording, now: Snapshot) -> Iterator[tuple[str, str]]:
    """(label, value) of the run, the most important first."""
    for label, value in _facts(recording, now):
        if value:
            yield label, one_line(value)[:LONGEST]


def _facts(recording: Recording, now: Snapshot) -> Iterator[tuple[str, str]]:
    info, meta = now.info, recording.meta
    assert info is not None
    yield "model", info.name
    yield "run by", f"{info.backend} · {info.dtype} on {info.device}"
    yield "size", " · ".join(_size(now))
    yield "sampling", now.sampling.describe()
    yield "seed", "" if now.sampling.greedy else str(now.sampling.seed)
    yield "prompt", "" if now.prompt is None else now.prompt.text
    yield "interventions", " · ".join(now.interventions)
    yield "breakpoints", " · ".join(now.breakpoints)
    yield "ended", "no: it was stopped, or is still going on" if now.reason is None else ENDS[now.reason]
    started = meta.get("started")
    if isinstance(started, (int, float)) and 0 < started < 1e11:
        yield "recorded", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(started))
    yield "made with", f"mav {meta.get('version')}"
    versions = meta.get("versions")
    if isinstance(versions, Mapping):
        yield "versions", " · ".join(f"{name} {number}" for name, number in versions.items())
    yield "notes", " · ".join(info.notes)


def _size(now: Snapshot) -> Iterator[str]:
    info = now.info
    assert info is not None
    yield f"{info.layers} layers"
    yield f"{info.heads} heads"
    if info.width:
        yield f"width {info.width:,}"
    yield f"{info.vocab:,} tokens"
    if info.parameters:
        yield f"{info.parameters / 1e6:,.0f} M parameters" if info.parameters < 1e10 else f"{info.parameters / 1e9:,.0f} B parameters"
