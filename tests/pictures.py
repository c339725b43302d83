"""Images for tests: painted at random, digits, and tasks over them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from registry.task import TaskSpec

SEARCHED = 1_100
WINDOW = 150


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    held = io.BytesIO()
    image.save(held, kind, **options)
    return held.getvalue()


def painted(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def digit_pixels() -> np.ndarray:
    """(1797, 8, 8) digits, shuffled: neighbours in the file are of one writer."""
    images = (load_digits().images * 255 / 16).round().astype(np.uint8)
    return images[np.random.default_rng(0).permutation(len(images))]


def digit_labels() -> np.ndarray:
    return load_digits().target[np.random.default_rng(0).permutation(len(load_digits().target))]


def make_task(**changes: Any) -> TaskSpec:
    base: dict[str, Any] = {
        "name": "digits",
        "source": {"kind": "file", "path": "digits.csv"},
        "target": "even",
        "problem": "binary",
        "metric": "auc",
        "splits": {"validation": 0.12, "calibration": 0.1, "test": 0.25},
        "search": {"workers": 1, "max_epochs": 3, "ensemble": 1},
        "monitor": {"windows": {"kind": "rows", "rows": WINDOW}, "report": "never"},
    }
    return TaskSpec.model_validate({**base, **changes})


def bomb() -> bytes:
    """A PNG file of some dozen bytes that claims to have 50,000 x 50,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
