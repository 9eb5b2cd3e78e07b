"""GGUF files and quantised checkpoints through their own loaders, models spread over devices, and the line where a package is missing.

What needs a package that is not installed is skipped; the lines that name the package are tested everywhere.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from backends import gguf_files
from backends.families import build
from backends.logits import cached_logits, divergence
from backends.raw_touch import PATHS, Changes, Raw, check
from openmav.analysis.compare import Lockstep
from openmav.backends.base import LoadOptions
from openmav.backends.loading import checkpoint
from openmav.backends.sites import SITES
from openmav.backends.transformers import TransformersBackend, load, wrap
from openmav.backends.transformers.loading import loader, placement, quantised
from openmav.errors import LoadError
from openmav.generation.session import Session
from openmav.measures.base import Context
from openmav.record.comparison import MEASURES
from openmav.settings import Settings

DEMO = checkpoint.DEMO_FOLDER
GGUF = Path(__file__).parents[2] / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
IDS = [5, 9, 60, 33, 71, 12, 100, 44, 7]


def needs(*modules: str) -> Any:
    absent = [m for m in modules if not quantised.is_installed(m)]
    return pytest.mark.skipif(bool(absent), reason=f"{', '.join(absent)} not installed")


def refusal(name: object) -> str:
    with pytest.raises(LoadError) as error:
        load(str(name), LoadOptions())
    line = str(error.value)
    assert "\n" not in line
    return line


# ---- names -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "place", "file"),
    [
        ("gpt2", "gpt2", None),
        ("owner/model", "owner/model", None),
        ("owner/model:file.Q4_K_M.gguf", "owner/model", "file.Q4_K_M.gguf"),
        ("owner/model/file.gguf", "owner/model", "file.gguf"),
        ("owner/model:quants/file.GGUF", "owner/model", "quants/file.GGUF"),
    ],
)
def test_what_a_name_means(name: str, place: str, file: str | None) -> None:
    assert checkpoint.find(name) == checkpoint.Checkpoint(place, file)


def test_a_path_of_a_gguf_file_and_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    expected = checkpoint.Checkpoint(str(tmp_path), "a.gguf")
    assert checkpoint.find(str(tmp_path / "a.gguf")) == expected
    assert checkpoint.find(str(tmp_path)) == expected
    (tmp_path / "b.gguf").write_bytes(b"GGUF")
    assert "several GGUF files; name one of them: a.gguf, b.gguf" in refusal(tmp_path)


def test_a_gguf_file_that_is_not_there(tmp_path: Path) -> None:
    assert "there is no file" in refusal(tmp_path / "x.gguf")


@pytest.mark.parametrize(("name", "short"), [("a/b:c.Q4_1.gguf", "c.Q4_1"), ("/x/y/", "y"), ("C:\\m\\z.gguf", "z"), ("gpt2", "gpt2")])
def test_the_name_on_the_screen(name: str, short: str) -> None:
    assert checkpoint.short_name(name) == short


# ---- what is missing -----------------------------------------------------------------------------------------------------------


def without(monkeypatch: pytest.MonkeyPatch, *absent: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in absent else find(name, *a))


@pytest.mark.parametrize(
    ("method", "module", "said"),
    [
        ("bitsandbytes", "bitsandbytes", "openmav[bitsandbytes]"),
        ("torchao", "torchao", "openmav[torchao]"),
        ("gptq", "gptqmodel", "openmav[gptq]"),
        ("awq", "gptqmodel", "openmav[gptq]"),
        ("compressed-tensors", "compressed_tensors", "openmav[compressed-tensors]"),
        ("fp8", "accelerate", "openmav[big]"),
    ],
)
def test_a_missing_package_is_named_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, module: str, said: str
) -> None:
    folder = Path(shutil.copytree(DEMO, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": method, "bits": 4}}))
    without(monkeypatch, module)
    line = refusal(folder)
    assert f"quantised with {method}" in line
    assert module.replace("_", "-") in line
    assert said in line


def test_gguf_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    without(monkeypatch, "gguf")
    assert "is a GGUF file, which needs gguf: pip install 'openmav[gguf]'" in refusal(tmp_path / "a.gguf")


@needs("gguf", "accelerate")
def test_files_that_are_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(bytes(range(256)) * 9)
    assert "GGUF" in refusal(tmp_path / "a.gguf")


@needs("gguf", "accelerate")
@pytest.mark.real
def test_a_gguf_file_that_is_cut_off(tmp_path: Path) -> None:
    if not GGUF.exists():
        pytest.skip("the GGUF file is not there: run make real-model")
    with GGUF.open("rb") as file:
        (tmp_path / "a.gguf").write_bytes(file.read(3_000_000))
    assert "damaged or incomplete" in refusal(tmp_path / "a.gguf")


# ---- GGUF for real -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gguf(quick_gguf: None) -> TransformersBackend:
    """The real model as a GGUF file."""
    if not GGUF.exists():
        pytest.skip("the GGUF file is not there: run make real-model")
    return load(str(GGUF), LoadOptions())


@pytest.fixture(scope="module")
def unpacked_folder(tmp_path_factory: pytest.TempPathFactory, real_folder: Path) -> Path:
    """The GGUF file's weights as a folder of transformers."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("unpacked") / "model"
    shutil.copytree(real_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    save_file(gguf_files.unpacked(GGUF), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@needs("gguf", "accelerate")
@pytest.mark.real
@pytest.mark.slow
def test_a_gguf_file_equals_its_unpacked_weights(unpacked_folder: Path, gguf: TransformersBackend) -> None:
    measures = ("mlp_norm", "attention_norm", "residual_norm", "attention_entropy", "logit_lens", "attribution")
    settings = Settings(prompt="The capital of France is", measures=measures, max_new_tokens=12)
    packed, plain = (list(Session(backend, settings)) for backend in (gguf, load(str(unpacked_folder), LoadOptions())))
    assert [s.token_id for s in packed] == [s.token_id for s in plain]
    assert [s.text for s in packed] == [s.text for s in plain]
    for a, b in zip(packed, plain, strict=True):
        assert a.entropy == pytest.approx(b.entropy, rel=1e-5, abs=1e-5)
        for measure in ("mlp_norm", "attention_norm", "residual_norm", "attention_entropy"):
            assert a.values[measure] == pytest.approx(b.values[measure], rel=1e-4, abs=1e-5)
        assert a.values["logit_lens.token_ids"][:, 0].tolist() == b.values["logit_lens.token_ids"][:, 0].tolist()
        assert a.values["attribution"] == pytest.approx(b.values["attribution"], rel=1e-3, abs=1e-4)


@needs("gguf", "accelerate")
@pytest.mark.usefixtures("quick_gguf")
def test_a_comparison_with_a_quantised_file_gives_the_figures_of_its_unpacked_weights(tmp_path: Path) -> None:
    one = AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32, attn_implementation="eager")
    keys = {"rope.dimension_count": one.config.head_dim, "rope.freq_base": one.config.rope_parameters["rope_theta"]}
    keys |= {"attention.layer_norm_rms_epsilon": one.config.rms_norm_eps, "vocab_size": one.config.vocab_size}
    path = gguf_files.write(one, tmp_path / "demo.gguf", "llama", keys, matrices="Q4_1")
    other = AutoModelForCausalLM.from_config(one.config, dtype=torch.float32, attn_implementation="eager").eval()
    other.load_state_dict({"lm_head.weight": other.lm_head.weight, **gguf_files.unpacked(path)})
    settings = Settings(prompt="It was a", measures=MEASURES, max_new_tokens=4)
    a, b = (Session(load(str(name), LoadOptions(dtype="float32")), settings) for name in (DEMO, path))
    compared = list(Lockstep(a, b))
    prompt, fed = list(a.prompt.token_ids), [step.token_id for step in a.steps]
    assert prompt == list(b.prompt.token_ids)
    expected = [divergence(x, y) for x, y in zip(cached_logits(one, prompt, fed), cached_logits(other, prompt, fed), strict=True)]
    assert [row.kl for row in compared] == pytest.approx(expected, abs=1e-6)
    assert min(expected) > 1e-4


@needs("gguf", "accelerate")
@pytest.mark.real
@pytest.mark.slow
@pytest.mark.changes_model
def test_interventions_on_a_gguf_file(unpacked_folder: Path, gguf: TransformersBackend) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(unpacked_folder, attn_implementation="eager", dtype=torch.float32).eval()
    raw = Raw(model, PATHS["llama"], gguf.info.width // gguf.info.heads)
    specs = ["ablate L11.H7", "ablate L3.mlp", "amplify L20.attn=2", "ablate L8", "amplify L9.N3=9"]
    changes: Changes = [
        ("L11.H7", torch.zeros_like),
        ("L3.mlp", torch.zeros_like),
        ("L20.attn", lambda x: 2 * x),
        ("L8", torch.zeros_like),
        ("L9.N3", lambda x: 9 * x),
    ]
    check(raw, gguf, specs, lambda _: changes)


@needs("gguf", "accelerate")
@pytest.mark.real
@pytest.mark.slow
def test_a_gguf_file_says_what_it_is(gguf: TransformersBackend) -> None:
    assert gguf.info.name == "SmolLM2-135M-Instruct.Q4_1"
    assert (gguf.info.layers, gguf.info.heads, gguf.info.dtype) == (30, 9, "float32")
    assert "weights of a GGUF file, unpacked to full floats" in gguf.info.notes
    assert gguf.decode(gguf.encode("a  b\n<|im_end|>")) == "a  b\n<|im_end|>"


# ---- other checkpoints, where their package runs here -----------------------------------------------------------------------------


def _bits(bits: int) -> Any:
    from transformers import BitsAndBytesConfig

    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)


def _torchao() -> Any:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


def _checks(backend: TransformersBackend) -> None:
    """Parts add up, the lens is the logits, attribution sums: all as for plain weights."""
    from openmav.measures import attribution

    ids = backend.encode("It is a truth universally acknowledged, that")
    backend.prefill(ids[:-1], SITES)
    frame = backend.decode_one_token(ids[-1], SITES)
    bare = wrap(backend.model, None)
    bare.prefill(ids[:-1], frozenset())
    assert torch.equal(bare.decode_one_token(ids[-1], frozenset()).logits, frame.logits)
    assert frame.head is not None
    lens = frame.head.logits(torch.stack(list(frame.sites["residual.after"])))[-1]
    assert float((lens - frame.logits).abs().max()) <= 1e-4 * float(frame.logits.abs().max())
    for layer in range(backend.info.layers):
        change = frame.sites["residual.after"][layer] - frame.sites["residual.before"][layer]
        parts = frame.sites["attention.out"][layer] + frame.sites["mlp.out"][layer]
        assert float((parts - change).norm()) <= 1e-4 * float(change.norm())
    probs = frame.logits.softmax(-1)
    found = attribution.compute(frame, Context(frame.logits, probs, probs, probs.argsort(descending=True), int(probs.argmax())))
    assert abs(found["attribution.rest"][0]) <= 1e-4 * np.abs(found["attribution"]).sum()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(lambda: _bits(4), "bitsandbytes, 4 bits", marks=needs("bitsandbytes"), id="nf4"),
        pytest.param(lambda: _bits(8), "bitsandbytes, 8 bits", marks=needs("bitsandbytes"), id="int8"),
        pytest.param(_torchao, "torchao", marks=needs("torchao"), id="torchao"),
    ],
)
def test_a_quantised_checkpoint_loads_and_adds_up(tmp_path: Path, make: Callable[[], Any], said: str) -> None:
    from transformers import AutoModelForCausalLM

    shutil.copytree(DEMO, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32, quantization_config=make()).save_pretrained(tmp_path / "model")
    backend = load(str(tmp_path / "model"), LoadOptions())
    assert f"weights are quantised: {said}" in backend.info.notes
    _checks(backend)


