"""Omniglot: real handwriting, its two stages of training, and one-shot classification in the prompt."""
