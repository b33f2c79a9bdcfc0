"""Finished runs that a command finds: which they are, and where their numbers come from."""

from pathlib import Path
from typing import Any

import pytest

from cifar_lab.runs import Run
from cifar_lab.train import sweep
from tests.conftest import Outcome

TINY = ("data=synthetic", "data.num_train=300", "data.num_test=100", "model.filters=[8,8,16]", "logger=none")
WORDS = (*TINY, "epochs=1", "seed=0,1", "name=again")


def _folders(outcome: Outcome) -> list[str]:
    assert outcome.code == 0, outcome.stderr
    return [run.folder.name for run in outcome.runs]


def test_a_typed_precision_is_another_run_and_an_axis_of_the_table(lab: Any) -> None:
    first = _folders(lab("-m", *WORDS, "trainer.precision=bf16-mixed"))
    outcome = lab("-m", *WORDS, "trainer.precision=32-true")
    assert len(first) == 2 and len(_folders(outcome)) == 4
    table = Path("outputs/again/table.csv").read_text().splitlines()
    assert table[0].startswith("trainer.precision,")
    assert [line.partition(",")[0] for line in table[1:]] == ["32-true", "bf16-mixed"]


@pytest.mark.parametrize("multirun", [True, False])
def test_a_typed_value_that_the_hardware_chose_by_itself_is_that_run(lab: Any, multirun: bool) -> None:
    line = ("-m", *WORDS) if multirun else (*TINY, "epochs=1", "name=again", "resume=auto")
    runs = lab(*line).runs
    precision = runs[0].result()["precision"]
    other = {"32-true": "64-true"}.get(precision, "32-true")
    again = lab(*line, "trainer=cpu", f"trainer.precision={precision}")
    assert _folders(again) == [run.folder.name for run in runs]
    assert "missing" not in again.stdout
    assert len(_folders(lab(*line, f"trainer.precision={other}"))) == 2 * len(runs)


def test_a_run_whose_folder_was_named_when_less_was_hashed_is_found(lab: Any) -> None:
    words = ("-m", *WORDS, "trainer.precision=32-true")
    runs = lab(*words).runs
    for run in runs:
        run.folder.rename(run.folder.with_name(f"{run.folder.name.rpartition('-')[0]}-00000000"))
    again = lab(*words)
    assert [name.rpartition("-")[2] for name in _folders(again)] == ["00000000"] * 2
    assert again.stdout.count("retrain=true") == 2


def test_a_found_run_says_when_and_from_which_source_and_is_trained_again_on_request(lab: Any, outside: Any) -> None:
    source = "import torch\nclass Mine(torch.nn.CrossEntropyLoss):\n    pass\n"
    mine = outside("my_losses", source, "loss", "_target_: my_losses.Mine\n")
    words = ("-m", *WORDS, *mine)
    (run, _) = lab(*words).runs
    found = lab(*words).stdout
    assert found.count("retrain=true") == 2 and "my_losses changed" not in found
    Path("my_losses.py").write_text(f"{source}    factor = 2\n")
    assert lab(*words).stdout.count("my_losses changed") == 2
    before = run.result_file.stat().st_mtime_ns
    again = lab(*words, "retrain=true")
    assert "retrain=true trains" not in again.stdout
    assert run.result_file.stat().st_mtime_ns > before
    old = list(Path("outputs/again/replaced").iterdir())
    assert len(old) == 2 and all(Run(folder).has_result() for folder in old)
    assert len(Path("outputs/again/table.csv").read_text().splitlines()) == 2
    assert "my_losses changed" not in lab(*words).stdout


def test_sweep_returns_the_run_that_the_hardware_chose_alike(empty_folder: None) -> None:
    words = [*TINY, "epochs=1", "seed=0,1", "name=again"]
    first = sweep(words)
    assert sweep([*words, "trainer=cpu"])[0]["folder"] == first[0]["folder"]
