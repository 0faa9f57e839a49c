"""Which onnxruntime packages are installed and what they hold, read from their metadata: nothing native is imported."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edged.hardware.candidates import CANDIDATES, Candidate

_PLUGIN_PREFIX = "onnxruntime-ep-"
_PROVIDER_LIBRARY = re.compile(r"libonnxruntime_providers_(?!shared)\w+\.so$")
_PROVIDER_NAME = re.compile(r"""["'](\w+ExecutionProvider)["']""")


@dataclass(frozen=True, slots=True)
class Package:
    """One installed distribution, its provider libraries, and whether onnxruntime itself is in it (`bundled`)."""

    name: str
    version: str
    libraries: tuple[Path, ...] = ()
    bundled: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """Where a provider comes from. `library` is the plug-in's file, None for a provider built into onnxruntime."""

    package: str
    version: str
    library: Path | None = None


def installed(path: Sequence[str] | None = None) -> tuple[Package, ...]:
    """All installed distributions of the onnxruntime family on `path` (default: sys.path), by name."""
    found: dict[str, Package] = {}
    where = metadata.distributions() if path is None else metadata.distributions(path=list(path))
    for distribution in where:
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"] or "").lower()
        if name.startswith("onnxruntime") and name not in found:
            found[name] = _package(name, distribution)
    return tuple(found[name] for name in sorted(found))


def find(candidate: Candidate, packages: Sequence[Package]) -> Found | None:
    """The package that brings `candidate`: a plug-in if there is one, else a build of onnxruntime that has it."""
    for package in packages:
        if candidate.plugin and _belongs(package.name, candidate.plugin) and package.libraries:
            return Found(package.name, package.version, package.libraries[0])
    for package in packages:
        if not package.bundled:
            continue
        has = any(library.name == candidate.library for library in package.libraries)
        if has or (not candidate.library and candidate.built_in == package.name):
            return Found(package.name, package.version)
        if candidate.built_in == "onnxruntime":  # the CPU provider is in every build
            return Found(package.name, package.version)
    return None


def unknown_plugins(packages: Sequence[Package]) -> tuple[tuple[Candidate, Found], ...]:
    """Installed `onnxruntime-ep-*` that the table does not know, as candidates of their own.

    The provider's name is looked for in the text of the package's __init__.py; without one it cannot be asked for.
    """
    known = [candidate.plugin for candidate in CANDIDATES if candidate.plugin]
    extra = []
    for package in packages:
        if not package.name.startswith(_PLUGIN_PREFIX) or any(_belongs(package.name, name) for name in known):
            continue
        for library in package.libraries[:1]:
            named = _PROVIDER_NAME.search(_text(library.parent / "__init__.py"))
            if named:
                key = package.name.removeprefix(_PLUGIN_PREFIX)
                candidate = Candidate(
                    key=key,
                    title=key,
                    ort_name=named[1],
                    genai_name=named[1],
                    plugin=package.name,
                    graphs=frozenset({"cpu"}),
                )
                extra.append((candidate, Found(package.name, package.version, library)))
    return tuple(extra)


def clashing(packages: Sequence[Package]) -> tuple[str, ...]:
    """Names of the builds of onnxruntime when there are several: they overwrite each other's files."""
    names = tuple(package.name for package in packages if package.bundled)
    return names if len(names) > 1 else ()


def _package(name: str, distribution: metadata.Distribution) -> Package:
    files = [Path(str(distribution.locate_file(file))) for file in distribution.files or ()]
    libraries = tuple(sorted(file for file in files if _PROVIDER_LIBRARY.match(file.name)))
    bundled = any(
        file.parts[-3:-1] == ("onnxruntime", "capi") and file.name.startswith("libonnxruntime.so") for file in files
    )
    return Package(name, distribution.version, libraries, bundled)


def _belongs(name: str, plugin: str) -> bool:
    """Whether `name` is the plug-in's distribution or a flavour of it, as onnxruntime-ep-nv-tensorrt-rtx-cu13 is."""
    return name == plugin or name.startswith(f"{plugin}-")


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")[:65536]
    except OSError:
        return ""
