"""From settings to a session, or to the two of a comparison: models are loaded, and nothing is computed yet."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from openmav.backends.base import Backend, Intervening, LoadOptions, Progress
from openmav.backends.loading.choice import LLAMACPP, TRANSFORMERS, backend_for
from openmav.backends.shared.second_cache import SecondCache
from openmav.errors import EngineError, LoadError, LoadTimeoutError, UsageError
from openmav.generation.comparison import Follower
from openmav.generation.session import Session
from openmav.plugins import registry
from openmav.settings import AUTO, DEMO, Settings

CHECKED = 1000  # tokens whose text both vocabularies are asked for
NOT_IN_DEMO = frozenset({"other.out", "router.experts", "router.weights"})
LOADED = ("model", "backend", "device", "dtype", "trust_remote_code", "threads", "gpu_layers", "rpc")  # settings that make another model


def open_session(settings: Settings, progress: Progress | None = None) -> Session:
    """Load the model that the settings name, and the one that it is compared with, and check the prompt; nothing is computed yet.

    Raises LoadError where a model can't be loaded, UsageError where the prompt does not fit it, the constraint makes no sense, or two
    models can't be compared.
    """
    if settings.compared is None:
        return _open(settings, progress)
    session, other = open_pair(settings, settings.compared, progress)
    session.follow(Follower(session, other, settings.parting))
    return session


def _open(settings: Settings, progress: Progress | None = None) -> Session:
    settings.constraint.grammar()
    for file in settings.measure_files:
        registry.load("measures", registry.add_file("measures", file))
    chosen = backend_for(settings.backend, settings.model)
    falls_back = settings.model == DEMO and settings.backend == AUTO and chosen == LLAMACPP and not settings.rpc
    load = _load_demo if falls_back else _load
    backend = load(replace(settings, backend=chosen), progress)
    return Session(backend, replace(settings, backend=backend.info.backend if settings.backend == AUTO else chosen))


def _load(settings: Settings, progress: Progress | None = None) -> Backend:
    options = LoadOptions(settings.device, settings.dtype, settings.trust_remote_code, settings.threads, settings.gpu_layers, settings.rpc)
    backend: Backend = registry.load("backends", settings.backend).load(settings.model, options, progress)
    return backend


def _load_demo(settings: Settings, progress: Progress | None = None) -> Backend:
    """The bundled model in llama.cpp, which nobody asked for: where it does not run there, or not whole, transformers runs it."""
    try:
        backend = _load(settings, progress)
        why = _lost(backend)
        if not why:
            return backend
        backend.close()
    except (EngineError, LoadError, UsageError) as error:
        if isinstance(error, LoadTimeoutError):
            raise
        why = str(error)
    backend = _load(replace(settings, backend=TRANSFORMERS), progress)
    backend.info = replace(
        backend.info, notes=(*backend.info.notes, f"transformers runs the bundled model, since llama.cpp does not: {why}")
    )
    return backend


def _lost(backend: Backend) -> str:
    """What of the bundled model was not found or not proved; "" for nothing."""
    lost = {site: reasons for site, reasons in backend.missing.items() if site not in NOT_IN_DEMO}
    return next((f"{site} of layer {layer} is none: {why}" for site, reasons in lost.items() for layer, why in reasons.items()), "")


def open_pair(a: Settings, b: Settings, progress: Progress | None = None) -> tuple[Session, Session]:
    """Sessions of both settings; where they name the same model, it is loaded once.

    Raises LoadError where a model can't be loaded, UsageError where the two have different vocabularies or read one prompt differently.
    """
    first = _open(a, progress)
    try:
        second = _beside(first, b) if _same_model(a, b) else _open(b, progress)
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
        return _open(settings)
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
