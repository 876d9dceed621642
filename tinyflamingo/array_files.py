"""Files of named arrays: safetensors and npz. Read by mapping, written one array at a time.

A safetensors file is eight bytes (a length n, little-endian), n bytes of JSON ({name: {"dtype", "shape",
"data_offsets"}}) and the arrays, row by row, one after the other. The format is simple, so this file reads and writes
it without a library. It maps 10 GB into memory without a copy. One release of the format's library writes a transposed
view in the wrong order; this file cannot.

Not here: what the names mean (`interop/names.py`). Pickles (`.pt`, `.bin`) are refused: they can run code.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tinyflamingo.errors import UserError
from tinyflamingo.files import UNPACKED, open_regular, parse_json

DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # NumPy has no bfloat16: it is the upper half of a float32
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
ENDINGS = (".safetensors", ".npz")
LONGEST_HEADER = 10_000_000  # bytes; a model of 10,000 arrays has a tenth of it
MOST_AXES, LARGEST_NUMBER = 32, 1 << 48  # in the shape of an array


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """{name: array} of a `.safetensors` or `.npz` file, or of all such files in a folder.

    Arrays of a safetensors file are views into the mapped file, read when they are used; arrays of 16 bits become
    float32. Raises `UserError` for a file that is cut, damaged, or a pickle.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise UserError(f"cannot read {path}: no such file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix == ".npz":
        return _read_npz(path)
    raise UserError(
        f"cannot read {path}: weights are read from {' or '.join(ENDINGS)}; a PyTorch file is a pickle, which can "
        "run code: load it in PyTorch and save its tensors with safetensors.torch.save_file"
    )


def _read_folder(folder):
    """The arrays of all files of a folder in one dict. A name that is in two files is a `UserError`."""
    merged = {}
    for path in sorted(file for file in folder.iterdir() if file.suffix in ENDINGS):
        arrays = read_arrays(path)
        twice = sorted(merged.keys() & arrays.keys())
        if twice:
            raise UserError(f"{path}: {len(twice)} names are in another file too, first {twice[0]}")
        merged |= arrays
    if not merged:
        raise UserError(f"cannot read {folder}: no {' or '.join(ENDINGS)} file with arrays in it")
    return merged


def _read_npz(path):
    try:
        with open_regular(path) as file:
            return unpacked(file)
    except Exception as error:  # a foreign file may fail anywhere inside zipfile or NumPy
        raise UserError(f"cannot read {path}: it is cut or not a file of arrays") from error


def unpacked(file: BinaryIO) -> dict[str, np.ndarray]:
    """{name: array} of an npz. A foreign file may raise nearly any exception."""
    times, more = UNPACKED
    packed = file.seek(0, os.SEEK_END)
    if sum(math.prod(shape) * dtype.itemsize for shape, dtype in npz_heads(file).values()) > times * packed + more:
        raise ValueError("its arrays are much larger than the file")
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def npz_heads(file: BinaryIO) -> dict[str, tuple[tuple, np.dtype]]:
    """{name: (shape, dtype)} of the arrays of an npz; no array is read. Raises `ValueError` for texts and objects."""
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        heads = {name.removesuffix(".npy"): _npy_head(archive, name) for name in archive.namelist()}
    file.seek(0)
    return heads


def _npy_head(archive, name):
    with archive.open(name) as member:
        if np.lib.format.read_magic(member) != (1, 0):  # another version may have a head of any length
            raise ValueError(f"{name} is not an array of version 1.0")
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    if dtype.kind not in "biuf":
        raise ValueError(f"{name} is not an array of numbers")
    return shape, dtype


def _read_safetensors(path):
    entries, begin = _entries(path)
    if path.stat().st_size == begin:
        data = np.zeros(0, np.uint8)
    else:
        data = np.memmap(path, np.uint8, mode="r")[begin:]
    return {name: _view(data, entry) for name, entry in entries.items()}


def _entries(path):
    """{name: entry} of the arrays in the header, each checked, and the place where the arrays begin."""
    header, begin = _header(path)
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    size = path.stat().st_size - begin
    wrong = next((name for name, entry in entries.items() if not _is_entry(entry, size)), None)
    if wrong is not None:
        raise UserError(f"cannot read {path}: array {wrong[:80]!r} lies outside the file or its description is wrong")
    places = sorted(entry["data_offsets"] for entry in entries.values())
    if any(end > begin for (_, end), (begin, _) in itertools.pairwise(places)):
        raise UserError(f"cannot read {path}: two of its arrays overlap")
    return entries, begin


def _is_entry(entry, size):
    """Whether an array is described completely, fits its shape, and lies in the file's `size` bytes of arrays."""
    match entry:
        case {"dtype": str(kind), "shape": list(shape), "data_offsets": [begin, end]} if kind in DTYPES:
            numbers = all(type(n) is int and 0 <= n < LARGEST_NUMBER for n in (*shape, begin, end))
            fits = numbers and len(shape) <= MOST_AXES and end - begin == math.prod(shape) * DTYPES[kind].itemsize
            return fits and end <= size
    return False


def _header(path):
    """The parsed JSON and the place where the arrays begin."""
    try:
        with open_regular(path) as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(LONGEST_HEADER, path.stat().st_size - 8):
                raise ValueError("the header is longer than the file")
            header = parse_json(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("the header is not a dictionary")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path}: it is cut or not a safetensors file ({error})") from error
    return header, 8 + length


def header_digest(path: str | os.PathLike) -> str:
    """SHA-256 of the header of a safetensors file: names, shapes and offsets, not the numbers."""
    header, _ = _header(Path(path))
    return hashlib.sha256(json.dumps(header).encode()).hexdigest()


def safetensors_shapes(path: str | os.PathLike) -> dict[str, tuple]:
    """{name: shape} in the header of a safetensors file."""
    return {name: tuple(entry["shape"]) for name, entry in _entries(Path(path))[0].items()}


def _view(data, entry):
    begin, end = entry["data_offsets"]
    array = data[begin:end].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    if entry["dtype"] == "BF16":
        return (array.astype("<u4") << 16).view("<f4")
    return array.astype(np.float32) if entry["dtype"] == "F16" else array


def chunks(ending: str, shapes: dict[str, tuple], get: Callable[[str], np.ndarray]) -> Iterable:
    """The bytes of a file of float32 arrays, piece by piece, for `write_atomically`.

    shapes {name: shape}; get(name) gives an array of that shape. It is called once for each name, in order, so only
    one array of a safetensors file is in memory at a time. Raises `UserError` for another ending.
    """
    if ending == ".safetensors":
        return _safetensors_chunks(shapes, get)
    if ending == ".npz":
        packed = io.BytesIO()
        np.savez(packed, **{name: _checked(get(name), shape, name) for name, shape in shapes.items()})
        return [packed.getbuffer()]
    raise UserError(f"weights are written to {' or '.join(ENDINGS)}, not to {ending!r}")


def _safetensors_chunks(shapes, get):
    header, place = {}, 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # arrays begin at a multiple of 8 bytes
    yield len(text).to_bytes(8, "little") + text
    for name, shape in shapes.items():
        yield _checked(get(name), shape, name).reshape(-1).data


def _checked(array, shape, name):
    """The array in float32, row by row in memory, also if it is a view."""
    if tuple(array.shape) != tuple(shape):
        raise ValueError(f"{name} has shape {array.shape} but {shape} was announced")
    with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite
        array = np.ascontiguousarray(array, "<f4").reshape(shape)
    if not_finite({name: array}):
        raise UserError(f"{name} has NaN or infinite numbers in float32: nothing is written")
    return array


def not_finite(arrays: dict[str, np.ndarray]) -> str | None:
    """The name of the first array with a NaN or an infinite number; None if all numbers are finite.

    By the smallest and the largest number, which are NaN if any number is: this needs no second array.
    """
    return next((n for n, x in arrays.items() if x.size and not np.isfinite([x.min(), x.max()]).all()), None)
