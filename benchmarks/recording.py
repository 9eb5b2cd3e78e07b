"""What a recording costs a run, how many bytes a token takes, and how soon a long one opens and scrubs."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from common import REAL_MODEL, Counts, Figure, Model, Section, interval, median, note, ratio, spread, take_turns
from openmav.backends.base import LoadOptions
from openmav.backends.transformers import backend
from openmav.generation.session import Session
from openmav.panels import draw
from openmav.plugins import registry
from openmav.protocol.snapshot import RunState, Snapshot
from openmav.recording.recorder import Recorder
from openmav.recording.replay import ReplaySource
from openmav.settings import Settings
from openmav.view import View

KEEPS = {"demo": 0.95, "SmolLM2-135M": 0.99}  # share of the speed without a recording
TOKENS = {"demo": 100, "SmolLM2-135M": 17}  # a round
SIZED = {"demo": 200, "SmolLM2-135M": 33}  # of the run whose file is measured
ROUNDS = 41  # short ones: what moves the machine's speed then moves both sides of a round alike
LONG = 10_000  # tokens of the long recording
OPENS = 1.0  # seconds
FRAME = 1 / 15  # seconds, as long as the app has for one
SHOWN = ("generated_text", "timeline", "top_predictions", "residual_norms", "attention_entropy")
HOW = (
    "One process and one model, the default measures, greedy, tokens in bursts as `mav --json` makes them. A round makes {tokens} tokens "
    "without a recording and as many with one, in turns, {rounds} rounds; making the file and closing it are not in the time. A ratio is "
    "the median over the rounds of the speed with a recording against that without, with the interval that has the median of such rounds "
    "in 95 of 100 cases (bootstrap). Processor time: of the thread that makes and writes the tokens, within the recorder alone. Bytes a "
    "token: of the closed file, which has the model's and the run's facts as well."
)


class Run:
    """A new session each round, recorded or not; `most`: tokens of a burst at most."""

    def __init__(self, model: backend.TransformersBackend, name: str, tokens: int, folder: Path) -> None:
        self.model, self.tokens, self.folder = model, tokens, folder
        self.settings = Settings(model=name, prompt="It is a truth universally acknowledged, that", max_new_tokens=1 << 20)
        self.bytes: list[float] = []
        self.recording: list[float] = []  # seconds of processor a token

    def seconds(self, recorded: bool) -> float:
        session = Session(self.model, self.settings)
        recorder = Recorder(self.folder / f"{len(list(self.folder.iterdir()))}.mav", self.settings) if recorded else None
        if recorder is not None:
            recorder.update(Snapshot(steps=()).with_state(session.describe(RunState(info=session.info))))

        session.prefill()
        session.step()
        recording = 0.0
        began = time.perf_counter()
        while len(session.steps) < self.tokens:
            made = session.burst(most=self.tokens - len(session.steps))
            if recorder is not None:
                before = time.thread_time()
                recorder.add(session.branch, made)
                recording += time.thread_time() - before
        seconds = time.perf_counter() - began
        if recorder is not None:
            recorder.close()
            self.bytes.append(recorder.writer.path.stat().st_size)
            self.recording.append(recording / (self.tokens - 1))
        return seconds / (self.tokens - 1)


def run(counts: Counts) -> list[Section]:
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in counts.models:
            if model.name == str(REAL_MODEL) and not REAL_MODEL.is_dir():
                figures.append(Figure(f"{model.title}: not there, run make real-model", "", None))
                continue
            note(f"recording: {model.title}")
            figures += _cost(model, counts, folder)
        long = _long(folder)
    how = HOW.format(tokens=" or ".join(map(str, TOKENS.values())), rounds=_rounds(counts))
    about = f"{LONG} tokens of one of these models: seconds of processor until it can be shown, and for a frame of five panels amid it."
    return [Section("Cost of a recording", how, figures), Section("A long recording", about, long)]


def _cost(model: Model, counts: Counts, folder: Path) -> list[Figure]:
    loaded = backend.load(model.name, LoadOptions(dtype="float32", device="cpu"))
    loaded.end_ids = frozenset()
    tokens = TOKENS[model.title] if counts.rounds > 1 else counts.tokens
    run = Run(loaded, model.name, SIZED[model.title] if counts.rounds > 1 else counts.tokens, folder)
    sides: dict[str, Callable[[], float]] = {"off": partial(run.seconds, False), "on": partial(run.seconds, True)}
    for side in sides.values():  # warms up
        side()
    size = f"{run.bytes[-1] / run.tokens:.0f}, in a file of {run.tokens} tokens"
    run.tokens, run.recording = tokens, []
    found = take_turns(_rounds(counts), sides)
    low, high = interval([off / on for off, on in zip(found["off"], found["on"], strict=True)])
    speeds = f"{1 / median(found['on']):.0f} of {1 / median(found['off']):.0f} tokens/s, 95 %: {low:.3f} to {high:.3f}"
    kept = Figure(f"{model.title}: speed kept", speeds, ratio(found["off"], found["on"]), least=KEEPS[model.title])
    spent, whole = median(run.recording), median(found["on"])
    return [
        kept,
        Figure(f"{model.title}: processor time a token", f"{spent * 1e6:.0f} µs of {whole * 1e3:.2f} ms, {spent / whole:.2%}"),
        Figure(f"{model.title}: bytes a token", size),
    ]


def _rounds(counts: Counts) -> int:
    return ROUNDS if counts.rounds > 1 else 1


def _long(folder: Path) -> list[Figure]:
    """Opening and scrubbing a recording of `LONG` tokens, made from those of a short one."""
    path = max(folder.glob("*.mav"), key=lambda one: int(one.stem))
    database = sqlite3.connect(path)
    columns = ", ".join(row[1] for row in database.execute("PRAGMA table_info(steps)") if row[1] not in ("id", "step", "branch"))
    count = database.execute("SELECT count(*) FROM steps").fetchone()[0]
    numbers = f"WITH RECURSIVE n(i) AS (SELECT {count} UNION ALL SELECT i + 1 FROM n WHERE i < {LONG - 1})"
    database.execute(f"INSERT INTO steps (branch, step, {columns}) {numbers} SELECT 1, i, {columns} FROM n, steps WHERE step = i % {count}")
    copied = "SELECT s.id, a.name, a.dtype, a.shape, a.data FROM steps s, steps o, arrays a"
    database.execute(f"INSERT INTO arrays {copied} WHERE s.step >= {count} AND o.step = s.step % {count} AND a.step = o.id")
    database.commit()
    database.close()
    began = time.process_time()
    replay = ReplaySource(path)
    view = View().updated(replay.snapshot())
    opened = time.process_time() - began
    frames = []
    for index in range(0, LONG, LONG // 200):
        began = time.process_time()
        view = view.at_step(index)
        for name in SHOWN:
            list(draw(registry.load("panels", name), view, 76, 20).lines)
        frames.append(time.process_time() - began)
    replay.close()
    return [
        Figure("opens", f"{opened:.2f} s", opened, most=OPENS, unit=" s"),
        Figure(
            "a frame amid it",
            f"{median(frames) * 1000:.1f} ms, {spread([one * 1000 for one in frames])}",
            median(frames),
            most=FRAME,
            unit=" s",
        ),
    ]
