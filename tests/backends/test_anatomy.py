"""The parts that `find` names really add up, for every family, and the model is left as it was."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backends.families import FAMILIES, build, tiny
from openmav.backends.transformers.discovery.anatomy import Anatomy, Part, find
from openmav.errors import LoadError

IDS = torch.randint(3, 128, (1, 19), generator=torch.Generator().manual_seed(7))


class Reference:
    """Own hooks: what came into each layer, what left it, and what every module inside made last."""

    def __init__(self, model: nn.Module, anatomy: Anatomy) -> None:
        self.came: list[Tensor] = []
        self.went: list[Tensor] = []
        self.made: list[dict[nn.Module, Tensor]] = []
        self.normed: list[Tensor] = []
        handles = []
        for layer in anatomy.layers:
            handles.append(layer.register_forward_pre_hook(self._enter, with_kwargs=True))
            handles += [m.register_forward_hook(self._inside) for m in layer.modules() if m is not layer]
            handles.append(layer.register_forward_hook(self._leave))
        if anatomy.final_norm is not None:
            handles.append(anatomy.final_norm.register_forward_pre_hook(lambda m, args: self.normed.append(args[0].clone())))
        with torch.no_grad():
            model(input_ids=IDS, use_cache=False)
        for handle in handles:
            handle.remove()

    def _enter(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        self.came.append((args[0] if args else kwargs["hidden_states"]).clone())
        self.made.append({})

    def _inside(self, module: nn.Module, args: tuple, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if isinstance(first, Tensor):
            self.made[-1][module] = first.clone()

    def _leave(self, module: nn.Module, args: tuple, output: Any) -> None:
        self.went.append((output[0] if isinstance(output, tuple) else output).clone())

    def part(self, layer: int, part: Part | None) -> Tensor:
        """[1, tokens, width]; zero for None."""
        total = torch.zeros_like(self.came[layer])
        for term in part or ():
            total += term.coefficient * (1 if term.module is None else self.made[layer][term.module].reshape(total.shape))
        return total


@pytest.mark.parametrize("name", FAMILIES)
def test_parts_add_up(name: str) -> None:
    model = tiny(name)
    anatomy = find(model)
    reference = Reference(model, anatomy)
    assert len(anatomy.layers) == model.config.num_hidden_layers
    for layer in range(len(anatomy.layers)):
        change = reference.went[layer] - reference.came[layer]
        parts = reference.part(layer, anatomy.attention[layer]) + reference.part(layer, anatomy.mlp[layer])
        assert (parts - change).norm() <= 1e-5 * change.norm()
        torch.testing.assert_close(reference.normed[0], reference.went[-1], rtol=0, atol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_kinds_and_what_is_missing(name: str) -> None:
    family, anatomy = FAMILIES[name], find(tiny(name))
    layers = range(len(anatomy.layers))
    assert anatomy.kinds == family.expected_kinds(len(layers))
    soft = [layer for layer in layers if "attention" in anatomy.kinds[layer].split()[-1:] and anatomy.kinds[layer] != "linear attention"]
    assert [layer for layer in layers if anatomy.attention_modules[layer] is not None] == soft
    assert sorted(anatomy.missing.get("attention.probs", {})) == [layer for layer in layers if layer not in soft]
    assert tuple(anatomy.missing.get("mlp.out", {})) == family.without_mlp
    assert all(anatomy.attention)
    assert [layer for layer in layers if anatomy.mlp[layer] is None] == list(family.without_mlp)
    assert "residual.after" not in anatomy.missing


@pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if any(k.endswith("attention") for k in f.expected_kinds(1))])
def test_attention_modules_own_the_rows(name: str) -> None:
    """In eager mode the module that is said to own the rows returns them, and they are softmax rows of every token."""
    anatomy, model = find(tiny(name)), tiny(name)
    rows: list[Any] = []
    owners = [m for m in anatomy.attention_modules if m is not None]
    handles = [
        m.register_forward_hook(lambda m, a, out: rows.append([t for t in out if isinstance(t, Tensor) and t.ndim == 4])) for m in owners
    ]
    with torch.no_grad():
        model(input_ids=IDS, use_cache=False, output_attentions=True)
    for handle in handles:
        handle.remove()
    assert len(rows) == len(owners)
    for found in rows:
        assert any(t.shape[-2:] == (IDS.shape[1],) * 2 and (t.sum(-1) <= 1 + 1e-5).all() for t in found)


@pytest.mark.parametrize("name", ["llama", "gemma2", "bloom", "mixtral", "granitemoehybrid"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_finds_the_same(name: str, dtype: torch.dtype) -> None:
    model = build(name)
    exact = _named(model, find(model))
    assert _named(model, find(model.to(dtype))) == exact


POST_NORMS = {  # what the layers add by transformers' own modeling files
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gemma3_text": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "exaone4": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "glm4": ("post_self_attn_layernorm", "post_mlp_layernorm"),
    "llama": ("self_attn", "mlp"),
    "granite": ("self_attn", "mlp"),
    "phi": ("self_attn", "mlp"),
    "opt": ("self_attn", "fc2"),
    "bloom": ("self_attention.dense", "mlp.dense_4h_to_h"),
    "falcon": ("self_attention", "mlp"),
    "mpt": ("attn", "ffn.down_proj"),
    "qwen3_moe": ("self_attn", "mlp"),
    "lfm2": ("conv", "feed_forward"),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", POST_NORMS)
def test_parts_are_the_modules_that_the_modeling_code_adds(name: str, dtype: torch.dtype) -> None:
    """Also where blocks add a few per cent of a large stream, which coarse float types hide among their rounding."""
    model = build(name)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(6)
    anatomy = find(model.to(dtype))
    for layer, attention, mlp in zip(anatomy.layers, anatomy.attention, anatomy.mlp, strict=True):
        for part, path in zip((attention, mlp), POST_NORMS[name], strict=True):
            wanted = "self_attn" if path == "conv" and hasattr(layer, "self_attn") else path
            assert part is not None
            assert [term.module for term in part] == [layer.get_submodule(wanted)]
            assert part[0].coefficient == (0.5 if name == "granite" else 1.0)


def test_out_of_memory_is_not_taken_for_something_else() -> None:
    model = build("llama")

    def full(*_args: Any, **_kwargs: Any) -> Tensor:
        raise torch.OutOfMemoryError("no room")

    model.model.layers[1].mlp.forward = full
    with pytest.raises(torch.OutOfMemoryError):
        find(model)


def _named(model: nn.Module, anatomy: Anatomy) -> list[Any]:
    """The parts by module path, so that two copies of a model can be compared."""
    paths = {id(m): path for path, m in model.named_modules()}
    return [[(paths[id(t.module)], t.coefficient) for t in part or ()] for part in (*anatomy.attention, *anatomy.mlp)]


def test_packed_int8_layers_are_found_like_plain_ones() -> None:
    """Linear layers that keep their weights in a packed form have no parameters to look at."""
    model = build("llama")
    exact = _named(model, find(model))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    anatomy = find(packed)
    assert not any(True for _ in packed.model.layers[0].self_attn.parameters())
    assert _named(packed, anatomy) == exact
    assert anatomy.kinds == ("attention",) * 3


def test_layers_that_are_offloaded_are_found_where_they_run(tmp_path: Path) -> None:
    """With accelerate's hooks the weights of offloaded layers are on no device until they are needed."""
    accelerate = pytest.importorskip("accelerate")
    model = build("llama")
    exact = _named(model, find(model))
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.layers.2": "disk"}
    places |= {"model.norm": "disk", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    spread = accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=str(tmp_path))
    assert spread.model.layers[1].mlp.up_proj.weight.device.type == "meta"
    anatomy = find(spread)
    assert _named(spread, anatomy) == exact
    assert anatomy.final_norm is spread.model.norm
    assert spread.model.layers[1].mlp.up_proj.weight.device.type == "meta"


