"""Images from strangers: what is drawn is right, and what is malformed costs nothing but an answer."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edged.engine.images import ImageLimits, decode_image, to_png
from edged.errors import DeadlineExceeded, InvalidRequest, TooLarge
from tests.unit.engine.hostile_images import encoded, harmless_but_odd, hostile, picture, png

ROOT = Path(__file__).resolve().parents[3]
MOST_GROWTH_BYTES = 150_000_000


def test_every_malformed_file_is_refused_and_memory_stays_small(tmp_path: Path) -> None:
    files, odd = list(hostile()), list(harmless_but_odd())
    assert len(files) >= 200
    for number, (_, data) in enumerate(files + odd):
        (tmp_path / f"{number:04}").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.engine.hostile_images", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    report = json.loads(done.stdout)
    outcomes = list(report["outcomes"].values())
    for (name, _), outcome in zip(files, outcomes[: len(files)], strict=True):
        assert outcome in ("invalid_request", "too_large"), name
    for (name, _), outcome in zip(odd, outcomes[len(files) :], strict=True):
        assert outcome == "drawn", name
    assert report["peak_bytes"] - report["before_bytes"] <= MOST_GROWTH_BYTES


@pytest.mark.parametrize("mode", ["RGB", "P", "L", "1", "RGBA", "LA"])
def test_png_of_any_kind_gives_its_colours(mode: str) -> None:
    original = picture(mode)
    drawn = decode_image(encoded(original, "PNG"))
    flat = original.convert("RGBA")
    expected = Image.alpha_composite(Image.new("RGBA", flat.size, "white"), flat).convert("RGB")
    assert drawn.mode == "RGB"
    assert np.abs(np.asarray(drawn).astype(int) - np.asarray(expected)).max() <= 1


def test_transparent_pixels_are_white() -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.putpixel((1, 1), (0, 0, 255, 255))
    drawn = decode_image(encoded(image, "WEBP", lossless=True))
    assert drawn.getpixel((0, 0)) == (255, 255, 255)
    assert drawn.getpixel((1, 1)) == (0, 0, 255)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    drawn = decode_image(encoded(Image.fromarray(ramp), "PNG"))
    assert np.array_equal(np.asarray(drawn)[:, :, 0], (ramp >> 8).astype(np.uint8))


def test_cmyk_is_converted() -> None:
    drawn = decode_image(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"))
    red, green, blue = drawn.getpixel((8, 8))
    assert (red > 200, green < 60, blue < 60) == (True, True, True)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_orientation_is_applied(form: str, orientation: int) -> None:
    from PIL import ImageOps

    image = Image.new("RGB", (40, 24), "black")
    image.paste("red", (0, 0, 20, 12))  # its upper left quarter
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, form, exif=exif)
    drawn = decode_image(data)
    tagged = image.copy()
    tagged.getexif()[0x0112] = orientation
    expected = ImageOps.exif_transpose(tagged)
    assert drawn.size == expected.size
    assert np.abs(np.asarray(drawn).astype(int) - np.asarray(expected)).mean() < 12


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for form in ("PNG", "WEBP"):
        data = encoded(frames[0], form, save_all=True, append_images=frames[1:], lossless=True)
        assert decode_image(data).getpixel((4, 4)) == (255, 0, 0)


def test_a_large_jpeg_is_decoded_small_when_small_is_enough() -> None:
    data = encoded(picture(size=(1600, 800)), "JPEG")
    drawn = decode_image(data, at_least=(100, 50))
    assert drawn.size == (200, 100)


def test_the_header_alone_is_enough_to_refuse() -> None:
    bomb = png(5000, 5000, b"not even a zlib stream")
    with pytest.raises(TooLarge, match="5000 x 5000"):
        decode_image(bomb)
    with pytest.raises(InvalidRequest):  # within what is allowed it is looked at
        decode_image(bomb, ImageLimits(max_pixels=30_000_000, max_bytes=10**9))


def test_memory_is_a_limit_of_its_own() -> None:
    data = encoded(picture(size=(400, 300)), "WEBP")
    with pytest.raises(TooLarge, match="or JPEG"):
        decode_image(data, ImageLimits(max_bytes=1_000_000))


def test_a_deadline_that_has_passed_ends_the_decoding() -> None:
    with pytest.raises(DeadlineExceeded):
        decode_image(encoded(picture(), "PNG"), deadline_s=time.monotonic() - 1)


def test_png_for_other_libraries_is_the_same_picture() -> None:
    image = decode_image(encoded(picture("RGBA"), "PNG"))
    again = decode_image(to_png(image))
    assert np.array_equal(np.asarray(image), np.asarray(again))
