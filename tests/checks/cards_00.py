"""Wrong answers to the exercises of notebook 00, and the hints they must get."""

from card import Card

from tinyflamingo.checks import check_00_1_how_many, check_00_2_few_shot_prompt


def many(frames, side, latents, up=7):
    features = frames * ((side + up) // 8) ** 2
    return features, features + latents, latents


def keys_without_latents(frames, side, latents):
    features, _, visual = many(frames, side, latents)
    return features, features, visual


def tokens_a_frame(frames, side, latents):
    features, keys, visual = many(frames, side, latents)
    return features, keys, frames * visual


def one_grid(frames, side, latents):
    return many(1, side, latents)


def rounded_down(frames, side, latents):
    return many(frames, side, latents, up=0)


def pictures_then_words(pictures, words, query):
    return [*pictures, *words, query]


def word_first(pictures, words, query):
    return [item for pair in zip(words, pictures, strict=True) for item in pair] + [query]


def query_first(pictures, words, query):
    return [query] + [item for pair in zip(pictures, words, strict=True) for item in pair]


def no_query(pictures, words, query):
    return [item for pair in zip(pictures, words, strict=True) for item in pair]


CARDS = [
    Card(
        "00.1",
        check_00_1_how_many,
        wrong=[
            (keys_without_latents, "features AND latents"),
            (tokens_a_frame, "However many frames"),
            (one_grid, "a grid of its own"),
            (rounded_down, "round up"),
        ],
    ),
    Card(
        "00.2",
        check_00_2_few_shot_prompt,
        wrong=[
            (pictures_then_words, "take turns"),
            (word_first, "before its word"),
            (query_first, "query comes last"),
            (no_query, "query is missing"),
        ],
    ),
]
