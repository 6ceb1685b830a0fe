"""Small files of faces for tests: folders, zip archives and RecordIO, written without any code of btnet_train."""

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAGIC = 0xCED7230A

Pixels = NDArray[np.uint8]


def pixels(number: int, height: int = 8, width: int | None = None) -> Pixels:
    """Noise that differs by number."""
    generator = np.random.default_rng(number)
    return generator.integers(0, 256, (height, width or height, 3), np.uint8)


def encode(image: Pixels, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **options)
    return stream.getvalue()


def png(number: int, height: int = 8, width: int | None = None) -> bytes:
    return encode(pixels(number, height, width))


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return path


def write_zip(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """Write an archive; a name that ends in / is a folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def record(labels: float | Sequence[float], image: bytes = b"", key: int = 0) -> bytes:
    """IRHeader and image, as mxnet.recordio.pack does it."""
    if isinstance(labels, (int, float)):
        return struct.pack("<IfQQ", 0, labels, key, 0) + image
    return struct.pack("<IfQQ", len(labels), 0, key, 0) + struct.pack(f"<{len(labels)}f", *labels) + image


def framed(data: bytes) -> bytes:
    """One record as it is in the file: cut where the magic number is at a multiple of four bytes."""
    magic = struct.pack("<I", MAGIC)
    places = [place for place in range(0, len(data) - 3, 4) if data[place : place + 4] == magic]
    starts = [0, *(place + 4 for place in places)]
    pieces = [data[start:end] for start, end in zip(starts, [*places, len(data)], strict=True)]
    kinds = [0] if len(pieces) == 1 else [1, *[2] * (len(pieces) - 2), 3]
    out = b""
    for kind, piece in zip(kinds, pieces, strict=True):
        out += magic + struct.pack("<I", kind << 29 | len(piece)) + piece + bytes(-len(piece) % 4)
    return out


def write_records(path: Path, records: Mapping[int, bytes]) -> Path:
    """Write a .rec file and its .idx; returns the path of the former."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content, lines = b"", ""
    for key, data in records.items():
        lines += f"{key}\t{len(content)}\n"
        content += framed(data)
    path.write_bytes(content)
    path.with_suffix(".idx").write_text(lines)
    return path


def insightface_records(identities: Mapping[int, Sequence[bytes]]) -> dict[int, bytes]:
    """Return records as insightface's face2rec2 writes them: images with two labels, then ranges of identities."""
    images = [(number, image) for number, images in identities.items() for image in images]
    records = {key: record([number, 1], image, key) for key, (number, image) in enumerate(images, 1)}
    start = first = len(images) + 1
    begin = 1
    for number in identities:
        records[first] = record([begin, begin + len(identities[number])], key=first)
        begin += len(identities[number])
        first += 1
    return {0: record([start, first]), **records}
