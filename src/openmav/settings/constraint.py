"""Constraints on the generated text: one frozen dataclass, checked when it is created, and its grammar before a model is loaded."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass

from openmav.errors import UsageError
from openmav.settings import json_schema

NEEDS_LLGUIDANCE = "{flag} needs llguidance: pip install 'openmav[constrained]'; --ban and --require work without it"


@dataclass(frozen=True)
class Constraint:
    """Constraints on the generated text from its first character on; the prompt does not count.

    `regex`: the whole text matches it. `json_schema` (the schema as JSON): the whole text is JSON that matches it. `ban`: strings that
    are never generated. `require`: the model can't stop before these strings are generated; it is not steered towards them.
    """

    regex: str | None = None
    json_schema: str | None = None
    ban: tuple[str, ...] = ()
    require: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        def need(good: bool, what: str) -> None:
            if not good:
                raise UsageError(what)

        for text in (self.regex or "", self.json_schema or "", *self.ban, *self.require):
            need(_is_text(text), "a constraint is not valid UTF-8")
        need(self.regex is None or self.json_schema is None, "--regex and --json-schema exclude each other; leave one out")
        need(self.regex != "", "the regular expression is empty; only the empty text would match it")
        need(all(self.ban), "a banned text must not be empty")
        need(all(self.require), "a required text must not be empty")
        grammar = "--regex" if self.regex is not None else "--json-schema"
        need(not (self.require and self.has_grammar), f"--require and {grammar} exclude each other; put it into the pattern")
        for wanted in self.require:
            for banned in self.ban:
                need(banned not in wanted, f"'{wanted}' is required and '{banned}', a part of it, is banned")
        if self.json_schema is not None:
            json_schema.read(self.json_schema)

    def __bool__(self) -> bool:
        return bool(self.has_grammar or self.ban or self.require)

    @property
    def has_grammar(self) -> bool:
        return self.regex is not None or self.json_schema is not None

    def describe(self) -> str:
        """One short line: "regex · 2 banned"; "" for no constraint."""
        parts = ["regex"] * (self.regex is not None) + ["JSON schema"] * (self.json_schema is not None)
        parts += [f"{len(self.ban)} banned"] * bool(self.ban) + [f"{len(self.require)} required"] * bool(self.require)
        return " · ".join(parts)

    def grammar(self) -> str | None:
        """llguidance's grammar of the regex or the schema, checked; None where there is neither. No model is needed.

        Raises UsageError, in one line, for a wrong one, and where llguidance is missing.
        """
        if not self.has_grammar:
            return None
        if importlib.util.find_spec("llguidance") is None:
            raise UsageError(NEEDS_LLGUIDANCE.format(flag="--regex" if self.regex is not None else "--json-schema"))
        from llguidance import LLMatcher

        if self.regex is not None:
            what, grammar = "the regular expression", LLMatcher.grammar_from_regex(self.regex)
        else:
            spaced = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
            schema = json.dumps(json_schema.prepared(json_schema.read(self.json_schema or "")))
            what, grammar = "the JSON schema", LLMatcher.grammar_from_json_schema(schema, overrides=spaced)  # type: ignore[arg-type]
        grammar = _free(grammar)
        wrong, messages = LLMatcher.validate_grammar_with_warnings(grammar)
        if wrong:
            raise UsageError(f"{what} cannot be used: {_reason(messages[0])}")
        return grammar


def _free(grammar: str) -> str:
    """The same grammar, in which text without alternatives may be written in any tokens, not only in those of one tokenisation."""
    (inner,) = json.loads(grammar)["grammars"]
    rules = inner["lark_grammar"] or f"start: %json {json.dumps(inner['json_schema'])}"
    return f'%llguidance {{"no_forcing": true}}\n{rules}'


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _reason(message: str) -> str:
    """The line of an error message that states the reason."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0] if lines else "it is wrong")
