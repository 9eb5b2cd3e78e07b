"""The settings that the options of a model and a prompt make."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from openmav.cli.options.values import RunsModelOptions
from openmav.errors import UsageError
from openmav.plugins import registry
from openmav.settings import AUTO, Settings
from openmav.settings.workers import parse_workers

LONGEST = 100_000_000  # bytes of a prompt or a schema; a device has no end


def model_settings(options: RunsModelOptions) -> Settings:
    """The model and the prompt, checked as far as that goes without loading anything; no measures.

    Raises UsageError for an unknown backend or device, and for a prompt that can't be read.
    """
    if options.backend != AUTO:
        registry.need_known("backends", [options.backend])
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", options.device):
        raise UsageError(f"unknown device '{options.device}'. Known: auto, cpu, cuda, cuda:N, mps")
    return Settings(
        model=options.model,
        prompt=read_text(options.prompt, options.prompt_file),
        backend=options.backend,
        device=options.device,
        dtype=options.dtype,
        threads=options.threads,
        gpu_layers=options.gpu_layers,
        rpc=parse_workers(options.rpc),
        trust_remote_code=options.trust_remote_code,
        chat=options.chat_template or options.chat,
        load_timeout=options.load_timeout,
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
            data = sys.stdin.buffer.read(LONGEST + 1)
        else:
            with Path(file).open("rb") as opened:  # which may be a pipe of the shell's
                data = opened.read(LONGEST + 1)
        if len(data) > LONGEST:
            raise UsageError(f"{what} '{file}' holds more than {LONGEST // 1_000_000} MB; give a shorter one")
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read {what} '{file}': {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} '{file}' is not UTF-8 text (byte {error.start})") from error
    return text.replace("\r\n", "\n").removesuffix("\n")
