"""What a model's name means: the bundled model, a folder, a GGUF file, or a name on the Hugging Face hub.

A GGUF file is a path (`models/x.Q4_1.gguf`), or a file of a repository of the hub: `owner/repo:x.gguf` or `owner/repo/x.gguf`.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants

from openmav.errors import LoadError
from openmav.settings import DEMO

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
HUB_FILE = re.compile(r"([\w.-]+/[\w.-]+)[:/]([\w./-]+\.gguf)", re.IGNORECASE)
DEMO_FOLDER = Path(__file__).parents[2] / "demo" / "model"
INDEX, ADAPTER = "model.safetensors.index.json", "adapter_config.json"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
SPLIT = re.compile(r"-\d{5}-of-\d{5}(?=\.gguf$)", re.IGNORECASE)
PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "consolidated*.pth")
CONNECT_SECONDS = 5.0  # to wait for the hub's answer
NOT_HERE = "is not on this machine and the Hugging Face hub can't be reached; check the network, or give a folder"


@dataclass(frozen=True)
class Checkpoint:
    """A resolved model name: a folder or a name on the hub, and optionally a GGUF file in it."""

    place: str
    gguf: str | None = None

    @property
    def arguments(self) -> dict[str, str]:
        """Further arguments of `from_pretrained`."""
        return {} if self.gguf is None else {"gguf_file": self.gguf}


def short_name(name: str) -> str:
    """The display name of a model: the last part of a path or hub name, without ".gguf"."""
    last = re.split(r"[/\\:]", name.rstrip("/\\"))[-1] or name
    return last[: -len(".gguf")] if last.lower().endswith(".gguf") else last


def find(name: str) -> Checkpoint:
    """The checkpoint of a name.

    Raises LoadError for what is no model: a folder without one, pickled weights, a file of another kind, a mistyped path.
    """
    if name == DEMO:
        return Checkpoint(str(DEMO_FOLDER))
    try:
        path = Path(name).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError, RuntimeError) as error:  # too long for a file system, a NUL in it, an unknown user's home
        raise LoadError(f"'{name[:60]}' can't be looked up: {getattr(error, 'strerror', None) or error}; check the name") from error
    if path.is_dir():
        return _folder(name, path)
    if path.exists():
        if path.suffix.lower() != ".gguf":
            raise LoadError(f"{name} is a file; give the folder of a model, a .gguf file, or a name on the Hugging Face hub")
        return Checkpoint(str(path.parent), path.name)
    on_hub = HUB_FILE.fullmatch(name)
    if on_hub and not path.parent.is_dir():
        return _on_hub(name, on_hub[1], on_hub[2])
    if not HUB_NAME.fullmatch(name) or path.suffix.lower() == ".gguf":
        what = "file" if path.suffix.lower() == ".gguf" else "folder"
        raise LoadError(f"there is no {what} {name}, and it is no name on the Hugging Face hub; check the path")
    return _on_hub(name, name)


def _on_hub(name: str, repository: str, gguf: str | None = None) -> Checkpoint:
    """A repository of the hub; the copy of it on this machine where the hub can't be reached.

    The libraries would try each of its files six times, for a minute in all. Raises LoadError where the copy is missing or incomplete.
    """
    if constants.HF_HUB_OFFLINE or _hub_answers():
        return Checkpoint(repository, gguf)
    from huggingface_hub import snapshot_download  # with the clients of the hub: half a second that a model on this machine need not wait
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError) as error:
        raise LoadError(f"{name} {NOT_HERE}") from error
    try:
        return _folder(name, folder) if gguf is None else find(str(folder / gguf))
    except LoadError as error:
        raise LoadError(f"{name} is only partly on this machine and the Hugging Face hub can't be reached; check the network") from error


def hub_problem(name: str, errors: Iterable[BaseException]) -> str | None:
    """What an error of the hub's client means and what to do; None for another."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    known = [error for error in errors if isinstance(error, RepositoryNotFoundError)]
    if any(isinstance(error, GatedRepoError) for error in known):
        return f"{name} is gated: ask for access on its page on the Hugging Face hub, then run `hf auth login`"
    return f"the Hugging Face hub knows no model {name}; check the name, or run `hf auth login` if it is private" if known else None


def _hub_answers() -> bool:
    """Whether something listens where the hub should be; True behind a proxy, which alone may know."""
    address = urlsplit(constants.ENDPOINT)
    if address.hostname is None or getproxies().keys() & {address.scheme, "all"}:
        return True
    try:
        with socket.create_connection((address.hostname, address.port or (80 if address.scheme == "http" else 443)), CONNECT_SECONDS):
            return True
    except OSError:
        return False


def _folder(name: str, folder: Path) -> Checkpoint:
    try:
        odd = next((path.name for path in folder.iterdir() if path.exists() and not path.is_file() and not path.is_dir()), None)
    except OSError as error:
        raise LoadError(f"the folder {name} can't be read: {error.strerror or error}") from error
    if odd is not None:  # a library would block on a pipe or a device, and signals would not interrupt it
        raise LoadError(f"the folder {name} holds {odd}, which is no regular file; take it out, or give the model's own folder")
    if (folder / ADAPTER).is_file() and not (folder / "config.json").is_file():
        return Checkpoint(str(folder))
    if (folder / "config.json").is_file() and (folder / INDEX).is_file():
        _check_shards(name, folder)
        return Checkpoint(str(folder))
    if (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
        return Checkpoint(str(folder))
    ggufs = sorted(path.name for path in folder.iterdir() if path.suffix.lower() == ".gguf")
    if ggufs and len({SPLIT.sub("", file) for file in ggufs}) == 1:
        return Checkpoint(str(folder), ggufs[0])  # one file, or the parts of one
    if ggufs:
        raise LoadError(f"the folder {name} holds several GGUF files; name one of them: {', '.join(ggufs)}")
    raise LoadError(f"the folder {name} {_why_no_model(folder)}")


def _check_shards(name: str, folder: Path) -> None:
    """Raises LoadError where files that the index names are not in the folder."""
    try:
        files = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LoadError(f"the {INDEX} of {name} is damaged; download it again") from error
    absent = [file for file in files if not (folder / str(file)).is_file()]
    if absent:
        what = f"{len(absent)} of the {len(files)} files of its weights ({absent[0]}{', ...' if len(absent) > 1 else ''})"
        raise LoadError(f"the folder {name} lacks {what}; download them again")


def _why_no_model(folder: Path) -> str:
    """Why transformers can't load a folder, and what to do."""
    weights = sorted(path.name for path in folder.glob("*.safetensors"))
    if any(file.startswith("consolidated") for file in weights):
        return "holds weights in Mistral's own format only (consolidated.safetensors); use a version of the model with model.safetensors"
    if not (folder / "config.json").is_file():
        return "holds no model: there is no config.json in it"
    if any(next(folder.glob(pattern), None) for pattern in PICKLES):
        return "can't be loaded: its weights are pickle files, which can run code; save them as safetensors"
    if any(SHARD.fullmatch(file) for file in weights):
        return f"can't be loaded: its weights lie in several files without {INDEX}; download that too"
    if weights:
        return f"can't be loaded: there is no model.safetensors in it, only {', '.join(weights[:3])}"
    return "can't be loaded: it has no *.safetensors"
