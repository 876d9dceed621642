"""Webdataset tars: the files of a record follow each other and share their name up to its first dot.

000001.jpg with 000001.txt, or with 000001.json that has a "caption"; .mp4 and its like are videos.
Archives are read from front to back, a member at a time, and nothing is ever extracted: a member with a
name that leads elsewhere, a link or a device makes its record bad. Not here: shell pipes as addresses.
"""

from __future__ import annotations

import json
import tarfile

from tinyflamingo.data.readers.record import OUTPUT, BadRecord, MediaFile, Root, check_name, each, text, words
from tinyflamingo.data.readers.text_files import told
from tinyflamingo.data.video import EXTENSIONS as VIDEOS

FILES = ("*.tar", "*.tar.gz", "*.tgz")
SURE = FILES
SHARDS = True
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")
TEXTS = (".txt", ".json", ".caption")
LARGEST = 1 << 28  # bytes of a member


def matches(head) -> bool:
    """Tars are told by their names alone."""
    return False


def read(path, root: Root):
    """Records of picture or video, and caption."""
    return each(_groups(path), _items)


def _groups(path):
    """(where, {extension: bytes}) of consecutive members of one key, or the `BadRecord` among them."""
    key, group = None, {}
    with told(path), tarfile.open(path, "r|*") as archive:
        for member in archive:
            if member.isdir():
                continue
            folder, _, name = member.name.rpartition("/")
            stem, _, extension = name.partition(".")
            if key not in (None, f"{folder}/{stem}"):
                yield f"{path.name} {key.lstrip('/')}", group
                group = {}
            key = f"{folder}/{stem}"
            if isinstance(group, dict):
                group = _with(group, archive, member, f".{extension.lower()}")
        if key is not None:
            yield f"{path.name} {key.lstrip('/')}", group


def _with(group, archive, member, extension):
    """The group with one more member, or why the whole of it is bad."""
    try:
        check_name(member.name)
        if not member.isreg():
            raise BadRecord("a member that is no file", member.name)
        if extension in group:
            raise BadRecord("two members of one name", member.name)
        if extension not in PICTURES + VIDEOS + TEXTS:
            return group
        if member.size > LARGEST:
            raise BadRecord(f"a member of over {LARGEST >> 20} MB", member.name)
    except BadRecord as error:
        return error
    return group | {extension: archive.extractfile(member).read()}


def _items(group):
    media = [e for e in group if e in PICTURES + VIDEOS]
    if len(media) != 1:
        raise BadRecord("no picture or video" if not media else "several pictures or videos", sorted(group))
    kind = "video" if media[0] in VIDEOS else "picture"
    return [MediaFile(kind, f"its {media[0]}", group[media[0]]), OUTPUT, _caption(group)]


def _caption(group) -> str:
    for extension in (".txt", ".caption"):
        if extension in group:
            try:
                return text(group[extension].decode("utf-8-sig"))
            except UnicodeDecodeError:
                raise BadRecord("text is no UTF-8") from None
    if ".json" not in group:
        raise BadRecord("no text", sorted(group))
    try:
        return words(json.loads(group[".json"]), "caption")
    except (ValueError, RecursionError):
        raise BadRecord("member is no JSON") from None
