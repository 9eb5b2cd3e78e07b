"""What can't be loaded says why and what to do, in one line."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub import errors as hub

from openmav.backends.base import LoadOptions
from openmav.backends.loading import checkpoint
from openmav.backends.transformers import load
from openmav.backends.transformers.loading import loader
from openmav.errors import LoadError, UsageError

DEMO = checkpoint.DEMO_FOLDER
PARTLY = "is only partly on this machine and the Hugging Face hub can't be reached; check the network"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the demo model that a test may spoil."""
    return Path(shutil.copytree(DEMO, tmp_path / "model"))


def refusal(name: object, **options) -> str:
    with pytest.raises(LoadError) as error:
        load(str(name), LoadOptions(**options))
    line = str(error.value)
    assert "\n" not in line
    return line


def test_a_folder_loads_and_reports_what_it_does(folder: Path) -> None:
    seen: list[str] = []
    backend = load(str(folder), LoadOptions(), lambda what, share: seen.append(what))
    assert (backend.info.layers, backend.info.heads, backend.info.kv_heads, backend.info.dtype) == (6, 8, 4, "float32")
    assert any("weights" in line for line in seen)


def test_dtype_is_obeyed(folder: Path) -> None:
    backend = load(str(folder), LoadOptions(dtype="bfloat16"))
    assert backend.info.dtype == "bfloat16"
    frame = backend.prefill(backend.encode("It is"), frozenset({"residual.after"}))
    assert frame.logits.dtype == torch.float32


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "config.json" in refusal(tmp_path)


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "safetensors" in refusal(folder)


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    assert "pickle" in refusal(folder)


def test_truncated_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1_000_000])
    assert "damaged or incomplete" in refusal(folder)


def test_missing_weights_are_never_made_up(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.2.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "lacks 1 weights (model.layers.2.mlp.up_proj.weight" in refusal(folder)


def test_no_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert "tokenizer" in refusal(folder)


def test_a_broken_configuration(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    assert "can't be loaded" in refusal(folder)


@pytest.mark.parametrize(("kind", "named"), [("t5", "T5ForConditionalGeneration"), ("bert", "BertForMaskedLM"), ("vit", "ViTModel")])
def test_not_a_causal_model(folder: Path, kind: str, named: str) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "architectures": [named]}))
    assert "not a causal language model" in refusal(folder)


def test_an_unknown_architecture(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "nothing_like_it", "architectures": ["NothingForCausalLM"]}))
    assert "nothing_like_it" in refusal(folder)


def test_a_path_that_is_not_there() -> None:
    assert "no folder" in refusal("/nowhere/at/all")
    assert "is a file" in refusal(Path(__file__))


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing listens where the hub should be; the folder of its copies on this machine, with one whole and one partial model."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(checkpoint, "getproxies", dict)
    for name, files in (("whole", ("config.json", "model.safetensors", "quants/x.gguf")), ("part", ("config.json",))):
        folder = tmp_path / f"models--owner--{name}"
        for file in files:
            path = folder / "snapshots" / "0123" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"{}")
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("0123")
    return tmp_path


def test_without_the_hub_its_copy_on_this_machine_is_used(no_hub: Path) -> None:
    copy = no_hub / "models--owner--whole" / "snapshots" / "0123"
    assert checkpoint.find("owner/whole") == checkpoint.Checkpoint(str(copy))
    assert checkpoint.find("owner/whole:quants/x.gguf") == checkpoint.Checkpoint(str(copy / "quants"), "x.gguf")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("owner/none", f"owner/none {checkpoint.NOT_HERE}"),
        ("owner/none:x.gguf", f"owner/none:x.gguf {checkpoint.NOT_HERE}"),
        ("owner/part", f"owner/part {PARTLY}"),
        ("owner/whole:y.gguf", f"owner/whole:y.gguf {PARTLY}"),
    ],
)
@pytest.mark.usefixtures("no_hub")
def test_without_the_hub_and_a_copy_one_line_says_so(name: str, line: str) -> None:
    with pytest.raises(LoadError) as error:
        checkpoint.find(name)
    assert str(error.value) == line


