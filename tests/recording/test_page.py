"""The page of a recording as a file: its numbers, its size, and that nothing of the recording can become markup or code."""

import base64
import hashlib
import math
import re
import sqlite3
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pages import EVERY, HOSTILE, changed_run, core_run, hostile_run, unpacked, whole_run, written
from runs import snapshot, toy
from test_hostile import STATEMENTS, refused

from openmav.library import open_session
from openmav.paint import level, percent, visible
from openmav.paint.theme import contrast
from openmav.panels import health
from openmav.panels.widgets.diverging import signed
from openmav.protocol.snapshot import Snapshot
from openmav.record import SAMPLING_STAGES, Branch, Prompt
from openmav.record.attribution_result import InputAttribution
from openmav.recording.export.page import numbers, squeeze
from openmav.recording.export.page.assemble import code, colours
from openmav.recording.export.page.extras import add_input
from openmav.recording.export.page.measures import add_measures
from openmav.recording.export.page.pack import LESS, NOTHING, ZERO, Pack, permille
from openmav.recording.reader import Recording
from openmav.recording.recorder import Recorder
from openmav.recording.replay import at_branch, snapshot_of
from openmav.settings import Settings
from openmav.view import View

ROOT = Path(__file__).parents[2]
PARTS = (".html", ".css", ".js", ".py")


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "run.mav"
    changed_run(path)
    return path


def test_the_numbers_are_those_of_the_recording(changed, tmp_path):
    header, arrays = unpacked(written(changed, tmp_path / "run.html"))
    with Recording(changed) as recording:
        now = snapshot_of(recording)
        assert [branch["name"] for branch in header["branches"]] == [now.branch, *now.branches]
        for number, branch in enumerate(header["branches"]):
            steps = at_branch(now, branch["name"]).steps
            rows = arrays[f"branch{number}.steps"]
            assert len(rows) == len(steps)
            for row, step in zip(rows, steps):
                k = len(step.candidates)
                assert arrays["surprisal"][row] == step.surprisal
                assert arrays["entropy"][row] == step.entropy
                assert arrays["candidate.p"][row, :k].tolist() == step.candidates.probs.tolist()
                assert arrays["candidate.logit"][row, :k].tolist() == step.candidates.logits.tolist()
                assert arrays["mlp_norm"][row].tolist() == step.values["mlp_norm"].tolist()
                assert arrays["attention_entropy"][row].tolist() == step.values["attention_entropy"].tolist()
                assert arrays["lens.p"][row].tolist() == permille(step.values["logit_lens"][:, :5]).tolist()
                attention = step.values["attention_rows"]
                layers, heads, tokens = attention.shape
                start = int(arrays["attention.start"][row])
                whole = arrays["attention"][start : start + layers * (heads + 1) * tokens].reshape(layers, heads + 1, tokens)
                mean = attention.astype(np.float64).mean(axis=1)
                assert (whole[:, 1:] >> 3).tolist() == permille(attention).tolist()
                assert (whole[:, 0] >> 3).tolist() == permille(mean).tolist()
                eighths = [[level(share / max(row[1:]), 8) for share in row] for row in mean.tolist()]
                assert (whole[:, 0] & 7).tolist() == eighths
    changes = header["branches"][0]["changes"]
    assert [one["kind"] for one in changes] == ["forced", "sampling", "intervention"]
    assert header["branches"][0]["parent"] == header["branches"][1]["name"]