@pytest.mark.parametrize("name", ["llama", "jamba", "gpt_neo"])
def test_model_is_left_as_it_was(name: str) -> None:
    model = build(name)
    model.train()
    model.get_submodule(next(n for n, m in model.named_modules() if isinstance(m, nn.Linear))).eval()
    before = {n: (m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()}
    settings, state = model.config.to_dict(), torch.get_rng_state()
    find(model)
    assert {n: (m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()} == before
    assert model.config.to_dict() == settings
    assert torch.equal(torch.get_rng_state(), state)


def test_hooks_are_gone_after_an_error() -> None:
    model = build("llama")
    model.model.layers[1].mlp.forward = lambda x: 1 / 0
    with pytest.raises(LoadError, match="division by zero"):
        find(model)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class Rescaling(nn.Module):
    """A layer that multiplies the whole residual stream."""

    def __init__(self, layer: nn.Module, scale: float) -> None:
        super().__init__()
        self.self_attn, self.mlp, self.scale = layer.self_attn, layer.mlp, scale

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        middle = hidden_states + self.self_attn(hidden_states, **kwargs)[0]
        return (middle + self.mlp(middle)) * self.scale


def test_a_rescaled_residual_stream_is_told_apart_from_what_is_added() -> None:
    model = build("llama")
    for layer, scale in enumerate((0.9, 1.0, 1.2)):
        model.model.layers[layer] = Rescaling(model.model.layers[layer], scale)
    anatomy = find(model)
    assert anatomy.carry == (0.9, 1.0, 1.2)
    reference = Reference(model, anatomy)
    for layer, scale in enumerate((0.9, 1.0, 1.2)):
        parts = reference.part(layer, anatomy.attention[layer]) + reference.part(layer, anatomy.mlp[layer])
        torch.testing.assert_close(parts + scale * reference.came[layer], reference.went[layer], rtol=1e-4, atol=1e-4)
    assert "multiply" in " ".join(anatomy.notes)


REAL = Path(__file__).resolve().parents[2] / "models" / "SmolLM2-135M-Instruct"


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="make real-model")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_real_model(dtype: torch.dtype) -> None:
    """Trained weights, with their few huge entries of the residual stream, in both float types: every part whole and times 1."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(REAL, dtype=dtype)
    anatomy = find(model)
    layers = model.model.layers
    assert [part and [(t.module, t.coefficient) for t in part] for part in anatomy.attention] == [[(x.self_attn, 1.0)] for x in layers]
    assert [part and [(t.module, t.coefficient) for t in part] for part in anatomy.mlp] == [[(x.mlp, 1.0)] for x in layers]
    assert anatomy.final_norm is model.model.norm
    assert anatomy.missing == {}
