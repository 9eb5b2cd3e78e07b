"""Chat templates, rendered by transformers in a process of their own.

A template is a program by the author of the model. transformers' sandbox denies it files and Python's internals, but does not stop it
from running forever or filling the memory; here its time, its memory and the length of its text are bounded.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openmav.backends.shared.child import child_environment

SECONDS = 4  # of a processor, the imports not counted; where the system can't limit that (Windows), the wait alone is bounded
WAIT = 30.0  # seconds altogether, enough for a busy machine
MEMORY = 1 << 29  # bytes that a template may take beyond the imports, where the system can limit that (Linux)
LONGEST = 4_000_000  # characters of its text
EMPTY_FOLDER = Path(__file__).parents[2] / "demo" / "model"  # holds no Python file that an import could find
BOUNDS = f"it may take {SECONDS} s, {MEMORY >> 20} MB and {LONGEST:,} characters"


class TemplateError(Exception):
    """A template that can't be rendered; the message says why, and is the template's own where it raised."""


class TemplateLimitError(TemplateError):
    """A template that exceeds the time, memory or length limit."""


def render(template: str, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
    """The text of a conversation, with the beginning of the next answer.

    `messages` are {"role", "content"} mappings, `variables` further variables of the template (the tokenizer's special tokens). All
    of it must be JSON. Raises TemplateError.
    """
    task = json.dumps({"template": template, "messages": list(messages), "variables": dict(variables)})
    command = [sys.executable, "-c", f"from {__name__} import _main; _main()"]
    given, env = task.encode(), child_environment()
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=WAIT, env=env, cwd=EMPTY_FOLDER, check=False)
    except subprocess.TimeoutExpired as error:
        raise TemplateLimitError(f"it does not come to an end; {BOUNDS}") from error
    if done.returncode < 0 and done.returncode in (-getattr(signal, "SIGXCPU", 0), -getattr(signal, "SIGKILL", 0)):
        raise TemplateLimitError(f"it does not come to an end; {BOUNDS}")
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        raise TemplateLimitError(f"the process that rendered it died; {BOUNDS}") from error
    if "why" in answer:
        raise (TemplateLimitError if answer["limit"] else TemplateError)(str(answer["why"]))
    return str(answer["text"])


def _main() -> None:
    """In that process: a task as JSON on stdin, an answer as JSON on stdout."""
    from transformers.utils.chat_template_utils import render_jinja_template

    task = json.load(sys.stdin)
    stdout, sys.stdout = sys.stdout, sys.stderr
    _limit()
    try:
        text = render_jinja_template([task["messages"]], chat_template=task["template"], add_generation_prompt=True, **task["variables"])
        while not isinstance(text, str):  # a list of texts, in newer versions beside a list of indices
            text = text[0]
        written = json.dumps(
            {"text": text} if len(text) <= LONGEST else _failed(f"it makes {len(text):,} characters; {BOUNDS}", limit=True)
        )
    except MemoryError:
        written = json.dumps(_failed(f"it takes too much memory; {BOUNDS}", limit=True))
    except RecursionError:
        written = json.dumps(_failed("it calls itself without end", limit=True))
    except Exception as error:
        line = getattr(error, "lineno", None)
        written = json.dumps(_failed((f"line {line}: " if line else "") + (str(error) or type(error).__name__)[:1000], limit=False))
    stdout.write(written)


def _failed(why: str, *, limit: bool) -> dict[str, Any]:
    return {"why": why, "limit": limit}


def _limit() -> None:
    try:
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = math.ceil(used.ru_utime + used.ru_stime) + SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        with open("/proc/self/statm", encoding="ascii") as file:
            used_memory = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used_memory + MEMORY, used_memory + MEMORY))
    except (ImportError, OSError, ValueError):  # other systems bound less
        return
