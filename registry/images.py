"""Images as arrays of one size: decoded, turned upright, and brought to the size and channels that a column has.

A conformed image is the bytes of a binary PNM file (P5 grey, P6 colour) of the column's own size: it can be hashed,
kept in Parquet, told from any other, and read back without decoding. What a graph reads of it is (channels, size,
size) uint8. Nothing is believed of a file but its bytes: its format is found in them, and its dimensions are bounded
before any pixel is decoded (`registry/pyfunc_model.py` says the same in its own words).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image  # where one is read, and not here: 3 MB that tasks without images do without

Pixels: TypeAlias = npt.NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM")
EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm", ".pnm")
MIN_SIZE, MAX_SIZE, STEP = 8, 224, 4
"""Sides that a column may have, and of what they are multiples."""

MAX_BYTES = 20_000_000
MAX_PIXELS = 40_000_000
"""Of one encoded image, and of its decoded form: a file of some kilobytes may claim to have thousands of millions."""

COMPONENTS = 8
"""Numbers of an image's representation: what monitoring sees of it."""

LOOKED_AT = 500
"""Images whose headers tell the column's size and channels."""

_EXPECTED = f"an image ({', '.join(FORMATS[:-1])} or PNM)"
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"P5", b"P6")
_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    ArithmeticError,
    struct.error,
    zlib.error,
)
"""What decoders raise on damaged files, beside `_bombs`."""


class ImageError(ValueError):
    """A value that is no image that can be read; the text says what was expected."""


def decode(value: object, size: int, channels: int) -> Pixels:
    """(channels, size, size) of bytes, an array (H, W) or (H, W, C) of uint8, or text: a path if it ends like one, else
    base64. Raises `ImageError`."""
    if isinstance(value, bytes) and (known := _read_pnm(value, size, channels)) is not None:
        return known
    return _fitted(_opened(value), size, channels)


def decode_sent(value: object, size: int, channels: int) -> Pixels:
    """The same of base64 text alone: nobody who sends a path has a file of this machine read."""
    if not isinstance(value, str):
        raise ImageError(f"{_EXPECTED} as base64 text")
    return _fitted(_from_bytes(_from_base64(value)), size, channels)


def to_base64(value: object) -> str | None:
    """Bytes of an image, or those of the file that a path leads to, as base64 text; None of anything else."""
    value = unpacked(value)
    if is_path(value):
        value = _from_file(str(value))
    return base64.b64encode(value).decode() if isinstance(value, bytes) else None


def to_pnm(pixels: Pixels) -> bytes:
    """An array (channels, size, size) as the bytes of a conformed image."""
    return _head(pixels.shape[1], pixels.shape[0]) + pixels.transpose(1, 2, 0).tobytes()


def to_png(pixels: Pixels) -> bytes:
    """An array (channels, size, size) as the bytes of a PNG file."""
    from PIL import Image

    flat = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    held = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(flat)).save(held, "PNG")
    return held.getvalue()


def digest_of(pixels: Pixels) -> str:
    """A short name of an image: alike for alike pixels."""
    return hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()[:24]


def stack(images: Sequence[object], size: int, channels: int, fill: Sequence[int]) -> Pixels:
    """(n, channels, size, size) of conformed images; a missing one is all of the colour `fill`."""
    out = np.empty((len(images), channels, size, size), dtype=np.uint8)
    for row, image in enumerate(images):
        out[row] = decode(image, size, channels) if isinstance(image, bytes) else np.reshape(fill, (channels, 1, 1))
    return out


def looks_like_images(values: pd.Series[Any]) -> bool:
    """Whether a column holds images: bytes that begin like one, arrays of pixels, or paths that end like one and of
    which one at least, among the first, leads to a file."""
    if values.dtype.kind != "O" or values.dtype.name == "category":
        return False
    first = values.dropna().head(20)
    if not len(first):
        return False
    if all(isinstance(unpacked(one), bytes) for one in first):
        return any(_begins_like_one(unpacked(one)) for one in first)
    if isinstance(first.iloc[0], (list, np.ndarray)):
        return all(_holds_pixels(one) for one in first)
    return all(is_path(one) for one in first) and any(os.path.isfile(one) for one in first)


def is_path(value: object) -> bool:
    """Whether a value is text that ends like the path of an image."""
    return isinstance(value, str) and value.lower().endswith(EXTENSIONS)


def unpacked(value: object) -> object:
    """The bytes, or else the path, of an image that is held as {"bytes": ..., "path": ...}; any other value as it is.

    >>> unpacked({"bytes": None, "path": "a.png"}), unpacked(b"BM")
    ('a.png', b'BM')
    """
    if isinstance(value, dict) and value.keys() <= {"bytes", "path"}:
        return value.get("bytes") or value.get("path")
    return bytes(value) if isinstance(value, (bytearray, memoryview)) else value


def common_form(values: Sequence[object]) -> tuple[int, int]:
    """(size, channels) for a column: the side of the square that has the area of the middle image, at most `MAX_SIZE`,
    in multiples of `STEP`; one channel if all are grey. Raises `ImageError` when none can be read."""
    sides: list[float] = []
    colour = False
    for place in np.linspace(0, len(values) - 1, min(len(values), LOOKED_AT)).astype(np.int64):
        try:
            image = _opened(values[place])
            colour = colour or not is_grey(image)
            sides.append((image.width * image.height) ** 0.5)
        except ImageError:
            continue
    if not sides:
        raise ImageError(f"{_EXPECTED}, and none of the values is one that can be read")
    side = round(float(np.median(sides)) / STEP) * STEP
    return min(max(side, MIN_SIZE), MAX_SIZE), 3 if colour else 1


