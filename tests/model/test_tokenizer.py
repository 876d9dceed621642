"""The tokenizer: any text is decoded unchanged, text gives no reserved ids, each word of TinyWorld is one piece."""

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinyflamingo.data.tinyworld import language as say
from tinyflamingo.data.tinyworld.scenes import COLOUR_NAMES
from tinyflamingo.data.tinyworld.text import tokenizer_lines
from tinyflamingo.errors import UserError
from tinyflamingo.model import tokenizer as tokenizer_module
from tinyflamingo.model.tokenizer import (
    BOS,
    EOS,
    IMAGE,
    PAD,
    PART,
    SPECIAL,
    UNK,
    Tokenizer,
    fit_tokenizer,
    train_tokenizer,
)

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)  # anything but lone surrogates


@settings(max_examples=200, deadline=None)
@given(TEXT)
@example("")
@example(" ")
@example("   leading, double  inside, trailing  ")
@example("\n\ttabs\r\nand lines\n")
@example("\u2581")  # SentencePiece writes a space as this sign
@example("a\u2581b \u2581 c\u2581\u2581")
@example("\x1a \x1a0 \x1a1\u2581\x1a")  # the sign that protects it
@example("\x00 nul \ufffd \ufeff")
@example("👩‍👩‍👧 été e\u0301té 火烈鸟 🦩")
@example("ﬁ ① Å")  # NFKC would change these
@example("<image> <EOC> <PAD> <0x41> <unk> ⁇")
def test_round_trip_and_no_reserved_id(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(IMAGE < i < len(tokenizer) for i in ids)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 662), max_size=12))
def test_any_ids_decode_to_some_text(tokenizer, ids):
    """A model may write bytes that are not a character. That gives replacement characters, not an error."""
    text = tokenizer.decode(ids)
    assert isinstance(text, str)
    plain = [i for i in ids if IMAGE < i < len(tokenizer)]
    assert tokenizer.decode(plain) == text  # reserved ids and <EOC> leave no trace


def test_reserved_ids(tokenizer):
    assert (PAD, BOS, EOS, UNK, IMAGE) == (0, 1, 2, 3, 4)
    assert [tokenizer.piece(i) for i in range(5)] == list(SPECIAL.values())
    assert len(tokenizer) == tokenizer.eoc == 662
    assert tokenizer.piece(662) == "<EOC>"
    assert tokenizer.decode([BOS, IMAGE, *tokenizer.encode("dax"), tokenizer.eoc, EOS]) == "dax"


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ud83e"])
def test_a_lone_surrogate_is_a_user_error(tokenizer, text):
    with pytest.raises(UserError, match="not valid Unicode"):
        tokenizer.encode(text)


# ---------------------------------------------------------------- TinyWorld


def _words():
    text = " ".join(tokenizer_lines(np.random.default_rng(1), count=2000))
    return set(re.findall(r"[A-Za-z]+", text)) - set(say.PICTURE_WORDS + say.TEXT_WORDS)


def test_every_word_of_tinyworld_is_one_piece(tokenizer):
    words = _words() | {word for phrase in COLOUR_NAMES for word in phrase.split()} | set(say.PLACES + say.ANIMALS)
    assert len(words) > 80
    several = {w: [tokenizer.piece(i) for i in tokenizer.encode(w)] for w in words if len(tokenizer.encode(w)) != 1}
    assert not several


@pytest.mark.parametrize("kind", ["PICTURE_WORDS", "TEXT_WORDS", "NEW_WORDS"])
def test_every_invented_word_is_two_pieces(tokenizer, kind):
    """Also held-out words: they are new, but their syllables are not."""
    words = getattr(say, kind)
    assert len(words) > 5
    assert {w: len(tokenizer.encode(w)) for w in words} == {w: 2 for w in words}
    assert all(len(tokenizer.encode(f"a red circle {w}.")) == len(tokenizer.encode("a red circle.")) + 2 for w in words)


def test_training_depends_on_its_lines_alone(tokenizer):
    again = train_tokenizer(tokenizer_lines(np.random.default_rng(0)), 662)
    assert [again.piece(i) for i in range(662)] == [tokenizer.piece(i) for i in range(662)]


