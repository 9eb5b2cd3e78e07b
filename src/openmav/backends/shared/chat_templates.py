"""A user's message in a model's chat template: which of its templates, and what text it makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from openmav.backends.shared.chat_rendering import TemplateLimitError
from openmav.errors import UsageError, words_of


def chosen(own: str | Mapping[str, str] | None, chat: bool | str) -> str:
    """The source of the template named by `chat`; True: the model's only one, or its default. `own`: what the model has.

    Raises UsageError where it has none, or none of that name.
    """
    if not own:
        raise UsageError("this model has no chat template; run without --chat")
    named = {str(key): text for key, text in own.items()} if isinstance(own, Mapping) else {"default": own}  # names of a file: anything
    name = None if chat is True else str(chat)
    if name is None and "default" not in named:
        raise UsageError(f"this model has several chat templates and no default; name one with --chat-template: {', '.join(named)}")
    if name is not None and name not in named:
        raise UsageError(f"this model has no chat template '{name}'. Known: {', '.join(named)}")
    return named[name or "default"]


def written(text: str, template: str, render: Callable[[Any, str], str]) -> str:
    """The message as the template writes it; `render` is called with its content and the template. Raises UsageError.

    Templates of image-text models may need a message in parts; they omit plain text, or fail on it.
    """
    failed: Exception | None = None
    plain = ""
    for content in (text, [{"type": "text", "text": text}]):
        try:
            result = render(content, template)
        except TemplateLimitError as error:
            raise UsageError(f"the model's chat template can't be used: {error}; run without --chat") from error
        except Exception as error:  # a template runs code of its own
            failed = failed or error
            continue
        if text.strip() in result:
            return result
        plain = plain or result
    if failed is not None and not plain.strip():
        raise UsageError(f"the model's chat template can't be used: {template_problem(failed)}; run without --chat") from failed
    if not plain.strip():
        raise UsageError("the model's chat template writes nothing for this prompt; run without --chat")
    return plain


def template_problem(error: Exception) -> str:
    """What went wrong, with the line of the template where its syntax is wrong."""
    line = getattr(error, "lineno", None)
    return (f"line {line}: " if line else "") + words_of(error)
