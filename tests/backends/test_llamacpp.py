"""llama.cpp's numbers against transformers' on the same weights in fp32, and its cache against a fresh run, bit for bit."""

from __future__ import annotations

import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: the backend llamacpp was not tested")
pytest.importorskip("gguf", reason="gguf is not installed: no file for the backend llamacpp could be written")

from backends.gguf_files import VOCABULARY, write
from openmav.backends import llamacpp
from openmav.backends.base import Frame, LoadOptions
from openmav.backends.llamacpp import anatomy, demo_file, native, passes
from openmav.backends.llamacpp.backend import LlamaCppBackend
from openmav.backends.llamacpp.tap import Tap
from openmav.backends.sites import HEAD_SITES, SITES
from openmav.backends.transformers.backend import TransformersBackend, wrap
from openmav.errors import EngineError, LoadError, UsageError
from openmav.settings.interventions import parse
from openmav.system.signals import Interrupted, forget, watch_signals

FLOAT32 = LoadOptions(dtype="float32", threads=1)
IDS = [(7 * i * i + 3 * i + 11) % VOCABULARY for i in range(700)]
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
MORE = {"num_key_value_heads": 2, "max_position_embeddings": 1024, "initializer_range": 0.3, "tie_word_embeddings": False}
TOKENS = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": None}
PLAIN = {"rope_theta": 10000.0, "rope_type": "default"}
USUAL = {"rope.freq_base": 10000.0, "attention.layer_norm_rms_epsilon": 1e-6, "vocab_size": VOCABULARY}
WIDE = {"attention.key_length": 16, "attention.value_length": 16}
WINDOW = {"attention.sliding_window": 32, "attention.sliding_window_pattern": [True, False, True], "attention.scale": 0.25}
KINDS = {  # of transformers: its settings, llama.cpp's name and keys
    "llama": ({"rms_norm_eps": 1e-6, "head_dim": 16}, "llama", {**USUAL, "rope.dimension_count": 16}),
    "qwen3": ({"rms_norm_eps": 1e-6, "head_dim": 16}, "qwen3", {**USUAL, **WIDE}),
    "starcoder2": (
        {"norm_epsilon": 1e-3, "sliding_window": None, "use_bias": True},
        "starcoder2",
        {"rope.freq_base": 10000.0, "attention.layer_norm_epsilon": 1e-3, "vocab_size": VOCABULARY},
    ),
    "gemma3_text": (
        {
            "rms_norm_eps": 1e-6,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 32,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "tie_word_embeddings": True,
        },
        "gemma3",
        {**USUAL, **WIDE, **WINDOW, "rope.freq_base_swa": 10000.0},
    ),
}
CLOSE = {"llama": 1.0, "qwen3": 1.0, "starcoder2": 200.0, "gemma3_text": 200.0}  # times the limits: llama.cpp has GELU from a table in fp16
SPECS = (
    *("ablate L1.H2", "ablate L2.H0=mean", "ablate L1.attn", "ablate L2.mlp=mean", "ablate L1", "amplify L0.mlp=2", "ablate L1.N7"),
    *("amplify L2=0.5", "ablate L0.attn@3", "patch L1.resid@2=It is a truth", "amplify L1.H1@-1=3"),
)


def built(kind: str) -> Any:
    """A tiny random model whose attention is far from even, so that positions count."""
    own = KINDS[kind][0]
    rope: Any = {"full_attention": PLAIN, "sliding_attention": PLAIN} if kind == "gemma3_text" else PLAIN
    config = AutoConfig.for_model(kind, **{**SIZES, **MORE, **TOKENS, **own}, rope_parameters=rope)
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


