"""The two sessions of a comparison: of two models, or of one model that is loaded once and runs with two caches."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from openmav.backends.base import Backend, Intervening
from openmav.backends.second_cache import SecondCache
from openmav.errors import UsageError
from openmav.generation.opening import open_session
from openmav.generation.session import Session

if TYPE_CHECKING:
    from openmav.backends.base import Progress
    from openmav.settings import Settings

CHECKED = 1000  # tokens whose text both vocabularies are asked for
LOADED = ("model", "backend", "device", "dtype", "trust_remote_code", "threads", "gpu_layers")  # settings that make another model


def open_pair(a: Settings, b: Settings, progress: Progress | None = None) -> tuple[Session, Session]:
    """Sessions of both settings; where they name the same model, it is loaded once.

    Raises LoadError where a model can't be loaded, UsageError where the two have different vocabularies or read one prompt differently.
    """
    first = open_session(a, progress)
    try:
        second = _beside(first, b) if _same_model(a, b) else open_session(b, progress)
        try:
            _need_one_vocabulary(first, second, same_prompt=(a.text, a.chat) == (b.text, b.chat))
        except BaseException:
            second.close()
            raise
    except BaseException:
        first.close()
        raise
    return first, second


def _same_model(a: Settings, b: Settings) -> bool:
    return all(getattr(a, name) == getattr(b, name) for name in LOADED)


def _beside(first: Session, settings: Settings) -> Session:
    owner = first.backend
    if not isinstance(owner, Intervening):
        return open_session(settings)
    run = owner.intervened([], first.prompt.token_ids)
    return Session(cast(Backend, SecondCache(owner, run)), settings)


def _need_one_vocabulary(a: Session, b: Session, *, same_prompt: bool) -> None:
    """Raises UsageError where a token of one is another of the other."""
    sizes = a.info.vocab, b.info.vocab
    if sizes[0] != sizes[1]:
        raise UsageError(f"the models have different vocabularies, of {sizes[0]} and {sizes[1]} tokens; compare two that share one")
    if same_prompt and a.prompt.token_ids != b.prompt.token_ids:
        raise UsageError("the models read the prompt as different tokens; compare two that share a tokenizer")
    for token_id in {*a.prompt.token_ids, *range(0, sizes[0], max(1, sizes[0] // CHECKED))}:
        one, other = (session.backend.decode([token_id]) for session in (a, b))
        if one != other:
            what = f"token {token_id} is {one!r} in A and {other!r} in B"
            raise UsageError(f"the models have different vocabularies: {what}; compare two that share one")
