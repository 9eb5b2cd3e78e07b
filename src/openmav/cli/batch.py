"""`mav batch`: a recording for each of many prompts, in a folder that it goes on with after it was stopped."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openmav.backends.loading.choice import backend_for_many
from openmav.cli.load_limit import load_limit
from openmav.cli.options.settings import model_settings
from openmav.cli.options.values import BatchOptions, RunsModelOptions
from openmav.cli.output import ProgressLine, ReaderGoneError, echo
from openmav.cli.prompts import read_prompts
from openmav.cli.run import make_sampling
from openmav.cli.stream import record_state
from openmav.errors import MavError, UsageError
from openmav.paint.text import fit, one_line
from openmav.plugins.user_files import add_measures
from openmav.recording.recorder import Recorder
from openmav.recording.summary import summarise
from openmav.settings import CORE_MEASURES, Settings
from openmav.system.files import write_file
from openmav.system.logs import redirect, say
from openmav.system.signals import Interrupted, check, hold

if TYPE_CHECKING:
    from openmav.generation.session import Session

MANIFEST, SUMMARY = "batch.json", "summary.csv"
COLUMNS = ("number", "file", "prompt_tokens", "tokens", "reason", "surprisal", "entropy", "perplexity", "text", "error")
TEXT = 25  # cells of a prompt's text in the table


def batch_command(options: BatchOptions) -> int:
    """0; 1 where a prompt could not be run; 130 after Ctrl-C, which keeps what is done.

    Raises UsageError for prompts that can't be read and for a folder that holds something else, LoadError for the model.
    """
    prompts = dict(enumerate(read_prompts(options.prompts), 1))
    settings = _settings(options)
    folder = Path(options.record)
    _begin(folder, settings, list(prompts.values()))
    redirect(descriptors=True)
    left = {number: prompt for number, prompt in prompts.items() if not _file(folder, number).exists()}
    errors: dict[int, str] = {}
    exit_code = 0
    try:
        if left:
            errors = _run(folder, settings, left, len(prompts), options.batch_size)
    except Interrupted as interrupt:
        exit_code = interrupt.exit_code
    try:
        _summary(folder, list(prompts), errors)
    except ReaderGoneError:
        return 0
    return exit_code or int(bool(errors))


def _settings(options: BatchOptions) -> Settings:
    measures, files = add_measures(options.measures)
    model: dict[str, Any] = {one.name: getattr(options, one.name, None) for one in fields(RunsModelOptions)}  # without a prompt
    return replace(
        model_settings(RunsModelOptions(**model)),
        stop=tuple(options.stop),
        max_new_tokens=options.max_new_tokens,
        sampling=make_sampling(options),
        ignore_generation_config=options.ignore_generation_config,
        measures=tuple(dict.fromkeys((*CORE_MEASURES, *measures))),
        measure_files=tuple(files),
    )


def _begin(folder: Path, settings: Settings, prompts: list[str]) -> None:
    """The folder with a note of what is run in it. Raises UsageError where it holds something else."""
    content = asdict(replace(settings, prompt=None, load_timeout=0.0))
    note = {"prompts": len(prompts), "sha256": hashlib.sha256(json.dumps([prompts, content], default=str).encode()).hexdigest()}
    manifest = folder / MANIFEST
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if manifest.exists():
            if json.loads(manifest.read_text(encoding="utf-8")) != note:
                raise UsageError(f"{folder} holds a batch of other prompts or settings; give another folder")
        elif any(folder.iterdir()):
            raise UsageError(f"{folder} is not empty and holds no batch; give a new folder")
        else:
            write_file(manifest, json.dumps(note).encode())
        for rest in folder.glob("*.unfinished*"):
            rest.unlink()
    except ValueError as error:
        if isinstance(error, MavError):
            raise
        raise UsageError(f"{manifest} cannot be read; give another folder") from error
    except OSError as error:
        raise UsageError(f"cannot write into {folder}: {error.strerror or error}") from error


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:05}.mav"


def _run(folder: Path, settings: Settings, prompts: dict[int, str], total: int, size: int) -> dict[int, str]:
    """Runs them, a recording each; {number: why} of those that can't be run."""
    from openmav.analysis.batch import PromptBatch

    errors: dict[int, str] = {}
    progress = Progress(total - len(prompts), total)
    many = backend_for_many(settings.backend, settings.model)
    with _backend(replace(settings, backend=many, prompt=next(iter(prompts.values()))), progress.line) as first:
        batch = PromptBatch(first.backend, settings, prompts, size)
        progress.line.clear()
        if batch.why_not and size > 1 and len(prompts) > 1:
            say(f"mav: one prompt at a time: {batch.why_not}")
        batch.on_tokens = progress.tokens
        try:
            for outcome in batch:
                if outcome.session is None:
                    errors[outcome.number] = outcome.error
                else:
                    with hold():  # a prompt is recorded whole, or not at all
                        _record(_file(folder, outcome.number), outcome.session, settings)
                progress.prompt()
                check()
        finally:
            progress.line.clear()
    return errors


