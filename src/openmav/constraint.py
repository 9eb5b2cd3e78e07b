"""What a text must look like: one frozen dataclass, checked where it is made and, for its grammar, before a model is loaded."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass

from openmav.errors import UsageError

NEEDS_LLGUIDANCE = "{flag} needs llguidance: pip install 'openmav[constrained]'; --ban and --require work without it"


@dataclass(frozen=True)
class Constraint:
    """Of the text that is generated, from its first character on; the prompt does not count.

    `regex`: the whole text matches it. `json_schema` (the schema as JSON): the whole text is such a value. `ban`: none of these
    strings is ever part of it. `require`: the model can't end the text before each of these is part of it; nothing pushes it there.
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
        need(not (self.require and self.has_grammar), f"--require and {grammar} exclude each other; let the pattern say it")
        for wanted in self.require:
            for banned in self.ban:
                need(banned not in wanted, f"'{wanted}' is required and '{banned}', a part of it, is banned")
        if self.json_schema is not None:
            _need_json(self.json_schema)

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
            what, made = "the regular expression", LLMatcher.grammar_from_regex(self.regex)
        else:
            spaced = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
            what, made = "the JSON schema", LLMatcher.grammar_from_json_schema(self.json_schema or "", overrides=spaced)  # type: ignore[arg-type]
        made = _free(made)
        wrong, said = LLMatcher.validate_grammar_with_warnings(made)
        if wrong:
            raise UsageError(f"{what} cannot be used: {_reason(said[0])}")
        return made


def _free(grammar: str) -> str:
    """The same grammar, in which a stretch that leaves no choice may be written in any tokens, not in those of one tokenisation only."""
    (found,) = json.loads(grammar)["grammars"]
    rules = found["lark_grammar"] or f"start: %json {json.dumps(found['json_schema'])}"
    return f'%llguidance {{"no_forcing": true}}\n{rules}'


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _need_json(text: str) -> None:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"the JSON schema is not JSON: {error}") from error
    if not isinstance(found, dict | bool):
        raise UsageError("a JSON schema is an object in braces, or true or false")


def _reason(said: str) -> str:
    """The line of an error message that says why."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0] if lines else "it is wrong")
