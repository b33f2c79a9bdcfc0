"""The number of processes that a command line requests; `test_preflight.py` tests what they cannot train together."""

import re

import pytest

from cifar_lab.config import here, resolved
from cifar_lab.config.combinations import notes
from cifar_lab.config.devices import check_devices, processes
from cifar_lab.machine import hardware, torchrun
from tests.config.typed import PARSER
from tests.conftest import TINY, Compose

# Two processes on this machine, one of two.
TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}


@pytest.mark.parametrize(
    ("words", "count"), [("devices=1", 1), ("devices=3", 3), ("devices=[1,3]", 2), ("devices=auto", 4)]
)
def test_each_device_gets_a_process(composed: Compose, monkeypatch: pytest.MonkeyPatch, words: str, count: int) -> None:
    monkeypatch.setattr(hardware, "device_count", lambda accelerator: 4)
    config = resolved(composed(*TINY))
    config["trainer"]["devices"] = PARSER.parse_override(words).value()
    assert processes(config) == (None if "auto" in words else count)
    assert here(config) == count


def test_a_cpu_is_one_device_for_trainer_ddp(composed: Compose) -> None:
    assert here(resolved(composed(*TINY, "trainer=ddp", "trainer.accelerator=cpu"))) == 1


def test_torchrun_sets_the_number_of_processes(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert torchrun.processes() is None  # a single process started by torchrun is an ordinary one


@pytest.mark.parametrize("bn", [True, False])
def test_batch_norm_in_several_processes_causes_a_note(composed: Compose, bn: bool) -> None:
    config = resolved(composed(*TINY, f"bn={str(bn).lower()}", "trainer=ddp"))
    config["trainer"] |= {"accelerator": "gpu", "devices": 4, "sync_batchnorm": True}
    assert notes(config) == []
    config["trainer"]["sync_batchnorm"] = False
    facts = ["2", "4", "6", "trainer.sync_batchnorm=true"]
    assert [re.findall(r"\b\d\b|trainer\.\S+", line) for line in notes(config)] == [facts] * bn
