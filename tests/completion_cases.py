"""For tests of completion: tiny models with sharp logits, prompts of different lengths, completion without a cache."""

from types import SimpleNamespace

import numpy as np
from model_cases import tiny, tiny_config

from tinyflamingo.model import generate as generate_module
from tinyflamingo.model.flamingo import CHAPTER, flamingo
from tinyflamingo.model.generate import log_softmax_allowed, read_on
from tinyflamingo.model.interleave import Sequence, make_batch
from tinyflamingo.model.tokenizer import BOS, IMAGE
from tinyflamingo.ops.cache import cached_length

EMPTY = np.zeros((0, 3, 8))  # visual tokens of no medium


def sharp_model(seed=0, dtype=np.float64, vocab=12, sharp=3.0, config=None):
    """A tiny model with open gates, and with logits so sharp that the argmax is clear."""
    m = tiny(seed, dtype, config or tiny_config(vocab))
    m.frozen["language"]["final_gain"] = m.frozen["language"]["final_gain"] * dtype(sharp)
    return m


def sequence_of(tokens, media):
    """A prompt of these tokens; media are numbers of rows in `visual`."""
    return Sequence(list(tokens), [0.0] * len(tokens), list(media))


def prompts(eoc):
    """Prompts with one picture, none, two, and two with a closed chunk. All have different lengths."""
    return [
        sequence_of([BOS, IMAGE, 6, 5], [0]),
        sequence_of([BOS, 5], []),
        sequence_of([BOS, 6, eoc, IMAGE, 5, 3, eoc, IMAGE], [1, 2]),
        sequence_of([BOS, IMAGE, 7, eoc, IMAGE, 7, eoc], [2, 0]),
    ]


def batch_of(m, sequences, left=True):
    """A batch of sequences and the visual tokens of its media."""
    batch = make_batch(sequences, left=left)
    return batch, m.visual[np.array(batch.media, int)]


def logits_of(m, sequence):
    """Logits (T, V + 1) after every token of one sequence: alone, unpadded, without a cache."""
    batch, visual = batch_of(m, [sequence])
    return flamingo(m.params, m.frozen, batch.tokens, m.parts.visible(batch), visual, m.config, parts=m.parts)[0]


def log_probs_after(m, sequence, tail=()):
    """Log-probabilities (V + 1,) of what follows a sequence and more tokens; nothing is cached."""
    return log_softmax_allowed(logits_of(m, sequence_of([*sequence.tokens, *tail], sequence.media))[-1])


def greedy(m, sequence, max_tokens):
    """Argmax after argmax, from the whole row each time: (tokens, log-probabilities) without <EOC>."""
    tokens, scores = [], []
    for _ in range(max_tokens):
        log_probs = log_probs_after(m, sequence, tokens)
        best = int(log_probs.argmax())
        if best == m.eoc:
            break
        tokens, scores = tokens + [best], scores + [log_probs[best]]
    return tokens, scores


def greedy_score(m, sequence, max_tokens):
    """Sum of log-probabilities, including the closing <EOC> if there is one."""
    tokens, scores = greedy(m, sequence, max_tokens)
    return sum(scores) + (0 if len(tokens) == max_tokens else log_probs_after(m, sequence, tokens)[m.eoc])


def random_words(m, rng, rows, n=12):
    """Tokens (rows, n) without `<image>`, some of them <EOC>."""
    words = rng.choice([t for t in range(3, m.eoc) if t != IMAGE], (rows, n))
    words[:, 3::5] = m.eoc
    return words


def read_prompts(m, sequences):
    """A batch, its visual tokens, and a cache that holds it."""
    batch, visual = batch_of(m, sequences)
    cache = {}
    read_on(m, batch.tokens, m.parts.visible(batch), visual, batch.visible_from, cache)
    return batch, visual, cache


def step_by_step(m, sequences, words):
    """Logits after every column of words (B, n), (n, B, V + 1), with a cache."""
    batch, visual, cache = read_prompts(m, sequences)
    visible, visible_from, steps = m.parts.visible(batch)[:, -1:], batch.visible_from[:, -1:], []
    for tokens in words.T:
        args = m.params, m.frozen, tokens[:, None], visible, visual, m.config, visible_from, cache, m.parts
        steps.append(flamingo(*args)[:, -1])
    assert cached_length(cache) == batch.tokens.shape[1] + words.shape[1]
    return np.stack(steps)


def row_by_row(m, sequences, words):
    """The same logits, from every row alone, unpadded, in one call without a cache."""
    rows = []
    for sequence, tail in zip(sequences, words.tolist(), strict=True):
        whole = sequence_of(sequence.tokens + tail, sequence.media)
        rows.append(logits_of(m, whole)[len(sequence.tokens) :])
    return np.stack(rows, axis=1)


def scripted_model(monkeypatch, steps):
    """A model whose logits are given: one array (B, V + 1) for each step."""
    script = iter(steps)

    def scripted(params, frozen, tokens, *_):
        return np.repeat(np.asarray(next(script), float)[:, None], tokens.shape[1], axis=1)

    monkeypatch.setattr(generate_module, "flamingo", scripted)
    return SimpleNamespace(params=None, frozen=None, config=tiny_config(), parts=CHAPTER)


def logits_for(*tokens, size=13):
    """Logits (B, V + 1) in which each row has one token far above all others."""
    return np.where(np.arange(size) == np.array(tokens)[:, None], 9.0, 0.0)


def plain_batch(rows):
    """Rows of `<BOS>` alone."""
    return make_batch([sequence_of([BOS], [])] * rows)
