"""The house rules of docs/architecture.md, read from the imports themselves."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "edged"

# package -> what of edged it may import besides itself; a dotted name allows that module alone
MAY_IMPORT = {
    "errors": set(),
    "logs": set(),
    "systemd": set(),
    "config": {"errors"},
    "protocol": {"errors"},
    "hardware": {"errors"},
    "client": {"protocol", "errors"},
    "store": {"protocol", "errors"},
    "engine": {"protocol", "hardware", "store", "errors", "logs", "allocator"},
    "children": set(),
    "allocator": set(),
    "serving": {"protocol", "errors", "children", "allocator"},
    "update": {"store", "protocol", "errors"},
    "upkeep": {"update", "serving", "store", "hardware", "protocol", "errors", "children"},
    "pull": {"hardware", "store", "update", "errors"},
    "fleet": {"update", "store", "client", "protocol", "errors"},
    "service": {"errors"},
    "metrics": {"errors"},
    "watch": {"errors"},
    "doctor": {"store", "hardware", "errors"},
    "status": {"serving", "hardware", "errors"},
    "shelf": {"store", "hardware", "protocol", "errors"},
    "bench": {"store", "protocol", "errors", "children"},
}
COMPOSERS = {"daemon", "cli", "__main__", "__init__"}
ONLY_STARTED = {"engine", "hardware.trial"}  # composers start these as processes and never import them

ONLY_IMPORTER = {
    "onnxruntime": {"engine.backends", "hardware.trial"},
    "onnxruntime_genai": {"engine.backends", "hardware.trial"},
    "psutil": {"hardware.memory"},
    "msgpack": {"protocol.codec"},
    "PIL": {"engine.images", "engine.plain.pixels"},
    "tokenizers": {"engine.plain.texts"},
    "cv2": {"watch.camera"},
    "huggingface_hub": {"pull.hub"},
    "pickle": set(),
    "marshal": set(),
}


def _modules() -> list[tuple[str, Path]]:
    return [
        (".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"), path)
        for path in sorted(PACKAGE.rglob("*.py"))
    ]


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


@pytest.mark.parametrize(("module", "path"), _modules(), ids=lambda value: str(value) if isinstance(value, str) else "")
def test_module_imports_only_what_its_package_may(module: str, path: Path) -> None:
    package = module.split(".")[0]
    ours = {name.removeprefix("edged.") for name in _imports(path) if name.startswith("edged.")}
    if package in COMPOSERS:
        forbidden = {name for name in ours if any(name == only or name.startswith(f"{only}.") for only in ONLY_STARTED)}
        assert not forbidden, f"edged.{module} must start these as processes: {sorted(forbidden)}"
        return
    allowed = MAY_IMPORT[package] | {package, "__version__"}
    forbidden = {name for name in ours if name.split(".")[0] not in allowed}
    assert not forbidden, f"edged.{module} may not import {sorted(forbidden)}"


@pytest.mark.parametrize(("library", "importers"), ONLY_IMPORTER.items(), ids=lambda value: str(value)[:20])
def test_library_has_its_one_importer(library: str, importers: set[str]) -> None:
    for module, path in _modules():
        if any(module == one or module.startswith(f"{one}.") for one in importers):
            continue
        uses = {name for name in _imports(path) if name == library or name.startswith(f"{library}.")}
        assert not uses, f"edged.{module} imports {library}"


def test_no_code_is_evaluated_from_text() -> None:
    for module, path in _modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "__import__"), f"edged.{module}:{node.lineno}"