def test_a_hub_that_answers_and_a_proxy_are_left_to_the_libraries(no_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert checkpoint.find("owner/none") == checkpoint.Checkpoint("owner/none")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(checkpoint, "getproxies", lambda: {"http": "http://proxy"})
    assert checkpoint.find("owner/none") == checkpoint.Checkpoint("owner/none")


def test_the_hub_can_not_be_reached() -> None:
    line = refusal("gpt2")
    assert "gpt2" in line
    assert "can't be reached" in line


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps", "tpu", "cpu:x:y"])
def test_devices_that_are_not_there(device: str) -> None:
    if (device.startswith("cuda") and torch.cuda.is_available()) or (device == "mps" and torch.backends.mps.is_available()):
        pytest.skip("this machine has one")
    assert device.split(":")[0].upper() in refusal("demo", device=device).upper()


def test_an_unknown_dtype() -> None:
    assert "float32" in refusal("demo", dtype="int3")


class _Answer:
    """As much of an HTTP answer as the hub's errors look at."""

    headers: ClassVar[dict] = {}
    status_code = 403
    request = None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (hub.GatedRepoError("gated", response=_Answer()), "hf auth login"),
        (hub.RepositoryNotFoundError("404", response=_Answer()), "knows no model"),
        (hub.LocalEntryNotFoundError("offline"), "can't be reached"),
        (ConnectionError("no route"), "can't be reached"),
        (MemoryError(), "memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"), "memory"),
        (ImportError("needs `tiktoken`"), "not installed"),
        (ValueError("set trust_remote_code=True to run"), "--trust-remote-code"),
    ],
)
def test_each_kind_of_failure_has_its_line(error: Exception, said: str) -> None:
    wrapped = OSError("it did not work")
    wrapped.__cause__ = error
    for shown in (error, wrapped):
        line = loader._explain("some/model", shown)
        assert "some/model" in line
        if said != "not installed" or shown is error:
            assert said in line


def spoiled(folder: Path, change: object) -> None:
    """Rewrite the weights of a folder."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def unused(folder: Path) -> list[str]:
    return [note for note in load(str(folder), LoadOptions()).info.notes if "not used" in note]


def test_weights_that_the_model_does_not_take_are_named(folder: Path) -> None:
    assert unused(folder) == []
    spoiled(folder, lambda weights: weights.update({"model.layers.1.mlp.gate.weight": torch.ones(3), "extra.bias": torch.ones(2)}))
    assert unused(folder) == ["2 tensors of the files are not used: extra.bias, model.layers.*.mlp.gate.weight"]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 5}))
    assert "model.layers.5.*" in unused(folder)[0]


def test_old_buffers_and_tied_heads_are_no_unused_weights(folder: Path) -> None:
    spoiled(folder, lambda weights: weights.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(16)}))
    assert unused(folder) == []


def test_a_saved_peft_state_says_how_to_save_it(folder: Path) -> None:
    def wrapped(weights: dict[str, torch.Tensor]) -> None:
        name = "model.layers.0.self_attn.q_proj"
        weights[f"{name}.base_layer.weight"] = weights.pop(f"{name}.weight")
        weights[f"{name}.lora_A.default.weight"] = torch.ones(2, 256)

    spoiled(folder, wrapped)
    assert "merge_and_unload" in refusal(folder)


def test_weights_in_several_files(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="5MB")
    ids = [3, 14, 15, 92]
    own = model(torch.tensor([ids])).logits[0, -1].detach()
    assert load(str(folder), LoadOptions()).prefill(ids, frozenset()).logits == pytest.approx(own, abs=1e-4)
    first = sorted(folder.glob("model-*.safetensors"))[0]
    first.rename(folder / "away")
    assert f"({first.name})" in refusal(folder)
    (folder / "away").rename(first)
    (folder / "model.safetensors.index.json").unlink()
    assert "model.safetensors.index.json" in refusal(folder)


def test_weights_in_formats_of_others(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    assert "Mistral's own format" in refusal(folder)
    (folder / "consolidated.safetensors").rename(folder / "weights.safetensors")
    assert "only weights.safetensors" in refusal(folder)


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_both_names_of_the_float_type_are_read(folder: Path, key: str) -> None:
    from openmav.backends.transformers.loading import placement

    config = {k: v for k, v in json.loads((folder / "config.json").read_text()).items() if k not in ("dtype", "torch_dtype")}
    (folder / "config.json").write_text(json.dumps({**config, key: "bfloat16"}))
    from transformers import AutoConfig

    assert placement.pick_dtype("auto", torch.device("meta"), AutoConfig.from_pretrained(folder)) == torch.bfloat16


def test_a_token_that_was_added_and_the_model_lacks_is_named(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<call>"])
    tokenizer.save_pretrained(folder)
    backend = load(str(folder), LoadOptions())
    assert max(backend.encode("It is a truth")) < backend.info.vocab
    with pytest.raises(UsageError, match=r"'<call>' the id 2048, and this model has tokens 0 to 2047"):
        backend.encode("It is <call> a truth")
