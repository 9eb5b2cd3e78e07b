"""The user's config file: TOML, read for the app only. Every mistake in it is one line that names the file and the line in it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openmav.errors import UsageError
from openmav.plugins import registry
from openmav.plugins.user_files import add_measures, add_panels
from openmav.view.layouts import LAYOUTS
from openmav.view.options import LEAST, MOST, Size

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KNOWN = ("layout", "theme", "panels", "measures", "layouts", "sizes", "keys")


@dataclass(frozen=True)
class Config:
    """What the file says, checked. `layouts` holds mav's own as well."""

    layout: str | None = None
    theme: str | None = None
    panels: tuple[str, ...] = ()  # names of the panels in the files that it names
    measures: tuple[str, ...] = ()  # absolute paths of files with measures
    layouts: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: LAYOUTS)
    sizes: Mapping[str, Mapping[str, Size]] = field(default_factory=dict)  # of panels in a layout
    keys: Mapping[str, str] = field(default_factory=dict)


def config_path() -> Path:
    """Where the file is, or would be: MAV_CONFIG, or config.toml in the user's folder for configuration."""
    import platformdirs

    own = os.environ.get("MAV_CONFIG")
    return Path(own).expanduser() if own else Path(platformdirs.user_config_dir("mav", appauthor=False)) / "config.toml"


def read_config(path: Path | None = None) -> Config:
    """The file's content; an empty Config where there is no file.

    Raises UsageError for the first mistake.
    """
    path = path or config_path()
    text = read_text(path)
    return Config() if text is None else _Reader(path, text).read()


def read_text(path: Path) -> str | None:
    """What the config file says, None where there is none. Raises UsageError for what can't be read."""
    try:
        if path.exists() and not path.is_file() and str(path) != os.devnull:  # a pipe would be waited for, and read away
            raise UsageError(f"cannot read the config file {path}: it is no regular file; set MAV_CONFIG to one")
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"cannot read the config file {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the config file {path} is not UTF-8 text (byte {error.start})") from error


def line_of(text: str, *names: str, value: str | None = None) -> int:
    """The line, from 1, where `names` (a key below its tables) is set, or on which `value` stands from there on."""
    table: tuple[str, ...] = ()
    lines = text.split("\n")
    for at, line in enumerate(lines):
        header = re.match(r"\s*\[\[?([^\]]+)\]", line)
        if header:
            table = _parts(header[1])
        key = re.match(r"""\s*("[^"]*"|'[^']*'|[\w.\- ]+?)\s*=""", line)
        here = (*table, *_parts(key[1])) if key else table
        if here and here == names[: len(here)] and (key or here == names):
            result = [row for row in range(at, len(lines)) if value and re.search(rf"""["']{re.escape(value)}["']""", lines[row])]
            return (result or [at])[0] + 1
    return 1


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


