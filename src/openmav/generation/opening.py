"""From settings to a session: the model is loaded, and nothing is computed yet."""

from __future__ import annotations

from dataclasses import replace

from openmav.backends.base import LoadOptions, Progress
from openmav.backends.loading.choice import backend_for
from openmav.generation.session import Session
from openmav.plugins import registry
from openmav.settings import Settings


def open_session(settings: Settings, progress: Progress | None = None) -> Session:
    """Load the model that the settings name and check the prompt against it; nothing is computed yet.

    Raises LoadError where the model can't be loaded, UsageError where the prompt does not fit it or the constraint makes no sense.
    """
    settings.constraint.grammar()
    for file in settings.measure_files:
        registry.load("measures", registry.add_file("measures", file))
    settings = replace(settings, backend=backend_for(settings.backend, settings.model))
    module = registry.load("backends", settings.backend)
    options = LoadOptions(settings.device, settings.dtype, settings.trust_remote_code, settings.threads, settings.gpu_layers)
    return Session(module.load(settings.model, options, progress), settings)
