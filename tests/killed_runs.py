"""Ends a training run between two steps, as a `kill -9` does: nothing after that moment runs or is written."""

from contextlib import contextmanager

import pytest

from tinyflamingo.training import run


class Killed(BaseException):
    """In place of a kill -9."""


@contextmanager
def killed_in_step(monkeypatch, at):
    """A block in which a run must be killed before its `at`-th step, counted from 0."""
    real, count = run._one_step, iter(range(10**6))

    def step(*args):
        if next(count) == at:
            raise Killed
        return real(*args)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(run, "_one_step", step)
        yield
