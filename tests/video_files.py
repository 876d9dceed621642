"""Small video files of every container, made in memory: 32x32, noise or one grey for each frame."""

import io
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from PIL import Image

av = pytest.importorskip("av")

SIDE = 32
CONTAINERS = {  # name: format, codec, options, frames per second
    "mp4": ("mp4", "libx264", {}, 10),
    "fragments.mp4": ("mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}, 10),
    "mov": ("mov", "libx264", {}, 10),
    "mkv": ("matroska", "libx264", {}, 10),
    "live.mkv": ("matroska", "libx264", {"live": "1"}, 10),
    "webm": ("webm", "libvpx", {}, 10),
    "avi": ("avi", "mpeg4", {}, 10),
    "flv": ("flv", "flv", {}, 10),
    "h264.flv": ("flv", "libx264", {}, 10),
    "ts": ("mpegts", "libx264", {}, 10),
    "mpeg2.ts": ("mpegts", "mpeg2video", {}, 25),
    "mts": ("mpegts", "libx264", {"mpegts_m2ts_mode": "1"}, 10),
    "mpg": ("mpeg", "mpeg1video", {}, 25),
    "vob": ("vob", "mpeg2video", {}, 25),
    "h264.mpg": ("mpeg", "libx264", {}, 10),
    "wmv": ("asf", "wmv2", {}, 10),
    "ogv": ("ogg", "libvpx", {}, 10),
    "y4m": ("yuv4mpegpipe", "wrapped_avframe", {}, 10),
}
ANIMATIONS = ("gif", "webp", "apng")


def noise(count):
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def greys(count, first=0, step=12):
    """Frame i has the grey first + step * i everywhere."""
    return np.broadcast_to(
        (first + step * np.arange(count, dtype=np.uint8))[:, None, None, None], (count, SIDE, SIDE, 3)
    )


def rate_of(kind):
    return CONTAINERS[kind][3] if kind in CONTAINERS else 10


def encoded(kind, frames, prepare=lambda stream: None, filtered=None):
    """The bytes of a file. prepare changes the stream, filtered is the name of a filter for its packets."""
    if kind in ANIMATIONS:
        return animation(kind, frames)
    form, codec, options, rate = CONTAINERS[kind]
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg cannot write {codec}")
    target = io.BytesIO()
    with av.open(target, "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        prepare(stream)
        change = av.bitstream.BitStreamFilterContext(filtered, stream).filter if filtered else lambda packet: [packet]
        for packet in _packets(stream, frames, rate):
            container.mux(change(packet))
    return target.getvalue()


def _packets(stream, frames, rate):
    for number, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, rate)
        yield from stream.encode(frame)
    yield from (packet for packet in stream.encode(None) if packet.size)


def animation(kind, frames, **options):
    target = io.BytesIO()
    first, *others = map(Image.fromarray, map(np.ascontiguousarray, frames))
    kind = {"apng": "png"}.get(kind, kind)
    first.save(target, kind, save_all=True, append_images=others, **({"duration": 100, "loop": 0} | options))
    return target.getvalue()


@cache
def sample(kind):
    """A file of 20 frames of noise."""
    return encoded(kind, noise(20))
