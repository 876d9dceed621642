"""The gated blocks of the paper's ablations: no gates, cross-attention alone, all previous images, and "after"."""

import autograd.numpy as anp
import numpy as np
import pytest
from completion_cases import batch_of, prompts, sharp_model
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import V, check_tree, shake, tiny, tiny_config, with_gates

from tinyflamingo import ops
from tinyflamingo.model.flamingo import embed_with_eoc, flamingo
from tinyflamingo.model.gated_xattn import gated_xattn_dense, init_gated_xattn
from tinyflamingo.model.generate import generate
from tinyflamingo.model.interleave import Sequence, make_batch, pack_batch, phi, phi_next
from tinyflamingo.model.language_model import decoder_block, final_norm, language_model
from tinyflamingo.model.tokenizer import BOS, IMAGE, PAD
from tinyflamingo.variants.ablations import (
    AllPreviousXattnConfig,
    Pending,
    PlacedXattnConfig,
    UngatedXattnConfig,
    VanillaXattnConfig,
    all_previous_media,
    all_previous_xattn_dense,
    init_ungated_xattn,
    init_vanilla_xattn,
    ungated_xattn_dense,
    vanilla_xattn,
)
from tinyflamingo.variants.ports import PortXattnConfig, port_xattn_dense
from tinyflamingo.variants.registry import init_flamingo

WHOLE = tiny_config()
CONFIG = WHOLE.xattn
PHI = np.array([[0, 1, 1, 2], [0, 0, 3, 3]])
ALL = tiny_config(xattn={"form": AllPreviousXattnConfig})
VANILLA = tiny_config(xattn={"form": VanillaXattnConfig})
FIRST = np.array([[1], [3]])  # the first medium of each row, of PHI and of the tiny batch


@pytest.fixture
def block(rng):
    """Shaken, gates open."""
    params = shake(init_gated_xattn(rng, WHOLE, np.float64), rng)
    return params | {"alpha_xattn": np.array(0.9), "alpha_dense": np.array(-0.7)}


@pytest.fixture
def inputs(rng):
    return rng.standard_normal((2, 4, 12)), rng.standard_normal((3, 3, 8))


def _from_first(phi):
    """The first and the last medium of each token, (B, T, 2), for rows whose first media are `FIRST`."""
    return np.stack([np.where(phi > 0, FIRST, 0), phi], axis=-1)


def _logits(m, **changes):
    a = vars(m) | changes
    inputs = (a[name] for name in ("params", "frozen", "tokens", "visible", "visual", "config"))
    return flamingo(*inputs, a.get("visible_from"), parts=a["parts"])


# ---------------------------------------------------------------- no gates


def test_without_gates_both_branches_have_their_full_effect(floor, rng, inputs, block):
    config = tiny_config(xattn={"form": UngatedXattnConfig})
    bare = {name: leaf for name, leaf in block.items() if not name.startswith("alpha_")}
    assert init_ungated_xattn(rng, config).keys() == bare.keys()
    fully_open = block | {"alpha_xattn": np.array(40.0), "alpha_dense": np.array(40.0)}  # tanh of it is 1
    h, visual = inputs
    out = ungated_xattn_dense(bare, h, visual, PHI, config.xattn)
    np.testing.assert_allclose(out, gated_xattn_dense(fully_open, h, visual, PHI, CONFIG), rtol=1e-12)
    check_tree(lambda p: ungated_xattn_dense(p, h, visual, PHI, config.xattn).sum(), bare)


# ---------------------------------------------------------------- vanilla cross-attention


def test_vanilla_is_the_cross_attention_alone(floor, rng, inputs, block):
    params = init_vanilla_xattn(rng, VANILLA)
    assert block.keys() - params.keys() == {"ffw_gain", "ffw_bias", "w_1", "w_2", "alpha_dense"}
    h, visual = inputs
    closed = block | {"alpha_dense": np.array(0.0)}
    vanilla = {name: leaf for name, leaf in block.items() if name in params}
    actual = vanilla_xattn(vanilla, h, visual, PHI, VANILLA.xattn)
    np.testing.assert_array_equal(actual, gated_xattn_dense(closed, h, visual, PHI, CONFIG))
    np.testing.assert_array_equal(actual[PHI == 0], h[PHI == 0])


