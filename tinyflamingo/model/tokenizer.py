"""The tokenizer: SentencePiece with byte fallback and no NFKC, as Chinchilla's (chapter §4).

Five reserved ids, then pieces; `<EOC>` is not among them: it is Flamingo's own token and takes the
id after the last piece. Reserved ids are control symbols, so no string of a user ever becomes one:
a literal "<image>" in text is cut into ordinary pieces.

Not here: the algorithm itself; the `sentencepiece` library does it, as it did for Chinchilla.
"""

from __future__ import annotations

import io
import re

import sentencepiece

from tinyflamingo.errors import UserError

PAD, BOS, EOS, UNK, IMAGE = range(5)
SPACE, ESCAPE = "\u2581", "\x1a"  # SentencePiece writes a space as the first; see `Tokenizer.encode`
SPECIAL = {PAD: "<PAD>", BOS: "<BOS>", EOS: "<EOS>", UNK: "<UNK>", IMAGE: "<image>"}


class Tokenizer:
    """Text to ids and back. `len(tokenizer)` is V; the id V stands for `<EOC>`."""

    opening = (BOS,)  # what every document begins with

    def __init__(self, model: bytes):
        """model: a serialised SentencePiece model. Raises `UserError` if it is not one of ours."""
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
        """Ids of a text; never a reserved one. A lone surrogate, which is no text, is a `UserError`.

        A "\u2581" of the user's own would come back as a space, so it goes in as ESCAPE + "1".
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"text is not valid Unicode: {error.reason}") from error
        return self._sp.encode(text.replace(ESCAPE, ESCAPE + "0").replace(SPACE, ESCAPE + "1"))

    def decode(self, ids) -> str:
        """Text of ids; reserved ids and <EOC> are left out."""
        text = self._sp.decode([int(i) for i in ids if i > IMAGE and i != self.eoc])
        return text.replace(ESCAPE + "1", SPACE).replace(ESCAPE + "0", ESCAPE)

    def piece(self, index: int) -> str:
        """What an id stands for, as people write it: for tables and figures."""
        return "<EOC>" if index == self.eoc else self._sp.id_to_piece(int(index))


def fit_tokenizer(lines_of, most: int) -> Tokenizer:
    """A tokenizer of at most `most` pieces: fewer where the text gives no more. `lines_of()`: the lines, anew.

    Characters so rare that all of them are 1 in 2000 are left to bytes. Raises `UserError` if not even
    the other characters find room.
    """
    try:
        return train_tokenizer(lines_of(), most, coverage=0.9995)
    except RuntimeError as error:
        told = str(error)
    if fitting := re.search(r"set it to a value <= (\d+)", told):
        return train_tokenizer(lines_of(), int(fitting[1]), coverage=0.9995)
    if needed := re.search(r"smaller than required_chars. \d+ vs (\d+)", told):
        raise UserError(f"a vocabulary of {most} is too small for this text: give --vocab {needed[1]} or more")
    raise UserError("no tokenizer can be trained on this text: is there any text in it?")


def train_tokenizer(lines, vocab_size: int, coverage=1.0) -> Tokenizer:
    """A byte-pair SentencePiece model of exactly `vocab_size` pieces from an iterable of lines."""
    out, lines = io.BytesIO(), list(lines)  # inside SentencePiece, Ctrl-C in making a line would be a RuntimeError
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
