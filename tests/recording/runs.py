"""Sessions with the toy backend and what a recorder sees of them."""

from openmav.library import open_session
from openmav.protocol.snapshot import RunState, Snapshot
from openmav.record.codec import encode_step, plain
from openmav.settings import Settings

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
