"""What a model's name means: the bundled model, a folder, a GGUF file, or a name on the Hugging Face hub.

A GGUF file is a path (`models/x.Q4_1.gguf`), or a file of a repository of the hub: `owner/repo:x.gguf` or `owner/repo/x.gguf`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from openmav.errors import LoadError
from openmav.settings import DEMO

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
HUB_FILE = re.compile(r"([\w.-]+/[\w.-]+)[:/]([\w./-]+\.gguf)", re.IGNORECASE)
DEMO_FOLDER = Path(__file__).parents[2] / "demo" / "model"
PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "consolidated*.pth")


@dataclass(frozen=True)
class Source:
    """Where transformers finds a model: a folder or a name on the hub, and perhaps a GGUF file in it."""

    place: str
    gguf: str | None = None

    @property
    def arguments(self) -> dict[str, str]:
        """What `from_pretrained` has to be told besides the place."""
        return {} if self.gguf is None else {"gguf_file": self.gguf}


def short_name(name: str) -> str:
    """What the screen calls a model: the last part of a path or hub name, without ".gguf"."""
    last = re.split(r"[/\\:]", name.rstrip("/\\"))[-1] or name
    return last[: -len(".gguf")] if last.lower().endswith(".gguf") else last


def find(name: str) -> Source:
    """The source that a name stands for.

    Raises LoadError for what is no model: a folder without one, pickled weights, a file of another kind, a mistyped path.
    """
    if name == DEMO:
        return Source(str(DEMO_FOLDER))
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(name, path)
    if path.exists():
        if path.suffix.lower() != ".gguf":
            raise LoadError(f"{name} is a file; give the folder of a model, a .gguf file, or a name on the Hugging Face hub")
        return Source(str(path.parent), path.name)
    on_hub = HUB_FILE.fullmatch(name)
    if on_hub and not path.parent.is_dir():
        return Source(on_hub[1], on_hub[2])
    if not HUB_NAME.fullmatch(name) or path.suffix.lower() == ".gguf":
        what = "file" if path.suffix.lower() == ".gguf" else "folder"
        raise LoadError(f"there is no {what} {name}, and it is no name on the Hugging Face hub; check the path")
    return Source(name)


def _folder(name: str, folder: Path) -> Source:
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        return Source(str(folder))
    ggufs = sorted(path.name for path in folder.iterdir() if path.suffix.lower() == ".gguf")
    if len(ggufs) == 1:
        return Source(str(folder), ggufs[0])
    if ggufs:
        raise LoadError(f"the folder {name} holds several GGUF files; name one of them: {', '.join(ggufs)}")
    if not (folder / "config.json").is_file():
        raise LoadError(f"the folder {name} holds no model: there is no config.json in it")
    pickled = any(next(folder.glob(pattern), None) for pattern in PICKLES)
    why = "its weights are pickle files, which can run code; save them as safetensors" if pickled else "it has no *.safetensors"
    raise LoadError(f"the folder {name} can't be loaded: {why}")
