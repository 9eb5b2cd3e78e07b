"""Sessions on one tiny model with a generation config, for the tests of what is followed of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from transformers import GenerationConfig, PreTrainedModel

from backends.generation_configs import PROMPT, Make, unchecked
from openmav.backends.transformers import wrap
from openmav.generation.session import Session
from openmav.settings import Settings


@pytest.fixture
def with_config(tiny_llama: PreTrainedModel, id_tokenizer: Any) -> Iterator[Make]:
    """Sessions on one model with a generation config; the model has its own again at the end."""
    before, made = tiny_llama.generation_config, []

    def build(config: dict[str, Any] | GenerationConfig, **changes: Any) -> Session:
        tiny_llama.generation_config = config if isinstance(config, GenerationConfig) else unchecked(config)
        settings = Settings(**{"prompt": PROMPT, "max_new_tokens": 16, "measures": ("sampling_stages",), **changes})
        made.append(Session(wrap(tiny_llama, id_tokenizer, "tiny"), settings))
        return made[-1]

    yield build
    for session in made:
        session.close()
    tiny_llama.generation_config = before
