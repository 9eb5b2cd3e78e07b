"""The real model's numbers against an independent run of transformers with eager attention, the whole text at once."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from openmav.generation.opening import open_session
from openmav.settings import Settings
from openmav.settings.sampling import Sampling

pytestmark = [pytest.mark.real, pytest.mark.slow]
PROMPT = "hello mello"


@pytest.fixture(scope="module")
def reference(real_folder: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(real_folder, attn_implementation="eager", dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def lines(real_folder: Path) -> list[dict]:
    """What the command prints as JSON lines."""
    command = [sys.executable, "-m", "openmav", "--model", str(real_folder), "--prompt", PROMPT, "--json", "--max-new-tokens", "40"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.fixture(scope="module")
def truth(reference, lines):
    """generate with eager attention, with what each sub-block added to the residual stream at each step's position.

    (output of generate, {part: [a row per layer and step, in the order of the calls]})
    """
    rows: dict[str, list[torch.Tensor]] = {"mlp": [], "attention": [], "residual": []}

    def keep(part: str, output: object) -> None:
        x = output[0] if isinstance(output, tuple) else output
        rows[part].append(x.reshape(-1, x.shape[-1])[-1])

    hooks = []
    for layer in reference.model.layers:
        hooks.append(layer.mlp.register_forward_hook(lambda m, a, out: keep("mlp", out)))
        hooks.append(layer.self_attn.register_forward_hook(lambda m, a, out: keep("attention", out)))
        hooks.append(layer.register_forward_hook(lambda m, a, out: keep("residual", out)))
    wanted = {"output_attentions": True, "output_hidden_states": True, "output_logits": True, "return_dict_in_generate": True}
    prompt = torch.tensor([lines[0]["prompt"]["token_ids"]])
    output = reference.generate(prompt, do_sample=False, max_new_tokens=40, **wanted)
    for hook in hooks:
        hook.remove()
    return output, rows


def relative(mine: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.max(np.abs(mine - theirs) / np.maximum(np.abs(theirs), 1e-3)))


def test_the_tokens_are_those_of_generate(lines, truth) -> None:
    header, steps, end = lines[0], lines[1:-1], lines[-1]
    prompt = header["prompt"]["token_ids"]
    assert [*prompt, *(s["token_id"] for s in steps)] == truth[0].sequences[0].tolist()
    assert (header["model"]["layers"], header["model"]["heads"], header["model"]["vocab"]) == (30, 9, 49152)
    assert end["tokens"] == len(steps) == 40


@pytest.mark.parametrize(("measure", "part"), [("mlp_norm", "mlp"), ("attention_norm", "attention"), ("residual_norm", "residual")])
def test_norms(lines, truth, measure: str, part: str) -> None:
    mine = np.array([[layer[measure] for layer in step["layers"]] for step in lines[1:-1]])
    theirs = torch.stack(truth[1][part]).norm(dim=-1).view(40, 30).numpy()
    assert relative(mine, theirs) < 1e-4


def test_residuals_are_the_hidden_states_of_transformers(lines, truth) -> None:
    for step, states in zip(lines[1:-1], truth[0].hidden_states, strict=True):
        mine = np.array([layer["residual_norm"] for layer in step["layers"][:-1]])
        theirs = np.array([float(x[0, -1].norm()) for x in states[1:-1]])  # the last one is after the final norm
        assert relative(mine, theirs) < 1e-4


def test_attention_entropies(lines, truth) -> None:
    for step, attentions in zip(lines[1:-1], truth[0].attentions, strict=True):
        mine = np.array([layer["attention_entropy"] for layer in step["layers"]])
        theirs = torch.stack([torch.special.entr(a[0, :, -1].double()).sum(-1) for a in attentions]).numpy()
        assert relative(mine, theirs) < 1e-4


def test_logits_probabilities_and_entropy(lines, truth) -> None:
    for step, logits in zip(lines[1:-1], truth[0].logits, strict=True):
        logits = logits[0].double()
        probs = torch.softmax(logits, -1).numpy()
        for candidate in step["candidates"]:
            assert abs(candidate["prob"] - probs[candidate["token_id"]]) < 1e-5
            assert abs(candidate["logit"] - float(logits[candidate["token_id"]])) < 1e-3
        assert abs(step["entropy"] + float((probs * np.log(probs)).sum())) < 1e-3
        assert abs(step["logprob"] - np.log(probs[step["token_id"]])) < 1e-3


def test_two_hundred_greedy_tokens(reference, real_folder: Path) -> None:
    session = open_session(Settings(model=str(real_folder), prompt="The capital of France is", max_new_tokens=200))
    list(session)
    prompt = torch.tensor([list(session.prompt.token_ids)])
    assert session.token_ids == reference.generate(prompt, do_sample=False, max_new_tokens=200)[0].tolist()


def test_sampling_repeats_with_its_seed(real_folder: Path) -> None:
    settings = Settings(model=str(real_folder), prompt=PROMPT, max_new_tokens=16, sampling=Sampling(temperature=0.9, top_p=0.95, seed=11))
    first, second = open_session(settings), open_session(settings)
    assert [s.token_id for s in first] == [s.token_id for s in second]


def test_the_chat_template_is_applied_when_asked(real_folder: Path) -> None:
    session = open_session(Settings(model=str(real_folder), prompt="Say hi.", chat=True, max_new_tokens=4))
    assert "<|im_start|>" in session.prompt.tokens
    assert session.prompt.special[0]
    assert "".join(session.prompt.tokens).endswith("assistant\n")


def test_looking_back_gives_the_bits_of_a_run_that_wanted_all_from_the_start(real_folder: Path) -> None:
    deep = ("mlp_norm", "attention_entropy", "logit_lens", "attention_rows", "attribution", "neurons", "neuron_tokens", "sink_share")
    asked = Settings(model=str(real_folder), prompt=PROMPT, max_new_tokens=5, measures=deep)
    whole, bare = open_session(asked), open_session(replace(asked, measures=("mlp_norm",)))
    expected, _ = list(whole), list(bare)
    bare.want(deep)
    for index in (4, 0, 2):
        again = bare.look_back(index)
        assert again is not None
        assert again.values.keys() == expected[index].values.keys()
        for name, values in expected[index].values.items():
            assert np.array_equal(again.values[name], values, equal_nan=True), name
    whole.close()
    bare.close()
