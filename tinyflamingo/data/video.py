"""Video of the user's own, one frame a second, made ready for the vision encoder.

Serves §2 (the vision encoder: a video is a row of frames, at 1 frame a second in training; the
paper evaluates at 3). Each frame is handled as a picture is (images.py). Reading is done by PyAV,
which brings FFmpeg; it is imported only when a video is met.

Not here: sound, subtitles, the choice of a clip out of a long video. Pixels are taken to be square.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from fractions import Fraction
from typing import BinaryIO

import numpy as np
from PIL import Image

from tinyflamingo.data.images import (
    MAX_PIXELS,
    Unreadable,
    prepare_picture,
    require_file,
    too_large,
)
from tinyflamingo.errors import UserError

MAX_DECODED = 100_000  # frames decoded at most: 600 seconds at 120 a second, and some room
TICK = 1e-3  # seconds; Matroska rounds times to this, so a frame this early is still in time

# FFmpeg also knows playlists that open other files or addresses, and turns plain text into video:
# only real containers are let in, and none may open anything but the file itself.
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
) -> np.ndarray:
    """Frames at 0, 1/fps, 2/fps, ... seconds after the first: uint8 (F, side, side, 3).

    Each is the first frame at or after its time, by presentation time, so frames may come at any
    pace; the last is the last such frame there is. Rotation metadata is applied. Raises UserError,
    in one line with the file's name, for whatever cannot be read to its end, and for more than
    max_frames sampled frames, max_seconds seconds, or images.MAX_PIXELS pixels a frame.
    """
    if not 0 < fps < float("inf"):
        raise UserError(f"cannot take {fps} frames a second; give a number above 0")
    av = _import_av()
    if hasattr(path_or_file, "read"):
        name, opened = str(getattr(path_or_file, "name", "from memory")), nullcontext(path_or_file)
    else:
        name = require_file(path_or_file, "video", _REMEDY)
        opened = open(path_or_file, "rb")
    try:
        with (
            opened as file,
            av.open(calm := _Calm(file), metadata_errors="ignore", container_options=_OPTIONS) as container,
        ):
            frames = _read(file, container, name, side, fps, max_frames, max_seconds)
        if calm.lost:
            raise ValueError("the file names a place that it does not have")
        return frames
    except (av.FFmpegError, OSError, ValueError, LookupError, ArithmeticError, MemoryError):
        # av.error.EOFError is a child of none of the built-in ones
        if hasattr(path_or_file, "read") or is_video(path_or_file):
            wrong, remedy = "it is damaged or cut short", "copy or export it again"
        else:
            wrong, remedy = "it is not a video", _REMEDY
        raise Unreadable("video", name, wrong, remedy) from None


class _Calm:
    """A file whose `seek` to an impossible place, which damaged headers name, gives -1 and sets `lost`.

    FFmpeg takes -1 for a failure; of an exception, PyAV prints the traceback before it raises.
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


def _read(file, container, name, side, fps, max_frames, max_seconds) -> np.ndarray:
    """Sample an opened container: uint8 (F, side, side, 3). Only the samples are kept in memory."""
    stream = _video_stream(container, name)
    promised = _promised_seconds(container, stream)
    pictures, start, end = [], None, 0.0
    for time, duration, frame in _timed_frames(container, stream, name):
        start = time if start is None else start
        if max(time - start, promised or 0) > max_seconds:
            wrong = f"it is longer than {max_seconds:g} seconds"
            raise Unreadable("video", name, wrong, "cut it shorter")
        due = int((time - start + TICK) * fps) + 1  # as many samples lie at or before this frame
        if due > max_frames:
            wrong = f"at {fps:g} frames a second it gives more than {max_frames} frames"
            raise Unreadable("video", name, wrong, "cut it shorter, or take fewer frames a second")
        if due > len(pictures):
            pictures += [_to_picture(frame, side)] * (due - len(pictures))
        end = time + duration
    if not pictures:
        raise Unreadable("video", name, "it has no frames", _REMEDY)
    if not _is_whole(file, container, stream, promised, end):
        raise Unreadable("video", name, "it is cut short", "copy or export it again")
    return np.stack(pictures)


def _video_stream(container, name: str):
    """The first video stream that is no cover picture, set to decode the same way every time."""
    for stream in container.streams.video:
        if stream.disposition & type(stream.disposition).attached_pic:
            continue
        if stream.codec_context is None:
            raise Unreadable("video", name, "its codec is not known here", "save it as H.264 in mp4")
        stream.thread_type = "NONE"
        # FFmpeg then refuses larger frames before it allocates them
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
            raise too_large("video", name)
        return stream
    raise Unreadable("video", name, "it has no video in it", _REMEDY)


