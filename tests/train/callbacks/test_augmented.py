"""Test-time augmentation at the end of a run measures its weights without changing them."""

from typing import Any

import torch

from cifar_lab import table
from cifar_lab.evaluate.evaluating import Settings, evaluate
from cifar_lab.runs.fingerprints import fingerprint
from cifar_lab.train.summary import summary
from cifar_lab.trained import load
from tests.conftest import TINY, Train

WORDS = (*TINY, "data.num_test=100", "epochs=1", "logger=none", "trainer.precision=32-true")


def test_a_run_measures_as_evaluate_does_and_trains_as_without_augmentation(trained: Train, called: Any) -> None:
    plain = trained(*WORDS, name="plain")
    run = trained(*WORDS, "tta=flip_translate", "averaging=none", name="augmented")
    own, result = plain.result(), run.result()
    assert {name: result[name] for name in ("test/acc", "test/acc_final", "test/loss", "confusion_matrix")} == {
        name: own[name] for name in ("test/acc", "test/acc_final", "test/loss", "confusion_matrix")
    }
    weights = [torch.load(one.last_checkpoint, weights_only=True)["state_dict"] for one in (plain, run)]
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
    expected = evaluate(load(run.folder), Settings(tta="flip_translate")).result["acc"]
    assert abs(result["test/acc_tta"] - expected) < 1e-6 and result["test/acc_tta_final"] == result["test/acc_tta"]
    assert "test/acc_tta" not in own and fingerprint(run.config()) != fingerprint(plain.config())
    assert f"{result['test/acc_tta']:.2%} (tta=flip_translate)" in summary(run)
    code, out, err = called(table.main, plain.folder, run.folder, "--metric", "test/acc_tta")
    assert code == 0, err
    assert "test acc %, tta" in out and f"{100 * result['test/acc_tta']:.2f} (1)" in out
