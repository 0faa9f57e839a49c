"""What is printed: a model's text cannot drive the terminal, numbers are readable."""

from __future__ import annotations

import pytest

from edged.cli.ping_cmd import quantile
from edged.cli.printable import human_bytes, human_seconds, printable


def test_a_model_cannot_drive_the_terminal() -> None:
    assert printable("a\x1b[2Jb\x07c\x9b1md") == "a\ufffd[2Jb\ufffdc\ufffd1md"
    assert printable("tab\tline\ngrüße 🙂 漢字") == "tab\tline\ngrüße 🙂 漢字"
    assert printable("over\rwrite") == "over\ufffdwrite"


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (9216, "9.0 KiB"), (200 * 2**20, "200 MiB"), (2**44, "16.0 TiB")],
)
def test_bytes_for_people(count: int, shown: str) -> None:
    assert human_bytes(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(3.9, "3 s"), (75, "1 min 15 s"), (3700, "1 h 1 min"), (93_784, "1 d 2 h")]
)
def test_seconds_for_people(seconds: float, shown: str) -> None:
    assert human_seconds(seconds) == shown


def test_quantiles_are_values_that_were_measured() -> None:
    hundred = [float(value) for value in range(1, 101)]
    assert quantile(hundred, 0.5) == 50
    assert quantile(hundred, 0.99) == 99
    assert quantile(hundred, 1.0) == 100
    assert quantile([7.0], 0.99) == quantile([7.0], 0.5) == 7.0
    assert quantile([1.0, 9.0], 0.99) == 9.0