def test_vanilla_is_between_attention_and_feed_forward(floor):
    """Both places are equal if the self-attention adds nothing, but not if the feed-forward layer adds nothing."""
    m = tiny(config=tiny_config(xattn={"form": VanillaXattnConfig}, language={"layers": 1}))
    block = m.frozen["language"]["block_0"]
    dense = m.params["xattn_0"] | {n: tiny().params["xattn_0"][n] for n in ("ffw_gain", "ffw_bias", "w_1", "w_2")}
    before = m.params | {"xattn_0": dense | {"alpha_dense": np.array(0.0)}}
    chapter = tiny(config=tiny_config(language={"layers": 1}))

    def logits(like, params, changed):
        frozen = {"language": m.frozen["language"] | {"block_0": block | changed}}
        return _logits(like, params=params, frozen=frozen, visual=m.visual)

    for names, same in ((("w_o", "b_o"), True), (("w_2", "b_2"), False)):
        changed = {n: np.zeros_like(block[n]) for n in names}
        inside, ahead = logits(m, m.params, changed), logits(chapter, before, changed)
        assert np.allclose(inside, ahead, atol=1e-10) == same


# ---------------------------------------------------------------- a block after its decoder block


@pytest.mark.parametrize("start, every", [(0, 1), (1, 2)])
def test_after_is_a_decoder_block_and_then_the_gated_block(floor, start, every):
    config = tiny_config(xattn={"form": PortXattnConfig, "side": "after", "start": start, "every": every})
    m = tiny(config=config)
    h = embed_with_eoc(m.params["eoc"], m.frozen["language"], m.tokens)
    for i in range(3):
        h = decoder_block(m.frozen["language"][f"block_{i}"], h, np.zeros(m.tokens.shape, int), config.language)
        if i in config.gated_layers:
            h = port_xattn_dense(m.params[f"xattn_{i}"], h, m.visual, m.phi, config.xattn)
    words = final_norm(m.frozen["language"], h) @ m.frozen["language"]["embedding"].T
    np.testing.assert_allclose(_logits(m)[..., :V], words, rtol=1e-9, atol=1e-11)


def test_a_pending_block_acts_only_when_it_is_called():
    m = tiny(config=VANILLA)
    h = embed_with_eoc(m.params["eoc"], m.frozen["language"], m.tokens)
    pending = m.parts.gated_block(m.params["xattn_0"], h, m.visual, m.phi, VANILLA.xattn)
    assert isinstance(pending, Pending) and pending.h is h
    np.testing.assert_array_equal(pending.act(h), vanilla_xattn(m.params["xattn_0"], h, m.visual, m.phi, VANILLA.xattn))


@pytest.mark.parametrize(
    "xattn",
    [
        {"form": PlacedXattnConfig, "start": 1, "every": 9},
        {"form": VanillaXattnConfig},
        {"form": AllPreviousXattnConfig},
        {"form": PortXattnConfig, "side": "before"},
        {"form": PortXattnConfig, "side": "after"},
    ],
    ids=str,
)
def test_closed_gates_are_the_language_model_bit_for_bit(floor, xattn):
    m = tiny(config=tiny_config(xattn=xattn), gates=(0, 0), shaken=False)
    m.tokens[m.tokens == m.eoc] = 7  # the language model does not know <EOC>
    expected = language_model(m.frozen["language"], m.tokens, m.config.language)
    np.testing.assert_array_equal(_logits(m)[..., :V], expected)


def test_one_gated_block_can_be_anywhere(rng):
    config = tiny_config(xattn={"form": PlacedXattnConfig, "every": 9, "start": 1})
    assert config.gated_layers == (1,)
    assert {n for n in init_flamingo(rng, config) if n.startswith("xattn_")} == {"xattn_1"}


# ---------------------------------------------------------------- all previous images (paper, table 10)


def test_all_previous_media_are_one_long_medium(floor, inputs, block):
    """The last token of row 0 sees media 1 and 2: one medium with the tokens of both gives the same."""
    h, visual = inputs
    one = gated_xattn_dense(block, h, visual, PHI, CONFIG)
    actual = all_previous_xattn_dense(block, h, visual, _from_first(PHI), ALL.xattn)
    np.testing.assert_array_equal(actual[PHI != 2], one[PHI != 2])
    joined = np.reshape(visual[:2], (1, 6, 8))
    expected = gated_xattn_dense(block, h[:1, 3:], joined, np.ones((1, 1), int), CONFIG)
    np.testing.assert_allclose(actual[0, 3], expected[0, 0], atol=1e-12)
    assert np.all(np.abs(actual - one)[PHI == 2].max(axis=-1) > 1e-6)


@pytest.mark.parametrize("wrong", [PHI, _from_first(PHI)[:, :2], _from_first(PHI)[..., :1]], ids=["2", "T", "1"])
def test_all_previous_needs_the_first_and_the_last_medium_of_each_token(floor, inputs, block, wrong):
    h, visual = inputs
    with pytest.raises(ValueError, match="'B T 2'"):
        all_previous_xattn_dense(block, h, visual, wrong, ALL.xattn)


