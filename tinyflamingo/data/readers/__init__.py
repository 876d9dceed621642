"""Readers of the data sets that users have: a folder or file in, records out (chapter §4).

`read_data(path)` finds out the format, or is told it. Each format is a file here with `FILES` (what its
files are called in a folder), `SURE` (names that no other format's files have), `matches` (whether the
beginning of one looks like it), `SHARDS` (whether several files make one data set) and `read(path, root)`,
a generator: nothing is read before it is asked for.

Not here: decoding (`decode.py`), the store that training reads from (`data/store.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path

from tinyflamingo.data.readers import (
    coco,
    flickr30k,
    folder,
    karpathy,
    mmc4,
    msrvtt,
    msvd,
    obelics,
    vqav2,
    webdataset,
)
from tinyflamingo.data.readers.record import Record, Root, Skipped
from tinyflamingo.data.readers.text_files import json_lines, lines, top_level
from tinyflamingo.errors import UserError

FORMATS = {
    "folder": folder,
    "coco": coco,
    "karpathy": karpathy,
    "flickr30k": flickr30k,
    "vqav2": vqav2,
    "msrvtt": msrvtt,
    "msvd": msvd,
    "mmc4": mmc4,
    "obelics": obelics,
    "webdataset": webdataset,
}
LOOK = 20  # lines or elements that are looked at to find out a format


def read_data(path, name=None) -> tuple[str, Iterator[Record | Skipped]]:
    """(format, records) of a folder or file. Raises `UserError` where no format, or more than one, fits.

    name: the format; by default it is found out. Paths in a data set count from its folder: the one
    given, or that of the file given, or the one above if that is called "annotations".
    """
    path = Path(path)
    if name is not None and name not in FORMATS:
        raise UserError(f"unknown format {name!r}: choose one of {', '.join(FORMATS)}")
    if not path.exists():
        raise UserError(f"cannot read the data {str(path)!r}: there is no such file or folder; check the path")
    root, found = Root(_root_of(path)), _files(path, name)
    if not found:
        wanted = f"nothing of the format {name!r}" if name else "no data in a format known here"
        raise UserError(f"{str(path)!r} holds {wanted}: give a folder with captions.jsonl, or name file and --format")
    if len(found) > 1:
        raise UserError(f"{str(path)!r} holds data of several formats, {' and '.join(found)}: add --format")
    name, files = next(iter(found.items()))
    if len(files) > 1 and not FORMATS[name].SHARDS:
        raise UserError(f"{str(path)!r} holds several data sets, {files[0].name} and {files[1].name}: name one of them")
    return name, (record for file in files for record in FORMATS[name].read(file, root))


def _root_of(path: Path) -> Path:
    if path.is_dir():
        return path
    return path.parent.parent if path.parent.name == "annotations" else path.parent


def _files(path: Path, name) -> dict:
    """{format: its files}. A file that is named, with its format, is taken at its word."""
    if path.is_file() and name:
        return {name: [path]}
    found = {}
    for format_name in [name] if name else FORMATS:
        files = _named(path, FORMATS[format_name])
        fitting = [file for file in files if _fits(file, FORMATS[format_name])]
        if fitting:
            found[format_name] = fitting
    return found


def _named(path: Path, module) -> list:
    """Files called as a format's files are; of a folder, all shards, or those of the first pattern that fits any."""
    if path.is_file():
        return [path] if any(path.match(pattern.rpartition("/")[2]) for pattern in module.FILES) else []
    found = []
    for pattern in module.FILES:
        if found and not module.SHARDS:
            break
        found += sorted(p for p in path.glob(pattern) if p.is_file() and not p.is_symlink())
    return found


def _fits(path: Path, module) -> bool:
    """Whether a file is called, or begins, as those of the format alone do."""
    return any(path.match(p) for p in module.SURE) or any(module.matches(head) for head in _heads(path))


def _heads(path: Path) -> Iterator:
    """What a file's format can be told by: its first lines, as JSON or not, or first elements of arrays."""
    if path.suffix in (".tar", ".tgz", ".parquet") or path.name.endswith(".tar.gz"):
        return
    if path.suffix == ".json":
        for _, elements in groupby(top_level(path), key=lambda pair: pair[0]):
            yield from islice(elements, LOOK)
        return
    rows = lines(path) if path.suffix in (".txt", ".csv", ".token") else json_lines(path)
    for _, head in islice(rows, LOOK):
        yield head