@pytest.fixture(scope="module", params=sorted(KINDS))
def pair(request, tmp_path_factory):
    """The same weights, run by both."""
    model = built(request.param)
    path = write(model, tmp_path_factory.mktemp("gguf") / "a.gguf", *KINDS[request.param][1:])
    ours, reference = llamacpp.load(str(path), FLOAT32), wrap(model, None)
    yield ours, reference, CLOSE[request.param]
    ours.close()


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    path = write(built("llama"), tmp_path_factory.mktemp("gguf") / "a.gguf", *KINDS["llama"][1:])
    loaded = llamacpp.load(str(path), FLOAT32)
    yield loaded
    loaded.close()


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def compare(a: Frame, b: Frame, layers: int, close: float) -> None:
    """All sites of two frames."""
    assert relative(a.logits, b.logits) < 1e-5 * close
    for site in ("residual.before", "residual.after", "attention.out", "mlp.out", "mlp.hidden"):
        for layer in range(layers):
            assert relative(a.sites[site][layer], b.sites[site][layer]) < 1e-4 * close, (site, layer)
    for layer in range(layers):
        rows, expected = a.sites["attention.probs"][layer], b.sites["attention.probs"][layer]
        seen = expected.shape[-1]  # transformers has a window's keys only
        assert torch.allclose(rows[:, -seen:], expected, atol=1e-5 * close)
        assert not rows[:, :-seen].any()
        assert torch.allclose(a.sites["attention.scores"][layer].softmax(-1), rows, atol=1e-6)


def test_all_sites_are_those_of_transformers(pair: tuple[LlamaCppBackend, TransformersBackend, float]) -> None:
    ours, reference, close = pair
    assert {site for site, layers in ours.missing.items() if layers} - {"head.neurons"} == {"router.experts", "router.weights"}
    compare(ours.prefill(IDS[:50], SITES), reference.prefill(IDS[:50], SITES), ours.info.layers, close)
    for token in IDS[50:60]:
        a, b = ours.decode_one_token(token, SITES), reference.decode_one_token(token, SITES)
    compare(a, b, ours.info.layers, close)


def test_the_head_is_that_of_transformers(pair: tuple[LlamaCppBackend, TransformersBackend, float]) -> None:
    ours, reference, close = pair
    a, b = ours.prefill(IDS[:20], SITES), reference.prefill(IDS[:20], SITES)
    states = torch.stack([row for row in b.sites["residual.after"] if row is not None])
    assert relative(a.head.logits(states), b.head.logits(states)) < 1e-5
    ids = b.logits.topk(5).indices.tolist()
    lines, expected = a.head.directions(a.last_residual, ids, a.logits), b.head.directions(b.last_residual, ids, b.logits)
    assert relative(lines.vectors, expected.vectors) < 1e-5 * close
    assert torch.allclose(lines.logits, a.logits[ids])
    for layer in range(ours.info.layers):
        theirs = b.head.neuron_tokens(layer, [3, 50], b.sites["mlp.hidden"][layer], b.last_residual, 4)
        mine = a.head.neuron_tokens(layer, [3, 50], a.sites["mlp.hidden"][layer], a.last_residual, 4)
        assert (mine is None) == (theirs is None) == ("head.neurons" in ours.missing)
        if mine is not None and theirs is not None:
            assert close > 1 or torch.equal(mine[0], theirs[0])
            assert torch.allclose(mine[1], theirs[1], rtol=1e-3 * close)


def test_interventions_are_those_of_transformers(pair: tuple[LlamaCppBackend, TransformersBackend, float], tmp_path: Path) -> None:
    ours, reference, close = pair
    np.save(tmp_path / "v.npy", np.linspace(-1, 1, 64, dtype=np.float32))
    reference.encode = ours.encode  # type: ignore[method-assign]
    plain = reference.prefill(IDS[:15], SITES).logits
    for spec in SPECS[:5] if close > 1 else (*SPECS, f"steer L1@1-8={tmp_path / 'v.npy'}*3"):
        intervene(ours, reference, spec, plain, 3e-5 * close)


def intervene(ours: LlamaCppBackend, reference: TransformersBackend, spec: str, plain: torch.Tensor, limit: float) -> None:
    """Both apply it to a prompt and to tokens after it."""
    one = parse(spec)
    a, b = ours.intervened([one], IDS[:12]), reference.intervened([one], IDS[:12])
    frames = [(a.prefill(IDS[:12], SITES), b.prefill(IDS[:12], SITES))]
    frames += [(a.decode_one_token(token, SITES), b.decode_one_token(token, SITES)) for token in IDS[12:15]]
    for mine, theirs in frames:
        assert relative(mine.logits, theirs.logits) < limit, spec
    assert relative(frames[-1][0].logits, plain) > 3 * limit, spec
    assert relative(next(iter(ours.variants([one], IDS[:12]))), frames[0][1].logits) < limit, spec
    a.close()