def test_gradient_with_all_previous(floor, inputs, block):
    h, visual = inputs
    visible = _from_first(PHI)
    check_tree(lambda p, h, v: all_previous_xattn_dense(p, h, v, visible, ALL.xattn), block, h, visual, tol=1e-5)


def _cross_attention_mask(visible, N, R):
    """True where attention may go, (T, N R), for the first and last media (T, 2)."""
    number = np.repeat(np.arange(1, N + 1), R)
    return (visible[:, :1] <= number) & (number <= visible[:, 1:])


def test_the_mask_of_all_previous_images():
    """The two rows of a batch. A token without an image sees nothing."""
    batch = make_batch([Sequence([BOS, IMAGE, 5, IMAGE], [0.0] * 4, [0, 1]), Sequence([BOS, IMAGE], [0.0] * 2, [2])])
    visible = all_previous_media(batch)
    expected = [[0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]]
    np.testing.assert_array_equal(_cross_attention_mask(visible[0], 3, 2), np.array(expected, bool))
    expected = [[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1], [0] * 6, [0] * 6]  # two tokens of padding
    np.testing.assert_array_equal(_cross_attention_mask(visible[1], 3, 2), np.array(expected, bool))


def _sequences():
    rows = [[BOS, IMAGE, 7, 8], [BOS, 7], [BOS, 9, IMAGE, 7, IMAGE, 8]]
    media = [["a"], [], ["b", "c"]]
    return [Sequence(r, [float(i > 0) for i in range(len(r))], m) for r, m in zip(rows, media, strict=True)]


@pytest.mark.parametrize("mode", [phi, phi_next])
@pytest.mark.parametrize("left", [False, True])
def test_the_first_medium_belongs_to_the_own_sequence(left, mode):
    """0 if a token sees no medium, and on padding. The last medium is phi."""
    batch = make_batch(_sequences(), left=left, phi_of=mode)
    first, last = np.moveaxis(all_previous_media(batch), -1, 0)
    np.testing.assert_array_equal(last, batch.phi)
    for row, expected, own in zip(first, [[1] * 4, [0] * 2, [2] * 6], batch.phi, strict=True):
        blank = [0] * (6 - len(expected))
        whole = np.array(blank + expected if left else expected + blank)
        np.testing.assert_array_equal(row, np.where(own > 0, whole, 0))
    assert np.all((first <= last) & ((first > 0) == (last > 0)))


def test_the_first_medium_in_packed_rows():
    """Lengths 4, 2 and 6 in one row: each sequence begins with its own media."""
    first = all_previous_media(pack_batch(_sequences()))[..., 0]
    np.testing.assert_array_equal(first, [[0, 1, 1, 1, 0, 0, 0, 0, 2, 2, 2, 2]])


SEQUENCES = st.lists(st.tuples(st.lists(st.booleans(), min_size=1, max_size=9), st.booleans()), min_size=1, max_size=9)


@settings(max_examples=60, deadline=None)
@given(drawn=SEQUENCES)
def test_the_first_medium_in_any_packed_rows(drawn):
    sequences = []
    for number, (tags, _) in enumerate(drawn):
        tokens = [IMAGE if tag else 20 + number for tag in tags]
        sequences.append(Sequence(tokens, [0.5] * len(tags), [(number, i) for i in range(sum(tags))]))
    batch, before = pack_batch(sequences, [phi_next if ahead else phi for _, ahead in drawn]), 0
    first = all_previous_media(batch)[..., 0]
    for number, sequence in enumerate(sequences):
        own = batch.owner == number
        np.testing.assert_array_equal(first[own], np.where(batch.phi[own] > 0, before + 1, 0))
        before += len(sequence.media)
    assert not first[batch.owner < 0].any()


AHEAD = phi_next(tiny().tokens) + [[0], [2]]  # of the tiny batch, numbered over it


@pytest.mark.parametrize("ahead", [False, True], ids=["phi", "phi_next"])
@pytest.mark.parametrize("medium", [1, 2, 3])
def test_all_previous_sees_the_media_of_its_row_up_to_phi(floor, rng, medium, ahead):
    """Logits change from the first token that sees the image on, and only in its row."""
    m = tiny(config=ALL)
    np.testing.assert_array_equal(m.visible, _from_first(m.phi))
    numbers = AHEAD if ahead else m.phi
    visible, visual = {"visible": _from_first(numbers)}, m.visual.copy()
    visual[medium - 1] = 3 * rng.standard_normal(visual[0].shape)
    before, after = _logits(m, **visible), _logits(m, visual=visual, **visible)
    row = int(medium == 3)
    first = int(np.argmax(numbers[row] >= medium))
    np.testing.assert_array_equal(after[1 - row], before[1 - row])
    np.testing.assert_array_equal(after[row, :first], before[row, :first])
    assert np.all(np.abs(after[row, first:] - before[row, first:]).max(axis=-1) > 1e-9)


