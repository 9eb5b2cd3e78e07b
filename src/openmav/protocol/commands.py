"""What an app may ask of a source, one frozen dataclass a command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, get_args

from openmav.record import Branch
from openmav.settings.interventions import How
from openmav.settings.sampling import Sampling
from openmav.settings.sites import Swept


@dataclass(frozen=True)
class Resume:
    """Generate until the end or until paused."""


@dataclass(frozen=True)
class Pause:
    """Stop after the token that is being computed."""


@dataclass(frozen=True)
class Advance:
    """Generate `count` tokens, then pause."""

    count: int = 1


@dataclass(frozen=True)
class Back:
    """Undo the last `count` tokens, then pause."""

    count: int = 1


@dataclass(frozen=True)
class Forward:
    """Redo the next `count` undone tokens, as they were, then pause."""

    count: int = 1


@dataclass(frozen=True)
class Force:
    """Append this token instead of drawing one.

    `at`: put it at this index, after undoing all tokens there and later, then pause; None: after the newest token.
    `branch`: the branch that `at` was read on. Where the text is on another branch, or is shorter, nothing is done.
    """

    token_id: int
    at: int | None = None
    branch: str | None = None


@dataclass(frozen=True)
class Type:
    """Append these words, then pause; `at` and `branch` as for Force."""

    text: str
    at: int | None = None
    branch: str | None = None


@dataclass(frozen=True)
class Switch:
    """Go to another branch of the text, to where it was left, and pause."""

    branch: str


@dataclass(frozen=True)
class Rename:
    """Give a branch another name."""

    branch: str
    name: str


@dataclass(frozen=True)
class EditPrompt:
    """Begin again with another prompt, on a branch of its own."""

    text: str


@dataclass(frozen=True)
class Intervene:
    """Modify the model with exactly these interventions, on all tokens of the text; none where empty."""

    specs: tuple[str, ...] = ()


@dataclass(frozen=True)
class SetBreakpoints:
    """Pause where one of these conditions is met, and nowhere else. A run that goes on goes past the token where it paused."""

    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Want:
    """Compute exactly these measures: for the newest token as far as its forward pass was captured for them, and from the next one on.

    `layer` is the one that the user has selected: measures that cost too much for all layers are computed for that one; None: for
    all of them, -1: for none yet. `at`: an earlier token that the user has selected and that lacks some of them: it is recomputed;
    while nothing runs, so are the others around it. `candidates`: as many candidates of each token, where that is more than the run
    was started with.
    """

    measures: frozenset[str]
    layer: int | None = None
    at: int | None = None
    candidates: int = 0


@dataclass(frozen=True)
class SetSampling:
    """From the next token on, choose like this."""

    sampling: Sampling


@dataclass(frozen=True)
class PreviewSampling:
    """Compute what each stage of this sampling would leave of the newest token's candidates; the run stays as it is."""

    sampling: Sampling


@dataclass(frozen=True)
class SetPace:
    """While it runs, let each token stay for so many seconds at least; 0: as fast as they come."""

    seconds: float


@dataclass(frozen=True)
class Attribute:
    """Compute which tokens a prediction depends on, and pause; the fields as in Session.explain. Any other command stops it.

    `branch`: the branch that `index` was read on; nothing is done on another one.
    """

    method: str
    index: int | None = None
    token_id: int | None = None
    minus: int | None = None
    branch: str | None = None


@dataclass(frozen=True)
class SweepSites:
    """Ablate each site of a kind alone and report the change of the logit of the token at `index`; the run is paused and stays as it is.

    Any other command but Want stops it. `branch`: the branch that `index` was read on; nothing is done on another one.
    """

    index: int
    branch: str | None = None
    what: Swept = "heads"
    how: How = "zero"


@dataclass(frozen=True)
class Retrace:
    """Make all tokens of these branches again, each after its parent, as they were drawn or forced; then pause at the end of `current`.

    Any other command but Want stops it. Of a step its token, `forced`, `sampling` and `interventions` count.
    """

    branches: tuple[Branch, ...]
    current: str


Generating: TypeAlias = Resume | Pause | Advance | Back | Forward | Force | Type | Switch | Rename
Changing: TypeAlias = EditPrompt | Intervene | SetBreakpoints | SetSampling | SetPace
Command: TypeAlias = Generating | Changing | Want | PreviewSampling | Attribute | SweepSites | Retrace


COMMANDS = frozenset(kind.__name__ for kind in get_args(Command))  # of a source that takes them all
