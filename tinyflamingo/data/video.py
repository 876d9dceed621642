"""The user's videos, prepared for the vision encoder (chapter §2), with one frame per second.

A video is a sequence of frames: 1 per second in training; the paper evaluates at 3 per second. Each
frame is prepared like a picture (`images.py`). PyAV, which contains FFmpeg, reads the files. It is
imported only when it is needed.

Not here: sound, subtitles, the choice of a clip in a long video, pixels that are not square.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from tinyflamingo.data.images import (
    MAX_PIXELS,
    Unreadable,
    prepare_picture,
    require_file,
    too_large,
)
from tinyflamingo.data.preparation import PAD, Preparation
from tinyflamingo.errors import UserError

MAX_DECODED = 100_000  # largest number of frames that are decoded: 600 seconds at 120 per second, and some more
TICK = 1e-3  # seconds; Matroska rounds times to this unit, so a frame may be early by this much

# FFmpeg also reads playlists, which open other files or addresses, and turns plain text into video.
# So only real containers are allowed, and they may open no file but their own.
_CONTAINERS = "mov,mp4,matroska,webm,avi,gif,mpegts,mpeg,mpegvideo,flv,ogg,asf,yuv4mpegpipe"
_OPTIONS = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "none"}

_REMEDY = "give an mp4, mov, webm, mkv, avi or animated GIF"
EXTENSIONS = (
    ".mp4", ".m4v", ".mov", ".3gp", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".flv",
    ".ogv", ".wmv", ".y4m",
)  # fmt: skip


# ---- reading ---------------------------------------------------------------------------------


def load_video(
    path_or_file: str | os.PathLike | BinaryIO,
    side: int = 32,
    fps: float = 1.0,
    max_frames: int = 32,
    max_seconds: float = 600,
    preparation: Preparation = PAD,
) -> np.ndarray:
    """Frames at 0, 1/fps, 2/fps, ... seconds after the first frame: uint8 (F, side, side, 3).

    Each is the first frame at or after its time. Times are presentation times, so the frame rate may
    vary. Rotation metadata is applied. Raises `UserError`, one line with the file's name, if the file
    cannot be read to its end, gives more than max_frames frames, is longer than max_seconds, or has
    more than images.MAX_PIXELS pixels in a frame.
    """
    if not 0 < fps < float("inf"):
        raise UserError(f"cannot take {fps} frames per second; give a number above 0")
    av = _import_av()
    opened: Any
    if hasattr(path_or_file, "read"):
        name, opened = str(getattr(path_or_file, "name", "from memory")), nullcontext(path_or_file)
    else:
        name = require_file(path_or_file, "video", _REMEDY)
        opened = open(path_or_file, "rb")
    try:
        with (
            opened as file,
            av.open(guarded := _GuardedFile(file), metadata_errors="ignore", container_options=_OPTIONS) as container,
        ):
            frames = _read(file, container, name, (side, preparation), fps, max_frames, max_seconds)
        if guarded.lost:
            raise ValueError("the file names a position that does not exist in it")
        return frames
    except (av.FFmpegError, OSError, ValueError, LookupError, ArithmeticError, MemoryError):
        # FFmpegError is listed because av.error.EOFError inherits from none of the others
        if hasattr(path_or_file, "read") or is_video(path_or_file):
            wrong, remedy = "it is damaged or cut short", "copy or export it again"
        else:
            wrong, remedy = "it is not a video", _REMEDY
        raise Unreadable("video", name, wrong, remedy) from None


class _GuardedFile:
    """A file whose `seek` to an impossible position (from a damaged header) returns -1 and sets `lost`.

    FFmpeg reads -1 as a failure. If `seek` raised an exception, PyAV would print a traceback.
    """

    def __init__(self, file):
        self.file, self.lost = file, False

    def __getattr__(self, name):
        return getattr(self.file, name)

    def seek(self, *place):
        try:
            return self.file.seek(*place)
        except (OSError, ValueError, OverflowError):
            self.lost = True
            return -1


def _import_av():
    try:
        import av
    except ImportError:
        raise UserError("reading video needs PyAV, which is missing: pip install av") from None
    return av


def _read(file, container, name, square, fps, max_frames, max_seconds) -> np.ndarray:
    """Sample an opened container: uint8 (F, side, side, 3). Only the samples are kept in memory."""
    stream = _video_stream(container, name)
    promised = _promised_seconds(container, stream)
    pictures: list[np.ndarray] = []
    start, end = None, 0.0
    for time, duration, frame in _timed_frames(container, stream, name):
        start = time if start is None else start
        if max(time - start, promised or 0) > max_seconds:
            wrong = f"it is longer than {max_seconds:g} seconds"
            raise Unreadable("video", name, wrong, "cut it shorter")
        due = int((time - start + TICK) * fps) + 1  # number of sample times up to this frame
        if due > max_frames:
            wrong = f"at {fps:g} frames per second it gives more than {max_frames} frames"
            raise Unreadable("video", name, wrong, "cut it shorter, or take fewer frames per second")
        if due > len(pictures):
            pictures += [_to_picture(frame, *square)] * (due - len(pictures))
        end = time + duration
    if not pictures:
        raise Unreadable("video", name, "it has no frames", _REMEDY)
    if not _is_complete(file, container, stream, promised, end):
        raise Unreadable("video", name, "it is cut short", "copy or export it again")
    return np.stack(pictures)


def _video_stream(container, name: str):
    """The first video stream that is not a cover picture, set to decode in the same way each time."""
    for stream in container.streams.video:
        if stream.disposition & type(stream.disposition).attached_pic:
            continue
        if stream.codec_context is None:
            raise Unreadable("video", name, "its codec is unknown", "save it as H.264 in mp4")
        stream.thread_type = "NONE"
        # with this option FFmpeg refuses a larger frame before it allocates memory for it
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
            raise too_large("video", name)
        return stream
    raise Unreadable("video", name, "it contains no video", _REMEDY)


def _timed_frames(container, stream, name: str) -> Iterator[tuple[float, float, object]]:
    """(presentation time in seconds, duration in seconds, frame), in the order of presentation."""
    pace = 1 / float(stream.average_rate or 25)
    for index, frame in enumerate(container.decode(stream)):
        if index >= MAX_DECODED:
            raise Unreadable("video", name, f"it has more than {MAX_DECODED} frames", "cut it shorter")
        if frame.width * frame.height > MAX_PIXELS:  # the size can change within a file
            raise too_large("video", name)
        time = index * pace if frame.time is None else frame.time
        duration = float(frame.duration * frame.time_base) if frame.duration else pace
        yield time, duration, frame


def _to_picture(frame, side: int, preparation: Preparation) -> np.ndarray:
    """One decoded frame to uint8 (side, side, 3), upright."""
    has_alpha = any(component.is_alpha for component in frame.format.components)
    pixels = frame.to_ndarray(format="rgba" if has_alpha else "rgb24")
    # rotation and rot90 both count degrees counter-clockwise
    return prepare_picture(np.rot90(pixels, round(frame.rotation / 90)), side, preparation)


# ---- is the file complete? -------------------------------------------------------------------


def _promised_seconds(container, stream) -> float | None:
    """The length of the video in its own header, in seconds. None if the header cannot be trusted."""
    kind = container.format.name
    if kind.startswith("matroska") and "DURATION" in stream.metadata:  # "hours:minutes:seconds"
        hours, minutes, seconds = map(float, stream.metadata["DURATION"].split(":"))
        return 3600 * hours + 60 * minutes + seconds
    if kind == "avi" and stream.average_rate:  # FFmpeg shortens the duration of a cut file, so count frames
        return stream.frames / float(stream.average_rate)
    if kind.startswith("mov") and stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return None


def _is_complete(file, container, stream, promised: float | None, end: float) -> bool:
    """Whether no frame is missing at the end. FFmpeg reports no error if the last frames are lost.

    end: the time at which the last frame ends; time 0 is that of the file, also if the first frame is later.
    """
    if container.format.name == "gif":  # its header has no length, but a complete file ends with a semicolon
        file.seek(-min(1024, _size(file)), os.SEEK_END)
        return file.read().rstrip(b"\0").endswith(b";")
    if container.format.name.startswith("mov") and not _boxes_are_complete(file):
        return False
    # headers round and editors trim, so 2 % and half a frame may be missing
    slack = 0.5 / float(stream.average_rate or 25)
    return promised is None or end >= 0.98 * promised - slack


def _size(file) -> int:
    return file.seek(0, os.SEEK_END)


def _boxes_are_complete(file) -> bool:
    """Whether all outermost boxes of an mp4 (length, four letters, content) end within the file."""
    total, place = _size(file), 0
    while place + 8 <= total:
        file.seek(place)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:  # the length needs 64 bits, which follow
            size = int.from_bytes(head[8:16], "big")
        if size == 0:  # the box ends with the file
            return True
        if size < 8:
            return False
        place += size
    return place <= total


# ---- is it a video? --------------------------------------------------------------------------


def is_video(path: str | os.PathLike) -> bool:
    """Whether to read the file as a video. The first bytes decide; if they cannot, the extension does.

    An animated GIF is a video, a GIF of one frame is not. Never raises: for a file that is missing or
    unreadable the extension decides, and the error comes when the file is read.
    """
    try:
        with open(path, "rb") as file:
            kind = _kind_of(file.read(512))
        if kind == "gif":
            return _is_animated(path)
    except (OSError, ValueError):
        kind = None
    by_name = os.fsdecode(path).lower().endswith(EXTENSIONS)
    return by_name if kind is None else kind == "video"


def _kind_of(head: bytes) -> str | None:
    """The kind of a file by its first bytes: "video", "picture" or "gif"; None if they do not show it."""
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")):
        return "picture"
    if head[:4] == b"RIFF":
        return {b"AVI ": "video", b"WEBP": "picture"}.get(head[8:12])
    if head[4:8] == b"ftyp":  # the mp4 family also contains pictures
        return "picture" if head[8:12] in (b"heic", b"heix", b"mif1", b"avif") else "video"
    if head[4:8] in (b"moov", b"mdat", b"wide"):  # old QuickTime
        return "video"
    if head[:1] == head[188:189] == b"G":  # packets of an MPEG transport stream
        return "video"
    video = (b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"\0\0\1\xb3", b"FLV\1", b"OggS", b"0&\xb2u",
             b"YUV4MPEG2")  # fmt: skip
    return "video" if head.startswith(video) else None


def _is_animated(path: str | os.PathLike) -> bool:
    try:
        with Image.open(path) as image:
            return getattr(image, "is_animated", False)
    except Exception:  # a broken GIF: the reader of pictures gives a better message
        return False


# ---- writing ---------------------------------------------------------------------------------


def write_video(path: str | os.PathLike, frames: np.ndarray, fps: float = 1) -> None:
    """Write frames, uint8 (F, H, W, 3), as a video at `fps`. The extension sets the format; mp4 is safe.

    Small frames are enlarged by a whole factor until each side has at least 64 pixels, and an odd size
    gets one more row or column, because encoders need it. Raises `ValueError` for other frames and
    `UserError` if the file cannot be written.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ValueError(f"frames must be uint8 (F, H, W, 3), not {frames.dtype} {frames.shape}")
    av = _import_av()
    rate = Fraction(fps).limit_denominator(1000)
    try:
        with av.open(os.fsdecode(path), "w") as container:
            _encode(av, container, frames, rate)
    except (av.FFmpegError, OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"cannot write the video {os.fsdecode(path)!r}: {why}") from None


def _encodable(frame: np.ndarray) -> np.ndarray:
    """The frame with even sides of at least 64 pixels."""
    factor = -(-64 // min(frame.shape[:2]))
    frame = frame.repeat(factor, 0).repeat(factor, 1)
    padding = [(0, length % 2) for length in frame.shape[:2]]
    return np.pad(frame, [*padding, (0, 0)], mode="edge")


def _encode(av, container, frames: np.ndarray, rate: Fraction) -> None:
    # H.264 plays everywhere, but some builds of FFmpeg cannot write it. With one thread the bytes are the same.
    if "libx264" in av.codecs_available:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "12", "threads": "1"})
    else:
        stream = container.add_stream("mpeg4", rate=rate, options={"qscale": "2", "threads": "1"})
        stream.bit_rate = 2_000_000
    stream.pix_fmt = "yuv420p"
    for index, pixels in enumerate(map(_encodable, frames)):
        if index == 0:
            stream.height, stream.width = pixels.shape[:2]
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = index, 1 / rate
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
