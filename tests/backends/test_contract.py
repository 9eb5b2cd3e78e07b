"""What every backend promises; a new one in the folder is tested as soon as it names a model to be tried on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openmav.backends.base import Backend, LoadOptions
from openmav.generation.detokenize import TokenStrings
from openmav.plugins import registry

MODELS = {"transformers": "demo", "toy": "toy?endless=1", "llamacpp": "demo"}
THREADS = {"llamacpp": 1}  # whose threads wait for each other without sleeping: on a busy machine two are slower than one
SITES = frozenset({"residual.after", "attention.out", "mlp.out", "attention.probs", "attention.scores"})


def test_every_backend_is_in_this_suite() -> None:
    assert set(registry.names("backends")) == set(MODELS)


@pytest.fixture(scope="module", params=sorted(MODELS))
def backend(request):
    if request.param == "llamacpp":
        pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: the backend llamacpp was not tested")
    loaded = registry.load("backends", request.param).load(MODELS[request.param], LoadOptions(threads=THREADS.get(request.param)), None)
    yield loaded
    loaded.close()


def prompt(backend: Backend) -> list[int]:
    return backend.encode("It is a truth universally acknowledged")


def test_it_describes_itself(backend: Backend) -> None:
    info = backend.info
    assert min(info.layers, info.heads, info.vocab, info.width) > 0
    assert backend.end_ids
    assert all(0 <= i < info.vocab for i in backend.end_ids)


def test_a_part_of_a_character_is_named_by_its_bytes(backend: Backend) -> None:
    strings = TokenStrings.of(backend, backend.encode("a"))
    parts = backend.encode("\U0001f995")  # a character that no vocabulary here holds whole
    assert "".join(strings[i] for i in parts) == "".join(f"<0x{byte:02X}>" for byte in "\U0001f995".encode())


def test_text_goes_there_and_back(backend: Backend) -> None:
    text = "It is a truth, [bold] and\n\nso on"
    assert backend.decode(backend.encode(text)) == text


def test_frames_have_the_promised_shapes(backend: Backend) -> None:
    ids = prompt(backend)
    frame = backend.prefill(ids, SITES)
    assert frame.logits.shape == (backend.info.vocab,)
    assert frame.logits.dtype == torch.float32
    assert frame.logits.device.type == "cpu"
    assert backend.length == len(ids)
    for site in ("residual.after", "attention.out", "mlp.out"):
        assert [tuple(row.shape) for row in frame.sites[site]] == [(backend.info.width,)] * backend.info.layers
    frame = backend.decode_one_token(ids[0], SITES)
    for site in ("attention.probs", "attention.scores"):
        assert [tuple(row.shape) for row in frame.sites[site]] == [(backend.info.heads, len(ids) + 1)] * backend.info.layers
        assert all(row.dtype == torch.float32 for row in frame.sites[site])


def test_rows_are_distributions(backend: Backend) -> None:
    rows = torch.stack(list(backend.prefill(prompt(backend), SITES).sites["attention.probs"]))
    assert (rows >= 0).all()
    assert torch.allclose(rows.sum(-1), torch.ones(()), atol=1e-5)


def test_what_the_blocks_add_is_what_the_residual_gains(backend: Backend) -> None:
    sites = backend.prefill(prompt(backend), SITES).sites
    residual = torch.stack(list(sites["residual.after"]))
    added = torch.stack(list(sites["attention.out"])) + torch.stack(list(sites["mlp.out"]))
    assert torch.allclose(residual[1:] - residual[:-1], added[1:], atol=1e-4 * float(residual.abs().max()))


def test_an_unwanted_site_is_not_there_and_changes_nothing(backend: Backend) -> None:
    bare = backend.prefill(prompt(backend), frozenset())
    full = backend.prefill(prompt(backend), SITES)
    assert not bare.sites
    assert torch.equal(bare.logits, full.logits)


def test_rewinding_is_exact(backend: Backend) -> None:
    ids = prompt(backend)
    backend.prefill(ids, SITES)
    frames = [backend.decode_one_token(i, SITES) for i in ids[:6]]
    backend.rewind(len(ids) + 2)
    assert backend.length == len(ids) + 2
    again = [backend.decode_one_token(i, SITES) for i in ids[2:6]]
    for a, b in zip(frames[2:], again, strict=True):
        assert torch.equal(a.logits, b.logits)
        for site in SITES:
            assert all(np.array_equal(x, y) for x, y in zip(a.sites[site], b.sites[site], strict=True))


def test_a_new_prompt_starts_from_nothing(backend: Backend) -> None:
    first = backend.prefill(prompt(backend), frozenset()).logits
    backend.decode_one_token(1, frozenset())
    assert torch.equal(backend.prefill(prompt(backend), frozenset()).logits, first)
