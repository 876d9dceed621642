"""Wrong answers to the exercises of notebook 12, and the hints they must get."""

from card import Card

from tinyflamingo.checks import (
    check_12_1_count_gated_block,
    check_12_2_count_language_model,
    check_12_3_gated_positions,
    check_12_4_training_flops,
)


def gated(D, media, H, K, m, gates=2, norms=2, kv=None, dense=2):
    inner = H * K
    attention = 2 * D * inner + 2 * (kv or media) * inner
    return attention + dense * m * D * D + norms * (2 * D + media) + gates


def no_gates(*sizes):
    return gated(*sizes, gates=0)


def one_gate(*sizes):
    return gated(*sizes, gates=1)


def gains_only(*sizes):
    return gated(*sizes, norms=1)


def no_norms(*sizes):
    return gated(*sizes, norms=0)


def keys_from_text(D, media, H, K, m):
    return gated(D, media, H, K, m, kv=D)


def all_square(D, media, H, K, m):
    return (4 + 2 * m) * D * D + 4 * D + 2 * media + 2


def one_matrix(*sizes):
    return gated(*sizes, dense=1)


def language(V, D, L, H, K, m, tables=1, matrices=5, vectors=2, biases=1, end=1):
    inner, hidden = H * K, m * D
    block = matrices * D * inner + vectors * inner + 2 * D * hidden + 2 * D + biases * (2 * D + hidden)
    return tables * V * D + L * block + end * D


def untied(*sizes):
    return language(*sizes, tables=2)


def no_positions(*sizes):
    return language(*sizes, matrices=4)


def no_u_v(*sizes):
    return language(*sizes, vectors=0)


def no_biases(*sizes):
    return language(*sizes, biases=0)


def no_end(*sizes):
    return language(*sizes, end=0)


def one_block(V, D, L, H, K, m):
    return language(V, D, 1, H, K, m)


def whole_groups(layers, every):
    return [every * i for i in range(layers // every)]


def from_every(layers, every):
    return list(range(every, layers, every))


def after_the_end(layers, every):
    return list(range(0, layers + every, every))


def at_the_ends_of_groups(layers, every):
    return [0, *(i for i in range(1, layers) if (i + 1) % every == 0)]


CARDS = [
    Card(
        "12.1",
        check_12_1_count_gated_block,
        wrong=[
            (no_gates, "two gates are missing"),
            (one_gate, "There are two gates"),
            (gains_only, "a bias beside their gain"),
            (no_norms, "layer norms are missing"),
            (keys_from_text, "media_width rows"),
            (all_square, "heads times key_size"),
            (one_matrix, "two matrices"),
        ],
    ),
    Card(
        "12.2",
        check_12_2_count_language_model,
        wrong=[
            (untied, "share one table"),
            (no_positions, "relative positions is missing"),
            (no_u_v, "u and v, are missing"),
            (no_biases, "biases are missing"),
            (no_end, "very end is missing"),
            (one_block, "That is one block"),
        ],
    ),
    Card(
        "12.3",
        check_12_3_gated_positions,
        wrong=[
            (whole_groups, "last group may be short"),
            (from_every, "0 is missing"),
            (after_the_end, "does not exist"),
            (at_the_ends_of_groups, "was expected"),
        ],
    ),
    Card(
        "12.4",
        check_12_4_training_flops,
        wrong=[
            (lambda trained, language, vision: 6 * trained, "are not free"),
            (lambda trained, language, vision: 6 * trained + 2 * (language + vision), "runs back through the frozen"),
            (lambda trained, language, vision: 6 * (trained + language + vision), "when everything trains"),
            (lambda trained, language, vision: 6 * trained + 4 * (language + vision), "Nothing that trains"),
            (lambda trained, language, vision: 3 * trained + 2 * language + vision, "two flops"),
        ],
    ),
]
