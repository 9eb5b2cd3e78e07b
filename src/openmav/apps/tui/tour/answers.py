"""What the tour says once a step is done: sentences around the model's own numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from openmav.apps.tui import keys as table
from openmav.paint import number_text, visible
from openmav.panels.widgets.sequence import token_at
from openmav.record import Step
from openmav.view import View


@dataclass(frozen=True)
class Progress:
    """The view when the step of the tour was reached, the view now, the panels that are shown now, and the tokens looked at since."""

    before: View
    now: View
    panels: tuple[str, ...]
    visited: frozenset[int] = frozenset()  # indexes of tokens

    @property
    def generated(self) -> int:
        """Tokens generated since then."""
        return len(self.now.steps) - len(self.before.steps)

    @property
    def looked_at(self) -> list[Step]:
        """The tokens that were looked at and are still there, the surest choice first; the shown one where none was."""
        steps: list[Step | None] = [self.now.steps[at] for at in self.visited if at < len(self.now.steps)]
        steps = steps or [self.now.step]
        return sorted((step for step in steps if step is not None), key=lambda step: step.entropy)

    def drawn(self, temperature: float) -> int:
        """Tokens generated since then at so high a temperature."""
        return sum(step.sampling.temperature >= temperature for step in self.now.steps[len(self.before.steps) :])


def quoted(token: str) -> str:
    """A token in quotation marks, so that its punctuation is not taken for the sentence's."""
    return f"“{visible(token)}”"


def key(view: View, binding: str) -> str:
    """The key of a binding that an answer names."""
    return table.key_of(binding, view.options.keys)


def chosen(view: View) -> tuple[str, str]:
    """The shown token, and its probability in percent."""
    step = view.step
    return ("?", "?") if step is None else (quoted(step.token), f"{number_text(100 * math.exp(step.logprob), 1)} %")


def first_token(progress: Progress) -> str:
    token, share = chosen(progress.now)
    space = " (the · is a space)" if "·" in token else ""
    what = f"The model generated {token}{space}, highlighted in the text, with a probability of {share}."
    return f"{what} All that follows is about such choices."


def forced(progress: Progress) -> str:
    token, share = chosen(progress.now)
    return f"You forced {token}. The model had given it {share}. What it generates next continues your text."


def after_running(progress: Progress) -> str:
    steps = progress.now.steps[len(progress.before.steps) :]
    most = max(steps, key=lambda step: step.surprisal)
    mean = float(np.mean([step.surprisal for step in steps]))
    return (
        f"{len(steps)} new tokens, {number_text(mean, 2)} nats each on average, as if each were one of {_count(mean)} equally likely ones,"
        f" which is their perplexity. The most surprising was"
        f" {quoted(most.token)}: {number_text(most.surprisal, 2)} nats, the tallest of the new columns."
    )


def is_sure_and_unsure(progress: Progress) -> bool:
    """Whether one of the surest quarter of all choices was looked at, and one of the least sure quarter."""
    entropies = np.array([step.entropy for step in progress.now.steps])
    seen = [step.entropy for step in progress.looked_at]
    if len(progress.visited) < 2 or not np.isfinite(entropies).all():
        return len(progress.visited) > 1
    low, high = np.quantile(entropies, (0.25, 0.75))
    return bool(seen[0] <= low and seen[-1] >= high)


def entropy(progress: Progress) -> str:
    steps = progress.looked_at
    sure, unsure = steps[0], steps[-1]
    if sure is unsure:
        return f"Here the entropy was {_choices(sure.entropy)}."
    return (
        f"{quoted(sure.token)} was the surest choice that you saw: {_choices(sure.entropy)}. {quoted(unsure.token)} was the least sure:"
        f" {_choices(unsure.entropy)}. One long bar is a low entropy, many short ones are a high one."
    )


def _choices(nats: float) -> str:
    """An entropy, and how many equally likely tokens have it."""
    return f"{number_text(nats, 2)} nats, as between {_count(nats)} equally likely tokens"


def _count(nats: float) -> str:
    """How many equally likely tokens have this entropy."""
    count = math.exp(nats) if nats < 50 else math.inf
    return number_text(count, 0 if count >= 20 else 1)


def shows_temperature(view: View, temperature: float) -> bool:
    """Whether the candidates' bars are those of this temperature."""
    sampling = view.sampling if view.step is None else view.step.sampling if view.pending is None else view.pending.sampling
    return abs(sampling.temperature - temperature) < 0.01


def low_temperature(progress: Progress) -> str:
    view = progress.now
    step = view.step
    if step is None or not len(step.candidates):
        return f"The temperature is {view.sampling.temperature:.1f}."
    drawn = step.candidates.sampled_probs if view.pending is None else view.pending.sampled
    own, then = (f"{number_text(100 * float(probs[0]), 1)} %" for probs in (step.candidates.probs, drawn))
    token = quoted(step.candidates.tokens[0])
    return f"The model gives {token} {own}; at temperature {view.sampling.temperature:.1f} it is drawn {then} of the time."


def high_temperature(progress: Progress) -> str:
    steps = progress.now.steps[len(progress.before.steps) :]
    others = sum(int(step.candidates.token_ids[0]) != step.token_id for step in steps)
    were = "was" if others == 1 else "were"
    return (
        f"At temperature {progress.now.sampling.temperature:.1f}, {others} of {len(steps)} tokens {were} not the one that the model gave"
        " the largest p. The higher the temperature, the more often that is so."
    )


def head(progress: Progress) -> str:
    view = progress.now
    rows = view.values("attention_rows")
    if rows is None or not np.isfinite(rows[view.layer, view.head]).all():
        return f"This is head {view.head} of layer {view.layer}. Every head attends to other tokens."
    row = rows[view.layer, view.head]
    most = int(row.argmax())
    rest = " Many heads attend to the first token when they find nothing of use." if most == 0 else ""
    share = number_text(100 * float(row[most]), 0)
    return f"Head {view.head} of layer {view.layer} attends most to “{token_at(view, most)}”, with {share} % of its attention.{rest}"


def layer(progress: Progress) -> str:
    view = progress.now
    result = [view.values(name) for name in ("attention_norm", "mlp_norm", "residual_norm")]
    if any(values is None for values in result):
        return f"This is layer {view.layer} of {view.layers}."
    attention, mlp, stream = (number_text(float(values[view.layer]), 1) for values in result if values is not None)
    return (
        f"In layer {view.layer} attention added something of size {attention}, the MLP of size {mlp}; the sum is then of size {stream}"
        " (lengths of vectors, which do not add up like numbers)."
    )


def lens(progress: Progress) -> str:
    view = progress.now
    ids = view.values("logit_lens.token_ids")
    if ids is None or view.step is None:
        return "Follow the rows from the bottom up: the prediction takes shape."
    best = ids[:, 0].tolist()
    last = len(best) - 1
    since = next((layer for layer in range(last, -1, -1) if best[layer] != best[last]), -1) + 1
    token = quoted(view.step.pieces.get(best[last], "?"))
    first = quoted(view.step.pieces.get(best[0], "?"))
    if since == 0:
        again = f"Press {key(view, 'next')} again to find one that takes longer."
        return f"The final answer {token} is the top prediction at every layer: an easy one. {again}"
    if first == token:
        return f"Layer 0 predicts {first} too, later layers something else; from layer {since} on the prediction is stable."
    where = "only at the last layer" if since == last else f"from layer {since} on"
    return f"Layer 0 predicts {first}. The model's answer, its most likely token {token}, is there {where}."
