"""What ends a text: the model's own end, enough tokens or a full context, a stop text."""

from __future__ import annotations

from collections.abc import Sequence

from openmav.backends._base import Backend
from openmav.record import EndReason, Step
from openmav.settings import Settings


def ended_by_count(backend: Backend, settings: Settings, prompt: int, index: int, token_id: int) -> EndReason | None:
    """Whether the text ends with this generated token; `prompt`: the tokens before the first one."""
    if token_id in backend.end_ids:
        return "eos"
    context = backend.info.context
    full = context is not None and prompt + index + 1 >= context
    return "length" if full or index + 1 >= settings.max_new_tokens else None


def ended_by_text(settings: Settings, before: Sequence[Step], new: str) -> EndReason | None:
    """Whether the new text after these tokens completes a stop text."""
    if not settings.stop:
        return None
    reach = max(map(len, settings.stop)) + len(new)
    tail = ("".join(step.text for step in before) + new)[-reach:]
    return "stop" if any(stop in tail for stop in settings.stop) else None
