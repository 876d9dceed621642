"""Byte-level BPE: the ids of the `tokenizers` library, our numbering, and files that are refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyflamingo.errors import UserError
from tinyflamingo.model.tokenizer import BOS, EOS, IMAGE, PAD, UNK
from tinyflamingo.variants.byte_bpe import LETTERS, ByteTokenizer, Vocabulary, find_vocabulary

MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "Ġw o", "t h", "Ġ Ġ", "ĠĠ ĠĠ", "Ã ©", "1 2", "' s", ". .", "Ċ Ċ"]


def tokenizer_json(added=(), merges=MERGES, **changed):
    """A small `tokenizer.json`: bytes, a few merges, `<|endoftext|>` last."""
    words = [*LETTERS, *("".join(m.split(" ")) for m in merges), "<|endoftext|>"]
    special = [("<|endoftext|>", True), *added]
    vocab = {word: i for i, word in enumerate(words)}
    raw = {
        "version": "1.0",
        "added_tokens": [
            {"id": vocab.get(name, len(words) - 1 + i), "content": name, "special": is_special}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            for i, (name, is_special) in enumerate(special)
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }
    return json.dumps(raw | changed).encode()


DATA = tokenizer_json(added=[("   ", False), ("  x", False)])
ROWS = 256 + len(MERGES) + 1 + 2 + 3  # bytes, merges, the end token, two added tokens, and OpenFlamingo's three


@pytest.fixture(scope="module")
def tokenizer():
    return ByteTokenizer(DATA, find_vocabulary(DATA, ROWS))


TEXTS = [
    "hello hello's world",
    "  two   spaces    ",
    "é e\u0301 ½ ² Ⅷ १२ 12a",
    "a\n\n b\t\r\n  c\x1c\x1d d",
    "日本語 𝒳 🦩!!...",
    "It's WE'LL 'tis '' don't",
    "\u3000wide\xa0space\u2028",
    "",
    " ",
    "_under_score__",
    "<image> <|endofchunk|>",
    "   x  x",
]


@pytest.fixture(scope="module")
def theirs():
    library = pytest.importorskip("tokenizers")
    return library.Tokenizer.from_str(DATA.decode())


def same(tokenizer, theirs, text):
    order = tokenizer.vocabulary.order()
    assert [order[i] for i in tokenizer.encode(text)] == theirs.encode(text).ids, text


@pytest.mark.parametrize("text", TEXTS)
def test_ids_equal_those_of_the_library(tokenizer, theirs, text):
    same(tokenizer, theirs, text)


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.one_of(st.sampled_from(" \n\t'shelowrdt1.é_"), st.characters(codec="utf-8")), max_size=30))
def test_ids_of_any_text_equal_those_of_the_library(tokenizer, theirs, text):
    if "<|endoftext|>" not in text:
        same(tokenizer, theirs, text)


@pytest.mark.parametrize("text", ["hello world's", "日本語 🦩\n\n  x", "12 'tis"])
def test_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_reserved_tokens_in_a_text_stay_text(tokenizer):
    ids = tokenizer.encode("<|endoftext|><image><|endofchunk|><PAD>")
    assert min(ids) > IMAGE and max(ids) < tokenizer.eoc
    assert tokenizer.decode([IMAGE, *ids, tokenizer.eoc]) == "<|endoftext|><image><|endofchunk|><PAD>"


def test_our_numbering(tokenizer):
    """Reserved ids come first. Each id of the peer appears once; its end token also replaces tokens that it lacks."""
    vocabulary = tokenizer.vocabulary
    end = 256 + len(MERGES)
    assert vocabulary == Vocabulary(ROWS, eos=end, image=ROWS - 2, eoc=ROWS - 3, pad=ROWS - 1)
    order = vocabulary.order()
    assert [order[i] for i in (PAD, BOS, EOS, UNK, IMAGE)] == [ROWS - 1, end, end, end, ROWS - 2]
    assert order[-1] == ROWS - 3 and sorted(set(order)) == list(range(ROWS))
    assert len(order) == ROWS + 2 and len(tokenizer) == tokenizer.eoc == ROWS + 1
    assert tokenizer.piece(tokenizer.eoc) == "<EOC>" and tokenizer.piece(IMAGE) == "<image>"
    assert tokenizer.opening == ()


def test_a_lone_surrogate_is_refused(tokenizer):
    with pytest.raises(UserError, match="not valid Unicode"):
        tokenizer.encode("\ud800")


def test_opt_begins_with_its_end_token():
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "</s>", "type_id": 0}}]}
    data = tokenizer_json([("</s>", True), ("<pad>", True)], post_processor=template)
    vocabulary = find_vocabulary(data, ROWS)
    assert ByteTokenizer(data, vocabulary).opening == (BOS,)
    assert (vocabulary.eos, vocabulary.pad) == (257 + len(MERGES), 258 + len(MERGES))


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"\xff",
        b"[1]",
        tokenizer_json(normalizer={"type": "Lowercase"}),
        tokenizer_json(pre_tokenizer={"type": "Whitespace"}),
        tokenizer_json(pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True}),
        tokenizer_json(model={"type": "Unigram", "vocab": []}),
        tokenizer_json(model={"type": "BPE", "vocab": {"a": 0}, "merges": []}),
        tokenizer_json(model={"type": "BPE", "vocab": {c: i for i, c in enumerate(LETTERS)}, "merges": ["a b"]}),
    ],
)
def test_other_kinds_are_refused(data):
    with pytest.raises(UserError, match="tokenizer.json"):
        find_vocabulary(data, 999)


def test_a_table_that_is_too_small_is_refused():
    with pytest.raises(UserError, match="not this model's tokenizer"):
        find_vocabulary(DATA, 260)
