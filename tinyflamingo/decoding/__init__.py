"""Completion beyond the chapter's greedy loop (`model/generate.py`): sampling, beams, scores and mixed prompts."""
