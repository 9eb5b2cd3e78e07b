"""Which tokens a prediction of llama.cpp depends on: by occlusion, as transformers finds it."""

from __future__ import annotations

import numpy as np
import pytest

from openmav.errors import NoGradientError
from openmav.generation.opening import open_session
from openmav.settings import Settings

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: make llamacpp")
PROMPT = "It is a truth universally acknowledged, that"


def test_occlusion_is_that_of_transformers_and_leaves_the_text_alone() -> None:
    found = {}
    for backend in ("llamacpp", "transformers"):
        with open_session(Settings(prompt=PROMPT, backend=backend, measures=(), threads=1)) as session:
            texts = iter(session)
            first = [next(texts).token_id for _ in range(3)]
            whole = session.explain("occlusion", 2)
            apart = session.explain("occlusion", 2, minus=first[0])
            assert whole.drift < 1e-5
            found[backend] = first, whole, apart, [next(texts).token_id for _ in range(5)]
    own, other = found.values()
    assert own[0] == other[0]
    assert own[3] == other[3]
    for a, b in zip(own[1:3], other[1:3], strict=True):
        assert (a.reference, a.token_ids, a.passes) == (b.reference, b.token_ids, b.passes)
        assert np.abs(b.scores).max() > 0.1
        assert np.abs(a.scores - b.scores).max() < 1e-5 * np.abs(b.scores).max() + 1e-5


@pytest.mark.parametrize("method", ["gradient", "integrated"])
def test_gradients_are_refused_in_words(method: str) -> None:
    with open_session(Settings(prompt=PROMPT, backend="llamacpp", measures=(), threads=1)) as session:
        next(iter(session))
        with pytest.raises(NoGradientError, match=r"^llama\.cpp computes no gradients; occlusion needs none$"):
            session.explain(method, 0)
