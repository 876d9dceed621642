"""Emoji: the same things drawn by three artists, the stages that train on them, and few-shot scores on new ones."""
