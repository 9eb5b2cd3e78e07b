"""The stops of the guided tour, as data: what is told, what is shown, which key is asked for, and what the model answered."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from openmav.apps.tui.hints import written
from openmav.paint import number_text, visible
from openmav.panels._sequence import token_at
from openmav.panels._view import View


@dataclass(frozen=True)
class Moment:
    """The view when the stop was reached, and now; and the panels that are shown now."""

    before: View
    now: View
    panels: tuple[str, ...]

    @property
    def made(self) -> int:
        """Tokens since then."""
        return len(self.now.steps) - len(self.before.steps)


@dataclass(frozen=True)
class Stop:
    """One stop. `answer` is asked only once `done` has been true; {id} in `text` and `ask` stands for a binding's key."""

    title: str
    text: str
    ask: str
    panels: tuple[str, ...]
    focus: str
    done: Callable[[Moment], bool]
    answer: Callable[[Moment], str]


# ---- what the model answered: sentences around its own numbers -----------------------------------------------------------


def quoted(token: str) -> str:
    """A token between quotation marks, so that a comma can be told from the sentence's own."""
    return f"“{visible(token)}”"


def first_key(keys: str) -> str:
    """The first key of a binding as a reader knows it; the dot is small enough to be overlooked."""
    key = written(keys.split(",")[0])
    return ". (a dot)" if key == "." else key


def _key(view: View, binding: str) -> str:
    """The key of one of the bindings that the answers name."""
    return written(view.options.keys.get(binding, {"next": "full_stop", "quit": "q"}[binding]).split(",")[0])


def _chosen(view: View) -> tuple[str, str, str]:
    """The shown token, its probability in percent, its surprisal in nats."""
    step = view.step
    if step is None:
        return "?", "?", "?"
    return quoted(step.token), f"{number_text(100 * math.exp(step.logprob), 1)} %", f"{number_text(step.surprisal, 2)} nats"


def _first_token(moment: Moment) -> str:
    token, share, _ = _chosen(moment.now)
    space = " (the · is a space)" if "·" in token else ""
    return (
        f"The model wrote {token}{space}, amber in the text. It gave that token a probability of {share}."
        " Everything below is about that one choice."
    )


def _forced(moment: Moment) -> str:
    token, share, surprisal = _chosen(moment.now)
    return f"You wrote {token}. The model had given it {share}: a surprisal of {surprisal}. It takes your word, and goes on from there."


def _after_running(moment: Moment) -> str:
    steps = moment.now.steps[len(moment.before.steps) :]
    most = max(steps, key=lambda step: step.surprisal)
    mean = float(np.mean([step.surprisal for step in steps]))
    return (
        f"{len(steps)} tokens, {number_text(mean, 2)} nats each on average. What surprised the model most was its own"
        f" {quoted(most.token)}: {number_text(most.surprisal, 2)} nats, the tallest of the new columns."
    )


def _entropy(moment: Moment) -> str:
    step = moment.now.step
    entropy = step.entropy if step is not None else math.nan
    ways = math.exp(entropy) if entropy < 50 else math.inf
    sides = number_text(ways, 0 if ways >= 20 else 1)
    feeling = "nearly sure" if ways < 2 else "torn between a few" if ways < 12 else "wide open"
    return (
        f"Here the entropy was {number_text(entropy, 2)} nats: as undecided as a fair die with {sides} sides (e to the entropy), {feeling}."
    )


def _temperature(moment: Moment) -> str:
    steps = moment.now.steps[len(moment.before.steps) :]
    others = sum(int(step.candidates.token_ids[0]) != step.token_id for step in steps)
    were = "was" if others == 1 else "were"
    return (
        f"At temperature {moment.now.sampling.temperature:.1f}, {others} of {len(steps)} tokens {were} not the likeliest one. The raw"
        " probabilities never change with temperature: only the choice among them."
    )


def _head(moment: Moment) -> str:
    view = moment.now
    rows = view.values("attention_rows")
    if rows is None or not np.isfinite(rows[view.layer, view.head]).all():
        return f"This is head {view.head} of layer {view.layer}. Every head looks elsewhere."
    row = rows[view.layer, view.head]
    most = int(row.argmax())
    rest = " Many heads rest on the first token when they have nothing to fetch." if most == 0 else ""
    share = number_text(100 * float(row[most]), 0)
    return f"Head {view.head} of layer {view.layer} looks most at “{token_at(view, most)}”, with {share} % of its attention.{rest}"


def _layer(moment: Moment) -> str:
    view = moment.now
    found = [view.values(name) for name in ("attention_norm", "mlp_norm", "residual_norm")]
    if any(values is None for values in found):
        return f"This is layer {view.layer} of {view.layers}."
    attention, mlp, stream = (number_text(float(values[view.layer]), 1) for values in found if values is not None)
    return f"Layer {view.layer}: attention added a vector of length {attention}, the MLP one of {mlp}; the stream is then {stream} long."