def test_the_cache_is_that_of_a_fresh_run(ours: LlamaCppBackend) -> None:
    """Across the lengths at which llama.cpp makes another graph, and where the cache grows; taken back, and branched."""
    start, want = 230, SITES
    frames = [ours.prefill(IDS[:start], want), *(ours.decode_one_token(i, want) for i in IDS[start:600])]
    ours.rewind(390)
    again = [ours.decode_one_token(i, want) for i in IDS[390:600]]
    with ours.aside():
        ours.rewind(300)
        branch = ours.decode_one_token(5, want)
        ours.prefill(IDS[:40], want)
    after = ours.decode_one_token(IDS[600], want)
    ours.prefill(IDS[:start], frozenset())
    fresh = [ours.decode_one_token(i, frozenset()) for i in IDS[start:601]]
    assert all(torch.equal(a.logits, b.logits) for a, b in zip([*frames[1:], after], fresh, strict=True))
    for a, b in zip(again, frames[161:], strict=True):
        assert torch.equal(a.logits, b.logits)
        for site in want - ours.missing.keys():
            assert all(x is y or torch.equal(x, y) for x, y in zip(a.sites[site], b.sites[site], strict=True)), site
    ours.rewind(300)
    assert torch.equal(ours.decode_one_token(5, want).logits, branch.logits)


