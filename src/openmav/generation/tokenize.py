"""From text to the tokens that are really fed: a prompt, checked, or a few words that a reader types after it."""

from __future__ import annotations

from collections.abc import Sequence

from openmav.backends.base import Backend
from openmav.errors import UsageError
from openmav.generation.detokenize import Detokenizer, TokenStrings
from openmav.record import Prompt
from openmav.settings import Settings


def read_prompt(backend: Backend, settings: Settings) -> Prompt:
    """The prompt of the settings as tokens: some, and no more than the context holds.

    Raises UsageError where it is empty or too long.
    """
    text = settings.text
    if not text:
        raise UsageError("the prompt is empty; give some text with --prompt")
    ids = backend.encode(text, chat=settings.chat)
    if not ids:
        raise UsageError("the prompt gives no tokens; give some text with --prompt")
    limit = backend.info.context
    if limit is not None and len(ids) >= limit:
        raise UsageError(f"the prompt has {len(ids)} tokens and the context of {backend.info.name} holds {limit}; shorten the prompt")
    written = Detokenizer(backend.decode)
    tokens = tuple(written.add(token_id, last=i == len(ids) - 1) for i, token_id in enumerate(ids))
    special = tuple(backend.is_special(i) for i in ids)
    return Prompt(text, tuple(ids), tokens, special, _parts(backend, ids, tokens, special))


def _parts(backend: Backend, ids: Sequence[int], tokens: Sequence[str], special: Sequence[bool]) -> dict[int, str]:
    """The names of the tokens that are no whole characters: those without text of their own, and the one that completes them."""
    split = [i for i in range(len(ids)) if not special[i] and (not tokens[i] or (i > 0 and not tokens[i - 1] and not special[i - 1]))]
    strings = TokenStrings.of(backend, ids) if split else {}
    return {i: strings[ids[i]] for i in split if strings[ids[i]] != tokens[i]}


def notes_on(prompt: Prompt, backend: Backend, chat: bool | str = False) -> list[str]:
    """What silently harms a text: a special token that begins it twice, as when template and tokenizer both add one; an end after it."""
    ids, notes = prompt.token_ids, []
    if len(ids) > 1 and ids[0] == ids[1] and prompt.special[0]:
        notes.append(f"the prompt begins with {prompt.tokens[0]} twice; leave it out of the text, the tokenizer adds it")
    last, ends = backend.decode(ids[-1:]), ids[-1] in backend.end_ids
    written = prompt.text.endswith(last)
    if ends or (prompt.special[-1] and not chat and not written):
        token = f"the {'end' if ends else 'special'} token {last}"
        if chat:
            notes.append(f"the chat template ends the prompt with {token}; it is fed, as generate() does")
        elif written:
            notes.append(f"the prompt ends with {token}; it is fed, as generate() does")
        else:
            notes.append(f"the tokenizer puts {token} after the prompt; it is fed, as generate() does, and the model goes on after an end")
    return notes


def typed(backend: Backend, text: str) -> list[int]:
    """The tokens of words that go on after other text: no special tokens are added, and a leading space counts.

    They are those after a line break, which hardly any vocabulary joins with what follows. Raises UsageError for no tokens.
    """
    before, whole = _without_special(backend, "\n"), _without_special(backend, "\n" + text)
    ids = whole[len(before) :] if whole[: len(before)] == before else _without_special(backend, text)
    if not ids:
        raise UsageError("type at least one character to put there")
    return ids


def one_token(backend: Backend, text: str) -> int:
    """The token that this text is, as it goes on after other text. Raises UsageError for text that is several."""
    ids = typed(backend, text)
    if len(ids) > 1:
        pieces = ", ".join(repr(backend.decode([i])) for i in ids)
        raise UsageError(f"'{text}' is {len(ids)} tokens for this model ({pieces}); give text that is one")
    return ids[0]


def _without_special(backend: Backend, text: str) -> list[int]:
    """Ids of the text without the special tokens that a tokenizer puts around any text."""
    ids, empty = backend.encode(text), backend.encode("")
    start = 0
    while start < min(len(empty), len(ids)) and ids[start] == empty[start] and backend.is_special(ids[start]):
        start += 1
    end = len(ids)
    while end > start and len(empty) > start and backend.is_special(ids[end - 1]) and ids[end - 1] == empty[-1]:
        end -= 1
    return ids[start:end]
