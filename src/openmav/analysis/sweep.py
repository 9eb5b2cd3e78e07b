"""A sweep: ablate each head, sub-block or layer alone, and measure the effect on one token's probability at the end of a prompt."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openmav.generation.ablation_sweep import possible_sites
from openmav.generation.detokenize import TokenStrings
from openmav.generation.session import Session
from openmav.generation.tokenize import one_token
from openmav.record import ModelInfo, Prompt
from openmav.settings.interventions import How, Intervention
from openmav.settings.sites import Swept

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Token:
    """A token and its string inside a text."""

    token_id: int
    text: str


@dataclass(frozen=True)
class Reading:
    """The target in one forward pass: its raw logit, probability and log-probability (nats), and the logit of `minus`."""

    logit: float
    prob: float
    logprob: float
    minus_logit: float | None = None

    @property
    def score(self) -> float:
        """The logit, or the difference of the two logits where there is a `minus`."""
        return self.logit if self.minus_logit is None else self.logit - self.minus_logit


@dataclass(frozen=True)
class Effect:
    """One ablated site, and the target before and after."""

    intervention: Intervention
    before: Reading
    after: Reading

    @property
    def layer(self) -> int:
        return self.intervention.layer

    @property
    def column(self) -> int:
        """Its column in the row of its layer: the head, else 0."""
        return self.intervention.index or 0

    @property
    def change(self) -> float:
        """The change of the score, in logits: below 0 where the site raises the target's logit."""
        return self.after.score - self.before.score


@dataclass(frozen=True)
class Plan:
    """The settings of a sweep. `sites` are ablated one after another; `missing` are those that this model does not have, and why."""

    info: ModelInfo
    prompt: Prompt
    what: Swept
    how: How
    target: Token
    minus: Token | None
    before: Reading
    sites: tuple[Intervention, ...]
    missing: Mapping[Intervention, str]

    @property
    def columns(self) -> int:
        """Columns of the map: one per head, else one."""
        return self.info.heads if self.what == "heads" else 1


class Sweep:
    """A sweep over all sites of one kind. Iterating yields the effects; `plan` is available before.

    `target` None is the model's own most likely token. Raises UsageError for a target that is not one token, and for a model that
    does not support interventions.
    """

    def __init__(self, session: Session, what: Swept, target: str | None = None, minus: str | None = None, how: How = "zero") -> None:
        backend, prompt = session.backend, session.prompt
        self._backend, sites, missing = possible_sites(backend, what, how)
        pieces = TokenStrings.of(backend, prompt.token_ids)
        named, against = (None if text is None else _token(session, pieces, text) for text in (target, minus))
        logits = backend.prefill(prompt.token_ids, frozenset()).logits
        top = int(logits.argmax())
        chosen = named or Token(top, pieces[top])
        self.plan = Plan(session.info, prompt, what, how, chosen, against, _read(logits, chosen, against), tuple(sites), missing)

    def __iter__(self) -> Iterator[Effect]:
        plan = self.plan
        for one, logits in zip(plan.sites, self._backend.variants(plan.sites, plan.prompt.token_ids)):
            yield Effect(one, plan.before, _read(logits, plan.target, plan.minus))


def _read(logits: Tensor, target: Token, minus: Token | None) -> Reading:
    logprob = float(logits.double().log_softmax(-1)[target.token_id])
    other = None if minus is None else float(logits[minus.token_id])
    return Reading(float(logits[target.token_id]), math.exp(logprob), logprob, other)


def _token(session: Session, pieces: TokenStrings, text: str) -> Token:
    token_id = one_token(session.backend, text)
    return Token(token_id, pieces[token_id])
