"""What every command that runs a model is asked: which model, on what, with which prompt."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from openmav import registry
from openmav.errors import UsageError
from openmav.settings import Settings


def asked_model(values: dict[str, Any]) -> Settings:
    """The flags of the model and the prompt, checked as far as that goes without loading anything; no measures.

    Raises UsageError for a backend or a device that there is not, and for a prompt that can't be read.
    """
    registry.need_known("backends", [values["backend"]])
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", values["device"]):
        raise UsageError(f"unknown device '{values['device']}'. Known: auto, cpu, cuda, cuda:N, mps")
    return Settings(
        model=values["model"],
        prompt=read_text(values["prompt"], values["prompt_file"]),
        backend=values["backend"],
        device=values["device"],
        dtype=values["dtype"],
        trust_remote_code=values["trust_remote_code"],
        chat=values["chat"],
        measures=(),
    )


def read_text(text: str | None, file: str | None) -> str | None:
    """The prompt of --prompt or --prompt-file; None where there is neither. Raises UsageError."""
    if text is not None and file is not None:
        raise UsageError("--prompt and --prompt-file exclude each other; leave one out")
    prompt = read_file(file, "--prompt-file", "the prompt file") if file is not None else text
    try:
        if prompt is not None:
            prompt.encode()
    except UnicodeEncodeError as error:
        raise UsageError("the prompt is not valid UTF-8") from error
    return prompt


def read_file(file: str, flag: str, what: str) -> str:
    """The text of a file or of stdin, without a byte order mark and without one last newline."""
    try:
        if file == "-":
            if sys.stdin is None:
                raise UsageError(f"{flag} - reads stdin, which is closed")
            data = sys.stdin.buffer.read()
        else:
            data = Path(file).read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read {what} '{file}': {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} '{file}' is not UTF-8 text (byte {error.start})") from error
    return text.replace("\r\n", "\n").removesuffix("\n")
