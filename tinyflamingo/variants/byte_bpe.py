"""Byte-level BPE: the tokenizers of GPT-2, OPT and GPT-NeoX (MPT), read from a `tokenizer.json`.

Text becomes bytes, and each byte becomes one of 256 printable letters. A fixed pattern cuts the letters into words. In
a word, the pair that was merged earliest in training is merged first (GPT-2; Radford et al. 2019). This file reads what
Hugging Face's `tokenizers` writes, and gives the same ids, with two differences: the name of a reserved token in a
user's text stays text, and the ids have our order (`Vocabulary`).

Not here: training. Other kinds of tokenizers are refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from tinyflamingo.errors import UserError
from tinyflamingo.files import parse_json
from tinyflamingo.model.config import require_sizes
from tinyflamingo.model.tokenizer import BOS, IMAGE, SPECIAL

CONTRACTIONS = re.compile("'(?:s|t|re|ve|m|ll|d)")
# GPT-2's pattern, for a text with a for each letter, 0 for each numeral, " " or "_" for each space, "." for the rest
WORD = re.compile(r" ?a+| ?0+| ?\.+|[ _]+(?![a0.])|[ _]+")


class Vocabulary(NamedTuple):
    """Which of a peer's ids are our reserved tokens, and how many ids the peer has.

    Our ids: the five reserved tokens, then all other ids of the peer in its order, then `<EOC>`. If the peer has no
    padding, unknown token or <BOS>, its <EOS> is used instead. These three are never generated, so nothing counts
    twice.
    """

    size: int  # rows of the peer's table of embeddings
    eos: int
    image: int
    eoc: int
    pad: int | None = None
    bos: int | None = None
    unk: int | None = None

    def order(self) -> list[int]:
        """The peer's id for each of our ids, `<EOC>` last."""
        require_sizes(size=self.size)
        given = (self.pad, self.bos, self.eos, self.unk, self.image)
        reserved = [self.eos if i is None else i for i in given]
        taken = {*reserved, self.eoc}
        return reserved + [i for i in range(self.size) if i not in taken] + [self.eoc]


class ByteTokenizer:
    """Text to ids and back, with the methods of `model.tokenizer.Tokenizer`."""

    def __init__(self, data: bytes, vocabulary: Vocabulary) -> None:
        """data: a `tokenizer.json`. Raises `UserError` if it is not byte-level BPE."""
        self.data, self.vocabulary = data, vocabulary
        raw = _parse(data)
        self._ids, merges = raw["model"]["vocab"], raw["model"]["merges"]
        self._ranks = {tuple(m.split(" ") if isinstance(m, str) else m): i for i, m in enumerate(merges)}
        added = raw.get("added_tokens") or []
        plain = sorted((t["content"] for t in added if not t.get("special")), key=len, reverse=True)
        self._added = {t["content"]: t["id"] for t in added}
        self._plain = re.compile("|".join(map(re.escape, plain))) if plain else None
        self._compose = (raw.get("normalizer") or {}).get("type") == "NFC"
        self._peer_ids = vocabulary.order()
        self._own_ids = {peer_id: own_id for own_id, peer_id in enumerate(self._peer_ids)}
        self._pieces = {i: piece for piece, i in {**self._ids, **self._added}.items()}
        self.opening = (BOS,) if _opens(raw) else ()

    def __len__(self) -> int:
        return len(self._peer_ids) - 1

    @property
    def eoc(self) -> int:
        """The id of `<EOC>`: the one after all others."""
        return len(self)

    def encode(self, text: str) -> list[int]:
        """Ids of a text; never a reserved one. A lone surrogate is not text: it raises `UserError`."""
        if self._compose:
            text = unicodedata.normalize("NFC", text)
        ids: list[int] = []
        place = 0
        for match in self._plain.finditer(text) if self._plain else ():
            ids += self._words(text[place : match.start()]) + [self._added[match[0]]]
            place = match.end()
        return [self._own_ids[i] for i in ids + self._words(text[place:])]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids. Reserved ids and <EOC> are left out; broken characters become U+FFFD."""
        pieces = (self._pieces.get(self._peer_ids[int(i)], "") for i in ids if i > IMAGE and i != self.eoc)
        return b"".join(bytes(BYTES[c] for c in p) if set(p) <= BYTES.keys() else p.encode() for p in pieces).decode(
            errors="replace"
        )

    def piece(self, index: int) -> str:
        """The name of an id, for tables and figures."""
        if index == self.eoc:
            return "<EOC>"
        return SPECIAL.get(index) or self._pieces.get(self._peer_ids[index], f"<{self._peer_ids[index]}>")

    def _words(self, text):
        """The peer's ids of a text without added tokens."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError("text is not valid Unicode: write it again, in a terminal or file with UTF-8") from error
        shadow, place, ids = "".join(map(_kind, text)), 0, []
        while place < len(text):
            end = (CONTRACTIONS.match(text, place) or WORD.match(shadow, place)).end()
            ids += self._merge(text[place:end])
            place = end
        return ids

    def _merge(self, word):
        """The peer's ids of one word: merge the pair of lowest rank until no pair has a rank."""
        parts = [LETTERS[b] for b in word.encode()]
        while len(parts) > 1:
            ranks = [self._ranks.get(pair, len(self._ranks)) for pair in zip(parts, parts[1:], strict=False)]
            best = min(range(len(ranks)), key=ranks.__getitem__)
            if ranks[best] == len(self._ranks):
                break
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        return [self._ids[part] for part in parts]


