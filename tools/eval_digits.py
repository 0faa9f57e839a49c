#!/usr/bin/env python3
"""Measures the shipped digit classifier on its held-out images, each sent as a PNG through edged's own engine code.

Needs scikit-learn (extra "digits") beside edged's own packages.

    tools/eval_digits.py                       # models/digits on the 360 test images, dark ink and light ink
    tools/eval_digits.py --bar 97              # exit code 1 below 97 %
    tools/eval_digits.py --samples DIR         # writes two test images of each digit as PNG, and ends
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT)]

from digits.data import Digits, load_split  # noqa: E402  # beside this file

SAMPLE_SIDE = 80


def main() -> int:
    """Exit code 0, or 1 when --bar is not reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "digits", help="folder (default models/digits)")
    parser.add_argument("--bar", type=float, help="least percent right")
    parser.add_argument("--samples", type=Path, metavar="DIR", help="write sample images instead")
    arguments = parser.parse_args()
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before onnxruntime is imported
    _, test = load_split()
    if arguments.samples is not None:
        write_samples(test, arguments.samples)
        return 0
    worst = 100.0
    for name, dark in (("light ink on dark, 8 x 8", False), ("dark ink on light, 8 x 8", True)):
        found = answers(arguments.model, [as_png(image, 8, dark=dark) for image in test.images])
        worst = min(worst, report(name, found, test))
    found = answers(arguments.model, [as_png(image, SAMPLE_SIDE, dark=True) for image in test.images])
    report(f"dark ink on light, enlarged to {SAMPLE_SIDE} x {SAMPLE_SIDE} (not in the figure)", found, test)
    return int(arguments.bar is not None and worst < arguments.bar)


def as_png(image: np.ndarray, side: int, *, dark: bool) -> bytes:
    """One test image as a file, ink dark or light."""
    pixels = np.round(image * 255).astype(np.uint8)
    picture = Image.fromarray(255 - pixels if dark else pixels)
    file = io.BytesIO()
    picture.resize((side, side), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


def answers(folder: Path, files: list[bytes]) -> list[int]:
    """The model's answer to each file, by the code that serves it."""
    from edged.engine.options import EngineOptions
    from edged.engine.plain.load import load_plain
    from edged.protocol import engine as wire
    from edged.protocol import pulse

    options: dict[str, Any] = dict.fromkeys(EngineOptions.__dataclass_fields__, 0)
    options |= {"name": "digits", "folder": str(folder), "state_dir": "", "provider": "cpu", "load_timeout_s": 60.0}
    options |= {"max_image_pixels": 2**24, "max_image_bytes": 2**27, "image_decode_s": 10.0, "ledger_fd": -1}
    loaded = load_plain(EngineOptions(**options), pulse.PulseWriter(pulse.create()), lambda phase, **more: None)
    task, found = loaded.tasks["image"], []
    for number, data in enumerate(files, start=1):
        body = {"image": 0, "inputs": None, "top_k": 1, "threshold": None}
        start = wire.Start(number, 0, b"", "infer", body, time.monotonic(), None, False, (data,))
        item = task.items(start)[0]
        row = task.prepare(item, None)
        outputs = loaded.runner.run(task.key(item), task.feeds([row], 1), 1, rid=number, limit_s=None)
        fields, _ = task.answer(start, [task.part(row, outputs)])
        found.append(int(fields["labels"][0]["index"]))
    return found


def report(name: str, found: list[int], test: Digits) -> float:
    """Print and return the percentage that is right."""
    right = int((np.array(found) == test.labels).sum())
    share = 100 * right / len(found)
    print(f"{name}: {right} of {len(found)} right, {share:.2f} %")
    wrong = [f"{label}→{answer}" for label, answer in zip(test.labels, found, strict=True) if label != answer]
    print(f"  wrong: {' '.join(wrong)}")
    return share


def write_samples(test: Digits, folder: Path) -> None:
    """The first two test images of each digit."""
    folder.mkdir(parents=True, exist_ok=True)
    for digit in range(10):
        for number, index in enumerate(np.flatnonzero(test.labels == digit)[:2]):
            (folder / f"{digit}-{number}.png").write_bytes(as_png(test.images[index], SAMPLE_SIDE, dark=True))


if __name__ == "__main__":
    sys.exit(main())