@contextmanager
def _backend(settings: Settings, progress: ProgressLine) -> Iterator[Session]:
    from openmav.generation.opening import open_session

    with load_limit(settings.load_timeout):
        session = open_session(settings, progress)
    try:
        check()
        progress("trying several prompts at once")
        yield session
    finally:
        progress.clear()
        session.close()


def _record(file: Path, session: Session, settings: Settings) -> None:
    """Under another name until it is whole, with the settings as they were asked for. Raises MavError where it can't be written."""
    unfinished = file.with_suffix(".unfinished")
    recorder = Recorder(unfinished, replace(settings, prompt=session.settings.prompt))
    record_state(recorder, session)
    recorder.close()
    if recorder.failure:
        raise MavError(recorder.failure)
    os.replace(unfinished, file)


class Progress:
    """A bar with the remaining time on a terminal's stderr."""

    WIDTH, EVERY = 24, 0.1

    def __init__(self, done: int, total: int) -> None:
        self.line = ProgressLine()
        self._before = self._done = done
        self._total, self._tokens = total, 0
        self._started = time.monotonic()
        self._next = 0.0

    def tokens(self, count: int) -> None:
        check()
        self._tokens += count
        self._show()

    def prompt(self) -> None:
        self._done += 1
        self._show()

    def _show(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self.EVERY
        spent, made = now - self._started, self._done - self._before
        full = self.WIDTH * self._done // self._total
        left = f" · {_clock((self._total - self._done) * spent / made)} left" if made else ""
        rate = f"{self._tokens / spent:.0f} tokens/s" if spent else ""
        self.line(f"{'█' * full}{'░' * (self.WIDTH - full)} {self._done} of {self._total} prompts · {rate}{left}")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"


def _summary(folder: Path, numbers: list[int], errors: dict[int, str]) -> None:
    """The table, from the recordings themselves, and summary.csv."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    echo(f"{'':>5}  {'prompt':>6}  {'tokens':>6}  {'surprisal':>9}  {'entropy':>7}  {'ended':<9}  text")
    done = tokens = 0
    for number in numbers:
        file = _file(folder, number)
        if not file.exists():
            why = errors.get(number, "not run yet")
            table.writerow((number, "", "", "", "", "", "", "", "", why))
            echo(f"{number:>5}  {why}")
            continue
        run = summarise(file)
        done, tokens = done + 1, tokens + run.tokens
        figures = (run.surprisal, run.entropy, run.perplexity)
        table.writerow((number, file.name, run.prompt_tokens, run.tokens, run.reason, *figures, run.text, ""))
        numbers_of = f"{run.prompt_tokens:>6}  {run.tokens:>6}  {run.surprisal:>9.3f}  {run.entropy:>7.3f}"
        echo(f"{number:>5}  {numbers_of}  {run.reason:<9}  {fit(one_line(run.text), TEXT)}".rstrip())
    echo(f"{done} of {len(numbers)} prompts · {tokens} tokens · {folder / SUMMARY}")
    write_file(folder / SUMMARY, out.getvalue().encode())
