"""What a touched backend promises beside its numbers: it leaves nothing behind, it sees what flows, and it says what it can't do."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from backends.families import build, tiny
from openmav.backends.base import Intervening, LoadOptions
from openmav.backends.sites import SITES
from openmav.backends.toy import load as load_toy
from openmav.backends.transformers import wrap
from openmav.backends.transformers.decoding import decoder
from openmav.errors import UsageError
from openmav.settings.interventions import parse

IDS: list[int] = torch.randint(3, 128, (30,), generator=torch.Generator().manual_seed(8)).tolist()
PROMPT = 20
SEVERAL = ("gpt2", "bloom", "falcon", "jamba", "mamba", "qwen3_next", "gpt_oss", "longcat_flash")  # own attention, other mixers, experts
TEXTS = {"a": IDS[:9], "b": IDS[4:20], "": []}


class Words:
    """A tokenizer that knows the texts of these tests."""

    all_special_ids = ()
    eos_token_id = 2

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": TEXTS[text]}


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def logits(backend, ids=IDS, prompt: int = PROMPT) -> torch.Tensor:
    frames = [backend.prefill(ids[:prompt], frozenset()), *(backend.decode_one_token(i, frozenset()) for i in ids[prompt:])]
    return torch.stack([frame.logits for frame in frames])


@pytest.fixture(scope="module", params=SEVERAL)
def backend(request):
    loaded = wrap(build(request.param), Words(), request.param)
    yield loaded
    loaded.close()


def possible(backend) -> list[str]:
    """A change of every kind, of all layers that have it."""
    sites = [f"L{layer}{part}" for layer in range(backend.info.layers) for part in (".H1", ".attn", ".mlp", ".N3", "")]
    return [f"amplify {site}=0.5" for site in sites if backend.why_not(parse(f"ablate {site}")) is None]


def test_the_untouched_model_is_bit_identical_before_beside_and_after(backend) -> None:
    before, left = logits(backend), hooks(backend.model)
    specs = possible(backend)
    assert len(specs) >= 2 * backend.info.layers
    touched = backend.intervened([parse(spec) for spec in specs], IDS[:PROMPT])
    mine = []
    touched.prefill(IDS[:PROMPT], SITES)
    backend.prefill(IDS[:PROMPT], SITES)
    for token in IDS[PROMPT:]:  # the two take turns
        mine.append(touched.decode_one_token(token, SITES).logits)
        assert torch.equal(backend.decode_one_token(token, frozenset()).logits, before[len(mine)])
    assert not torch.allclose(torch.stack(mine), before[1:], atol=1e-3)
    touched.close()
    assert torch.equal(logits(backend), before)
    assert hooks(backend.model) == left


def test_a_factor_of_one_changes_nothing(backend) -> None:
    specs = [re.sub("=.*", "=1", spec) for spec in possible(backend) if "." in spec.split("=")[0]]
    assert torch.equal(logits(backend.intervened([parse(spec) for spec in specs], IDS[:PROMPT])), logits(backend))


def test_going_back_is_exact_with_hands_on(backend) -> None:
    touched = backend.intervened([parse("amplify L1@22-26=0.5")], IDS[:PROMPT])
    first = logits(touched)
    touched.rewind(PROMPT + 4)
    again = [touched.decode_one_token(i, frozenset()).logits for i in IDS[PROMPT + 4 :]]
    assert torch.equal(torch.stack(again), first[5:])


def test_a_prompt_in_chunks_keeps_its_positions(monkeypatch) -> None:
    backend = wrap(tiny("llama"), Words(), "llama")
    specs = ["ablate L0.attn@3-17", "patch L1.resid@9-15=b", "ablate L2.H1=mean", "amplify L1@6=3"]
    whole = logits(backend.intervened([parse(spec) for spec in specs], IDS[:PROMPT]))
    monkeypatch.setattr(decoder, "CHUNK", 4)
    chunks = logits(backend.intervened([parse(spec) for spec in specs], IDS[:PROMPT]))
    assert torch.allclose(whole, chunks, atol=1e-5 * float(whole.abs().max()))
    backend.close()


def test_captures_see_what_flows_on() -> None:
    backend = wrap(tiny("gpt2"), Words(), "gpt2")
    touched = backend.intervened([parse("ablate L1.attn"), parse("ablate L0.mlp"), parse("ablate L0.N5"), parse("ablate L2")], IDS[:PROMPT])
    frame = touched.prefill(IDS[:PROMPT], SITES)
    assert not frame.sites["attention.out"][1].any()
    assert not frame.sites["mlp.out"][0].any()
    assert frame.sites["mlp.hidden"][0][5] == 0
    assert torch.equal(frame.sites["residual.after"][2], frame.sites["residual.before"][2])
    assert torch.allclose(frame.head.logits(frame.sites["residual.after"][2][None])[0], frame.logits, atol=1e-5)
    backend.close()


@pytest.mark.parametrize("name", ["transformers", "toy"])
@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("ablate L9", "there is no layer 9: .* has layers 0 to [23]$"),
        ("ablate L1.H4", "there is no head 4: layer 1 has heads 0 to 3$"),
        ("amplify L1.N5000=2", "there is no neuron 5000: layer 1 has neurons 0 to (127|63)$"),
        ("ablate L1@-40", "counts back beyond the beginning: the prompt has 20 tokens"),
        ("patch L1.resid@16=b", "needs position 16, and the other text has 16 tokens \\(positions 0 to 15\\)"),
        ("patch L1.mlp=a", "needs position 19, and the other text has 9 tokens"),
        ("steer L1=/nowhere/v.npy", "there is no file '/nowhere/v.npy'"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(monkeypatch, name: str, spec: str, why: str) -> None:
    backend = wrap(tiny("llama"), Words(), "llama") if name == "transformers" else load_toy("toy", LoadOptions())
    assert isinstance(backend, Intervening)
    if name == "toy":
        monkeypatch.setattr(backend, "encode", TEXTS.get)
    with pytest.raises(UsageError, match=why) as caught:
        backend.intervened([parse(spec)], IDS[:PROMPT])
    assert "\n" not in str(caught.value)
    backend.close()


@pytest.mark.parametrize("family", ["mamba", "jamba"])
def test_what_a_model_does_not_have_is_said(family: str) -> None:
    backend = wrap(tiny(family), None, family)
    assert backend.why_not(parse("ablate L0.H0")) == "not available: heads of layer 0: state space layer"
    assert backend.why_not(parse("ablate L0.attn")) is None  # its mixer
    neurons = backend.why_not(parse("ablate L1.N0"))
    assert neurons is not None
    assert "no MLP" in neurons or "mixture of experts" in neurons
    backend.close()


def test_parts_that_are_not_simply_added_are_not_touched() -> None:
    backend = wrap(tiny("openai-gpt"), None, "openai-gpt")
    with pytest.raises(UsageError, match=r"not available: attention of layer 1: the layer normalises the residual stream"):
        backend.intervened([parse("ablate L1.attn")], IDS[:PROMPT])
    backend.close()


def test_a_map_that_takes_the_heads_in_another_order_is_not_taken_for_theirs() -> None:
    """Between attention and its projection this model mixes the heads: a slice is no head."""
    model = build("llama")
    for layer in model.model.layers:
        layer.self_attn.o_proj = nn.Sequential(nn.Linear(64, 64, bias=False), layer.self_attn.o_proj)
        layer.self_attn.o_proj[0].register_forward_pre_hook(lambda m, a: (a[0].roll(8, -1),))
    backend = wrap(model, None, "mixed")
    why = backend.why_not(parse("ablate L1.H0"))
    assert why == "not available: heads of layer 1: the map that its heads go through last was not found"
    backend.close()


class TestVectors:
    """Files with steering vectors."""

    def steer(self, source: str) -> torch.Tensor:
        backend = load_toy("toy", LoadOptions())
        return backend.intervened([parse(f"steer L1={source}")], IDS[:PROMPT]).prefill(IDS[:PROMPT], frozenset()).logits

    def test_a_named_entry_equals_the_array(self, tmp_path) -> None:
        vector = torch.randn(32, generator=torch.Generator().manual_seed(3)).to(torch.bfloat16)
        save_file({"one": vector, "two": 2 * vector}, tmp_path / "v.safetensors")
        save_file({"one": vector[None]}, tmp_path / "single.safetensors")
        np.save(tmp_path / "v.npy", vector.double().numpy())
        plain = self.steer(f"{tmp_path}/v.npy")
        assert torch.equal(self.steer(f"{tmp_path}/v.safetensors:one"), plain)
        assert torch.equal(self.steer(f"{tmp_path}/single.safetensors"), plain)
        assert torch.equal(self.steer(f"{tmp_path}/v.safetensors:two*0.5"), plain)
        assert not torch.equal(self.steer(f"{tmp_path}/v.npy*1.5"), plain)

    def test_wrong_files_are_one_clear_line(self, tmp_path) -> None:
        save_file({"one": torch.ones(32), "two": torch.ones(32)}, tmp_path / "v.safetensors")
        np.save(tmp_path / "wide.npy", np.ones((2, 32)))
        np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
        np.save(tmp_path / "text.npy", np.array(["a"] * 32))
        np.save(tmp_path / "nan.npy", np.full(32, np.nan))
        (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY nonsense")
        (tmp_path / "broken.safetensors").write_bytes(b"nonsense")
        for source, why in {
            "v.safetensors": "holds several entries; write .*v.safetensors:NAME. Known: one, two",
            "v.safetensors:three": "there is no 'three' in .*Known: one, two",
            "wide.npy": "is 2 x 32; the residual stream of this model is 32 wide",
            "objects.npy": "cannot read a steering vector",
            "text.npy": "cannot read a steering vector",
            "nan.npy": "holds NaN or infinity",
            "broken.npy": "cannot read a steering vector",
            "broken.safetensors": "cannot read a steering vector",
        }.items():
            with pytest.raises(UsageError, match=why) as caught:
                self.steer(f"{tmp_path}/{source}")
            assert "\n" not in str(caught.value)


def test_a_text_without_tokens_is_said() -> None:
    backend = wrap(tiny("llama"), Words(), "llama")
    TEXTS[" "] = []
    with pytest.raises(UsageError, match="the text ' ' encodes to no tokens"):
        backend.intervened([parse('steer L1="a"-" "')], IDS[:PROMPT])
    backend.close()
