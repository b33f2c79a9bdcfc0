"""How many processes a command line asks for, and what they cannot train together."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cifar_lab.config import here, resolved
from cifar_lab.config.combinations import notes
from cifar_lab.config.devices import check_devices, processes
from cifar_lab.machine import hardware, torchrun
from tests.config.typed import PARSER, check_typed
from tests.conftest import TINY, Compose, Outcome, refusal

Lab = Callable[..., Outcome]
# Two processes here, of two machines.
TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}


REFUSED = {
    "trainer.devices=0": ("trainer.devices=0", "[0,1]", "auto"),
    "trainer.devices='0,1'": ("trainer.devices=0,1", "[0,1]", "auto"),
    "trainer.devices=true": ("trainer.devices=True", "[0,1]", "auto"),
    "trainer.strategy=fsdp": ("trainer.strategy=fsdp", "auto", "ddp"),
    "trainer.num_nodes=2": ("trainer.num_nodes=2", "torchrun", "--nnodes=2", "docs/scaling.md"),
    "trainer.devices=7": ("batch_size=6", "7"),
    "trainer.devices=2 trainer.sync_batchnorm=true": ("trainer.sync_batchnorm=true", "bn=false"),
    "trainer.devices=2 probe=gradient": ("trainer.devices=2", "probe="),
    "trainer.devices=2 trainer.accelerator=mps": ("trainer.devices=2", "trainer.accelerator=mps"),
    "trainer.devices=2 jobs_per_device=2": ("trainer.devices=2", "jobs_per_device="),
    "trainer=ddp trainer.devices=2 compile=true cuda_graphs=true": ("trainer.devices=2", "cuda_graphs="),
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_is_refused(composed: Compose, line: str) -> None:
    with pytest.raises(ValueError, match=r"^\S[^\n]*$") as refused:
        check_typed(composed, line, *TINY)
    assert [fact for fact in REFUSED[line] if fact not in str(refused.value)] == []


@pytest.mark.parametrize(
    "line", ["trainer.devices=2 trainer.accelerator=mps", "-m seed=0,1 trainer.devices=2 jobs_per_device=2"]
)
def test_what_cannot_be_is_one_line(lab: Lab, line: str) -> None:
    refusal(lab(*TINY, *line.split()), "trainer.devices=2")
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    ("words", "count"), [("devices=1", 1), ("devices=3", 3), ("devices=[1,3]", 2), ("devices=auto", 4)]
)
def test_there_is_a_process_for_each_device(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, words: str, count: int
) -> None:
    monkeypatch.setattr(hardware, "device_count", lambda accelerator: 4)
    config = resolved(composed(*TINY))
    config["trainer"]["devices"] = PARSER.parse_override(words).value()
    assert processes(config) == (None if "auto" in words else count)
    assert here(config) == count


def test_a_cpu_is_one_device_for_trainer_ddp(composed: Compose) -> None:
    assert here(resolved(composed(*TINY, "trainer=ddp", "trainer.accelerator=cpu"))) == 1


def test_torchrun_says_how_many_there_are(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    config = resolved(composed(*TINY))
    assert torchrun.processes() == (2, 2)
    assert (processes(config), here(config)) == (4, 1)
    for key in ("devices", "num_nodes"):
        other = {**config, "trainer": {**config["trainer"], key: 3}}
        with pytest.raises(ValueError, match=rf"trainer\.{key}=3\b.*\b2\b"):
            check_devices(other)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert torchrun.processes() is None  # started alone, it is no part of others


@pytest.mark.parametrize("bn", [True, False])
def test_batch_norm_in_several_processes_is_worth_a_note(composed: Compose, bn: bool) -> None:
    config = resolved(composed(*TINY, f"bn={str(bn).lower()}", "trainer=ddp"))
    config["trainer"] |= {"accelerator": "gpu", "devices": 4, "sync_batchnorm": True}
    assert notes(config) == []
    config["trainer"]["sync_batchnorm"] = False
    facts = ["2", "4", "6", "trainer.sync_batchnorm=true"]
    assert [re.findall(r"\b\d\b|trainer\.\S+", line) for line in notes(config)] == [facts] * bn
