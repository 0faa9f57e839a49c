"""edged.toml: what fits is described; what does not is refused by its field, before anything native opens it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.errors import ModelError
from edged.store.models import find_model
from edged.store.plain_manifest import is_plain, read_plain
from tests.unit.engine import plain_models

ROOT = Path(__file__).resolve().parents[3]


def refusal(folder: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        read_plain(folder)
    return caught.value


def test_the_shipped_digits(tmp_path: Path) -> None:
    found = find_model("digits", tmp_path)
    model = read_plain(found.folder)
    assert (found.origin, model.manifest.task) == ("embedded", "classify")
    assert model.labels == tuple("0123456789")
    assert model.weights_bytes < 100_000
    assert is_plain(found.folder)
    assert not is_plain(ROOT / "models" / "nano")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[imagee]\n", "imagee: no such field"),
        ("[image]\n", "image.size: Field required"),
        ("[image]\nsize = [0, 4]\n", "image.size.0"),
        ('[image]\nsize = [4, 4]\nfit = "squash"\n', "image.fit: Input should be 'stretch', 'crop' or 'pad'"),
        ("[image]\nsize = [4, 4]\nstd = [0]\n", "image.std.0: Input should be greater than 0"),
        ("[image]\nsize = [4, 4]\nmean = [1, 2]\n", "image: mean: give one number, or 3"),
        ("[image]\nsize = [8, 4]\n", "image: makes [n, 3, 4, 8]"),
        ('[image]\nsize = [4, 4]\ninput = "picture"\n', "image.input: the graph has no 'picture'; it has: pixels"),
        ("[classify]\n", "image: missing"),
        ('[image]\nsize = [4, 4]\n[classify]\noutput = "logits"\n', "classify.output: the graph has no 'logits'"),
        ("[image]\nsize = [4, 4]\n[detect]\n", "detect: give either output, or boxes and scores"),
        ('[image]\nsize = [4, 4]\n[classify]\nlabels_file = "../secret"\n', "no plain path"),
        ('[image]\nsize = [4, 4]\n[classify]\nlabels_file = "labels.txt"\n', "missing"),
        ('file = "/etc/passwd"\n', "no plain path"),
        ("[embed]\n", "tokenizer.json"),
        ("max_batch = 0\n", "max_batch: Input should be greater than or equal to 1"),
        ("this is no toml", "not valid TOML"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    plain_models.mean_colour(tmp_path)
    (tmp_path / "edged.toml").write_text(text)
    error = refusal(tmp_path)
    assert says in str(error)
    assert str(tmp_path) not in error.reason  # it may go on the wire


def test_labels_from_a_file(tmp_path: Path) -> None:
    plain_models.mean_colour(tmp_path)
    (tmp_path / "labels.txt").write_text("rot\ngrün\nblau\n", "utf-8")
    (tmp_path / "edged.toml").write_text('[image]\nsize = [4, 4]\n[classify]\nlabels_file = "labels.txt"\n')
    assert read_plain(tmp_path).labels == ("rot", "grün", "blau")


def test_a_graph_that_is_cut_short(tmp_path: Path) -> None:
    plain_models.doubler(tmp_path)
    whole = (tmp_path / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(whole[: len(whole) // 2])
    assert "model.onnx" in str(refusal(tmp_path))