def test_every_measure_is_on_the_page(tmp_path):
    whole_run(tmp_path / "whole.mav")
    header, arrays = unpacked(written(tmp_path / "whole.mav", tmp_path / "whole.html"))
    texts, more = header["texts"], header["more"]
    with Recording(tmp_path / "whole.mav") as recording:
        now = snapshot_of(recording)
        for at, step in enumerate(now.steps):
            values, k = step.values, step.values["attribution.top"].shape[2]
            assert arrays["attribution.part"][at, :, :, 0].tolist() == values["attribution"].tolist()
            assert arrays["attribution.part"][at, :, :, 1 : 1 + k].tolist() == values["attribution.top"].tolist()
            for row, name in enumerate((*more["attribution"]["parts"], "logit")):
                assert arrays["attribution.whole"][at, row, 0] == values[f"attribution.{name}"][0]
                assert arrays["attribution.whole"][at, row, 1 : 1 + k].tolist() == values[f"attribution.top.{name}"][0].tolist()
            stages = {
                texts[n].split()[0]: row for n, row in zip(arrays["stages.name"][at], arrays["stages.value"][at].tolist()) if texts[n]
            }
            for stage in ("raw", "top-k", "top-p"):
                assert stages[stage] == values["sampling_stages"][SAMPLING_STAGES.index(stage)].tolist()
            assert arrays["distribution.p"][at].tolist() == permille(values["distribution"]).tolist()
            assert arrays["neurons.value"][at].tolist() == values["neurons"].tolist()
            assert arrays["neurons.id"][at].tolist() == values["neurons.ids"].tolist()
            for row, layer in enumerate(values["neuron_tokens.layers"]):
                shown = arrays["neurons.logit"][at, layer] / more["neurons"]["scale"]
                assert [signed(one, 2) for one in shown.ravel()] == [
                    signed(one, 2) for one in values["neuron_tokens"][row].ravel().tolist()
                ]
                ids = values["neuron_tokens.token_ids"][row].ravel().tolist()
                named = [texts[n] for n in arrays["neurons.token"][at, layer].ravel()]
                assert named == [visible(step.pieces[one]) if one >= 0 else "" for one in ids]
            for name in ("sink_share", "relative_attention_entropy"):
                assert arrays[name][at].tolist() == permille(values[name]).tolist()
                assert arrays[f"{name}.mean"][at].tolist() == permille(values[name].astype(np.float64).mean(axis=1)).tolist()
            assert arrays["cache_size"][at] == values["cache_size"][0]
            assert arrays["own0"][at].tolist() == values["mine"].tolist()
            checks = health.data(View(info=now.info, steps=now.steps, cursor=at)).checks
            assert [texts[n] for n in arrays["health.text"][at, :, 1]] == [check.number for check in checks]
            if step.before is not None:
                assert arrays["mlp_norm.base"][at].tolist() == step.before.values["mlp_norm"].tolist()
    assert [one["name"] for one in more["own"]] == ["mine"]
    modified = [step.before is not None for step in now.steps]
    assert np.isfinite(arrays["mlp_norm.base"]).all(axis=1).tolist() == modified
    assert True in modified
    assert False in modified


def test_a_mixture_of_experts_and_an_input_attribution_are_on_the_page():
    pack, step = (
        Pack(),
        replace(
            toy(measures=()).step(), values={"router": np.float32([[0.7, 0.2], [np.nan] * 2]), "router.ids": np.array([[5, 1], [-1, -1]])}
        ),
    )
    now = Snapshot(info=replace(toy(measures=()).info, layers=2), steps=(step,))
    said = add_measures(pack, [step], [Branch("main", Prompt("", (), ()), (step,))], now)
    assert said["router"] == {"why": None, "most": pytest.approx(0.7)}
    scores = np.float32([0.25, -1.5])
    result = InputAttribution(
        "occlusion", 3, 2, 7, " a", None, None, (1, 2), ("x", "y"), scores, 2.0, math.nan, 0.0, 0.1, False, 3, None, 0.1
    )
    said = add_input(pack, result)
    assert (said["target"], said["t"], said["method"]) == ("·a", 3, "occlusion")
    _, arrays = unpacked(f'id="data">{pack.encoded({})}</script>')
    assert arrays["router.id"].tolist() == [[[5, 1], [-1, -1]]]
    assert arrays["input.score"].tolist() == scores.tolist()


def test_the_code_is_squeezed_and_its_texts_stay():
    js = 'const a = "x  =  y", b = `p ${c ? `q , ${"r ; s"}` : 1} , t`; // gone\n// gone\n'
    js += 'const d = a - b,\n  e = a - -b\nf("a // b", "c") // gone\ng();'
    assert squeeze.script(js) == 'const a="x  =  y",b=`p ${c ? `q , ${"r ; s"}` : 1} , t`;const d=a-b,e=a - -b\nf("a // b","c")\ng();'
    assert squeeze.style("a :b { width: calc(1px + 2px); }") == "a :b{width:calc(1px + 2px);}"


def test_probabilities_have_the_digits_that_the_app_shows():
    probs = np.float32(np.concatenate([np.random.default_rng(1).random(20000) ** 6, np.arange(0, 1, 1 / 64), [0, 1, 0.0004, 0.0005]]))
    for p, number in zip(probs.tolist(), permille(probs).tolist()):
        shown = "<0.1 %" if number == LESS else f"{(0 if number == ZERO else number) / 10:.1f} %"
        assert shown == percent(p).strip()
    assert permille([np.nan, np.inf]).tolist() == [NOTHING, NOTHING]


def test_two_hundred_tokens_of_the_demo_with_everything_and_the_code_stay_small(tmp_path):
    session = open_session(Settings(max_new_tokens=200, measures=EVERY))
    recorder = Recorder(tmp_path / "demo.mav", session.settings)
    while session.reason is None:
        session.burst()
    recorder.update(snapshot(session))
    recorder.close()
    session.close()
    assert len(session.steps) == 200
    text = written(tmp_path / "demo.mav", tmp_path / "demo.html")
    header, arrays = unpacked(text)
    assert arrays["attention"].size == 6 * 9 * sum(range(arrays["attention.tokens"][0], arrays["attention.tokens"][0] + 200))
    more = {name: said["why"] for name, said in header["more"].items() if name != "own"}
    assert "mixture of experts" in more.pop("router")
    assert {*more.values(), *(said["why"] for said in (header["lens"], header["attention"], *header["measures"].values()))} == {None}
    assert len(text.encode()) < 2_000_000
    assert len(re.sub(r'(id="data">)[^<]*', r"\1", text).encode()) < 100_000