def _timed_frames(container, stream, name: str) -> Iterator[tuple[float, float, object]]:
    """(seconds on the file's clock, seconds on show, frame), in the order of presentation."""
    pace = 1 / float(stream.average_rate or 25)
    for index, frame in enumerate(container.decode(stream)):
        if index >= MAX_DECODED:
            raise Unreadable("video", name, f"it has over {MAX_DECODED} frames", "cut it shorter")
        if frame.width * frame.height > MAX_PIXELS:  # the size may change on the way
            raise too_large("video", name)
        time = index * pace if frame.time is None else frame.time
        duration = float(frame.duration * frame.time_base) if frame.duration else pace
        yield time, duration, frame


def _to_picture(frame, side: int) -> np.ndarray:
    """One decoded frame to uint8 (side, side, 3), upright."""
    has_alpha = any(component.is_alpha for component in frame.format.components)
    pixels = frame.to_ndarray(format="rgba" if has_alpha else "rgb24")
    # both count degrees counter-clockwise
    return prepare_picture(np.rot90(pixels, round(frame.rotation / 90)), side)


# ---- is the file whole? ----------------------------------------------------------------------


def _promised_seconds(container, stream) -> float | None:
    """How long the video is by its own header, in seconds; None where no header can be trusted."""
    kind = container.format.name
    if kind.startswith("matroska") and "DURATION" in stream.metadata:  # "hours:minutes:seconds"
        hours, minutes, seconds = map(float, stream.metadata["DURATION"].split(":"))
        return 3600 * hours + 60 * minutes + seconds
    if kind == "avi" and stream.average_rate:  # FFmpeg adapts the duration of a cut file to it
        return stream.frames / float(stream.average_rate)
    if kind.startswith("mov") and stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return None


def _is_whole(file, container, stream, promised: float | None, end: float) -> bool:
    """Whether the frames go on to the end: FFmpeg takes the loss of the last ones in silence.

    end: when the last frame ends, on the file's clock, on which a late first frame counts as time.
    """
    if container.format.name == "gif":  # promises nothing, but ends with a semicolon
        file.seek(-min(1024, _size(file)), os.SEEK_END)
        return file.read().rstrip(b"\0").endswith(b";")
    if container.format.name.startswith("mov") and not _boxes_are_whole(file):
        return False
    # headers round, and editors trim: 2 % and half a frame are forgiven
    slack = 0.5 / float(stream.average_rate or 25)
    return promised is None or end >= 0.98 * promised - slack


def _size(file) -> int:
    return file.seek(0, os.SEEK_END)


def _boxes_are_whole(file) -> bool:
    """Whether no outermost box of an mp4 (length, four letters, content) goes on past the end of the file."""
    total, place = _size(file), 0
    while place + 8 <= total:
        file.seek(place)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:  # the length did not fit and follows
            size = int.from_bytes(head[8:16], "big")
        if size == 0:  # up to the end, however far that is
            return True
        if size < 8:
            return False
        place += size
    return place <= total


# ---- is it a video at all? -------------------------------------------------------------------


def is_video(path: str | os.PathLike) -> bool:
    """Whether to read the file as a video: by its first bytes, else by its extension.

    An animated GIF is a video, a GIF of one frame is not. Never raises: a file that is missing or
    unreadable is judged by its extension, and reading it will tell what is wrong.
    """
    try:
        with open(path, "rb") as file:
            told = _sniff(file.read(512))
        if told == "gif":
            return _is_animated(path)
    except (OSError, ValueError):
        told = None
    by_name = os.fsdecode(path).lower().endswith(EXTENSIONS)
    return by_name if told is None else told == "video"


def _sniff(head: bytes) -> str | None:
    """What the first bytes of a file say: "video", "picture", "gif"; None if they do not tell."""
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")):
        return "picture"
    if head[:4] == b"RIFF":
        return {b"AVI ": "video", b"WEBP": "picture"}.get(head[8:12])
    if head[4:8] == b"ftyp":  # the family of mp4 has pictures in it, too
        return "picture" if head[8:12] in (b"heic", b"heix", b"mif1", b"avif") else "video"
    if head[4:8] in (b"moov", b"mdat", b"wide"):  # QuickTime of old
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
    except Exception:  # a broken GIF: the reader of pictures has the better messages
        return False


# ---- writing ---------------------------------------------------------------------------------


def write_video(path: str | os.PathLike, frames: np.ndarray, fps: float = 1) -> None:
    """Write frames, uint8 (F, H, W, 3), as a video (by the extension; mp4 is safe) at `fps`.

    Small frames are enlarged by a whole factor to at least 64 pixels a side, and odd sizes get one
    more row or column, as encoders demand. Raises ValueError for other frames and UserError if the
    file cannot be written.
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
    """One frame, at least 64 pixels a side and of even size."""
    factor = -(-64 // min(frame.shape[:2]))
    frame = frame.repeat(factor, 0).repeat(factor, 1)
    odd = [(0, length % 2) for length in frame.shape[:2]]
    return np.pad(frame, [*odd, (0, 0)], mode="edge")


def _encode(av, container, frames: np.ndarray, rate: Fraction) -> None:
    # H.264 plays everywhere, but not every build of FFmpeg may write it; one thread: same bytes
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
