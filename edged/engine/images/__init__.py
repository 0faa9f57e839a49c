"""Untrusted image bytes in, an upright RGB image out; the one way an image enters an engine.

    limits = ImageLimits(max_pixels=16 * 2**20)
    image = decode_image(data, limits, deadline_s=start.deadline_s)   # PIL.Image.Image, mode "RGB"
    png = to_png(image)                                               # for a library that must not see client bytes

PNG, JPEG and WebP. Alpha is flattened onto white, EXIF orientation is applied, CMYK, 16-bit, grey and palette images
become RGB, and of an animation the first frame is taken. Bytes, header and memory are judged before anything native
sees them (`lean.py`; `read_lean(data).decode_bytes` is what decoding will take), and what Pillow then gets is a file
rebuilt from the parts that make the picture.

Runs in the engine process only. It calls native code: announce it on the pulse before (`limits.decode_s` is the most
it may take), as with any other native call. Pillow lets go of Python's lock while it decodes.
"""

from edged.engine.images.decode import ImageLimits, check_size, decode_image, decode_lean, to_png
from edged.engine.images.lean import Lean, read_lean

__all__ = ["ImageLimits", "Lean", "check_size", "decode_image", "decode_lean", "read_lean", "to_png"]