class _Reader:
    """Checks one table after another; `fail` knows the line."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text

    def fail(self, why: str, *names: str, value: str | None = None, line: int | None = None) -> UsageError:
        at = line or line_of(self.text, *names, value=value)
        return UsageError(f"config file {self.path} line {at}: {why}")

    def read(self) -> Config:
        try:
            result = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            place = re.search(r"\(at line (\d+), column \d+\)", str(error))
            line = int(place[1]) if place else self.text.count("\n") + 1
            raise self.fail(f"is not TOML: {error}", line=line) from error
        except RecursionError as error:
            raise self.fail("is nested too deeply", line=1) from error
        except ValueError as error:  # a number with more digits than Python reads
            raise self.fail(f"is not TOML that can be read: {error}", line=1) from error
        for name in result:
            if name not in KNOWN:
                raise self.fail(registry.unknown("setting", name, list(KNOWN)), name)
        measures = self._files(result, "measures", lambda file: add_measures([file])[1])
        panels = self._files(result, "panels", lambda file: add_panels([file]))
        layouts = {**LAYOUTS, **self._layouts(result)}
        return Config(
            layout=self._one_of(result, "layout", list(layouts)),
            theme=self._one_of(result, "theme", _themes()) if "theme" in result else None,
            panels=panels,
            measures=measures,
            layouts=layouts,
            sizes=self._sizes(result, layouts),
            keys=self._keys(result),
        )

    def _one_of(self, result: Mapping[str, Any], name: str, known: list[str]) -> str | None:
        value = result.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.fail(f"{name} must be a text in quotes", name)
        if value not in known:
            raise self.fail(registry.unknown(name, value, known), name)
        return value

    def _texts(self, value: Any, *names: str) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self.fail(f'{names[-1]} must be a list of texts, such as ["a", "b"]', *names)
        return tuple(dict.fromkeys(value))

    def _table(self, result: Mapping[str, Any], name: str) -> dict[str, Any]:
        table = result.get(name, {})
        if not isinstance(table, dict):
            raise self.fail(f"{name} must be a table: [{name}] on a line of its own, then its entries", name)
        return table

    def _files(self, result: Mapping[str, Any], name: str, add: Callable[[str], tuple[str, ...]]) -> tuple[str, ...]:
        """What `add` makes of each file; a relative path starts at the config file."""
        added: list[str] = []
        for file in self._texts(result.get(name, []), name):
            try:
                added += add(str(self.path.parent / Path(file).expanduser()))
            except UsageError as error:
                raise self.fail(str(error), name, value=file) from error
        return tuple(added)

    def _layouts(self, result: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
        own = {}
        for name, value in self._table(result, "layouts").items():
            panels = self._texts(value, "layouts", name)
            if not panels:
                raise self.fail(f"layout '{name}' has no panels", "layouts", name)
            for panel in panels:
                try:
                    registry.need_known("panels", [panel])
                except UsageError as error:
                    raise self.fail(str(error), "layouts", name, value=panel) from error
            own[name] = registry.need_known("panels", panels)
        return own

    def _sizes(self, result: Mapping[str, Any], layouts: Mapping[str, tuple[str, ...]]) -> dict[str, dict[str, Size]]:
        sizes: dict[str, dict[str, Size]] = {}
        for layout, row in self._table(result, "sizes").items():
            if layout not in layouts:
                raise self.fail(registry.unknown("layout", layout, list(layouts)), "sizes", layout)
            if not isinstance(row, dict):
                raise self.fail(f"{layout} must be a table of panels, such as {{ timeline = [1.0, 2.0] }}", "sizes", layout)
            sizes[layout] = {}
            for given, size in row.items():
                panel = registry.current("panels", given)
                if panel not in layouts[layout]:
                    raise self.fail(registry.unknown(f"panel of layout '{layout}'", given, list(layouts[layout])), "sizes", layout)
                if not _is_size(size):
                    why = f"the size of {panel} must be its width and height, each from {LEAST} to {MOST:g}, such as [1.0, 2.0]"
                    raise self.fail(why, "sizes", layout)
                if panel in sizes[layout]:
                    raise self.fail(f"the size of {panel} is given twice, once under its older name", "sizes", layout)
                sizes[layout][panel] = (float(size[0]), float(size[1]))
        return sizes

    def _keys(self, result: Mapping[str, Any]) -> dict[str, str]:
        table = self._table(result, "keys")
        if not table:
            return {}
        from openmav.apps.tui.keys import ids
        from openmav.apps.tui.textual_bindings import wrong_key

        known, owner, own = ids(), dict[str, str](), dict[str, str]()
        for name, keys in table.items():
            if name not in known:
                raise self.fail(registry.unknown("key binding", name, sorted(set(known.values()))), "keys", name)
            if known[name] in own:
                raise self.fail(f"'{name}' is an older name of '{known[name]}', which has its keys already", "keys", name)
            if not isinstance(keys, str) or not keys.strip():
                raise self.fail(f'{name} must be a key in quotes, or several separated by commas, such as "p,f2"', "keys", name)
            for key in (one.strip() for one in keys.split(",")):
                wrong = wrong_key(key)
                if wrong:
                    raise self.fail(wrong, "keys", name)
                if owner.setdefault(key, name) != name:
                    raise self.fail(f"the key '{key}' is on '{owner[key]}' already", "keys", name)
            own[known[name]] = ",".join(key.strip() for key in keys.split(","))
        return own


def _is_size(size: Any) -> bool:
    return isinstance(size, list) and len(size) == 2 and all(type(one) in (int, float) and LEAST <= one <= MOST for one in size)


def _themes() -> list[str]:
    from openmav.paint import PALETTES

    return [name for name, palette in PALETTES.items() if palette.color]
