"""Errors that a reader can act on: their text is one line that says what to do; the command prints it and exits with 2."""

from __future__ import annotations

LONGEST = 200  # characters of a message that somebody else's code made


class MavError(Exception):
    """Base of all errors that mav raises on purpose."""

    exit_code = 2


class UsageError(MavError, ValueError):
    """Something asked for does not make sense: a flag, a name, a value."""


class NoGradientError(UsageError):
    """A model that can't be differentiated; attribution by occlusion needs no gradient."""


class LoadError(MavError):
    """A model could not be loaded; the text says why and what to do."""


class LoadTimeoutError(LoadError):
    """A model took longer to load than it may."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the model was not loaded within {seconds:g} s; --load-timeout SECONDS raises that limit, and 0 takes it away "
            "(a download goes on where it stopped)"
        )


class EngineError(MavError):
    """The model's process ended or failed while it was in use."""

    exit_code = 1


class MeasureError(EngineError):
    """A measure that does not come with mav failed; the run goes on without it."""


class Interruption(BaseException):
    """The user or the system asked the process to end; no code of anybody's may turn that into something else."""


def is_panic(error: BaseException) -> bool:
    """Whether a library written in Rust gave up, such as a tokenizer; its exception is no Exception, and a class of each library's own."""
    return type(error).__name__ == "PanicException"


def message_of(error: BaseException) -> str:
    """`str(error)`, of an exception of somebody else's too, whose own words may fail."""
    try:
        return str(error)
    except (Interruption, KeyboardInterrupt):
        raise
    except BaseException:
        return "it can't say why"


def words_of(error: BaseException, *, kind: bool = False) -> str:
    """What an error that is not mav's own says, in one line without control characters; its kind where it says nothing.

    `kind`: its kind stands before what it says.
    """
    words = " ".join("".join(c if c.isprintable() else " " for c in message_of(error)).split())
    words = words if len(words) <= LONGEST else words[:LONGEST] + "..."
    name = type(error).__name__
    return ": ".join(part for part in (name if kind or not words else "", words) if part)