def test_passes_that_need_no_stop_read_what_stops_read(ours: LlamaCppBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Across graphs and where the cache grows; taken back, beside the text, and with other sites in between."""
    want, other = SITES - {"attention.scores"}, frozenset({"residual.after"})
    stops: list[int] = []
    at = Tap._at
    monkeypatch.setattr(Tap, "_at", lambda self, address: stops.append(address) or at(self, address))  # type: ignore[func-returns-value]

    def made() -> list[Frame]:
        frames = [ours.prefill(IDS[:230], want), *(ours.decode_one_token(i, want) for i in IDS[230:300])]
        frames += [ours.decode_one_token(i, other) for i in IDS[300:305]]
        ours.rewind(250)
        with ours.aside():
            ours.rewind(100)
            frames += [ours.decode_one_token(i, want) for i in IDS[:10]]
        return frames + [ours.decode_one_token(i, want) for i in IDS[250:540]]

    moved, few = made(), len(stops)
    monkeypatch.setattr(passes, "can_move", lambda _graph, _plan: False)
    ours.prefill(IDS[:9], other)
    stops.clear()
    for one, two in zip(moved, made(), strict=True):
        assert torch.equal(one.logits, two.logits)
        for site in two.sites:
            assert all(x is y or torch.equal(x, y) for x, y in zip(one.sites[site], two.sites[site], strict=True)), site
    assert few < len(stops) / 4


def test_a_pass_that_stops_nowhere_is_not_asked_about_at_its_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(built("llama"), tmp_path / "a.gguf", *KINDS["llama"][1:])
    asked: list[int] = []
    want = SITES - {"attention.scores"}  # whose mask is copied

    class Asked:
        def __contains__(self, address: object) -> bool:
            asked.append(address)  # type: ignore[arg-type]
            return False

    monkeypatch.setattr(Tap, "end", lambda self: self._watched.__setitem__(0, Asked()))

    def last() -> tuple[Frame, int]:
        """The fourth token's frame, and the nodes asked about for it."""
        backend = llamacpp.load(str(path), FLOAT32)
        backend.prefill(IDS[:9], want)
        for token in IDS[9:12]:
            backend.decode_one_token(token, want)
        asked.clear()
        frame = backend.decode_one_token(IDS[12], want)
        return frame, len(asked)

    silent, few = last()
    monkeypatch.setattr(native.Native, "scheduler", lambda _self, _context: None)
    frame, many = last()
    assert many > 50
    assert few in (0, many), "all of it or nothing"
    assert few == 0 or sys.platform == "win32"
    assert torch.equal(silent.logits, frame.logits)
    for site in frame.sites:
        assert all(x is y or torch.equal(x, y) for x, y in zip(silent.sites[site], frame.sites[site], strict=True)), site


def test_an_error_in_the_callback_costs_a_pass_and_no_number(ours: LlamaCppBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ours.prefill(IDS[:9], SITES)
    calls, at = [], Tap._at
    monkeypatch.setattr(Tap, "_at", lambda self, address: 1 / 0 if not calls and not calls.append(1) else at(self, address))
    ours.rewind(8)
    frame = ours.decode_one_token(IDS[8], SITES)
    assert calls
    assert torch.equal(frame.logits, expected.logits)
    assert torch.equal(frame.sites["mlp.out"][2], expected.sites["mlp.out"][2])
    monkeypatch.setattr(Tap, "_at", lambda self, address: 1 / 0)
    ours.rewind(8)
    with pytest.raises(EngineError, match="can't be followed"):
        ours.decode_one_token(IDS[8], SITES)


def test_another_layout_of_tensors_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    library = native.load()

    monkeypatch.setattr(native, "Tensor", type("Other", (native.ctypes.Structure,), {"_fields_": native.Tensor._fields_[::-1]}))
    with pytest.raises(native.LayoutError, match="another layout: ne, nb"):
        native.check_layout(library)


def test_what_is_no_model_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(LoadError) as raised:
        llamacpp.load(str(path), LoadOptions())
    assert "\n" not in str(raised.value)
    with pytest.raises(UsageError, match="float16 or float32, not int8"):
        llamacpp.backend.context.cache_type("int8")


def test_a_stream_that_is_not_followed_leaves_the_text_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(built("llama"), tmp_path / "a.gguf", *KINDS["llama"][1:])
    expected = llamacpp.load(str(path), FLOAT32).prefill(IDS[:5], frozenset()).logits

    def not_followed(_graph: object, _layers: int) -> None:
        raise anatomy.NotFollowedError("it splits")

    monkeypatch.setattr(anatomy, "find", not_followed)
    backend = llamacpp.load(str(path), FLOAT32)
    frame = backend.prefill(IDS[:5], SITES)
    assert torch.equal(frame.logits, expected)
    assert all(row is None for rows in frame.sites.values() for row in rows)
    assert frame.head is None
    assert all(set(backend.missing[site].values()) == {f"{anatomy.NO_STREAM}: it splits"} for site in SITES | HEAD_SITES)


@pytest.mark.parametrize("handled_by", ["Python", "mav"])
def test_a_signal_amid_a_pass_waits_for_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handled_by: str) -> None:
    demo_file.write(tmp_path / "demo.gguf")
    monkeypatch.setattr(passes, "can_move", lambda _graph, _plan: False)  # each pass stops
    backend = llamacpp.load(str(tmp_path / "demo.gguf"), FLOAT32)
    want, ids = frozenset({"residual.after"}), backend.encode("It is a truth universally acknowledged")
    backend.prefill(ids, want)
    expected = backend.decode_one_token(ids[0], want).logits
    backend.rewind(len(ids))
    at, sent = Tap._at, []

    def interrupted(self: Tap, address: int) -> None:
        if not sent:
            sent.append(address)
            signal.raise_signal(signal.SIGINT)
        at(self, address)

    monkeypatch.setattr(Tap, "_at", interrupted)
    kind, watched = (KeyboardInterrupt, nullcontext()) if handled_by == "Python" else (Interrupted, watch_signals())
    with watched:
        with pytest.raises(kind):
            backend.decode_one_token(ids[0], want)
        forget()
    assert sent
    assert backend.length == len(ids) + 1
    backend.rewind(len(ids))
    assert torch.equal(backend.decode_one_token(ids[0], want).logits, expected)
    backend.close()


def test_rotary_factors_never_change_amid_a_text(tmp_path: Path) -> None:
    """llama.cpp takes the long ones where the whole context is longer than the original length, and a context grows with its text."""
    _, architecture, keys = KINDS["llama"]
    factors = {f"rope_factors_{which}.weight": np.full(8, value, dtype=np.float32) for which, value in (("long", 40.0), ("short", 1.0))}
    scaling = {"rope.scaling.type": "longrope", "rope.scaling.factor": 1.0, "rope.scaling.original_context_length": 600}
    path = write(built("llama"), tmp_path / "long.gguf", architecture, {**keys, **scaling}, factors)
    backend = llamacpp.load(str(path), FLOAT32)
    plain = llamacpp.load(str(write(built("llama"), tmp_path / "plain.gguf", architecture, keys)), FLOAT32)
    assert backend.info.context == 512
    assert [note for note in backend.info.notes if "other rotary factors beyond 600 tokens" in note]
    backend.prefill(IDS[:500], frozenset())
    plain.prefill(IDS[:500], frozenset())
    for token in IDS[500:512]:
        short, same = (one.decode_one_token(token, frozenset()).logits for one in (backend, plain))
    assert torch.allclose(short, same, atol=1e-5 * float(same.abs().max()))
    for one in (backend, plain):
        one.close()
