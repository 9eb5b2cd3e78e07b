"""A text of a whole context on llama.cpp: 5,120 tokens, across every length at which it makes another graph or the cache grows."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: the backend llamacpp was not tested")
pytest.importorskip("gguf", reason="gguf is not installed: no file for the backend llamacpp could be written")

from backends.gguf_files import write
from backends.test_llamacpp import FLOAT32, IDS, KINDS, built
from openmav.backends import llamacpp
from openmav.backends.llamacpp.backend import LlamaCppBackend
from openmav.backends.sites import SITES
from openmav.generation.session import Session
from openmav.settings import Settings
from openmav.system.memory import resident_bytes

CONTEXT, BACK, EVERY = 5120, 200, 512  # tokens: of the context, taken back, between two looks at the memory
GROWS = 16 << 20  # bytes; the cache of 4,000 tokens has 6 million, and a frame kept by mistake 60,000 each
TEXT = [IDS[(at * 31) % len(IDS)] for at in range(CONTEXT)]


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCppBackend]:
    _, architecture, keys = KINDS["llama"]
    path = write(built("llama"), tmp_path_factory.mktemp("gguf") / "a.gguf", architecture, {**keys, "context_length": CONTEXT})
    loaded = llamacpp.load(str(path), FLOAT32)
    yield loaded
    loaded.close()


def decoded(backend: LlamaCppBackend, ids: list[int], want: frozenset[str]) -> list[int]:
    """A sum of the logits' bits for each token."""
    return [hash(backend.decode_one_token(token, want).logits.numpy().tobytes()) for token in ids]


@pytest.mark.slow
def test_a_whole_context_is_that_of_a_fresh_run_and_memory_is_flat(backend: LlamaCppBackend) -> None:
    backend.prefill(TEXT[:1], SITES)
    logits, memory = [], []
    for at in range(1, CONTEXT, EVERY):
        logits += decoded(backend, TEXT[at : at + EVERY], SITES)
        gc.collect()
        memory.append(resident_bytes() or 0)
    backend.rewind(CONTEXT - BACK)
    assert decoded(backend, TEXT[CONTEXT - BACK :], SITES) == logits[-BACK:]
    with backend.aside():
        backend.rewind(3000)
        branch = decoded(backend, TEXT[:BACK], SITES)
    backend.rewind(CONTEXT - 1)
    assert decoded(backend, TEXT[-1:], SITES) == logits[-1:]
    backend.prefill(TEXT[:1], frozenset())
    fresh = decoded(backend, TEXT[1:3000], frozenset())
    assert fresh == logits[:2999]
    assert decoded(backend, TEXT[:BACK], frozenset()) == branch
    backend.rewind(3000)
    assert decoded(backend, TEXT[3000:], frozenset()) == logits[2999:]
    assert memory[-1] - memory[1] < GROWS, [size >> 20 for size in memory]


def test_going_back_and_work_beside_the_text_keep_what_is_beyond_a_window(tmp_path: Path) -> None:
    """Where a cache grows, and after work beside the text; rows are over the window's tokens, each at its place."""
    backend = llamacpp.load(str(write(built("gemma3_text"), tmp_path / "a.gguf", *KINDS["gemma3_text"][1:])), FLOAT32)
    window, windowed = 32, (0, 2)
    backend.prefill(TEXT[:440], SITES)
    expected = decoded(backend, TEXT[440:530], SITES)  # the cache grows at 512
    with backend.aside():
        backend.prefill(TEXT[:20], SITES)
    backend.rewind(440)
    frame = backend.decode_one_token(TEXT[440], SITES)
    for layer in windowed:
        row = frame.sites["attention.probs"][layer]
        assert row is not None
        assert not row[:, :-window].any()
        assert (row[:, -window:] > 0).all()
    backend.rewind(440)
    assert decoded(backend, TEXT[440:530], SITES) == expected
    backend.close()


def test_a_full_context_ends_the_text(backend: LlamaCppBackend) -> None:
    prompt = backend.decode(TEXT[: CONTEXT - 800])
    length = len(backend.encode(prompt))
    assert CONTEXT - 400 < length < CONTEXT
    backend.end_ids = frozenset()
    session = Session(backend, Settings(model="a.gguf", prompt=prompt, max_new_tokens=CONTEXT))
    while session.reason is None:
        session.burst()
    assert session.reason == "length"
    assert length + len(session.steps) == CONTEXT
