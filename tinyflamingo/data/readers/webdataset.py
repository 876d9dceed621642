"""Webdataset tars: the files of a record are consecutive, and their names are equal up to the first dot.

Example: 000001.jpg with 000001.txt, or with 000001.json that has a "caption". The content of a file shows whether it
is a picture or a video.
An archive is read from front to back, one member at a time, and nothing is extracted. A member that is a
link or a device, or whose name leads out of the folder, makes its record bad. Not here: shell pipes as addresses.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tinyflamingo.data.readers.record import (
    OUTPUT,
    BadRecord,
    Record,
    Root,
    Skipped,
    check_name,
    each,
    label,
    media_file,
    text,
    words,
)
from tinyflamingo.data.readers.tars import members
from tinyflamingo.data.readers.text_files import SHORT
from tinyflamingo.data.video import EXTENSIONS as VIDEOS
from tinyflamingo.files import LARGEST_PART, parse_json

FILES = ("*.tar", "*.tar.gz", "*.tgz")
SURE = FILES
SHARDS = True
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".apng")
TEXTS = (".txt", ".json", ".caption")


def matches(head: object) -> bool:
    """False: only the name of a file shows this format."""
    return False


def read(path: Path, root: Root) -> Iterator[Record | Skipped]:
    """Records of a picture or video, and its caption."""
    return each(_groups(path), _items)


def _groups(path):
    """(where, {extension: bytes}) of consecutive members with the same key, or a `BadRecord` if one of them is bad."""
    key, group = None, {}
    for member, read in members(path):
        folder, _, name = member.name.rpartition("/")
        stem, _, extension = name.partition(".")
        if key not in (None, f"{folder}/{stem}"):
            yield f"{path.name} {key.lstrip('/')}", group
            group = {}
        key = f"{folder}/{stem}"
        if isinstance(group, dict):
            group = _with(group, member, read, f".{extension.lower()}")
    if key is not None:
        yield f"{path.name} {key.lstrip('/')}", group


def _with(group, member, read, extension):
    """The group with one more member, or the `BadRecord` that spoils the group."""
    try:
        check_name(member.name)
        if not member.isreg():
            raise BadRecord("a member that is not a file", member.name)
        if extension in group:
            raise BadRecord("two members of the same name", member.name)
        if extension not in PICTURES + VIDEOS + TEXTS:
            return group
        if extension in TEXTS and member.size > SHORT:
            raise BadRecord(f"text of more than {SHORT >> 20} MB", member.name)
        if member.size + sum(map(len, group.values())) > LARGEST_PART:
            raise BadRecord(f"files of more than {LARGEST_PART >> 20} MB", member.name)
    except BadRecord as error:
        return error
    return group | {extension: read()}


def _items(group):
    media = [e for e in group if e in PICTURES + VIDEOS]
    if len(media) != 1:
        raise BadRecord("no picture or video" if not media else "several pictures or videos", sorted(group))
    facts = _facts(group)
    items = [media_file(f"its {media[0]}", group[media[0]]), OUTPUT, _caption(group, facts)]
    return Record("", items, label(facts, "class"), label(facts, "group"))


def _facts(group) -> dict:
    """The object in the member .json, which can have a "caption", a "class" and a "group"; {} if there is none."""
    try:
        facts = parse_json(group.get(".json", b"{}"))
    except ValueError:
        if not group.keys() & {".txt", ".caption"}:
            raise BadRecord("member is not JSON") from None
        return {}
    return facts if isinstance(facts, dict) else {}


def _caption(group, facts) -> str:
    for extension in (".txt", ".caption"):
        if extension in group:
            try:
                return text(group[extension].decode("utf-8-sig"))
            except UnicodeDecodeError:
                raise BadRecord("text is not UTF-8: save it as UTF-8 (is it GBK or UTF-16?)") from None
    if ".json" not in group:
        raise BadRecord("no text", sorted(group))
    return words(facts, "caption")
