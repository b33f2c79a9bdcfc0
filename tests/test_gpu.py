"""Whole runs on a GPU; `tests/conftest.py` skips it where there is none."""

import gc
from collections.abc import Callable

import pytest
import torch

from tests.conftest import TINY, Outcome

Lab = Callable[..., Outcome]


@pytest.mark.gpu
def test_a_run_on_a_gpu_is_recorded_as_one_and_repeats_bitwise(lab: Lab) -> None:
    for folder in ("a", "b"):
        outcome = lab(*TINY, "trainer=gpu", f"hydra.run.dir={folder}")
        assert outcome.code == 0, outcome.stderr
    first, second = outcome.runs
    assert first.result()["hardware"]["device"] == "cuda"
    assert first.result()["hardware"]["device_name"] == torch.cuda.get_device_name()
    assert first.steps()["loss"].tolist() == second.steps()["loss"].tolist()


@pytest.mark.gpu
def test_a_job_leaves_nothing_in_a_gpus_memory(lab: Lab) -> None:
    left = []
    for seeds in ("0", "1,2"):  # after the first there are what cuBLAS and cuDNN keep
        assert lab("-m", *TINY, "trainer=gpu", f"seed={seeds}", "hydra.sweep.dir=sweep").code == 0
        gc.collect()
        left.append(torch.cuda.memory_allocated())
    assert left[0] == left[1]
