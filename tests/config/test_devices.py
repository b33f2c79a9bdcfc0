"""How many processes a command line asks for, and what they cannot train together."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cifar_lab import hardware, torchrun
from cifar_lab.config import here, resolved
from cifar_lab.config.devices import UNSYNCED, check_devices, processes
from cifar_lab.fingerprints import fingerprint
from tests.conftest import TINY, Compose, Outcome

Lab = Callable[..., Outcome]
TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}


@pytest.fixture
def under_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes here, of two machines."""
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)


REFUSED = {
    "devices=0": "trainer.devices=0: it takes a number from 1 on, GPUs by number as [0,1], or auto for all GPUs",
    "devices='0,1'": "trainer.devices=0,1: it takes a number from 1 on, GPUs by number as [0,1], or auto for all GPUs",
    "devices=true": "trainer.devices=True: it takes a number from 1 on, GPUs by number as [0,1], or auto for all GPUs",
    "strategy=fsdp": "trainer.strategy=fsdp is unknown; one of auto, ddp",
    "num_nodes=2": "trainer.num_nodes=2: start it by torchrun --nnodes=2 on each of them, docs/scaling.md says how",
    "devices=7": "batch_size=6: 7 processes share each batch; set it higher",
    "devices=2 trainer.sync_batchnorm=true": (
        "trainer.sync_batchnorm=true: torch has it for GPUs alone; leave it out, or set bn=false"
    ),
    "devices=2 probe=gradient": (
        "trainer.devices=2: probe= looks at whole batches, and each process has a part of one; set probe=none"
    ),
    "devices=2 trainer.accelerator=mps": "trainer.devices=2: trainer.accelerator=mps is one device; leave both out",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_is_one_line(lab: Lab, words: str) -> None:
    outcome = lab(*TINY, *f"trainer.{words}".split())
    assert outcome.code == 2
    assert outcome.stderr == f"error: {REFUSED[words]}\n"
    assert not Path("outputs").exists()


def test_jobs_side_by_side_have_a_device_each(lab: Lab) -> None:
    outcome = lab("-m", *TINY, "seed=0,1", "trainer.devices=2", "jobs_per_device=2")
    assert outcome.stderr == (
        "error: trainer.devices=2: jobs_per_device= runs each job on one device; leave one of them out\n"
    )


def test_graphs_of_several_processes_are_refused(lab: Lab) -> None:
    outcome = lab(*TINY, "trainer=ddp", "trainer.devices=2", "compile=true", "cuda_graphs=true")
    assert "trainer.devices=2: cuda_graphs= records no step of several processes" in outcome.stderr


@pytest.mark.parametrize(
    ("words", "count"), [("devices=1", 1), ("devices=3", 3), ("devices=[1,3]", 2), ("devices=auto", 4)]
)
def test_there_is_a_process_for_each_device(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, words: str, count: int
) -> None:
    monkeypatch.setattr(hardware, "device_count", lambda accelerator: 4)
    config = resolved(composed(*TINY, f"trainer.{words}"))
    assert processes(config) == (None if "auto" in words else count)
    assert here(config) == count


def test_a_cpu_is_one_device_for_trainer_ddp(composed: Compose) -> None:
    assert here(resolved(composed(*TINY, "trainer=ddp", "trainer.accelerator=cpu"))) == 1


@pytest.mark.usefixtures("under_torchrun")
def test_torchrun_says_how_many_there_are(composed: Compose) -> None:
    config = resolved(composed(*TINY))
    assert torchrun.processes() == (2, 2)
    assert (processes(config), here(config)) == (4, 1)
    for words, told in (("devices=3", "2 processes here"), ("num_nodes=3", "runs on 2 machines")):
        config = resolved(composed(*TINY, f"trainer.{words}"))
        with pytest.raises(ValueError, match=told):
            check_devices(config)


def test_a_process_that_torchrun_has_started_alone_is_no_part_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**TORCHRUN, "LOCAL_WORLD_SIZE": "1", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert torchrun.processes() is None


@pytest.mark.cluster
def test_what_no_gpu_is_found_for_is_refused_and_leaves_nothing(lab: Lab) -> None:
    if hardware.training_device("auto") == "cuda":
        pytest.skip("there is a GPU")
    outcome = lab(*TINY, "trainer=ddp", "trainer.devices=2", "trainer.sync_batchnorm=true")
    assert outcome.code == 2
    assert outcome.stderr == f"error: {UNSYNCED}\n"
    assert not Path("outputs").exists()


@pytest.mark.parametrize("bn", [True, False])
def test_batch_norm_in_several_processes_is_worth_a_note(composed: Compose, bn: bool) -> None:
    from cifar_lab.config.checks import notes

    words = (*TINY, f"bn={str(bn).lower()}", "trainer=ddp", "trainer.accelerator=gpu", "trainer.devices=4")
    assert notes(resolved(composed(*words, "trainer.sync_batchnorm=true"))) == []
    assert notes(resolved(composed(*words))) == bn * [
        "BatchNorm normalises over the 2 images of each of 4 processes, not over a batch's 6, which changes numbers; "
        "trainer.sync_batchnorm=true does it over all, on GPUs"
    ]


def test_devices_are_how_it_is_run_and_no_part_of_the_fingerprint(composed: Compose) -> None:
    lines = [
        "trainer=cpu",
        "trainer=ddp trainer.devices=2",
        "trainer.devices=4 trainer.sync_batchnorm=true",
    ]
    prints = {fingerprint(resolved(composed("data=synthetic", *line.split()))) for line in lines}
    assert len(prints) == 1