def is_grey(image: Image.Image) -> bool:
    """Whether an opened image has no colours. Raises `ImageError`."""
    if image.mode in ("1", "L", "LA", "I", "I;16", "I;16B"):
        return True
    from PIL import Image

    with _decoding():
        bands = np.asarray(_eight_bits(image).convert("RGB").resize((32, 32), Image.Resampling.NEAREST))
    return bool((bands == bands[..., :1]).all())


def channels_of(value: object) -> int:
    """1 for a grey image, 3 for one with colours. Raises `ImageError`."""
    return 1 if is_grey(_opened(value)) else 3


def _opened(value: object) -> Image.Image:
    """An image that is not decoded yet, of a size that may be."""
    value = unpacked(value)
    if isinstance(value, (np.ndarray, list)):
        return _from_array(value)
    if isinstance(value, str):
        return _from_bytes(_from_file(value) if is_path(value) else _from_base64(value))
    if isinstance(value, bytes):
        return _from_bytes(value)
    raise ImageError(f"{_EXPECTED}: its path, its bytes or base64 text")


def _from_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ImageError(f"the file of an image ({getattr(error, 'strerror', error)})") from error


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text.partition(",")[2] if text.startswith("data:image/") else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"{_EXPECTED} as base64 text") from error


def _from_bytes(data: bytes) -> Image.Image:
    from PIL import Image

    if len(data) > MAX_BYTES:
        raise ImageError(f"an image of at most {MAX_BYTES:,} bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except _bombs() as error:
        raise ImageError(f"an image of at most {MAX_PIXELS:,} pixels") from error
    except _FAULTS as error:
        raise ImageError(_EXPECTED) from error
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"an image of at most {MAX_PIXELS:,} pixels, this one has {image.width:,} x {image.height:,}")
    return image


def _bombs() -> tuple[type[Exception], ...]:
    from PIL import Image

    return Image.DecompressionBombError, Image.DecompressionBombWarning


def _from_array(value: object) -> Image.Image:
    from PIL import Image

    try:
        array = np.array(_plain(value))
    except ValueError as error:
        raise ImageError("rows of pixels that are equally long") from error
    whole = array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() <= 255
    if (
        not whole
        or array.size > 4 * MAX_PIXELS
        or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4)))
    ):
        raise ImageError("pixels from 0 to 255, height x width or height x width x channels")
    return Image.fromarray(array.astype(np.uint8).squeeze(2) if array.shape[2:] == (1,) else array.astype(np.uint8))


def _holds_pixels(value: object) -> bool:
    """Whether an array or lists of lists are an image of the least size at least: smaller ones are other tables."""
    try:
        return isinstance(value, (list, np.ndarray)) and min(_from_array(value).size) >= MIN_SIZE
    except ImageError:
        return False


def _plain(value: object) -> object:
    """Lists of lists, as Parquet's nested arrays are not."""
    return [_plain(one) for one in value] if isinstance(value, (list, np.ndarray)) else value


def _fitted(image: Image.Image, size: int, channels: int) -> Pixels:
    """Decoded, upright, opaque, in 8 bits, and stretched to a square of this size."""
    from PIL import Image, ImageOps

    with _decoding():
        image.draft("L" if channels == 1 else "RGB", (size, size))
        flat = _eight_bits(ImageOps.exif_transpose(image))
        flat = flat.convert("L" if channels == 1 else "RGB")
        if flat.size != (size, size):
            flat = flat.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(flat, dtype=np.uint8).reshape(size, size, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


@contextmanager
def _decoding() -> Iterator[None]:
    """Whatever a decoder raises in the block becomes an `ImageError`."""
    try:
        yield
    except MemoryError as error:
        raise ImageError("an image that fits into memory") from error
    except _FAULTS + _bombs() as error:
        raise ImageError(f"{_EXPECTED} that is whole ({str(error)[:60]})") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey or colours in 8 bits; of 16 bits the upper ones, and what is transparent is white."""
    from PIL import Image

    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65_535) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        painted = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", painted.size, "white"), painted)
    return image


def _begins_like_one(data: object) -> bool:
    return isinstance(data, bytes) and (data.startswith(_MAGIC) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"))


def _head(size: int, channels: int) -> bytes:
    return b"P%d\n%d %d\n255\n" % (5 if channels == 1 else 6, size, size)


def _read_pnm(data: bytes, size: int, channels: int) -> Pixels | None:
    """A conformed image of this very form; None for any other."""
    head = _head(size, channels)
    if not data.startswith(head) or len(data) != len(head) + channels * size * size:
        return None
    return np.frombuffer(data, np.uint8, offset=len(head)).reshape(size, size, channels).transpose(2, 0, 1)


def seen_name(image: str, place: int) -> str:
    """The name under which a number of an image's representation is logged and watched.

    >>> seen_name("photo", 1)
    'photo [1]'
    """
    return f"{image} [{place}]"


def seen_names(image: str) -> list[str]:
    """All names of an image's numbers, in order."""
    return [seen_name(image, place) for place in range(1, COMPONENTS + 1)]
