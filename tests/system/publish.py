"""`publish.py FOLDER GOLDEN`: what one publisher has at two times, each a repository that boxes can read.

FOLDER/first has release 1 of nano, FOLDER/second has release 2 as well, whose weights differ; FOLDER/root.json is the
root of trust of both. GOLDEN: a file of `edged-fleet golden`. Runs in the project's own environment.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edged.fleet.golden import read_golden
from tests.integration.box import variant
from tests.unit.update.signing import Publisher


def main(base: Path, golden_file: Path) -> None:
    golden = read_golden(golden_file)
    before = Publisher(base / "first")
    before.release(variant(base, "1.0"), "1.0", 1, golden=golden)
    after = before.copied(base / "second")
    model = variant(base, "2.0")
    with (model / "model.onnx.data").open("ab") as weights:
        weights.write(bytes(4096))  # beyond what the graph refers to
    after.release(model, "2.0", 2, golden=golden)
    (base / "root.json").write_bytes(before.anchor)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
