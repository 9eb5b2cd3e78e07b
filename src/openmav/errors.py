"""Errors that a reader can act on: their text is one line that says what to do; the command prints it and exits with 2."""

from __future__ import annotations


class MavError(Exception):
    """Base of all errors that mav raises on purpose."""

    exit_code = 2


class UsageError(MavError, ValueError):
    """Something asked for does not make sense: a flag, a name, a value."""


class LoadError(MavError):
    """A model could not be loaded; the text says why and what to do."""


class EngineError(MavError):
    """The model's process ended or failed while it was in use."""

    exit_code = 1
