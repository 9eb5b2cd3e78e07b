"""`mav run` without the app: the session in this process, each token written as it comes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, Protocol

from openmav.cli.load_limit import load_limit
from openmav.cli.output import Output, ProgressLine, ReaderGoneError
from openmav.conditions.breakpoints import Hit
from openmav.protocol.snapshot import RunState, Snapshot
from openmav.record import EndReason, ModelInfo, Prompt, Step
from openmav.recording.recorder import Recorder
from openmav.settings import Settings
from openmav.system.logs import redirect, say, stdout
from openmav.system.signals import Interrupted, check, finish, hold

if TYPE_CHECKING:
    from openmav.generation.session import Session


class RunWriter(Protocol):
    """A way to write a run."""

    def begin(self, info: ModelInfo, prompt: Prompt, settings: Settings) -> None: ...

    def step(self, step: Step) -> None: ...

    def end(self, reason: EndReason, steps: list[Step], seconds: float, hit: Hit | None = None) -> None: ...

    def fail(self) -> None:
        """An error ends the run; its line comes next on the screen."""


def stream(settings: Settings, output: Literal["plain", "json"], record: str | None = None) -> int:
    """Generate and write until the end, a signal, or until nobody reads; the exit code. `record`: also into this new file.

    Raises MavError where the model cannot be loaded or the output cannot be written.
    """
    redirect(descriptors=True)
    out = Output(stdout())
    recorder = Recorder(record, settings, lambda why: say(f"mav: {why}; the run goes on")) if record is not None else None
    try:
        return _generate(settings, _make_writer(output, out), recorder)
    except ReaderGoneError:
        return 0
    finally:
        if recorder is not None:
            recorder.close()


def _make_writer(output: Literal["plain", "json"], out: Output) -> RunWriter:
    if output == "json":
        from openmav.apps.text.jsonl import JsonLines

        return JsonLines(out.write)
    from openmav.apps.text.plain import Plain

    return Plain(out.write, say, terminal=out.terminal)


def _generate(settings: Settings, writer: RunWriter, recorder: Recorder | None) -> int:
    steps: list[Step] = []
    hit: Hit | None = None
    progress = ProgressLine()
    started = time.perf_counter()
    try:
        from openmav.generation.opening import open_session

        with load_limit(settings.load_timeout):
            session = open_session(settings, progress)
        session.give_up_hanging_measures()
        check()
        try:
            started = time.perf_counter()
            writer.begin(session.info, session.prompt, session.settings)
            record_state(recorder, session)
            session.prefill(progress)
            progress.clear()

            def write() -> None:
                """What is new, in the recording first: one transaction for all of a burst, whose code is then in the processor's cache."""
                with hold():  # what is written is counted, and is in the recording
                    new = session.steps[len(steps) :]
                    if recorder is not None:
                        recorder.add(session.branch, new)
                    for step in new:
                        writer.step(step)
                        steps.append(step)

            most = 1 if settings.refresh_rate > 0 else None
            while session.reason is None and session.hit is None:
                try:
                    session.burst(most=most)
                finally:  # a signal amid a burst leaves the steps that were whole
                    write()
                check()
                _wait(started + len(steps) * settings.refresh_rate)
            for why in session.broken.values():
                say(f"mav: note: {why}")
            hit = session.hit
            reason, exit_code = session.reason or ("break" if hit is not None else "length"), 0
        finally:
            progress.clear()
            record_state(recorder, session)
            session.close()
    except Interrupted as interrupt:
        reason, exit_code = "interrupt", interrupt.exit_code
    except ReaderGoneError:
        raise
    except Exception:
        writer.fail()
        raise
    finish()
    writer.end(reason, steps, time.perf_counter() - started, hit)
    return exit_code


def record_state(recorder: Recorder | None, session: Session) -> None:
    """The model, the prompt and all facts of the run, as they are now."""
    if recorder is not None:
        state = session.describe(RunState(status="paused" if session.reason is None else "ended", info=session.info))
        recorder.update(Snapshot(steps=session.steps).with_state(state))


def _wait(until: float) -> None:
    left = until - time.perf_counter()
    if left > 0:
        time.sleep(left)
