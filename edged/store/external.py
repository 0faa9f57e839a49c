"""The data files beside a graph, each long enough for the weights said to lie in it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from edged.errors import ModelError
from edged.store.folder import file_size
from edged.store.graph import Graph


def data_files(folder: Path, file: str, graph: Graph) -> frozenset[str]:
    """Names, relative to `folder`, of the data files that the graph in `file` needs. Raises ModelError."""
    beside = PurePosixPath(file).parent
    needed: dict[str, int] = {}
    for tensor in graph.external:
        name = str(beside / tensor.file) if tensor.file and not tensor.file.startswith("/") else tensor.file
        needed[name] = max(needed.get(name, 0), tensor.offset + tensor.length)
    for name, need in needed.items():
        size = file_size(folder, name, file)
        if size < need:
            raise ModelError(folder, name, f"has {size} of the {need} bytes that {file} needs; copy it again")
    return frozenset(needed)
