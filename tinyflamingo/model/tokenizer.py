"""The tokenizer: SentencePiece with byte fallback and no NFKC, as Chinchilla's (chapter §4).

Five reserved ids come first, then the pieces. `<EOC>` is not among them: it is Flamingo's own token and has the id
after the last piece. Reserved ids are control symbols, so no string of a user ever becomes one: a literal "<image>" in
text is cut into ordinary pieces.

Not here: the algorithm itself. The `sentencepiece` library does it, as for Chinchilla.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Iterable

import sentencepiece

from tinyflamingo.errors import UserError

PAD, BOS, EOS, UNK, IMAGE = range(5)
SPACE, ESCAPE = "\u2581", "\x1a"  # SentencePiece writes a space as the first; see `Tokenizer.encode`
# SentencePiece leaves out lines of more than 4192 bytes, without an error, and lines with one of two characters. So it
# gets parts of lines: cut at these characters, and before a space if one is near. In text without spaces the cuts also
# keep its sign for the beginning of a word among the characters that `fit_tokenizer` covers.
LONGEST, RESERVED = 1000, "\0\u2585"
PART = re.compile(rf"[^{RESERVED}]{{1,{LONGEST}}}(?![^\s{RESERVED}])|[^{RESERVED}]{{1,{LONGEST}}}")
COVERAGE = 0.9995  # share of the characters of a user's text that are pieces; the others are written as bytes
SHORT, KEPT = 60, 1 << 15  # the ids of texts of at most 60 characters are kept: training has them again and again
SMALLEST = 262  # the reserved ids, all bytes, and one piece
SPECIAL = {PAD: "<PAD>", BOS: "<BOS>", EOS: "<EOS>", UNK: "<UNK>", IMAGE: "<image>"}


class Tokenizer:
    """Text to ids and back. `len(tokenizer)` is V; the id V is `<EOC>`."""

    opening = (BOS,)  # the first ids of every document

    def __init__(self, model: bytes) -> None:
        """model: a serialised SentencePiece model. Raises `UserError` if it does not have our reserved ids."""
        self.model = model
        if not model:
            raise UserError("tokenizer: the data are empty")
        try:
            self._sp = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise UserError("tokenizer: the data are not a SentencePiece model") from error
        if [self._sp.id_to_piece(i) for i in SPECIAL] != list(SPECIAL.values()):
            raise UserError(f"tokenizer: the first ids are not {list(SPECIAL.values())}")

    def __len__(self) -> int:
        return self._sp.get_piece_size()

    @property
    def eoc(self) -> int:
        """The id of `<EOC>`: the one after the last piece."""
        return len(self)

    def encode(self, text: str) -> list[int]:
        """Ids of a text; never a reserved one. A lone surrogate is not text: it raises `UserError`.

        SentencePiece would decode a "\u2581" in the text as a space, so it is encoded as ESCAPE + "1".
        """
        return list(_kept(self._sp, text)) if len(text) <= SHORT else _encoded(self._sp, text)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; reserved ids and <EOC> are left out."""
        text = self._sp.decode([int(i) for i in ids if i > IMAGE and i != self.eoc])
        return text.replace(ESCAPE + "1", SPACE).replace(ESCAPE + "0", ESCAPE)

    def piece(self, index: int) -> str:
        """The name of an id, for tables and figures."""
        return "<EOC>" if index == self.eoc else self._sp.id_to_piece(int(index))


def _encoded(processor, text):
    """See `Tokenizer.encode`."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError("text is not valid Unicode: write it again, in a terminal or file with UTF-8") from error
    return processor.encode(text.replace(ESCAPE, ESCAPE + "0").replace(SPACE, ESCAPE + "1"))


_kept = functools.lru_cache(KEPT)(_encoded)


def fit_tokenizer(lines_of: Callable[[], Iterable[str]], most: int) -> Tokenizer:
    """A tokenizer of at most `most` pieces; of fewer if the text gives no more. `lines_of()` gives the lines again.

    The rarest characters, together 1 in 2000, are written as bytes. Raises `UserError` if there is no room for the
    other characters.
    """
    try:
        return train_tokenizer(lines_of(), most, coverage=COVERAGE)
    except RuntimeError as error:
        message = str(error)
    if fitting := re.search(r"set it to a value <= (\d+)", message):
        return train_tokenizer(lines_of(), int(fitting[1]), coverage=COVERAGE)
    if needed := re.search(r"smaller than required_chars. \d+ vs (\d+)", message):
        raise UserError(f"a vocabulary of {most} is too small for this text: give --vocab {needed[1]} or more")
    raise UserError("no tokenizer can be trained on this text: is there any text in it?")


def least_pieces(lines: Iterable[str]) -> int:
    """The fewest pieces with which `fit_tokenizer` can write this text."""
    try:
        return len(train_tokenizer(lines, SMALLEST, coverage=COVERAGE))
    except RuntimeError as error:
        needed = re.search(r"smaller than required_chars. \d+ vs (\d+)", str(error))
    return int(needed[1]) if needed else SMALLEST


def train_tokenizer(lines: Iterable[str], vocab_size: int, coverage: float = 1.0) -> Tokenizer:
    """A byte-pair SentencePiece model of exactly `vocab_size` pieces from an iterable of lines."""
    out = io.BytesIO()
    # A list, because Ctrl-C inside an iterator would be a RuntimeError.
    lines = [part.removeprefix(" ") for line in lines for part in PART.findall(line)]
    try:
        _fit(lines, out, vocab_size, coverage)
    except RuntimeError as error:
        if "KeyboardInterrupt" in str(error):
            raise KeyboardInterrupt from error
        raise
    return Tokenizer(out.getvalue())


def _fit(lines, out, vocab_size, coverage):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=out,
        model_type="bpe",
        vocab_size=vocab_size,
        byte_fallback=True,
        character_coverage=coverage,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        pad_id=PAD,
        bos_id=BOS,
        eos_id=EOS,
        unk_id=UNK,
        pad_piece=SPECIAL[PAD],
        bos_piece=SPECIAL[BOS],
        eos_piece=SPECIAL[EOS],
        unk_piece=SPECIAL[UNK],
        control_symbols=[SPECIAL[IMAGE]],
        num_threads=1,
        minloglevel=2,
    )
