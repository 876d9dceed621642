"""Evaluation: queries with right answers, few-shot tasks, specialists, and metrics (chapter §5)."""