LONG = {
    "one line of English": [" ".join(f"word{i % 50} zebra quilt" for i in range(4000))],
    "one word": ["zebraquilt" * 20_000],
    "Chinese": ["一只红色的圆在左边，一颗蓝色的星在右边。" * 5000] * 3,
    "a line break and a tab": ["zebra\nquilt\tzebra" * 1000],
    "a character of SentencePiece": ["zebra \u2585 quilt"] * 20,
    "a null character": ["zebra quilt\0zebra quilt"] * 20,
}


@pytest.mark.parametrize("lines", LONG.values(), ids=LONG)
def test_text_of_any_length_trains_the_tokenizer(lines):
    """Every character of the text is a piece, and the words are more than their letters."""
    short = ["a red circle."] * 10
    made = fit_tokenizer(lambda: iter([*short, *lines]), 400)
    pieces = {made.piece(i) for i in range(len(made))}
    assert set("".join(lines)) - set("\0\u2585\n\t ") <= pieces
    assert len(made.encode(lines[0][:40])) < 25 and made.decode(made.encode(lines[0])) == lines[0]


def test_a_long_line_trains_the_tokenizer_of_its_words():
    """SentencePiece counts words, so cutting a line between words changes nothing."""
    words = [f"zebra{i % 7} quilt{i % 11}" for i in range(3000)]
    one_line, many = (train_tokenizer(lines, 300) for lines in ([" ".join(words)], words))
    assert [one_line.piece(i) for i in range(300)] == [many.piece(i) for i in range(300)]


@pytest.mark.parametrize("length", [999, 1000, 1001, 4193, 64_001])
def test_no_character_of_a_long_line_is_lost(length):
    words = ("zebra " * length)[: length - 5] + "quilt"
    parts = PART.findall(words)
    assert "".join(parts) == words and {word for part in parts for word in part.split()} <= {"zebra", *words.split()}


def test_ctrl_c_in_the_iterator_of_lines_is_ctrl_c():
    def lines():
        yield "a red star"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_tokenizer(lines(), 300)


@pytest.mark.parametrize(
    "message, raised", [("INTERNAL: KeyboardInterrupt", KeyboardInterrupt), ("other", RuntimeError)]
)
def test_ctrl_c_inside_sentencepiece_is_ctrl_c(monkeypatch, message, raised):
    def stopped(**_):
        raise RuntimeError(message)

    monkeypatch.setattr(tokenizer_module.sentencepiece.SentencePieceTrainer, "train", stopped)
    with pytest.raises(raised):
        train_tokenizer(["a red star"], 300)


def test_a_tokenizer_survives_its_bytes(tokenizer):
    copy, text = Tokenizer(tokenizer.model), "a red star dax. 火"
    assert copy.encode(text) == tokenizer.encode(text) and len(copy) == len(tokenizer)


# ---------------------------------------------------------------- bytes that are not a tokenizer


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x00" * 64, b"PK\x03\x04"])
def test_bytes_that_are_not_a_model_are_a_user_error(data):
    with pytest.raises(UserError, match="^tokenizer: "):
        Tokenizer(data)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_cut_model_is_a_user_error(tokenizer, share):
    with pytest.raises(UserError, match="^tokenizer: "):
        Tokenizer(tokenizer.model[: int(len(tokenizer.model) * share)])


def test_a_foreign_model_is_a_user_error(tmp_path):
    """A SentencePiece model without our reserved ids."""
    import io

    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a red star", "a blue fox"]),
        model_writer=out,
        vocab_size=20,
        model_type="bpe",
        minloglevel=2,
    )
    with pytest.raises(UserError, match="the first ids are not"):
        Tokenizer(out.getvalue())


@pytest.mark.parametrize("text", ["a red star", "a red star " * 20])
def test_a_change_of_the_ids_changes_no_later_answer(tokenizer, text):
    ids = tokenizer.encode(text)
    ids.append(0)
    assert tokenizer.encode(text) == ids[:-1]
