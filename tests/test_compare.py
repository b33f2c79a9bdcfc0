import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cifar_lab import compare, evaluate
from cifar_lab import trained as networks
from cifar_lab.statistics.paired import mcnemar
from tests.conftest import TINY, Called, Train, holds, refusal

WORDS = (*TINY, "epochs=1", "logger=none")


@pytest.fixture
def folders(trained: Train) -> list[Path]:
    """Runs of two losses, with two seeds each."""
    lines = [(f"loss={loss}", f"seed={seed}") for loss in ("ce", "mse") for seed in (0, 1)]
    return [trained(*WORDS, *line, name="-".join(line)).folder for line in lines]


def _pair(printed: str) -> dict[str, object]:
    (pair,) = json.loads(printed)
    assert isinstance(pair, dict)
    return pair


def test_compositions_are_paired_by_seed(folders: list[Path], called: Called) -> None:
    code, out, err = called(compare.main, folders[0].parent, "--json")
    assert code == 0, err
    pair = _pair(out)
    accuracy = {path.name: json.loads((path / "result.json").read_text())["test/acc"] for path in folders}
    differences = np.array([accuracy[f"loss={pair['first']}-seed={seed}"] for seed in (0, 1)])
    differences -= [accuracy[f"loss={pair['second']}-seed={seed}"] for seed in (0, 1)]
    assert (pair["paired_by"], pair["number"]) == ("seed", 2)
    assert pair["difference"] == pytest.approx(differences.mean())
    holds(called(compare.main, *folders)[1], "2 seeds", "needed to detect half a point")


@pytest.mark.parametrize("chosen", [[0, 2], [0, 1]], ids=["compositions", "seeds"])
def test_single_runs_are_paired_by_image_with_the_numbers_of_their_evaluations(
    folders: list[Path], called: Called, chosen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [folders[index] for index in chosen]
    code, out, err = called(compare.main, *runs, "--json")
    assert code == 0, err
    pair = _pair(out)
    assert called(evaluate.main, *runs)[0] == 0
    right = []
    for run in runs:
        with np.load(run / "evaluation" / "test" / "answers.npz") as answers:
            right.append(answers["logits"].argmax(1) == answers["labels"])
        assert right[-1].mean() == pytest.approx(json.loads((run / "result.json").read_text())["test/acc"])
    right.sort(key=lambda one: -one.mean())
    counts = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    assert sorted(pair["discordant"]) == sorted(counts)  # type: ignore[call-overload]
    assert pair["p"] == pytest.approx(mcnemar(*counts, 20).p)
    monkeypatch.setattr(networks, "answer", None)  # results that an evaluation has stored are not computed again
    assert _pair(called(compare.main, *runs, "--json")[1]) == pair
    holds(called(compare.main, *runs)[1], "20 images", "correct by the first only")


def test_stored_predictions_of_a_different_run_are_computed_again(folders: list[Path], called: Called) -> None:
    before = called(compare.main, folders[0], folders[2], "--json")[1]
    assert called(evaluate.main, folders[0])[0] == 0
    file = folders[0] / "evaluation" / "test" / "answers.npz"
    with np.load(file) as answers:
        changed = {"logits": -answers["logits"], "labels": answers["labels"]}
    np.savez(file, **changed)  # type: ignore[arg-type]
    assert called(compare.main, folders[0], folders[2], "--json")[1] == before
    file.write_text("damaged")
    assert called(compare.main, folders[0], folders[2], "--json")[1] == before


def test_runs_that_cannot_be_compared_are_refused_in_one_line(
    folders: list[Path], called: Called, trained: Train
) -> None:
    refusal(called(compare.main, folders[0]), "1 finished run", folders[0])
    shutil.copytree(folders[0], folders[0].parent / "again")
    refusal(called(compare.main, folders[0], folders[0].parent / "again"), "1 finished run", "count once")
    other = trained(*WORDS, "loss=focal", "data.data_seed=1", name="other").folder
    refusal(called(compare.main, folders[0], other), "test sets", "data.data_seed=1")
    report = trained(*WORDS, "loss=focal", "protocol=report", name="report").folder
    refusal(called(compare.main, folders[0], report), "protocols", "protocol=report")
    refusal(called(compare.main, folders[0], folders[1], trained(*WORDS, "loss=focal", name="one").folder), "2 seeds")
