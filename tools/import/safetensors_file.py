"""Reads and writes the safetensors format with the standard library alone, one tensor in memory at a time."""

import json
import math
import os
import struct
from pathlib import Path

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
HEADER_LIMIT = 100_000_000


def write(path, tensors, metadata):
    """tensors: (name, dtype, shape, function that gives the bytes), in any order; replaces `path` only when complete."""
    header, offset = {"__metadata__": {k: str(v) for k, v in sorted(metadata.items())}}, 0
    for name, dtype, shape, _ in tensors:
        if name in header:
            raise ValueError(f"{path}: tensor {name!r} comes twice")
        size = SIZES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    part = Path(f"{path}.part")
    try:
        with open(part, "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            for name, dtype, shape, data in tensors:
                values = data()
                if len(values) != SIZES[dtype] * math.prod(shape):
                    raise ValueError(f"{path}: tensor {name!r}: {len(values)} bytes do not hold {dtype} of shape {list(shape)}")
                f.write(values)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_header(path):
    """-> ({name: (dtype, shape, first byte in the file, bytes)}, metadata)"""
    size = os.path.getsize(path)
    with open(path, "rb") as f:
        prefix = f.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(HEADER_LIMIT, size - 8):
            raise ValueError(f"{path}: expected a safetensors file, found a header of {length} bytes in a file of {size}")
        try:
            header = json.loads(f.read(length))
        except ValueError:
            raise ValueError(f"{path}: expected a safetensors file, found a header that is no JSON") from None
    if not isinstance(header, dict):
        raise ValueError(f"{path}: expected a safetensors file, found a header that is no JSON object")
    metadata, tensors, end = header.pop("__metadata__", {}), {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if first != end or dtype not in SIZES or last - first != SIZES[dtype] * math.prod(shape):
            raise ValueError(
                f"{path}: tensor {name!r}: bytes {first} to {last} do not hold {dtype} of shape {list(shape)} in a file without gaps"
            )
        tensors[name], end = (dtype, shape, 8 + length + first, last - first), last
    if 8 + length + end != size:
        raise ValueError(f"{path}: expected {8 + length + end} bytes, found {size}")
    return tensors, metadata


def read_bytes(path, first, count):
    with open(path, "rb") as f:
        f.seek(first)
        return f.read(count)