@needs("optimum.quanto")
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_model_that_quanto_quantised_in_memory(kind: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, QuantoConfig

    model = AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32, quantization_config=QuantoConfig(weights=kind))
    _checks(wrap(model, AutoTokenizer.from_pretrained(DEMO)))


# ---- more than one device --------------------------------------------------------------------------------------------------------

SPREAD = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.layers.2": "cpu", "model.norm": "cpu"}


@needs("accelerate")
@pytest.mark.changes_model  # accelerate makes the parameters of what is on disk anew for each pass
@pytest.mark.parametrize("last", ["cpu", "disk"])
def test_capture_of_a_model_that_is_partly_on_disk_is_identical(tmp_path: Path, last: str) -> None:
    from transformers import AutoModelForCausalLM

    plain = build("llama")
    plain.save_pretrained(tmp_path / "model")
    places = {**SPREAD, "model.rotary_emb": "cpu", "model.layers.2": last, "lm_head": last}
    spread = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=str(tmp_path / "off"), attn_implementation="eager"
    )
    one, many = wrap(plain, None), wrap(spread, None)
    assert many.info.device == "cpu + disk"
    frames = []
    for backend in (one, many):
        backend.prefill(IDS[:-1], SITES)
        frames.append(backend.decode_one_token(IDS[-1], SITES))
    assert torch.equal(frames[0].logits, frames[1].logits)
    for site in SITES:
        for a, b in zip(frames[0].sites[site], frames[1].sites[site], strict=True):
            assert (a is None) == (b is None)
            assert a is None or torch.equal(a, b)
    lenses = [f.head.logits(torch.stack(list(f.sites["residual.after"]))) for f in frames if f.head is not None]
    assert torch.equal(lenses[0], lenses[1])
    assert ("head.direction" in many.missing) == (last == "disk")


