"""Sessions with the toy backend and what a recorder sees of them."""

from dataclasses import replace

from openmav.library import open_session
from openmav.protocol.snapshot import RunState, Snapshot
from openmav.record.codec import encode_step, plain
from openmav.recording.recorder import Recorder
from openmav.settings import Settings
from openmav.settings.sampling import SamplingOptions

MEASURES = ("mlp_norm", "attention_norm", "residual_norm", "attention_entropy", "distribution", "attention_rows", "logit_lens")


def toy(**options):
    """A session; the options are those of Settings."""
    return open_session(Settings(**{"backend": "toy", "model": "toy", "max_new_tokens": 60, "measures": MEASURES, **options}))


def snapshot(session):
    """As an app sees it."""
    state = session.describe(RunState(status="paused" if session.reason is None else "ended", info=session.info))
    others = {name: branch for name, branch in session.branches.items() if name != session.branch}
    return Snapshot(steps=tuple(session.steps), branches=others).with_state(state)


def made(session, count):
    """`count` tokens."""
    return [session.step() for _ in range(count)]


def content(steps):
    return [plain(encode_step(step)) for step in steps]


def changed(path, **options):
    """A recording of a run with branches, forced tokens, changed settings, interventions and another prompt."""
    session = toy(sampling=SamplingOptions(temperature=1.0, seed=3), max_new_tokens=8, **options)
    made(session, 8)
    session.go_on()
    made(session, 2)
    recorder = Recorder(path, session.settings)
    recorder.update(snapshot(session))
    session.back(6)
    session.force(7)
    made(session, 2)
    session.sampling = replace(session.sampling, temperature=0.5, top_k=5)
    made(session, 2)
    session.intervene(("ablate L0.mlp",))
    made(session, 2)
    session.back(4)
    session.intervene(("amplify L1.attn=0.5",))
    list(session.type("hello"))
    recorder.update(snapshot(session))
    session.intervene(())
    session.switch("main")
    session.back(1)
    made(session, 1)
    session.edit_prompt("another text")
    made(session, 3)
    recorder.update(snapshot(session))
    recorder.close()
    return session