def _lens(moment: Moment) -> str:
    view = moment.now
    ids = view.values("logit_lens.token_ids")
    if ids is None or view.step is None:
        return "Follow the rows from the bottom up: that is the answer taking shape."
    best = ids[:, 0].tolist()
    last = len(best) - 1
    since = next((layer for layer in range(last, -1, -1) if best[layer] != best[last]), -1) + 1
    token = quoted(view.step.pieces.get(best[last], "?"))
    first = quoted(view.step.pieces.get(best[0], "?"))
    if since == 0:
        again = f"Press {_key(view, 'next')} again and find one that takes longer."
        return f"The final answer {token} is on top after every layer: an easy one. {again}"
    if first == token:
        return f"After layer 0 it would have said {first} too, then something else; from layer {since} on the answer stays."
    return f"After layer 0 it would have said {first}. The final answer {token} is on top from layer {since} on, and stays."


# ---- the stops -----------------------------------------------------------------------------------------------------------

STOPS = (
    Stop(
        "A token",
        "A language model writes one small piece of text at a time: a token, often a word, sometimes a part of one. It reads all"
        " that is there, thinks once, writes one token, and begins anew. You see its text above; it waits for you.",
        "Press {next} to let it write one token.",
        ("generated_text", "timeline"),
        "generated_text",
        lambda moment: moment.made >= 1,
        _first_token,
    ),
    Stop(
        "Its candidates",
        "The model never has just one word in mind. It gives every token that it knows a probability; these are the likeliest. A ·"
        " stands for a space. The token that was written is amber. You may overrule the model.",
        "Press {candidate_down} a few times to choose another one, then {enter}.",
        ("generated_text", "top_predictions"),
        "top_predictions",
        lambda moment: moment.now.step is not None and moment.now.step.forced and moment.now.step is not moment.before.step,
        _forced,
    ),
    Stop(
        "Surprise",
        'How unlikely was what was written? Surprisal, -ln p, says it in nats: 0 is "of course", 0.7 is a coin toss, 5 is one'
        " in 150. The timeline has a column for each token; the text is tinted the same way.",
        "Press {run} to let it run, and {run} again after a while (8 tokens or more).",
        ("generated_text", "timeline"),
        "timeline",
        lambda moment: moment.made >= 8 and moment.now.status != "running",
        _after_running,
    ),
    Stop(
        "Entropy",
        "Before a token is chosen, the model may be sure or torn. Entropy measures that over all candidates at once: 0 nats is"
        " certainty, and the more, the more undecided. It stands at the lower edge of the predictions. Every past moment is kept.",
        "Press {scrub_left} to look back at earlier choices.",
        ("generated_text", "top_predictions", "timeline"),
        "top_predictions",
        lambda moment: moment.now.cursor not in (-1, moment.before.cursor),
        _entropy,
    ),
    Stop(
        "Temperature",
        "So far the likeliest token was taken each time: greedy, temperature 0. Above 0 the model draws a token by chance. A low"
        " temperature makes the likely ones likelier still; 1 takes the odds as they are; more makes it wild.",
        "Press {temperature_up} until the temperature is 0.8 or more, then {next} three times.",
        ("top_predictions", "sampler_waterfall"),
        "sampler_waterfall",
        lambda moment: moment.now.sampling.temperature >= 0.75 and moment.made >= 3,
        _temperature,
    ),
    Stop(
        "Attention",
        "To choose, the model looks back at what it has read. Each layer has several heads, and each head spreads 100 % of its"
        " attention over the tokens so far. This is one head's row: where it looks.",
        "Press {head_right} or {head_left} for another head.",
        ("generated_text", "attention_row"),
        "attention_row",
        lambda moment: moment.now.head != moment.before.head,
        _head,
    ),
    Stop(
        "Layers",
        "A model is a stack of layers. Through them runs one vector, the residual stream; each layer's attention and then its MLP"
        " add something to it. The bars say how much: the same row is the same layer in every panel.",
        "Press {layer_down} or {layer_up} for another layer.",
        ("mlp_activations", "attention_norms", "residual_norms"),
        "mlp_activations",
        lambda moment: moment.now.layer != moment.before.layer,
        _layer,
    ),
    Stop(
        "The logit lens",
        "What would the model say if it stopped after a layer? The lens asks the stream of each layer with the model's own last"
        " step. At the bottom you often see a guess from the last word alone; higher up, the answer takes shape.",
        "Press {next} for another token, and read the rows from the bottom up.",
        ("logit_lens", "top_predictions"),
        "logit_lens",
        lambda moment: moment.made >= 1,
        _lens,
    ),
    Stop(
        "It is yours",
        "That is all you need: a token, its candidates, how surprised and how torn the model was, where it looked, what its layers"
        " did. The keys {layout_1} to {layout_8} show other panels, {help} explains the one in focus ({panel_next} goes on), ctrl+p"
        " lists all.",
        "Press {layout_1} for the overview.",
        ("generated_text", "top_predictions", "timeline"),
        "generated_text",
        lambda moment: "residual_norms" in moment.panels,
        lambda moment: (
            f'Look around as long as you like. {_key(moment.now, "quit")} leaves; then try: mav --model NAME --prompt "your text".'
        ),
    ),
)
