"""The content of TinyWorld pictures and videos, and the things that are held out of all training streams.

TinyWorld is the toy data of all sections of the chapter. A `Scene` describes a picture, a `Clip`
describes a video; both are sampled with a `numpy.random.Generator`. Twelve shape-colour pairs and
four shapes are held out: no training stage draws or names them.

Not here: pixels (`raster.py`) and words (`language.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from tinyflamingo.data.tinyworld.glyphs import DIGITS, HANDS, WILD, written
from tinyflamingo.data.tinyworld.raster import COLOURS, RGB, Mark, draw, jitter, sample_background
from tinyflamingo.data.tinyworld.shapes import NAMED

Kind: TypeAlias = tuple[str, str]  # (shape, colour)

SIDE = 32
# The colours with the same names in other drawing programs; the palette of `raster.py` is used as well.
SHADES = {
    "red": (255, 0, 0),
    "orange": (255, 165, 0),
    "yellow": (255, 255, 0),
    "green": (0, 128, 0),
    "cyan": (0, 255, 255),
    "blue": (0, 0, 255),
    "purple": (128, 0, 128),
    "pink": (255, 192, 203),
}
COLOUR_NAMES = tuple(COLOURS)
SIZES = {"small": 4.5, "medium": 7.0, "large": 10.0}  # radius in pixels
SPREAD = {"small": 9.0, "medium": 7.5, "large": 5.0}  # pixels from the middle to a side position
POSITIONS = {
    "top left": (-1, -1),
    "top": (0, -1),
    "top right": (1, -1),
    "left": (-1, 0),
    "middle": (0, 0),
    "right": (1, 0),
    "bottom left": (-1, 1),
    "bottom": (0, 1),
    "bottom right": (1, 1),
}
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
MOVES = {"moves left": (-1, 0), "moves right": (1, 0), "moves up": (0, -1), "moves down": (0, 1)}
ACTIONS = (*MOVES, "grows", "shrinks", "vanishes", "turns")
FRAMES = 8  # one per second
NAMELESS = 75.0  # a colour has no name if its RGB distance to each named colour is larger than this
NAMED_RGB = np.array([*COLOURS.values(), *SHADES.values()])

THINGS = tuple((shape, colour) for shape in NAMED for colour in COLOUR_NAMES)
HELD_OUT = frozenset((shape, COLOUR_NAMES[(5 * i + 2) % 8]) for i, shape in enumerate(NAMED))
KNOWN = tuple(thing for thing in THINGS if thing not in HELD_OUT)
# Things whose facts are only in text: no question about a picture asks for them.
UNASKED = frozenset(t for t in KNOWN if (NAMED.index(t[0]) + 2 * COLOUR_NAMES.index(t[1])) % 3 == 0)
ASKED = tuple(thing for thing in KNOWN if thing not in UNASKED)
WILD_THINGS = tuple((shape, colour) for shape in WILD for colour in COLOUR_NAMES)
WRITTEN = tuple((digit, colour) for digit in DIGITS for colour in COLOUR_NAMES)
# Pairs of digits. The sums of UNASKED_SUMS are only in text: no question about a picture asks for them.
SUMS = tuple((a, b) for a in range(10) for b in range(10))
UNASKED_SUMS = frozenset((a, b) for a, b in SUMS if (a + 2 * b) % 4 == 0)
ASKED_SUMS = tuple(pair for pair in SUMS if pair not in UNASKED_SUMS)


@dataclass(frozen=True)
class Thing:
    """One object: what it is and where it is (in pixels of a 32 x 32 frame)."""

    shape: str
    colour: str
    size: str
    position: str
    x: float
    y: float
    radius: float
    rgb: RGB | tuple[()] = ()  # given if the colour has no name (colour is then "")

    @property
    def kind(self) -> Kind:
        """(shape, colour)."""
        return (self.shape, self.colour)


@dataclass(frozen=True)
class Scene:
    """A picture: kind "single", "pair", "count", "digit", "sum" or "wild".

    In a pair the larger thing comes first; in a sum the digits go from left to right.
    """

    kind: str
    things: tuple[Thing, ...] = ()
    relation: str = ""  # of the first thing to the second

    @property
    def digits(self) -> tuple[int, ...]:
        """The numbers of a sum, from left to right."""
        return tuple(DIGITS.index(thing.shape) for thing in self.things)


@dataclass(frozen=True)
class Clip:
    """A video of one thing. After the action `turns` its colour is `new_colour`."""

    thing: Thing
    action: str
    moment: int = 4  # the frame at which it vanishes or turns
    new_colour: str = ""
    kind: str = "clip"


def content(medium: Scene | Clip) -> tuple:
    """What words can say about a picture or video: everything but coordinates, shades and the moment of an action."""
    if isinstance(medium, Clip):
        return (medium.thing.kind, medium.action, medium.new_colour)
    return (medium.kind, medium.relation, *((t.shape, t.colour, t.size, t.position) for t in medium.things))


def pick(rng: np.random.Generator, options: Sequence) -> Any:
    """One element of a sequence, uniformly."""
    return options[int(rng.integers(len(options)))]


def pick_some(rng: np.random.Generator, options: Sequence, most: int | None = None) -> list:
    """Up to `most` different elements of a sequence, in random order; None: all."""
    return [options[i] for i in rng.permutation(len(options))[:most].tolist()]


def sample_single(
    rng: np.random.Generator, things: Sequence[Kind] = KNOWN, size: str | None = None, position: str | None = None
) -> Scene:
    """One thing at any position. things: the (shape, colour) pairs to choose from."""
    shape, colour = pick(rng, things)
    size = size or pick(rng, tuple(SIZES))
    position = position or pick(rng, tuple(POSITIONS))
    (column, row), spread = POSITIONS[position], SPREAD[size]
    x, y = (16 + spread * place + rng.uniform(-0.8, 0.8) for place in (column, row))
    return Scene("single", (Thing(shape, colour, size, position, x, y, SIZES[size] + rng.uniform(-0.5, 0.5)),))


def sample_other(rng: np.random.Generator, things: Sequence[Kind], scene: Scene) -> Scene:
    """One thing at any position; its content is not that of `scene`."""
    while content(other := sample_single(rng, things)) == content(scene):
        pass
    return other


def sample_uncoloured(rng: np.random.Generator) -> Scene:
    """A single thing in a colour without a name: from it the model learns shapes apart from colours."""
    scene = sample_single(rng, tuple((shape, "") for shape in NAMED))
    return replace(scene, things=(replace(scene.things[0], rgb=_nameless_colour(rng)),))


def _nameless_colour(rng):
    """An RGB colour far from the eight named ones."""
    while True:
        rgb = rng.integers(0, 256, size=3)
        if np.linalg.norm(NAMED_RGB - rgb, axis=1).min() > NAMELESS:
            return tuple(int(c) for c in rgb)


def sample_pair(
    rng: np.random.Generator, things: Sequence[Kind] = KNOWN, kinds: Sequence[Kind] = (), relation: str | None = None
) -> Scene:
    """A larger and a smaller thing, and the relation of the larger to the smaller. kinds: both (shape, colour)."""
    relation = relation or pick(rng, tuple(RELATIONS))
    first, second = kinds or (pick(rng, things), pick(rng, things))
    column, row = RELATIONS[relation]
    slide = rng.uniform(-4, 4, size=2)
    made = []
    for (shape, colour), sign, radius, shift in ((first, 1, 7.0, slide[0]), (second, -1, 4.2, slide[1])):
        x = 16 + sign * 8.0 * column + (shift if column == 0 else rng.uniform(-1, 1))
        y = 16 + sign * 8.0 * row + (shift if row == 0 else rng.uniform(-1, 1))
        made.append(Thing(shape, colour, "", "", x, y, radius + rng.uniform(-0.3, 0.4)))
    return Scene("pair", tuple(made), relation)


def sample_wild(rng: np.random.Generator, things: Sequence[Kind] = WILD_THINGS) -> Scene:
    """A single thing with a shape that has no name."""
    return replace(sample_single(rng, things), kind="wild")


def sample_digit(rng: np.random.Generator, things: Sequence[Kind] = WRITTEN) -> Scene:
    """One written digit. things: the (digit, colour) pairs to choose from."""
    digit, colour = pick(rng, things)
    x, y = rng.uniform(13, 19, size=2)
    return Scene("digit", (Thing(digit, colour, "", "", x, y, rng.uniform(6.5, 10.0)),))


def sample_sum(rng: np.random.Generator, pairs: Sequence[tuple[int, int]] = SUMS, colour: str | None = None) -> Scene:
    """Two written digits side by side. pairs: the pairs of numbers to choose from."""
    colour = colour or pick(rng, COLOUR_NAMES)
    made = []
    for number, x in zip(pick(rng, pairs), (8.5, 23.5), strict=True):
        x, y = x + rng.uniform(-0.8, 0.8), 16 + rng.uniform(-1.5, 1.5)
        made.append(Thing(DIGITS[number], colour, "", "", x, y, rng.uniform(6.5, 8.0)))
    return Scene("sum", tuple(made))


def sample_count(rng: np.random.Generator, things: Sequence[Kind] = KNOWN, number: int | None = None) -> Scene:
    """Two to five small equal things, each near a point of a 3 x 3 grid."""
    shape, colour = pick(rng, things)
    number = number or int(rng.integers(2, 6))
    cells = rng.permutation(9)[:number]
    made = []
    for cell in cells:
        x, y = (6 + 10 * (cell % 3) + rng.uniform(-0.8, 0.8), 6 + 10 * (cell // 3) + rng.uniform(-0.8, 0.8))
        made.append(Thing(shape, colour, "small", "", x, y, 4.1 + rng.uniform(-0.3, 0.3)))
    return Scene("count", tuple(made))


def sample_scene(rng: np.random.Generator, things: Sequence[Kind] = KNOWN) -> Scene:
    """A single thing, a pair or a count."""
    kind = rng.choice(3, p=(0.5, 0.3, 0.2))
    return (sample_single, sample_pair, sample_count)[kind](rng, things)


def sample_clip(rng: np.random.Generator, things: Sequence[Kind] = KNOWN, action: str | None = None) -> Clip:
    """One thing and its action."""
    action = action or pick(rng, ACTIONS)
    shape, colour = pick(rng, things)
    x, y = rng.uniform(11, 21, size=2)
    thing = Thing(shape, colour, "medium", "", x, y, rng.uniform(5.0, 7.0))
    others = [c for s, c in things if s == shape and c != colour] or [c for c in COLOUR_NAMES if c != colour]
    return Clip(thing, action, int(rng.integers(2, 7)), pick(rng, others) if action == "turns" else "")


def draw_scene(rng: np.random.Generator, scene: Scene, side: int = SIDE) -> np.ndarray:
    """uint8 (side, side, 3). rng draws the background, the colour jitter and small tilts."""
    shades = [_shade(rng, t) for t in scene.things]
    background = sample_background(rng, shades)
    return draw(_marks(rng, scene.things, shades), background, rng, side)


def draw_clip(rng: np.random.Generator, clip: Clip, frames: int = FRAMES, side: int = SIDE) -> np.ndarray:
    """uint8 (frames, side, side, 3), with one background and one jitter for the whole clip."""
    shades = {c: _shade(rng, replace(clip.thing, colour=c)) for c in (clip.thing.colour, clip.new_colour) if c}
    background = sample_background(rng, list(shades.values()))
    seed = int(rng.integers(2**31))
    drawn = []
    for t in range(frames):
        things, own = _at_moment(clip, t, frames), np.random.default_rng(seed)
        placed = things or (clip.thing,)  # one that has vanished draws its numbers too, so the noise behind it stays
        marks = _marks(own, placed, [shades[thing.colour] for thing in placed])
        drawn.append(draw(marks[: len(things)], background, own, side))
    return np.stack(drawn)


def _shade(rng, thing):
    """The RGB colour of a thing, before jitter."""
    return thing.rgb or (COLOURS if rng.random() < 0.6 else SHADES)[thing.colour]


def _marks(rng, things, shades):
    """The things as marks, with a jitter of their shades and small tilts."""
    return [
        Mark(_outline(rng, t.shape), jitter(rgb, rng), t.x, t.y, t.radius, angle=float(rng.uniform(-8, 8)))
        for t, rgb in zip(things, shades, strict=True)
    ]


def _outline(rng, shape):
    """The outline of a shape; for a digit, in a random hand."""
    return written(shape, int(rng.integers(HANDS))) if shape in DIGITS else shape


def _at_moment(clip: Clip, t, frames):
    """The things in frame t of a clip."""
    thing, progress = clip.thing, t / max(frames - 1, 1)
    if clip.action in MOVES:
        column, row = MOVES[clip.action]
        way = (2 * progress - 1) * 9.0
        x = 16 + column * way if column else thing.x
        y = 16 + row * way if row else thing.y
        return (replace(thing, x=x, y=y),)
    if clip.action in ("grows", "shrinks"):
        share = progress if clip.action == "grows" else 1 - progress
        return (replace(thing, x=16 + (thing.x - 16) * 0.6, y=16 + (thing.y - 16) * 0.6, radius=3.5 + 6.5 * share),)
    happened = t >= round(clip.moment * frames / FRAMES)
    if clip.action == "vanishes":
        return () if happened else (thing,)
    return (replace(thing, colour=clip.new_colour),) if happened else (thing,)
