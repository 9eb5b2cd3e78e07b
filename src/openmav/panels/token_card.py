"""Token: all that is known of the one under the cursor, its candidates, and what each layer predicted in its place."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from rich.segment import Segment

from openmav.paint import Line, cells, fit, ink, number_text, one_line, percent, visible, wrap_words
from openmav.panels.base import Box
from openmav.panels.widgets.candidate_bars import CandidateBars, candidate_bars, candidate_rows
from openmav.panels.widgets.difference import minus
from openmav.panels.widgets.diverging import signed
from openmav.panels.widgets.layer_rows import message, not_captured, why_no_step
from openmav.panels.widgets.lens import MEASURE
from openmav.panels.widgets.lens_column import LensLayer, lens_layers, lens_rows
from openmav.panels.widgets.parts import Part, Row, part_lines, pick_part
from openmav.record import Step
from openmav.view import Selection, View

TITLE = "Token"
NEEDS = ()
ROWS = 8
BESIDE = 40  # cells, frame included, that it needs beside the text; with fewer it is below
HELP = """\
What it shows: the token under the cursor as a card: the token with every character visible (a space is ·, a newline ⏎), its
bytes in hexadecimal, its id and its place in the text; its probability, its rank among all tokens, its surprisal, and the
entropy of the distribution that it came from; Δ, how these differ from those of a pinned token; how it was chosen, and what
the sampler cut of the others; the time that it took. Below, or beside it: its candidates, the chosen one marked with ●, and
its lens column: the token that the model would predict if it ended after a layer.

How to read it: walk through the text with the left and right keys, or go to the next surprising token with n. A bar of a
candidate or a layer would reach over its whole width at 100 %. "cut" means that the sampler left nothing of it. In the lens
column, neighbouring layers that predict the same token share a row, with the probability at the highest of them; read it
from below to see the answer form. ◇ marks the first layer that predicts the final answer, ◆ the layer from which on all do.

Formula: p = softmax(logits) before any change by sampling; surprisal = -ln p, entropy = -sum p ln p, in nats; rank = how
many tokens have a larger logit (0: none has). The bytes are the token's text in UTF-8.

Source: the model's own output, and the logit lens of the measure logit_lens, computed for tokens that you go back to and
whenever nothing runs: while the newest token is followed, it would slow the run down.

