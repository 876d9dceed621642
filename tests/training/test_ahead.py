"""Kernels are compiled by a small step in another process; whatever goes wrong there, the run itself reports."""

import dataclasses
import multiprocessing
import os

import numpy as np
import pytest

from tinyflamingo import ops
from tinyflamingo.training.ahead import FEW, MANY, compile_ahead
from tinyflamingo.training.contrastive_stage import FAMILY, ContrastiveStage
from tinyflamingo.training.presets import get_preset
from tinyflamingo.training.processes import on_workers
from tinyflamingo.training.ranks import world


@pytest.fixture
def preset():
    """Of many pictures, so that compiling ahead is worth it."""
    if ops.engine() != "numba":
        pytest.skip("without Numba nothing is compiled")
    smoke = get_preset("smoke")
    return dataclasses.replace(smoke, contrastive=dataclasses.replace(smoke.contrastive, families=MANY))


def test_one_small_step_runs_in_another_process(tokenizer, tmp_path, preset):
    class Noted(ContrastiveStage):
        def loss_and_gradient(self, pictures, captions):
            result = super().loss_and_gradient(pictures, captions)
            (tmp_path / "note").write_text(
                f"{os.getpid()} {len(pictures)} {world().size} {np.isfinite(result[1]).all()}"
            )
            return result

    compile_ahead(Noted, preset, tokenizer)()
    process, *rest = (tmp_path / "note").read_text().split()
    assert int(process) != os.getpid() and rest == [str(FEW * FAMILY), "1", "True"]


def test_its_errors_are_silent(tokenizer, preset, capfd):
    def broken(*arguments):
        raise ValueError("no such data")

    compile_ahead(broken, preset, tokenizer)()
    assert capfd.readouterr() == ("", "")


def test_only_rank_0_starts_it_and_all_ranks_wait(tokenizer, tmp_path, preset):
    def noted(*arguments):
        (tmp_path / f"{os.getpid()}").touch()

    def run():
        compile_ahead(noted, preset, tokenizer)()
        return len(os.listdir(tmp_path))

    with ops.use_workers(3):
        assert on_workers(run) == 1
    assert len(os.listdir(tmp_path)) == 1


def test_few_pictures_are_not_worth_it(tokenizer):
    def broken(*arguments):
        os._exit(1)

    compile_ahead(broken, get_preset("smoke"), tokenizer)()
    assert not multiprocessing.active_children()
