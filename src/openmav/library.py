"""The library's front door: `watch` and `attach` give a session to iterate over, `open_session` one from settings.

A session is a context manager.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openmav.errors import UsageError
from openmav.generation.opening import open_session
from openmav.generation.session import Session
from openmav.settings import CORE_MEASURES, DEMO, Aggregation, Settings
from openmav.settings.sampling import SamplingOptions

__all__ = ["attach", "open_session", "watch"]


def watch(
    prompt: str | None = None,
    model: Any = DEMO,
    tokenizer: Any = None,
    *,
    max_new_tokens: int | None = None,
    temp: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    seed: int | None = None,
    measures: Sequence[str] = CORE_MEASURES,
    aggregation: Aggregation = "l2",
    **settings: Any,
) -> Session:
    """A session that yields a Step for each token; nothing is generated before it is iterated over.

    `model` is a name of the hub, a folder, "demo", or a transformers model in memory, which then needs its `tokenizer`.
    What is None is as the model's generation config says, else greedy, top-k 50 and 200 tokens at most.
    Further keywords are those of Settings: backend, device, dtype, chat, stop, candidates, breakpoints, threads, trust_remote_code,
    ignore_generation_config.

    Raises UsageError for what makes no sense, LoadError for a model that cannot be loaded.
    """
    sampling = SamplingOptions(temp, top_k, top_p, min_p, repetition_penalty, seed)
    name = model if isinstance(model, str) else type(model).__name__
    chosen = Settings(
        model=name,
        prompt=prompt,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        measures=tuple(measures),
        aggregation=aggregation,
        **settings,
    )
    return open_session(chosen) if isinstance(model, str) else attach(model, tokenizer, chosen)


def attach(model: Any, tokenizer: Any, settings: Settings | None = None) -> Session:
    """A session with a transformers model that its owner has in memory; between two tokens the model is exactly as its owner left it.

    `settings.model` is the name that is shown; None: the settings' defaults and the name of the model's class.

    Raises UsageError without a tokenizer, and LoadError for a model that cannot be shown.
    """
    if tokenizer is None:
        raise UsageError("a model in memory needs its tokenizer; pass both")
    from openmav.backends.transformers import wrap

    settings = settings or Settings(model=type(model).__name__)
    return Session(wrap(model, tokenizer, settings.model), settings)
