"""The flags of the model and the prompt, which every command that runs a model shares."""

from __future__ import annotations

import click

from openmav.cli.options.flag import flag
from openmav.settings import AUTO, DEMO, DEMO_PROMPT, LOAD_TIMEOUT, OTHER_PROMPT

DTYPES = ("auto", "float32", "float16", "bfloat16")
MODEL, TEXT = "Model", "Text"


LOADING = (
    flag(
        MODEL,
        "--backend",
        "Library that runs the model: transformers, llamacpp.",
        default=AUTO,
        otherwise="llamacpp for a GGUF file and the bundled model where it is installed, else transformers",
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
    flag(
        MODEL,
        "--rpc",
        "RPC workers to which llama.cpp gives the layers; nothing protects them or the text: trusted networks only.",
        metavar="HOST:PORT,...",
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