def test_what_was_not_recorded_says_so(tmp_path):
    core_run(tmp_path / "core.mav")
    header, arrays = unpacked(written(tmp_path / "core.mav", tmp_path / "core.html"))
    assert "--measure logit_lens" in header["lens"]["why"]
    assert "--measure attention_rows" in header["attention"]["why"]
    assert "--measure residual_norm" in header["measures"]["residual_norm"]["why"]
    assert header["measures"]["mlp_norm"]["why"] is None
    assert "lens.p" not in arrays


def test_what_would_make_the_page_too_large_is_left_out_and_says_so(changed, tmp_path, monkeypatch):
    monkeypatch.setattr(numbers, "MOST_ENTRIES", 1000)
    monkeypatch.setattr(numbers, "MOST_CANDIDATES", 3)
    header, arrays = unpacked(written(changed, tmp_path / "run.html"))
    assert 0 < arrays["attention"].size <= 1000
    assert (arrays["attention.start"] < 0).any()
    assert "too large" in header["attention"]["why_not"]
    assert arrays["candidate.id"].shape[1] == 3
    assert (arrays["candidate.id"] == arrays["id"][:, None]).any(axis=1).all()
    monkeypatch.setattr(numbers, "MOST_ENTRIES", 10)
    header, arrays = unpacked(written(changed, tmp_path / "run.html"))
    said = (header["lens"], header["attention"], *header["measures"].values())
    assert all("too large" in one["why"] for one in said)


def test_the_policy_lets_only_the_pages_own_code_run_and_nothing_load(changed, tmp_path):
    text = written(changed, tmp_path / "run.html")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "http" not in policy
    blocks = re.findall(r"<(script|style)>(.*?)</\1>", text, re.DOTALL)
    assert [kind for kind, _ in blocks] == ["script", "style", "script"]
    for _, block in blocks:
        assert base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() in policy
    for name, part in code().items():
        assert not re.search(r"(https?:)?//[a-z]+\.[a-z]", part.replace("http://www.w3.org/2000/svg", "")), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|fetch\(|XMLHttp|WebSocket", part), (
            name
        )


def test_foreign_text_is_only_in_the_data(changed, tmp_path):
    hostile_run(tmp_path / "hostile.mav", changed)
    text, clean = written(tmp_path / "hostile.mav", tmp_path / "hostile.html"), written(changed, tmp_path / "run.html")
    without = [re.sub(r'(id="data">)[A-Za-z0-9+/=]*', r"\1", one) for one in (text, clean)]
    assert without[0] == without[1]
    header, _ = unpacked(text)
    texts = [*header["texts"], header["model"]["name"], *(branch["name"] for branch in header["branches"])]
    assert sum("window.hurt" in one for one in texts) >= 3
    assert not [one for one in texts if re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", one)]
    assert HOSTILE not in text


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_file_that_was_made_to_harm_gives_a_page_or_one_line(name, changed, tmp_path):
    path = tmp_path / "hostile.mav"
    path.write_bytes(changed.read_bytes())
    database = sqlite3.connect(path)
    database.executescript(STATEMENTS[name])
    database.close()
    line = refused(lambda: unpacked(written(path, tmp_path / "page.html")))
    assert line is None or "\n" not in line


def test_a_wheel_has_all_parts_of_the_page(tmp_path):
    from hatchling.builders.wheel import WheelBuilder

    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    page = ROOT / "src" / "openmav" / "recording" / "export" / "page"
    parts = {f"openmav/recording/export/page/{path.relative_to(page).as_posix()}" for path in page.rglob("*") if path.suffix in PARTS}
    assert len(parts) > 10
    assert parts <= set(zipfile.ZipFile(wheel).namelist())


def test_text_can_be_read_on_every_ground():
    for rules in re.findall(r"\{([^{}]*color-scheme:\w+)\}", colours()):
        values = dict(re.findall(r"--([\w-]+):(#[0-9a-f]{6})", rules))
        for ground in ("ground", "panel", "select"):
            for role in ("text", "secondary", "accent", "warning", "key"):
                assert contrast(values[role], values[ground]) >= 4.5, (role, ground)
        for ramp, count in (("surprise", 8), ("heat", 16)):
            for at in range(count):
                assert contrast(values[f"{ramp}-{at}"], values[f"{ramp}-ink-{at}"]) >= 4.5