@pytest.mark.parametrize("ahead", [False, True])
def test_only_all_previous_attends_to_an_earlier_image(floor, rng, ahead):
    """Tokens of image 2 alone, in one layer: self-attention carries nothing of image 1."""
    for xattn, changes in (({}, False), ({"form": AllPreviousXattnConfig}, True)):
        m = tiny(config=tiny_config(xattn={"every": 3} | xattn, language={"layers": 1}))
        numbers = AHEAD if ahead else m.phi
        visible = _from_first(numbers) if changes else numbers
        tail = slice(6, 8)  # tokens of image 2 alone
        part = {"tokens": m.tokens[:1, tail], "visible": visible[:1, tail]}
        visual = m.visual.copy()
        visual[0] += rng.standard_normal(visual[0].shape)
        same = np.array_equal(_logits(m, **part), _logits(m, visual=visual, **part))
        assert same is not changes


def test_all_previous_with_one_image_equals_the_chapter(floor):
    m, one = tiny(), np.minimum(tiny().phi, [[1], [3]])
    actual = _logits(tiny(config=ALL), visible=_from_first(one))
    np.testing.assert_array_equal(actual, _logits(m, visible=one))


def test_all_previous_without_an_image_reads_no_visual_tokens(floor):
    m = tiny(config=ALL)
    none = {"visible": 0 * m.visible}
    np.testing.assert_array_equal(_logits(m, visual=m.visual[:0], **none), _logits(m, **none))
    closed = with_gates(m.params, 0, 0)
    np.testing.assert_array_equal(_logits(m, params=closed), _logits(m, params=closed, **none))


@pytest.mark.parametrize("left, right", [(3, 0), (0, 3), (2, 1)])
def test_padding_and_rows_alone_with_all_previous(floor, left, right):
    m = tiny(config=ALL)
    alone, pads = _logits(m), ((0, 0), (left, right))
    padded = _logits(
        m,
        tokens=np.pad(m.tokens, pads, constant_values=PAD),
        visible=np.pad(m.visible, (*pads, (0, 0))),
        visible_from=np.full((2, 8 + left + right), left),
    )
    np.testing.assert_allclose(padded[:, left : left + 8], alone, atol=1e-11)
    second = {"tokens": m.tokens[1:], "visible": np.maximum(m.visible[1:] - 2, 0)}
    np.testing.assert_allclose(_logits(m, visual=m.visual[2:], **second), alone[1:], atol=1e-11)


def test_floors_agree_with_all_previous():
    m, results = tiny(config=ALL), []
    for name in ("reference", "fast"):
        with ops.use(name):
            results.append(ops.value_and_grad(lambda v: anp.sum(_logits(m, visual=v) ** 2))(m.visual))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-10)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-7, atol=1e-11)


@pytest.mark.parametrize("mode", [phi, phi_next], ids=["phi", "phi_next"])
def test_logits_in_a_packed_row_with_all_previous(floor, mode):
    """They equal the logits of the sequence alone."""
    m = tiny(config=ALL)
    documents = [([BOS, 6, 7], []), ([BOS, IMAGE, 6, m.eoc, IMAGE, 5], [0, 1]), ([BOS, 5, IMAGE, 9], [2])]
    documents += [([BOS, 8], []), *documents]
    sequences = [Sequence(tokens, [0.0] * len(tokens), media) for tokens, media in documents]
    packed = pack_batch(sequences, mode)
    assert packed.tokens.shape == (2, 15) and np.sum(packed.owner < 0) == 2 and packed.media == [0, 1, 2, 0, 1, 2]
    visual = m.visual[np.array(packed.media)]
    together = _logits(
        m, tokens=packed.tokens, visible=all_previous_media(packed), visual=visual, visible_from=packed.visible_from
    )
    for i, sequence in enumerate(sequences):
        one = make_batch([sequence], phi_of=mode)
        visual = m.visual[np.array(sequence.media, int)]
        alone = _logits(m, tokens=one.tokens, visible=all_previous_media(one), visual=visual)
        np.testing.assert_allclose(together[packed.owner == i], alone[0], atol=1e-11)


@pytest.mark.parametrize("seed", range(3))
def test_completions_differ_where_a_prompt_has_several_pictures(floor, seed):
    """With one picture or none, both forms give the same scores."""
    scores = []
    for config in (WHOLE, ALL):
        m = sharp_model(seed, config=config)
        scores.append(generate(m, *batch_of(m, prompts(m.eoc)[:3]), max_tokens=6)[1])
    (one, none, two), all_previous = scores
    assert all_previous[:2] == [one, none] and all_previous[2] != two