@needs("accelerate")
@pytest.mark.changes_model  # so that nothing but mav could hold it
def test_a_model_that_does_not_fit_is_spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As accelerate sees a machine with too little memory."""
    import accelerate.utils.modeling as memory

    folder = Path(shutil.copytree(DEMO, tmp_path / "model"))
    monkeypatch.setattr(memory, "get_max_memory", lambda limit=None: {"cpu": 6_000_000, "disk": 1 << 40})
    monkeypatch.setattr(loader.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("transformers.integrations.accelerate.get_max_memory", lambda limit=None: {"cpu": 6_000_000, "disk": 1 << 40})
    before = load("demo", LoadOptions(device="cpu"))
    backend = load(str(folder), LoadOptions(device="auto", dtype="float32"))
    assert backend.info.device == "cpu + disk"
    ids = backend.encode("It is a truth")
    assert torch.equal(backend.prefill(ids, SITES).logits, before.prefill(ids, SITES).logits)
    assert list(tmp_path.glob("mav-offload-*"))
    backend.close()
    del backend
    gc.collect()
    assert not list(tmp_path.glob("mav-offload-*"))


def test_a_named_device_is_never_spread() -> None:
    assert placement.device_map("cpu", torch.device("cpu"), False, "x") == {}
    assert not hasattr(load("demo", LoadOptions(device="cpu")).model, "hf_device_map")


@needs("accelerate")
def test_quantised_weights_are_made_on_their_device() -> None:
    device = torch.device("cuda:0")
    assert placement.device_map("cuda:0", device, True, "x") == {"device_map": {"": device}}


def test_no_folder_for_offloading_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader.tempfile, "tempdir", str(tmp_path))
    load("demo", LoadOptions())
    assert list(tmp_path.iterdir()) == []
