"""The options of the model and the prompt, which every command that runs a model shares, and the settings that they make."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from openmav.cli.options.flag import flag
from openmav.errors import UsageError
from openmav.plugins import registry
from openmav.settings import AUTO, DEMO, DEMO_PROMPT, LOAD_TIMEOUT, OTHER_PROMPT, Settings

DTYPES = ("auto", "float32", "float16", "bfloat16")
MODEL, TEXT = "Model", "Text"
LONGEST = 100_000_000  # bytes of a prompt or a schema; a device has no end


# ---- the model ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoadingOptions:
    """How a model is loaded."""

    backend: str
    device: str
    dtype: str
    threads: int | None
    gpu_layers: int | None
    trust_remote_code: bool
    load_timeout: float


@dataclass(frozen=True)
class ModelOptions(LoadingOptions):
    """Which model, and how it is loaded."""

    model: str


LOADING = (
    flag(
        MODEL,
        "--backend",
        "Library that runs the model: transformers, llamacpp.",
        default=AUTO,
        otherwise="llamacpp for a GGUF file where it is installed, else transformers",
        metavar="NAME",
    ),
    flag(MODEL, "--device", "auto, cpu, cuda, cuda:N or mps.", default="auto", metavar="DEVICE"),
    flag(MODEL, "--dtype", f"Weight dtype: {', '.join(DTYPES)}.", default="auto", type=click.Choice(DTYPES), metavar="DTYPE"),
    flag(MODEL, "--threads", "Threads of the model.", type=click.IntRange(min=1), otherwise="the library's", metavar="N"),
    flag(
        MODEL,
        "--gpu-layers",
        "Layers that llama.cpp keeps on an accelerator.",
        type=click.IntRange(min=0),
        otherwise="all that it has room for",
        metavar="N",
    ),
    flag(MODEL, "--trust-remote-code", "Run code that comes with the model.", is_flag=True),
    flag(
        MODEL,
        "--load-timeout",
        "Seconds that loading the model may take; 0 is no limit.",
        default=LOAD_TIMEOUT,
        type=click.FloatRange(min=0),
        metavar="SECONDS",
    ),
)
THE_MODEL = (
    flag(MODEL, "--model", "Model of the Hugging Face hub, a folder, a GGUF file, or the bundled one.", default=DEMO, metavar="NAME"),
    *LOADING,
)


# ---- the prompt --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PromptOptions:
    """The text to continue."""

    prompt: str | None
    prompt_file: str | None
    chat: bool
    chat_template: str | None


THE_PROMPT = (
    flag(
        TEXT,
        "--prompt",
        "Text to continue.",
        metavar="TEXT",
        otherwise=f"'{DEMO_PROMPT}' for the bundled model, else '{OTHER_PROMPT}'",
    ),
    flag(TEXT, "--prompt-file", "Read the prompt from this UTF-8 file; - is stdin. One last newline is dropped.", metavar="FILE"),
    flag(TEXT, "--chat", "Wrap the prompt in the model's chat template.", is_flag=True),
    flag(TEXT, "--chat-template", "The same, with this template of a model that has several.", metavar="NAME"),
)


@dataclass(frozen=True)
class RunsModelOptions(PromptOptions, ModelOptions):
    """Of a command that runs a model on a prompt."""


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