def find_vocabulary(data: bytes, rows: int) -> Vocabulary:
    """The reserved tokens of OpenFlamingo in a `tokenizer.json`, for a table of `rows` embeddings.

    OpenFlamingo adds `<|endofchunk|>`, `<image>` and, if the tokenizer has no padding, `<PAD>` after all other tokens.
    The file may be from before or after that. Raises `UserError` if the tokens do not fit the table.
    """
    raw = _parse(data)
    added = {t["content"]: t["id"] for t in raw.get("added_tokens") or []}
    known = {**raw["model"]["vocab"], **added}
    after = max(known.values()) + 1
    eoc = known.get("<|endofchunk|>", after)
    image = known.get("<image>", after + 1)
    pad = next((known[name] for name in ("<PAD>", "<pad>") if name in known), None)
    if pad is None and image + 1 == rows - 1:
        pad = image + 1
    eos = next((known[name] for name in ("</s>", "<|endoftext|>") if name in known), None)
    if eos is None or max(eoc, image) >= rows:
        raise UserError(
            f"tokenizer.json has ids up to {after - 1}, <|endofchunk|> would be {eoc} and <image> {image}, "
            f"but the table of embeddings has {rows} rows: it is not this model's tokenizer"
        )
    return Vocabulary(rows, eos, image, eoc, pad, None, known.get("<unk>"))


def _parse(data):
    """The parsed file, if it is byte-level BPE."""
    try:
        raw = parse_json(data)
        model, before = raw["model"], raw["pre_tokenizer"]
        steps = before["pretokenizers"] if before["type"] == "Sequence" else [before]
        good = model["type"] == "BPE" and [s["type"] for s in steps] == ["ByteLevel"]
        good = good and not steps[0].get("add_prefix_space") and not model.get("unk_token")
        good = good and (raw.get("normalizer") or {"type": "NFC"})["type"] == "NFC"
        good = good and isinstance(model["vocab"], dict) and set(LETTERS) <= model["vocab"].keys()
        good = good and all(part in model["vocab"] for m in model["merges"] for part in _joined(m))
        good = good and all(isinstance(i, int) for i in model["vocab"].values())
        added = raw.get("added_tokens") or []
        good = good and all(isinstance(t["content"], str) and isinstance(t["id"], int) for t in added)
        good = good and _opens(raw) in (True, False)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"tokenizer.json is damaged or of another kind ({error!r})") from error
    if not good:
        raise UserError("tokenizer.json is not a byte-level BPE like GPT-2's; no other kind can be read")
    return raw


def _joined(merge):
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right, left + right


def _opens(raw):
    """Whether texts begin with a reserved token, as for OPT."""
    template = (raw.get("post_processor") or {}).get("single") or [{}]
    return "SpecialToken" in template[0]


def _kind(character):
    """The class of a character in `WORD`."""
    category = unicodedata.category(character)
    if category[0] == "L":
        return "a"
    if category[0] == "N":
        return "0"
    if character.isspace() and not "\x1c" <= character <= "\x1f":
        return " " if character == " " else "_"
    return "."


def _letters():
    """GPT-2's letter of each byte: the character itself if it is printable, otherwise one from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(b if b in printable else next(others)) for b in range(256)]


LETTERS = _letters()
BYTES = {letter: b for b, letter in enumerate(LETTERS)}
