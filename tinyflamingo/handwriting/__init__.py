"""Omniglot: real handwriting, the stages that train on it, and one-shot classification in the prompt."""
