"""Malformed images and bombs, made from real ones: each must be refused with a typed error, whoever decodes them.

`python -m tests.unit.engine.hostile_images FOLDER` decodes the files of a folder in a process of its own and prints, as
JSON, what became of each and how much memory the process took at most.
"""

from __future__ import annotations

import io
import json
import random
import resource
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

Named = tuple[str, bytes]
PNG_START = b"\x89PNG\r\n\x1a\n"


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    """The image as a file of that format."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def picture(mode: str = "RGB", size: tuple[int, int] = (97, 61)) -> Image.Image:
    """A picture that does not compress to nothing, the same every time."""
    noise = random.Random(5).randbytes(size[0] * size[1] * 3)
    return Image.frombytes("RGB", size, noise).convert(mode)


def chunk(name: bytes, body: bytes) -> bytes:
    """A PNG chunk with its right checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, rows: bytes, *more: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that says what it is told to."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"".join((PNG_START, chunk(b"IHDR", header), *more, chunk(b"IDAT", rows), chunk(b"IEND", b"")))


def webp(*chunks: Named) -> bytes:
    """A RIFF container of these chunks."""
    body = b"WEBP" + b"".join(
        name.encode() + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def exif_bomb(entries: int = 65_535, each_bytes: int = 4_000_000) -> bytes:
    """An Exif directory whose entries all name the same bytes: read in full it is gigabytes."""
    head = b"II*\0" + struct.pack("<IH", 8, entries)
    entry = b"".join(struct.pack("<HHII", tag % 60_000, 7, each_bytes, 8) for tag in range(entries))
    return head + entry + b"\0" * each_bytes


def hostile() -> Iterator[Named]:
    """All of them, each with a name."""
    yield from _cut_short()
    yield from _not_images()
    yield from _bad_pngs()
    yield from _bad_jpegs()
    yield from _bad_webps()


def harmless_but_odd() -> Iterator[Named]:
    """What others choke on and we do not look at: the picture in these is whole, and must be drawn."""
    plain = encoded(picture(), "PNG")
    header, rest = plain[:33], plain[33:]
    yield "png with a text bomb", header + chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 50_000_000)) + rest
    yield "png with an Exif bomb", header + chunk(b"eXIf", exif_bomb()) + rest
    yield "png with a colour profile bomb", header + chunk(b"iCCP", b"k\0\0" + zlib.compress(b"a" * 50_000_000)) + rest
    yield "png with a tail", plain + b"\0" * 1000
    frames = [picture(size=(40, 40)) for _ in range(3)]
    yield "animated png", encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    yield "animated webp", encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    bomb = exif_bomb(5_000, 60_000)
    segments = b"".join(
        b"\xff\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\0\0" + part
        for part in (bomb[at : at + 65_000] for at in range(0, len(bomb), 65_000))
    )
    jpeg = encoded(picture(), "JPEG")
    yield "jpeg with an Exif bomb", jpeg[:2] + segments + jpeg[2:]
    yield "jpeg with a comment", jpeg[:2] + b"\xff\xfe\0\x04hi" + jpeg[2:]
    height_at = jpeg.index(b"\xff\xc0") + 5
    sized = jpeg[:height_at] + struct.pack(">HH", 4000, 4000) + jpeg[height_at + 4 :]
    yield "jpeg of 4000 x 4000 that ends early", sized  # libjpeg draws the rest in grey


def _cut_short() -> Iterator[Named]:
    frames = [picture(size=(40, 40)), picture("L", (40, 40)).convert("RGB")]
    whole = {
        "png": encoded(picture(), "PNG"),
        "png palette": encoded(picture("P"), "PNG"),
        "png alpha": encoded(picture("RGBA"), "PNG"),
        "png 1 bit": encoded(picture("1"), "PNG"),
        "apng": encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "jpeg": encoded(picture(), "JPEG"),
        "jpeg progressive": encoded(picture(), "JPEG", progressive=True),
        "jpeg grey": encoded(picture("L"), "JPEG"),
        "jpeg cmyk": encoded(picture("CMYK"), "JPEG"),
        "webp": encoded(picture(), "WEBP"),
        "webp lossless": encoded(picture(), "WEBP", lossless=True),
        "webp alpha": encoded(picture("RGBA"), "WEBP"),
        "webp animated": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
    }
    for name, data in whole.items():
        for tenth in range(10):
            kept = len(data) * tenth // 10
            yield f"{name} cut to {kept}", data[:kept]
        yield f"{name} with its first byte changed", bytes([data[0] ^ 1]) + data[1:]


def _not_images() -> Iterator[Named]:
    for form in ("GIF", "BMP", "TIFF", "ICO", "PPM", "TGA", "PCX", "SGI", "JPEG2000", "PDF", "EPS", "AVIF"):
        try:
            yield form, encoded(picture(), form)
        except (OSError, KeyError):  # this Pillow was built without it
            continue
    yield "svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>'
    yield "text", b"not an image at all, but some text that goes on for a while"
    yield "zeros", bytes(4096)
    yield "zip", b"PK\3\4" + bytes(100)
    for seed in range(16):
        noise = random.Random(seed).randbytes(2000)
        yield f"noise {seed}", noise
        yield f"noise {seed} that begins as a png", PNG_START + noise
        yield f"noise {seed} that begins as a jpeg", b"\xff\xd8\xff" + noise
        yield f"noise {seed} that begins as a webp", b"RIFF" + struct.pack("<I", 1992) + b"WEBP" + noise