What is normal: a rank of 0 and a surprisal near 0 inside words; a rank of 10 and more where sampling took an unlikely turn,
or where you forced a token. Small models find their answer in the last few layers only.
"""
SHORT, TWO, THREE = 24, 44, 64  # a box lower than this has two columns, or three, where it is as wide
UNIT = "\ue000%"  # a number and its unit stay together
FACTS = 12  # rows of the card, as a rule
LABEL, GAP = 10, 3  # cells of a label, and between columns
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
BROKEN = "\ufffd"


@dataclass(frozen=True)
class CardData:
    """One step. Texts are safe to show; where something is not known, `no_...` says why."""

    empty: str | None  # why there is nothing to show; None where there is
    token: str = ""
    adds: str = ""  # to the visible text
    token_bytes: tuple[int, ...] = ()
    no_bytes: str | None = None
    token_id: int = -1
    index: int = -1  # of the generated tokens
    position: int = -1  # in the whole sequence, prompt included
    p: float = math.nan  # raw probability
    sampled_p: float | None = None  # after sampling; None where nothing was drawn
    rank: int = -1
    no_rank: str | None = None
    vocab: int | None = None
    surprisal: float = math.nan  # nats
    entropy: float = math.nan  # nats
    chosen_by: str = ""
    interventions: tuple[str, ...] = ()
    special: bool = False
    seconds: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of the forward pass, of capture, of choosing
    minus: str = ""  # what the user pinned; "" for nothing
    changes: tuple[float, float, float] | None = None  # from it: of p, surprisal (nats) and entropy (nats)
    candidates: CandidateBars | None = None
    lens: tuple[LensLayer, ...] = ()  # [layers]
    no_lens: str = ""
    layer: int = -1  # the selected one


# ---- data ----------------------------------------------------------------------------------------------------------------


def needs(view: View) -> tuple[str, ...]:
    """The lens, but for the newest token of a run that goes on."""
    return () if _is_passing(view) else (MEASURE,)


def candidates(view: View, _width: int, height: int) -> int:
    """Where all stands in one column: the rows beside the card, and the lens with at most half of what is below the card."""
    below = height - FACTS - 1
    return below - min(view.layers + 1, below // 2) - 2 if height >= SHORT else 0


def _is_passing(view: View) -> bool:
    return view.following and view.status in ("loading", "prefill", "running")


def data(view: View) -> CardData:
    step, candidates = view.step, candidate_bars(view)
    if step is None or candidates is None:
        return CardData(why_no_step(view))
    known, no_bytes = bytes_of(step)
    drawn = not step.sampling.greedy and not step.forced and candidates.chosen >= 0
    return CardData(
        empty=None,
        token=visible(step.token),
        adds=visible(step.text) if step.text else "",
        token_bytes=tuple(known),
        no_bytes=no_bytes,
        token_id=step.token_id,
        index=step.index,
        position=step.position,
        p=math.inf if step.logprob > 0 else math.exp(step.logprob),
        sampled_p=float(step.candidates.sampled_probs[candidates.chosen]) if drawn else None,
        rank=step.rank,
        no_rank=None if step.rank >= 0 else "not recorded" if step.healthy else "the logits hold NaN or infinity",
        vocab=view.info.vocab if view.info else None,
        surprisal=step.surprisal,
        entropy=step.entropy,
        chosen_by=_chosen_by(step),
        interventions=tuple(one_line(text) for text in step.interventions),
        special=step.special,
        seconds=(step.timing.model, step.timing.capture, step.timing.sample),
        minus=minus(view),
        changes=_changes(step, view.reference),
        candidates=candidates,
        lens=lens_layers(view, step),
        no_lens="not computed while the text runs" if _is_passing(view) else not_captured(view, MEASURE),
        layer=view.layer,
    )


def _changes(step: Step, reference: Step | None) -> tuple[float, float, float] | None:
    """How p, surprisal and entropy differ from those of the pinned token."""
    if reference is None:
        return None
    p = math.exp(min(step.logprob, 0.0)) - math.exp(min(reference.logprob, 0.0))
    return p, step.surprisal - reference.surprisal, step.entropy - reference.entropy


def bytes_of(step: Step) -> tuple[bytes, str | None]:
    """The bytes of a token: its text in UTF-8, with those that it names as <0xF0>; none, and why, where they are not known."""
    if step.special:
        return b"", "a special token"
    if BROKEN in step.token:
        return b"", "a part of a character"
    texts = BYTE.split(step.token) if step.token != step.text else [step.token]  # each text is followed by a byte, but for the last
    whole = [bytes([int(part, 16)]) if at % 2 else part.encode("utf-8", "surrogatepass") for at, part in enumerate(texts)]
    return b"".join(whole), None


def _chosen_by(step: Step) -> str:
    if step.forced:
        return "forced by you"
    if not step.sampling.greedy:
        return f"drawn · {step.sampling.describe()}"
    return "greedy" if step.rank <= 0 else "greedy, after penalties, bans or a constraint"


# ---- drawing -------------------------------------------------------------------------------------------------------------


def heading(data: CardData, box: Box) -> str:
    if data.empty is not None:
        return TITLE
    short = f"{TITLE} {data.index}"
    whole = f"{short} · id {data.token_id} · position {data.position}"
    return whole if box.height <= ROWS and len(whole) <= box.width else short


def note(data: CardData, box: Box) -> str:
    if data.empty is not None:
        return ""
    hidden = len(_parts(data, box)[0][1]) > box.height
    return " · ".join([f"surprisal {number_text(data.surprisal, 2)} nats", *(["m: all of it"] if hidden else [])])


def likelihood(p: float) -> str:
    """A probability in percent, with an exponent where it would be shown as 0."""
    return f"{p * 100:.1e} %" if 0 < p < 0.0005 else percent(p).strip()


def _facts(data: CardData) -> Iterator[tuple[str, str]]:
    """(label, value) of the card, the most important first."""
    yield "token", data.token + (f", adds {data.adds}" if data.adds not in ("", data.token) else "")
    yield "p", likelihood(data.p) + (f" · sampled {likelihood(data.sampled_p)}" if data.sampled_p is not None else "")
    rank = f"{data.rank:,}{f' of {data.vocab:,}' if data.vocab else ''}"
    yield "rank", rank if data.no_rank is None else f"none: {data.no_rank}"
    yield "surprisal", f"{number_text(data.surprisal, 2)} nats"
    yield "entropy", f"{number_text(data.entropy, 2)} nats"
    if data.changes is not None:
        p, surprisal, entropy = data.changes
        change = f"p {signed(100 * p, 1)} pp · surprisal {signed(surprisal, 2)} · entropy {signed(entropy, 2)} nats"
        yield "Δ", f"{change} · {data.minus}"
    elif data.minus:
        yield "Δ", f"none: {data.minus}"
    yield "chosen", data.chosen_by
    yield "bytes", " ".join(f"{one:02X}" for one in data.token_bytes) if data.no_bytes is None else f"none: {data.no_bytes}"
    if data.candidates is not None and any(data.candidates.cut):
        yield "cut", f"{sum(data.candidates.cut)} of {len(data.candidates.cut)} candidates"
    yield "id", f"{data.token_id}{' · special' if data.special else ''}"
    yield "place", f"token {data.index} · position {data.position}"
    for text in data.interventions:
        yield "modified", text
    model, capture, choosing = (number_text(seconds * 1000, 1) for seconds in data.seconds)
    yield "time", f"{number_text(sum(data.seconds) * 1000, 1)} ms · model {model} · capture {capture} · sampling {choosing}"


def _card(data: CardData, box: Box, width: int) -> list[Row]:
    """A row for each fact, more where its value needs them."""
    label = LABEL if width >= 2 * LABEL else 0
    rows = []
    for name, value in _facts(data):
        style = ink(box.palette, "accent", bold=True) if name == "token" else ink(box.palette, "text")
        for at, text in enumerate(_wrapped(value, max(width - label, 1)) if name != "token" else [value]):
            shown = fit(text if label else f"{name} {text}", max(width - label, 1))
            rows.append(Row([Segment(fit("" if at else name, label), ink(box.palette, "secondary")), Segment(shown, style)]))
    return rows


def _wrapped(value: str, width: int) -> list[str]:
    """A value in rows, broken between its parts, which are separated by " · ", and inside of those that are too wide."""
    rows: list[str] = []
    for part in value.split(" · "):
        if rows and cells(rows[-1]) + 3 + cells(part) <= width:
            rows[-1] += f" · {part}"
        else:
            rows += wrap_words(part.replace(" %", UNIT), width)
    return [row.replace(UNIT, " %") for row in rows]


def _parts(data: CardData, box: Box) -> list[Part]:
    """Card, candidates and lens: side by side as far as the box is wide and low, else one below the other."""
    width, height = box.width, box.height
    if height >= SHORT or width < TWO:
        card = _card(data, box, width)
        below = _below(data, box, width, height - len(card) - 1)
        return [(0, [*card, Row([]), *below] if below else card)]
    if width < THREE:
        card_width = (width - GAP) * 4 // 7
        return [(0, _card(data, box, card_width)), (card_width + GAP, _below(data, box, width - card_width - GAP, height))]
    card_width = (width - 2 * GAP) * 7 // 20
    second = card_width + GAP
    third = second + (width - second - GAP) // 2 + GAP
    candidates = _candidates(data, box, third - GAP - second, height)
    return [(0, _card(data, box, card_width)), (second, candidates), (third, _lens(data, box, width - third, height))]


def _below(data: CardData, box: Box, width: int, height: int) -> list[Row]:
    """Candidates, and the lens below them; what one does not need, the other has."""
    most = 0 if data.candidates is None else len(data.candidates.tokens) + 1
    lens = _lens(data, box, width, max(height // 2, height - most - 1))
    candidates = _candidates(data, box, width, height - (len(lens) + 1 if lens else 0))
    return [*candidates, Row([]), *lens] if candidates and lens else candidates or lens


def _candidates(data: CardData, box: Box, width: int, height: int) -> list[Row]:
    return [] if data.candidates is None else candidate_rows(data.candidates, box, width, height)


def _lens(data: CardData, box: Box, width: int, height: int) -> list[Row]:
    return lens_rows(data.lens, data.no_lens, data.layer, box, width, height)


def render(data: CardData, box: Box) -> list[Line]:
    return message(box, data.empty) if data.empty is not None else part_lines(_parts(data, box), box.height)


def pick(data: CardData, box: Box, x: int, y: int) -> Selection | None:
    """The candidate or the layer of the row that was clicked."""
    if data.empty is not None:
        return None
    return pick_part(_parts(data, box), box.height, x, y)
