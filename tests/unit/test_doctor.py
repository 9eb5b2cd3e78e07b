"""mav doctor: it says what is there, and its checks fail where a number is wrong."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from openmav.analysis.doctor import environment, model
from openmav.backends import toy
from openmav.backends.base import Frame, LoadOptions, ModelCheck
from openmav.cli.doctor import line_of
from openmav.cli.main import main
from openmav.record.ranges import ranges


@pytest.fixture(autouse=True)
def stderr_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sends what libraries write to the log; here that would be every later test's output."""
    monkeypatch.setattr("openmav.cli.doctor.redirect", lambda *, descriptors: None)


def figures(backend: toy.Toy) -> dict[str, ModelCheck]:
    return {check.name: check for check in model.check(backend)}


def test_all_is_well_with_a_model_that_is_well() -> None:
    checks = figures(toy.load("toy", LoadOptions()))
    assert len(checks) == 5
    assert all(check.good and check.figure is not None for check in checks.values())


class Wrong(toy.Toy):
    """A backend that shows something else than it computes."""

    def __init__(self, what: str) -> None:
        super().__init__("toy", {})
        self.what = what

    def _forward(self, want: frozenset[str]) -> Frame:
        frame = super()._forward(want)
        if self.what == "capture" and want:
            frame.logits = frame.logits * 1.0000002
        if self.what == "parts" and want:
            frame.sites["mlp.out"][2] = frame.sites["mlp.out"][2] * 1.01
        if self.what == "lens":
            frame.head = dataclasses.replace(frame.head, embedding=frame.head.embedding * 1.05)
        if self.what == "nan":
            frame.logits = frame.logits * float("nan")
        if self.what == "headless":
            frame.head = None
        return frame

    def decode_one_token(self, token_id: int, want: frozenset[str]) -> Frame:
        frame = super().decode_one_token(token_id, want)
        if self.what == "cache":
            frame.logits = frame.logits * 1.05
        return frame


@pytest.mark.parametrize(
    ("what", "failing"),
    [
        ("capture", {"logits with and without capture, different"}),
        ("parts", {"parts add up to the residual stream", "attribution adds up to the logit"}),
        ("lens", {"lens of the last layer = logits", "attribution adds up to the logit"}),
        ("cache", {"decoding with a cache = one pass over all", "lens of the last layer = logits", "attribution adds up to the logit"}),
    ],
)
def test_each_check_sees_what_it_is_there_for(what: str, failing: set[str]) -> None:
    assert {name for name, check in figures(Wrong(what)).items() if not check.good} == failing


def test_nan_is_never_good() -> None:
    checks = figures(Wrong("nan"))
    assert not checks["lens of the last layer = logits"].good
    assert not checks["decoding with a cache = one pass over all"].good
    assert "FAIL" in line_of(checks["lens of the last layer = logits"])


def test_what_cannot_be_measured_says_so_and_fails_nothing() -> None:
    check = figures(Wrong("headless"))["lens of the last layer = logits"]
    assert check.figure is None
    assert check.good
    assert "not available" in line_of(check)


def test_the_worst_of_errors() -> None:
    assert model._worst([0.1, None, 0.3]) == 0.3
    assert math.isnan(model._worst([0.1, math.nan, 0.3]) or 0)
    assert model._worst([None]) is None


def test_limits_follow_the_float_type() -> None:
    assert model.relative_limit("float32") == 1e-4
    assert model.relative_limit("bfloat16") == pytest.approx(4 * torch.finfo(torch.bfloat16).eps)
    assert model.relative_limit("Q4_1") == 4 / 256


@pytest.mark.parametrize(
    ("layers", "said"), [([3], "layer 3"), ([0, 1, 2, 7], "layers 0-2, 7"), ([5, 4], "layers 4-5"), ([1, 3], "layers 1, 3")]
)
def test_layers_in_words(layers: list[int], said: str) -> None:
    assert ranges(layers) == said


def test_the_environment_names_versions_devices_and_extras() -> None:
    sections = {section.title: dict(section.lines) for section in environment.environment()}
    assert sections["Versions"]["torch"] == torch.__version__
    assert "cores" in sections["Devices"]["CPU"]
    assert "gguf" in sections["Extras"]
    assert "dev" not in sections["Extras"]


def test_a_missing_package_of_an_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "version_of", lambda name: None)
    said = dict(environment._extras())["gguf"]
    assert said == "lacks accelerate, gguf: pip install 'openmav[gguf]'"


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--model", "toy?bare=1", "--backend", "toy"]) == 0
    out = capsys.readouterr().out
    for title in ("Versions", "Devices", "Extras", "Model", "Not available", "Checks"):
        assert f"\n{title}\n" in f"\n{out}"
    assert "switched off (layer 1)" in out
    assert out.count("  ok ") == 5


def test_the_command_fails_with_a_failing_check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(toy, "load", lambda *_: Wrong("parts"))
    assert main(["doctor", "--model", "toy", "--backend", "toy"]) == 1
    assert "FAIL  parts add up" in capsys.readouterr().out


def test_the_command_with_a_model_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--model", "/nowhere/at/all"]) == 2


def test_transformers_says_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--model", "demo", "--backend", "transformers"]) == 0
    out = capsys.readouterr().out
    assert "model.layers, 6 of LlamaDecoderLayer" in out
    assert "the input of mlp.down_proj" in out
    assert "attention rows = eager's" in out
    assert "FAIL" not in out