def _bad_pngs() -> Iterator[Named]:
    data = encoded(picture(), "PNG")
    for at in range(40, len(data) - 20, len(data) // 12):
        yield f"png bit {at}", data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
    tiny = zlib.compress(b"\0" * 100)
    for width, height in ((0, 10), (10, 0), (70_000, 1), (1, 70_000), (65_535, 65_535), (2**31 - 1, 1), (2**31, 2**31)):
        yield f"png of {width} x {height}", png(width, height, tiny)
    yield "png of 5000 x 5000, 30 KB of zeros", png(5000, 5000, zlib.compress(b"\0" * 5000 * 15001, 9))
    yield "png of 4096 x 4096 without rows", png(4096, 4096, tiny)
    yield "png of 4096 x 4096, RGBA, without rows", png(4096, 4096, tiny, colour=6)
    yield "png of 4096 x 4096, grey and alpha", png(4096, 4096, tiny, colour=4)
    yield "png that is no zlib stream", png(10, 10, b"\xff" * 300)
    yield "png of an unknown colour type", png(10, 10, tiny, colour=5)
    yield "png of depth 3", png(10, 10, tiny, depth=3)
    yield "png with a palette that is missing", png(10, 10, tiny, colour=3)
    yield "png with an unknown critical chunk", png(10, 10, tiny, chunk(b"ABCD", b""))
    yield "png without rows at all", PNG_START + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0))
    yield "png of 100,000 empty chunks", png(10, 10, tiny, chunk(b"tEXt", b"") * 100_000)
    yield "png that goes on for ever", png(10, 10, tiny)[:-12] + struct.pack(">I", 2**32 - 1) + b"IDAT"


def _bad_jpegs() -> Iterator[Named]:
    data = encoded(picture(), "JPEG")
    start = data.index(b"\xff\xc0")
    height_at = start + 5
    for width, height in ((0, 61), (97, 0), (65_535, 65_535), (60_000, 300), (20_000, 20_000)):
        sized = data[:height_at] + struct.pack(">HH", height, width) + data[height_at + 4 :]
        yield f"jpeg of {width} x {height}", sized
    for marker in (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF):
        yield f"jpeg of kind {marker:x}", data[: start + 1] + bytes([marker]) + data[start + 2 :]
    yield "jpeg of 12 bits", data[: start + 4] + b"\x0c" + data[start + 5 :]
    yield "jpeg of two components", data[: start + 9] + b"\2" + data[start + 10 :]
    yield "jpeg with sampling 0", data[: start + 11] + b"\0" + data[start + 12 :]
    yield "jpeg without a header", data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]
    yield "jpeg with two headers", data[:start] + data[start : start + 19] + data[start:]
    yield "jpeg of 70,000 comments", data[:2] + b"\xff\xfe\0\2" * 70_000 + data[2:]
    many = encoded(picture(), "JPEG", progressive=True)
    last = many.rindex(b"\xff\xda")
    yield "jpeg of 3,000 scans", many[:-2] + many[last:-2] * 3000 + many[-2:]
    yield "jpeg that ends in its first marker", b"\xff\xd8\xff\xff\xff\xff"


def _bad_webps() -> Iterator[Named]:
    lossy, lossless = encoded(picture(), "WEBP"), encoded(picture(), "WEBP", lossless=True)
    for name, data in (("lossy", lossy), ("lossless", lossless)):
        for size in (0, 4, 100, len(data) * 2, 2**32 - 1):
            yield f"webp {name} that says it has {size} bytes", data[:4] + struct.pack("<I", size) + data[8:]
        for size in (0, 5, 2**31, 2**32 - 1):
            yield f"webp {name} with a chunk of {size} bytes", data[:16] + struct.pack("<I", size) + data[20:]
    huge = bytes([0x10, 0, 0, 0]) + (16_383).to_bytes(3, "little") * 2
    yield "webp canvas of 16384 x 16384", webp(("VP8X", huge), ("VP8 ", lossy[20:]))
    yield "webp canvas of 16 million", webp(("VP8X", bytes([0x10, 0, 0, 0]) + b"\xff" * 6), ("VP8 ", lossy[20:]))
    yield "webp canvas of another size", webp(("VP8X", bytes(4) + bytes([9, 0, 0, 9, 0, 0])), ("VP8 ", lossy[20:]))
    yield "webp with a canvas only", webp(("VP8X", bytes(4) + bytes([9, 0, 0, 9, 0, 0])))
    yield "webp without a picture", webp(("EXIF", b"II*\0"))
    yield "webp of 16383 x 16383, lossless", webp(("VP8L", b"\x2f" + struct.pack("<I", 0x0FFF_FFFF) + bytes(40)))
    yield "webp of 16383 x 16383", webp(("VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 16_383, 16_383) + bytes(9)))
    yield (
        "webp of 2700 x 2700 without its rows",
        webp(("VP8L", b"\x2f" + struct.pack("<I", 2699 | 2699 << 14) + bytes(40))),
    )


def main(folder: Path) -> None:
    """Decode each file; print what became of each, and this process's memory before and at its peak (bytes)."""
    from edged.engine.images import ImageLimits, decode_image
    from edged.errors import RequestError

    for form in ("PNG", "JPEG", "WEBP"):
        decode_image(encoded(picture(), form), ImageLimits())  # what is loaded once is not growth
    before_bytes = _peak_bytes()
    outcomes: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        try:
            decode_image(path.read_bytes(), ImageLimits())
            outcomes[path.name] = "drawn"
        except RequestError as error:
            outcomes[path.name] = error.code
    json.dump({"outcomes": outcomes, "before_bytes": before_bytes, "peak_bytes": _peak_bytes()}, sys.stdout)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]))
