"""The language of breakpoints and watches: what each name is worth, by an independent look at the step; what a wrong one is told."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest

from everything import spoilt, whole_steps
from fakes import make_info, with_nan, with_values
from openmav.conditions import DEEPEST, LONGEST, ConditionError, known_names, parse, parse_breakpoint
from openmav.record import Baseline, Step
from openmav.settings.sampling import Sampling

INFO = make_info(6, 4)
STEPS = whole_steps(5, INFO)
STEP = replace(STEPS[3], rank=2, sampling=Sampling(temperature=0.7, top_k=40, top_p=0.9, min_p=0.05, repetition_penalty=1.1, seed=9))


def row_of(step: Step) -> int:
    return step.candidates.token_ids.tolist().index(step.token_id)


def top(layer: int) -> str:
    return STEP.pieces[int(STEP.values["logit_lens.token_ids"][layer, 0])]


VALUES = {
    "entropy": STEP.entropy,
    "surprisal": -STEP.logprob,
    "logprob": STEP.logprob,
    "prob": STEP.candidates.probs[row_of(STEP)],
    "sampled_prob": STEP.candidates.sampled_probs[row_of(STEP)],
    "logit": STEP.candidates.logits[row_of(STEP)],
    "rank": 2,
    "token": STEP.token,
    "text": "".join(step.text for step in STEPS[:4]),
    "token_id": STEP.token_id,
    "index": 3,
    "position": STEP.position,
    "special": False,
    "forced": False,
    "touched": False,
    "nan": False,
    "temperature": 0.7,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.05,
    "repetition_penalty": 1.1,
    "seed": 9,
    "lens[2]": top(2),
    "lens[-1]": top(5),
    "lens_prob[2]": STEP.values["logit_lens"][2, 0],
    "max(lens_prob)": STEP.values["logit_lens"][:, 0].max(),
    "norm(mlp, 3)": STEP.values["mlp_norm"][3],
    "norm(attention, 0)": STEP.values["attention_norm"][0],
    "norm(residual, -1)": STEP.values["residual_norm"][5],
    "attention_entropy(2, 1)": STEP.values["attention_entropy"][2, 1],
    "attention_entropy[2, -1]": STEP.values["attention_entropy"][2, 3],
    "attention_entropy(2)": STEP.values["attention_entropy"][2].astype(float).mean(),
    "max(attention_entropy(2))": STEP.values["attention_entropy"][2].max(),
    "max(attention_entropy)": STEP.values["attention_entropy"].max(),
    "sink(1, 2)": STEP.values["sink_share"][1, 2],
    "sink(1)": STEP.values["sink_share"][1].astype(float).mean(),
    "sink_share.learned[1, 2]": STEP.values["sink_share.learned"][1, 2],
    "mlp_norm[3]": STEP.values["mlp_norm"][3],
    "min(norm(residual))": STEP.values["residual_norm"].min(),
    "mean(norm(mlp))": STEP.values["mlp_norm"].astype(float).mean(),
    "logit_lens.chosen[4]": STEP.values["logit_lens.chosen"][4],
    "cache_size": STEP.values["cache_size"][0],
    "distribution[0, 1]": STEP.values["distribution"][0, 1],
    "sampling_stages[2, 3]": STEP.values["sampling_stages"][2, 3],
    "attribution.top[1, 0, 3]": STEP.values["attribution.top"][1, 0, 3],
    "neurons.ids[2, 0]": STEP.values["neurons.ids"][2, 0],
    "previous(entropy)": STEPS[2].entropy,
    "previous(previous(token))": STEPS[1].token,
    "abs(entropy - 100)": 100 - STEP.entropy,
    "max(entropy, 1000, norm(mlp))": 1000,
    "2 + 3 * 4 - 6 / 3": 12,
    "-(2 - 5) * 2": 6,
    "10 - 3 - 2": 5,
    "8 / 4 / 2": 1,
    "1.5e2": 150,
    "'it\\'s'": "it's",
    '"a\\n\\t\\\\\\"\\u00e9"': 'a\n\t\\"é',
}


@pytest.mark.parametrize("text", VALUES)
def test_each_name_is_worth_what_the_step_says(text: str) -> None:
    found, expected = parse(text).value(STEP, INFO, STEPS), VALUES[text]
    assert type(found) is type(expected) if isinstance(expected, bool | str) else found == pytest.approx(float(expected), rel=1e-12)
    assert found == expected or not isinstance(expected, bool | str)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("entropy > 0", True),
        ("entropy > 0 and prob > 2", False),
        ("entropy > 0 or prob > 2", True),
        ("not entropy > 0", False),
        ("not not entropy > 0", True),
        ("1 == 1 and not 2 == 1 or 1 > 2", True),
        ("1 > 2 and 1 > 2 or 1 == 1", True),
        ("1 > 2 and (1 > 2 or 1 == 1)", False),
        ('"Paris" ~ "ari"', True),
        ('"Paris" ~ "paris"', False),
        ('"a" ~ ""', True),
        ('"a.b" ~ "a.b" and not "axb" ~ "a.b"', True),
        ("special == forced", True),
        ("1 <= 1 and 1 >= 1 and not 1 < 1 and not 1 > 1 and 1 != 2", True),
        ("lens[2] != lens[-1]", top(2) != top(5)),
        ("1e308 * 10 > 1e308", True),
    ],
)
def test_logic_and_comparisons(text: str, holds: bool) -> None:
    assert parse(text).holds(STEP, INFO, STEPS) is holds


def test_a_candidate_is_found_by_its_text_with_or_without_a_space_before() -> None:
    step = replace(STEP, candidates=replace(STEP.candidates, tokens=(" the", "the", " of", *STEP.candidates.tokens[3:])), token_id=-5)
    probs = step.candidates.probs
    assert parse('prob("the")').value(step) == probs[0]
    assert parse('prob(" the")').value(step) == probs[0]
    assert parse('prob("of")').value(step) == probs[2]
    assert parse('rank("of")').value(step) == 2
    assert parse('prob("never")').value(step) is None


def test_the_logprob_of_a_candidate_holds_where_its_probability_is_too_small_for_a_number() -> None:
    logits = np.array([900.0, 700.0, 1.0], dtype=np.float32)
    probs = np.array([1.0, 0.0, 0.0], dtype=np.float32)
    candidates = replace(STEP.candidates, token_ids=np.array([7, 8, 9]), tokens=("a", "b", "c"), logits=logits, probs=probs)
    step = replace(STEP, candidates=candidates, token_id=7, logprob=-0.0)
    assert parse('logprob("b")').value(step) == -200
    assert parse('surprisal("c")').value(step) == 899


UNKNOWN = ['prob("never")', "norm(mlp, 1)", "lens[1]", "previous(entropy)", "untouched(entropy)", "entropy / 0", "0 / 0", "router[1, 0]"]


@pytest.mark.parametrize("text", UNKNOWN)
def test_what_is_not_there_is_unknown_and_holds_in_no_comparison(text: str) -> None:
    why = {1: "none here"}
    info = replace(INFO, missing={"mlp_norm": why, "logit_lens": why, "router": why})
    first = whole_steps(1, info)[0]
    known = parse(text)
    assert known.value(first, info, (first,)) is None
    assert known.shown(first, info, (first,)) == "–"
    other = '"a"' if known.kind == "text" else "1"
    for sign in ("==", "!="):
        for condition in (f"{text} {sign} {other}", f"not {text} {sign} {other}"):
            assert not parse(condition).holds(first, info, (first,))
    assert parse(f"{text} == {other} or 1 == 1").holds(first, info, (first,))
    assert parse(f"not ({text} == {other} and 1 == 2)").holds(first, info, (first,))


def test_layers_that_have_none_are_left_out_of_the_largest() -> None:
    info = replace(INFO, missing={"mlp_norm": {5: "no MLP"}})
    step = with_values(STEP, mlp_norm=np.array([1, 2, 9, 4, 5, np.nan], dtype=np.float32))
    assert parse("max(norm(mlp))").value(step, info) == 9
    assert parse("mean(norm(mlp))").value(step, info) == pytest.approx(21 / 5)
    assert parse("nan").value(step, info) is False


def test_the_models_own_nan_is_shown_and_found_and_compares_with_nothing() -> None:
    step = with_nan(STEP, "mlp_norm", 3)
    assert parse("nan").holds(step, INFO)
    assert parse("norm(mlp, 3)").shown(step, INFO) == "NaN"
    assert parse("max(norm(mlp))").shown(step, INFO) == "NaN"
    for sign in ("<", ">", "==", "!="):
        assert not parse(f"norm(mlp, 3) {sign} 1").holds(step, INFO)
    assert parse("nan").holds(spoilt(STEP, math.inf), INFO)


def test_untouched_is_what_the_model_says_without_the_interventions() -> None:
    other = STEPS[0]
    before = Baseline(other.candidates, -1.25, 0.5, other.values, other.pieces)
    step = replace(STEP, before=before, interventions=("ablate L1",))
    assert parse("touched").holds(step, INFO)
    assert parse("untouched(entropy)").value(step, INFO) == 0.5
    assert parse("untouched(norm(mlp, 2))").value(step, INFO) == other.values["mlp_norm"][2]
    assert parse("untouched(lens[2]) == lens[2]").holds(step, INFO) is (
        other.pieces[int(other.values["logit_lens.token_ids"][2, 0])] == top(2)
    )
    assert parse("untouched(rank)").value(step, INFO) is None


def test_it_says_what_it_needs() -> None:
    assert parse("entropy > 4 or nan").needs == frozenset()
    assert parse("lens[8] != lens[-1] or norm(mlp, 3) > max(sink)").needs == {"logit_lens", "mlp_norm", "sink_share"}
    assert parse("previous(logit_lens.chosen[2])").needs == {"logit_lens"}


def test_it_says_what_it_looked_at() -> None:
    step = replace(STEP, entropy=5.123, token=" Par\nis")
    assert parse("entropy > 4").measured(step) == "5.12"
    assert parse('token ~ "x" or entropy > 4 and 4 < entropy').measured(step) == '" Par\\nis", 5.12'
    assert parse("nan").measured(step) == ""


# ---- what a wrong one is told ------------------------------------------------------------------------------------------------------

WRONG = {
    "": (0, "is expected here"),
    "entropie > 4": (0, "Did you mean 'entropy'? Known: entropy, token"),
    "entropy >": (9, "is expected here"),
    "entropy = 4": (8, "write =="),
    "entropy > 4 && nan": (12, "write and"),
    "entropy > 4 nan": (12, "the end of the condition"),
    "1 < entropy < 4": (12, "one comparison at a time"),
    "(entropy > 4": (12, "')' is expected"),
    'entropy > "4"': (10, '"4" is a text; > needs a number here'),
    "token ~ 4": (8, "4 is a number; ~ needs a text here"),
    "token == 4": (9, "== and a text needs a text here"),
    "entropy and nan": (0, "entropy is a number; and needs true or false here"),
    "not entropy": (4, "entropy is a number; not needs true or false"),
    "nan + 1 > 2": (0, "nan is true or false; + needs a number"),
    "-token ~ 3": (1, "token is a text"),
    "norm(mlp) > 3": (0, "take max(norm(mlp)), min or mean"),
    "entropy > norm(mlp)": (10, "take max(norm(mlp)), min or mean"),
    "norm(mpl, 3) > 3": (5, "a norm is of mlp, attention, residual"),
    "norm > 3": (5, "'norm' needs brackets"),
    "lens != token": (0, "lens needs a layer"),
    "lens[1.5] ~ token": (5, "a whole number counted from 0"),
    "lens[entropy] ~ token": (5, "a whole number counted from 0"),
    "norm(mlp, 3, 4) > 3": (11, "it takes no more"),
    "entropy[3] > 3": (7, "takes nothing in brackets"),
    "logit_lens.chose[3] > 3": (0, "Did you mean 'logit_lens.chosen'?"),
    'token ~ "Paris': (8, "this text has no end"),
    'token ~ "\\q"': (9, "known after a backslash"),
    'token ~ "\ud800"': (9, "valid UTF-8"),
    "entropy > 1e999": (10, "at most 1.8e308"),
    "entropy > 3x": (10, "neither a number nor a name"),
    "entropy > 4;": (11, "no condition has this sign"),
    "entropy\n>\x1b": (9, "no condition has this sign"),
    "1 == not 2": (5, "needs parentheses"),
    "x" * (LONGEST + 1): (LONGEST, f"at most {LONGEST} characters"),
    "(" * 99: (DEEPEST, f"more than {DEEPEST} things"),
    "-" * 99: (DEEPEST, f"more than {DEEPEST} things"),
    "not " * 99: (4 * DEEPEST, f"more than {DEEPEST} things"),
}


PYTHON = {  # what Python would understand, and the column at which a condition doesn't
    'f"{nan}"': 1,
    'b"a" == token': 1,
    'token == "a" "b"': 13,
    'token == """a"""': 11,
    "nan # and more": 4,
    "nan and \\\n nan": 8,
    "nan\x00": 3,
    "entropy > 1_000": 10,
    "entropy > 0x10": 10,
    "entropy > 1j": 10,
    "entropy > \u0661": 10,
    "entropy > 0777e9999": 10,
    "(a := nan)": 3,
    "lambda: nan": 6,
    "lambda": 0,
    "None": 0,
    "__import__": 0,
    "max(*entropy)": 4,
    "max(a=entropy)": 5,
    "max(entropy,)": 12,
    "max()": 4,
    "lens[1:2] ~ token": 6,
    "lens[True] ~ token": 5,
    "lens[-(-1)] ~ token": 5,
    "entropy ** 2 > 1": 9,
    "entropy // 2 > 1": 9,
    "entropy @ 2": 8,
    "entropy % 2": 8,
    "~nan": 0,
    "+1 > 0": 0,
    "-not nan": 1,
    "nan is nan": 4,
    "token in text": 6,
    "nan if nan else nan": 4,
    "[nan]": 0,
    "{nan}": 0,
    "(nan, nan)": 4,
    "nan, nan": 3,
    "nan.real": 0,
    "(nan)(nan)": 5,
    "entropy > 1; nan": 11,
    "await nan": 6,
}


@pytest.mark.parametrize("text", PYTHON)
@pytest.mark.filterwarnings("error")
def test_what_only_python_understands_is_wrong_at_its_spot(text: str) -> None:
    with pytest.raises(ConditionError) as caught:
        parse(text)
    assert caught.value.column == PYTHON[text]
    assert str(caught.value).isprintable()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('not"a"~"b"', 'not "a" ~ "b"'),
        ('"a"~"b"and"c"~"d"', '"a" ~ "b" and "c" ~ "d"'),
        ("\n  entropy\t>\u00a04\n", "entropy > 4"),
        ("1 >.5 and.5<1", "1 > 0.5 and 0.5 < 1"),
        ("007 == 7.", "7 == 7"),
        ("((1 + 2) + 3) * 4", "(1 + 2 + 3) * 4"),
        ("1 - (2 - 3) - -4", "1 - (2 - 3) - -4"),
        ("(nan or nan) and not (nan and nan) or nan", "(nan or nan) and not (nan and nan) or nan"),
        ("'a\nb' == '\"'", '"a\\nb" == "\\""'),
        ("sink(1, 2) > sink[1, 2]", "sink(1, 2) > sink(1, 2)"),
    ],
)
def test_what_is_written_closely_or_in_parentheses_is_the_same(text: str, same: str) -> None:
    assert str(parse(text)) == same
    assert parse(same).tree == parse(text).tree


def test_as_many_things_as_the_limit_are_understood_inside_each_other() -> None:
    for opens, value, closes in (("(", "1 == 1", ")"), ("not ", "1 == 1", ""), ("-", "1", ""), ("previous(", "1", ")")):
        parse(opens * DEEPEST + value + closes * DEEPEST)
        with pytest.raises(ConditionError, match=f"more than {DEEPEST} things"):
            parse(opens * (DEEPEST + 1) + value + closes * (DEEPEST + 1))
    parse(" + ".join(["-(1)"] * 70) + " > 0")


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_condition_names_the_spot_in_one_line(text: str) -> None:
    column, why = WRONG[text]
    with pytest.raises(ConditionError) as caught:
        parse(text)
    assert caught.value.column == column
    assert why in caught.value.why
    line = str(caught.value)
    assert f"at column {column + 1}, " in line
    assert line.isprintable()
    assert "\n" not in line


def test_a_name_that_is_not_known_is_told_all_that_are() -> None:
    with pytest.raises(ConditionError) as caught:
        parse("nothing")
    assert all(name in caught.value.why for name in known_names())


@pytest.mark.parametrize(
    "text", ["norm(mlp, 6) > 1", "lens[-7] ~ token", "attention_entropy(2, 4) > 1", "mlp_norm[6] > 1", "previous(sink(9)) > 1"]
)
def test_a_layer_that_the_model_does_not_have_is_named(text: str) -> None:
    condition = parse(text)
    with pytest.raises(ConditionError, match=r"this model has no such (layer|head): it has 0 to [35]"):
        condition.check(INFO)


def test_a_value_is_no_breakpoint() -> None:
    assert parse_breakpoint("entropy > 4").kind == "truth"
    for text in ("entropy", "token", "lens[2]"):
        with pytest.raises(ConditionError, match="compare it, such as"):
            parse_breakpoint(text)


def test_its_error_goes_through_a_pipe() -> None:
    with pytest.raises(ConditionError) as caught:
        parse("entropy >")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.column) == (str(caught.value), 9)


def test_a_condition_goes_through_a_pipe() -> None:
    condition = parse("max(norm(mlp)) > 4 and token ~ 'a'")
    assert pickle.loads(pickle.dumps(condition)) == condition
