"""A sweep: ablate each head, sub-block or layer alone, and measure the effect on one token's probability at the end of a prompt."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from openmav.generation.ablation_sweep import possible_sites
from openmav.generation.detokenize import TokenStrings
from openmav.generation.session import Session
from openmav.generation.tokenize import one_token
from openmav.record.sweep import Effect, Plan, Reading, Token
from openmav.settings.interventions import How
from openmav.settings.sites import Swept

if TYPE_CHECKING:
    from torch import Tensor


class Sweep:
    """A sweep over all sites of one kind. Iterating yields the effects; `plan` is available before.

    `target` None is the model's own most likely token; a text must be one token. Raises UsageError for one that is more, and for a
    model that does not support interventions.
    """

    def __init__(
        self, session: Session, what: Swept, target: str | Token | None = None, minus: str | Token | None = None, how: How = "zero"
    ) -> None:
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


def _token(session: Session, pieces: TokenStrings, named: str | Token) -> Token:
    token_id = named.token_id if isinstance(named, Token) else one_token(session.backend, named)
    return Token(token_id, pieces[token_id])
