"""The steps of the guided tour as data: the text, the panels, the key to press, and the answer once it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from openmav.apps.tui.tour import answers
from openmav.apps.tui.tour.answers import Progress


@dataclass(frozen=True)
class TourStep:
    """One step. `answer` is called once `done` has been true; {id} in `text` and `ask` stands for a binding's key."""

    title: str
    text: str
    ask: str
    panels: tuple[str, ...]
    focus: str
    done: Callable[[Progress], bool]
    answer: Callable[[Progress], str]
    modes: Mapping[str, str] = field(default_factory=dict)  # which of its MODES a panel shows
    tokens: int = 1  # that there are before the step asks for anything: whoever skipped here has something to see
    undecided: bool = False  # the newest of them is a choice whose first candidates have bars that can grow and shrink
    temperature: float = 0.0  # at which it begins


LOW, HIGH = 0.5, 1.5  # the temperatures that the tour goes to

TOUR_STEPS = (
    TourStep(
        "A token",
        "A language model generates text in small pieces, called tokens: often a word, sometimes part of one. It reads all the text"
        " so far, computes once, generates one token, and starts again. Above is the beginning of a sentence; the model is paused. (The"
        " colours and their scale in nats: step 3.)",
        "Press {next} to generate one token.",
        ("generated_text",),
        "generated_text",
        lambda progress: progress.generated >= 1,
        answers.first_token,
        tokens=0,
    ),
    TourStep(
        "Its candidates",
        "The model never has just one word in mind. It gives every token that it knows a probability; these are the most likely"
        " ones, and the bars go from 0 to 100 %. A · stands for a space. The first one is taken, which is called greedy, unless you force"
        " another: then the story takes another turn. (Entropy: step 4.)",
        "Press {candidate_down} a few times to select another one, then {enter}.",
        ("generated_text", "top_predictions"),
        "top_predictions",
        lambda progress: progress.now.step is not None and progress.now.step.forced and progress.now.step is not progress.before.step,
        answers.forced,
    ),
    TourStep(
        "Surprisal",
        'How surprising was the generated token? Its surprisal says so, in units called nats: 0 is "of course", 0.7 a coin toss, 5 one'
        " chance in 150. The timeline has a column for each token; the text is tinted by the same scale.",
        "Press {run} to let it run, and {run} again after a while (8 tokens or more).",
        ("generated_text", "timeline"),
        "timeline",
        lambda progress: progress.generated >= 8 and not progress.now.running,
        answers.after_running,
    ),
    TourStep(
        "Entropy",
        "Before a token is chosen, the model may be certain or undecided. Entropy measures that over all candidates, while surprisal"
        " is about the one that came: 0 nats is certainty, and the higher, the less certain. It stands under the bars: watch both.",
        "Press {scrub_left} to look back until you have seen a sure choice, one long bar, and an unsure one, only short bars.",
        ("generated_text", "top_predictions", "timeline"),
        "top_predictions",
        answers.is_sure_and_unsure,
        answers.entropy,
        tokens=8,
    ),
    TourStep(
        "Low temperature",
        "Until now the choice was greedy: the most likely token each time. With a temperature, one is drawn at random, by the column"
        " “sampled”. At 1, now, that is the model's own p. Below 1 the likely tokens gain (the part drawn ▒): safer choices.",
        "Press {temperature_down} until the temperature is 0.5, and watch the bars.",
        ("generated_text", "top_predictions"),
        "top_predictions",
        lambda progress: answers.shows_temperature(progress.now, LOW),
        answers.low_temperature,
        undecided=True,
        temperature=1.0,
    ),
    TourStep(
        "High temperature",
        "Above 1 the likely tokens lose (the part drawn ░). What they lose goes to hundreds of unlikely ones, most of them not listed here:"
        " daring choices. p and the entropy stay as they are: temperature changes only the draw.",
        "Press {temperature_up} until the temperature is 1.5, and watch the bars; then {next} three times.",
        ("generated_text", "top_predictions"),
        "top_predictions",
        lambda progress: progress.drawn(HIGH - 0.01) >= 3,
        answers.high_temperature,
        undecided=True,
        temperature=1.0,
    ),
    TourStep(
        "Attention",
        "To predict the next token, the model looks back at the text. Each layer has several attention heads, and each head spreads"
        " 100 % of its attention over the tokens so far. Here is one head: its shares, the largest first and with the longest bar, and as"
        " colours on the text.",
        "Press {head_right} or {head_left} for another head.",
        ("generated_text", "attention_row"),
        "attention_row",
        lambda progress: progress.now.head != progress.before.head,
        answers.head,
        {"generated_text": "attention"},
    ),
    TourStep(
        "Layers",
        "A model is a stack of layers; read the rows from the bottom up. Each layer's attention, then a small network called MLP, add"
        " something to a running sum, the residual stream. The bars are sizes: of what the two add, and of the sum so far. The text shows"
        " where the selected layer's heads look.",
        "Press {layer_down} a few times to walk down the layers, and watch the text.",
        ("generated_text", "attention_norms", "mlp_norm", "residual_norms"),
        "generated_text",
        lambda progress: progress.before.layer - progress.now.layer >= min(3, progress.now.layers - 1),
        answers.layer,
        {"generated_text": "layer attention"},
    ),
    TourStep(
        "The logit lens",
        "What if the model stopped at a layer? The lens shows what it predicts there, from the sum so far."
        " Low layers often guess from the last word alone; ◆ marks the layer from which on its most likely token stays.",
        "Press {next} for another token, and read the rows from the bottom up.",
        ("generated_text", "logit_lens"),
        "logit_lens",
        lambda progress: progress.generated >= 1,
        answers.lens,
    ),
    TourStep(
        "Explore",
        "You now know the main ideas: a token, its candidates, surprisal, entropy, temperature, attention, what the layers add, the"
        " lens. The keys {layout_1} to {layout_9} switch layouts, {help} explains the focused panel ({panel_next}: next panel),"
        " {palette} lists all commands.",
        "Press {layout_1} for the overview.",
        ("generated_text", "top_predictions", "timeline"),
        "generated_text",
        lambda progress: "residual_norms" in progress.panels,
        lambda progress: (
            f'Look around as long as you like. {answers.key(progress.now, "quit")} quits; then try: mav --model NAME --prompt "your text".'
        ),
    ),
)
