"""The machine that mav runs on: versions, devices, memory, which extras are installed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys

from openmav.analysis.doctor import Section
from openmav.backends.loading.choice import LLAMACPP, TRANSFORMERS, backend_for
from openmav.settings import AUTO, DEMO
from openmav.version import __version__

GB = 1e9


def environment() -> list[Section]:
    """Versions, devices, which library runs which models, extras. Imports torch."""
    parts = {"Versions": _versions(), "Devices": _devices(), "Backends": _backends(), "Extras": _extras()}
    return [Section(title, tuple(lines)) for title, lines in parts.items()]


def version_of(package: str) -> str | None:
    """The installed version; None where the package is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions() -> list[tuple[str, str]]:
    lines = [("mav", __version__), ("Python", f"{platform.python_version()} ({sys.executable})"), ("system", platform.platform())]
    needed = [name for name, extra in _requirements() if extra is None]
    return lines + [(name, version_of(name) or "not installed") for name in needed]


def _devices() -> list[tuple[str, str]]:
    import torch

    lines = [("CPU", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()}, {_memory()}")]
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        lines.append((f"cuda:{index}", f"{torch.cuda.get_device_name(index)}, {free / GB:.1f} of {total / GB:.1f} GB free"))
    if not torch.cuda.is_available():
        lines.append(("CUDA", "none" if torch.version.cuda else "none: this build of torch has no CUDA"))
    lines.append(("MPS", "yes" if torch.backends.mps.is_available() else "none"))
    return lines


def _memory() -> str:
    if not hasattr(os, "sysconf"):
        return "memory not known"
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    except (ValueError, OSError):
        return "memory not known"
    return f"{free / GB:.1f} of {total / GB:.1f} GB free"


def _backends() -> list[tuple[str, str]]:
    """Which library runs a model for which --backend says nothing."""
    chosen = backend_for(AUTO, "model.gguf")
    version = version_of("llama-cpp-python")
    how = f"llama-cpp-python {version}" if chosen == LLAMACPP else "pip install 'openmav[llamacpp]' runs them with llama.cpp, as they are"
    return [("GGUF files", f"{chosen} ({how})"), ("the bundled model", backend_for(AUTO, DEMO)), ("other models", TRANSFORMERS)]


def _extras() -> list[tuple[str, str]]:
    """Each extra with the versions of its packages, or the packages that are missing."""
    packages: dict[str, list[str]] = {}
    for name, extra in _requirements():
        if extra not in (None, "dev"):
            packages.setdefault(str(extra), []).append(name)
    lines = []
    for extra, names in sorted(packages.items()):
        versions = {name: version_of(name) for name in sorted(names)}
        absent = [name for name, version in versions.items() if version is None]
        installed = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        lines.append((extra, f"lacks {', '.join(absent)}: pip install 'openmav[{extra}]'" if absent else installed))
    return lines


def _requirements() -> list[tuple[str, str | None]]:
    """(package, extra) of all requirements in mav's own metadata; the extra is None for packages that are always required."""
    from packaging.requirements import Requirement

    try:
        about = importlib.metadata.metadata("openmav")
    except importlib.metadata.PackageNotFoundError:
        return []
    extras = about.get_all("Provides-Extra") or []
    requirements: list[tuple[str, str | None]] = []
    for line in about.get_all("Requires-Dist") or []:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or "extra" not in str(marker):
            requirements.append((requirement.name, None))
        else:
            requirements += [(requirement.name, extra) for extra in extras if marker.evaluate({"extra": extra})]
    return requirements
