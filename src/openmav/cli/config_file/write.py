"""Writing to the user's config file; its comments and all else in it stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from openmav.cli.config_file.read import config_path, read_config
from openmav.errors import UsageError
from openmav.system.files import write_file


def save_layout(name: str, panels: Sequence[str], sizes: Mapping[str, tuple[float, float]]) -> Path:
    """Put a layout into the config file, in place of one of that name, and make the file where there is none; its path.

    `sizes` are {panel: (width, height)} as multiples of what the layout gives it; those of the others are 1. Raises UsageError
    where the file has a mistake or can't be written.
    """
    import tomlkit

    path = config_path()
    read_config(path)
    try:
        text = path.read_bytes().decode("utf-8-sig") if path.exists() else ""
        document = tomlkit.parse(text)
        document.setdefault("layouts", tomlkit.table())[name] = list(panels)
        own = document.get("sizes", {})
        if name in own:
            del own[name]
        if sizes:
            row = tomlkit.inline_table()
            row.update({panel: [round(one, 4) for one in size] for panel, size in sizes.items()})
            document.setdefault("sizes", tomlkit.table())[name] = row
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, tomlkit.dumps(document).encode())
    except OSError as error:
        raise UsageError(f"cannot write the config file {path}: {error.strerror or error}") from error
    return path
