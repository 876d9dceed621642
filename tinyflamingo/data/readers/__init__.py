"""Readers of the users' data sets: a folder or file in, records out (chapter §4).

`read_data(path)` detects the format, or takes it as an argument. Each format is a module here. It has `FILES` (patterns
of its files' names), `SURE` (patterns that no other format has), `matches` (whether the beginning of a file has the
format) and `SHARDS` (whether several files can be one data set). Its `read(path, root)` is a generator: it reads a
record only when that record is needed.

Not here: decoding (`decode.py`), the store that training reads (`data/store.py`).
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
from tinyflamingo.data.readers.record import BadRecord, Record, Root, Skipped, own_files
from tinyflamingo.data.readers.text_files import NOT_UTF8, json_lines, lines, top_level
from tinyflamingo.errors import UserError
from tinyflamingo.language import _

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
HEAD = 20  # number of lines or elements that are read to detect a format


def read_data(path: str | Path, name: str | None = None) -> tuple[str, Iterator[Record | Skipped]]:
    """(format, records) of a folder or file. Raises `UserError` if no format fits, or more than one.

    name: the format; None: detect it. Paths in a data set are relative to its root: the given folder, or the
    folder of the given file, or the parent of that folder if its name is "annotations".
    """
    path = Path(path)
    if name is not None and name not in FORMATS:
        raise UserError(f"unknown format {name!r}: choose one of {', '.join(FORMATS)}")
    if not path.exists():
        raise UserError(f"cannot read the data {str(path)!r}: there is no such file or folder; check the path")
    root, candidates = Root(root_of(path)), _files(path, name)
    if not candidates:
        _check_encoding(path, [name] if name else FORMATS)
        wanted = _(f"no data in the format {name!r}" if name else "no data in a known format")
        raise UserError(
            f"{str(path)!r} holds {wanted} (links are not read, text must be UTF-8): give a folder with "
            "captions.jsonl, or a file and --format"
        )
    if len(candidates) > 1:
        raise UserError(f"{str(path)!r} holds data in several formats, {' and '.join(candidates)}: add --format")
    name, files = next(iter(candidates.items()))
    if len(files) > 1 and not FORMATS[name].SHARDS:
        raise UserError(f"{str(path)!r} holds several data sets, {files[0].name} and {files[1].name}: give one of them")
    return name, (record for file in files for record in FORMATS[name].read(file, root))


def has_records(path: str | Path) -> bool:
    """Whether a folder or file has data in a known format."""
    return bool(_files(Path(path), None))


def _check_encoding(path: Path, names) -> None:
    """`UserError` for a file that could have one of these formats, but is not UTF-8."""
    for file in (file for name in names for file in _named(path, FORMATS[name])):
        if any(isinstance(head, BadRecord) and head.why == NOT_UTF8 for head in _heads(file)):
            raise UserError(f"cannot read {str(file)!r}: it is not UTF-8; save it as UTF-8 (is it GBK or UTF-16?)")


def root_of(path: Path) -> Path:
    """The folder in which the files of a data set are, see `read_data`."""
    if path.is_dir():
        return path
    return path.parent.parent if path.parent.name == "annotations" else path.parent


def _files(path: Path, name) -> dict:
    """{format: its files}. If the caller gives a file and its format, the file is not checked."""
    if path.is_file() and name:
        return {name: [path]}
    candidates, refused = {}, []
    for format_name in [name] if name else FORMATS:
        fitting = []
        for file in _named(path, FORMATS[format_name]):
            try:
                fitting += [file] if _fits(file, FORMATS[format_name]) else []
            except UserError as error:  # perhaps a file that is no part of the data
                refused.append(error)
        if fitting:
            candidates[format_name] = fitting
    if refused and (name or not candidates):
        raise refused[0]
    return candidates


def _named(path: Path, module) -> list:
    """Files whose names fit a format: all shards, or only those of the first pattern that fits any file."""
    if path.is_file():
        return [path] if any(path.match(pattern.rpartition("/")[2]) for pattern in module.FILES) else []
    files: list[Path] = []
    for pattern in module.FILES:
        if files and not module.SHARDS:
            break
        files += own_files(path, pattern)
    return files


def _fits(path: Path, module) -> bool:
    """Whether the name or the beginning of a file shows that it has the format."""
    return any(path.match(p) for p in module.SURE) or any(module.matches(head) for head in _heads(path))


def _heads(path: Path) -> Iterator:
    """The parts that show a file's format: its first lines, as JSON or text, or first elements of arrays."""
    if path.suffix in (".tar", ".tgz", ".parquet") or path.name.endswith(".tar.gz"):
        return
    if path.suffix == ".json":
        for _, elements in groupby(top_level(path), key=lambda pair: pair[0]):
            yield from islice(elements, HEAD)
        return
    rows = lines(path) if path.suffix in (".txt", ".csv", ".token") else json_lines(path)
    for _, head in islice(rows, HEAD):
        yield head
