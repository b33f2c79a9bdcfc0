"""Short trials of a composition: their output, and that they leave nothing behind."""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cifar_lab.config.command_line import parsed
from cifar_lab.config.preflight import plan_of
from cifar_lab.runs.fingerprints import fingerprint
from cifar_lab.train import run
from tests.conftest import TINY, Lab, holds, refusal

KINDS = ("fast", "overfit", "profile")
# Settings that a short trial might not handle: averages that begin late, schedules that warm up, fractions.
AWKWARD = (
    *("experiment=swa", "epochs=6.6", "trainer.check_val_every_n_epoch=5", "trainer.limit_val_batches=0.5"),
    *("trainer.max_time=00:00:00:01", "callbacks=early_stopping", "probe=gradient", "tta=flip"),
    *("model.filters=[4,4,4]", "model.dropout=0"),
)

LATE = """
from torch import nn
class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.LazyLinear(10))
    def forward(self, images):
        if not self.training:
            raise RuntimeError("only in training")
        return super().forward(images)
"""


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Create temporary folders where `lab` looks for files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def remaining_files(folder: Path) -> list[str]:
    """Return the files that a command left, without torch's cache."""
    return [path.name for path in folder.iterdir() if not path.name.startswith("torchinductor_")]


def test_one_batch_of_each_split_runs_and_leaves_no_files(lab: Lab, tmp_path: Path) -> None:
    outcome = lab(*TINY, "debug=fast")
    assert (outcome.code, outcome.stderr, remaining_files(tmp_path)) == (0, "", [])
    holds(outcome.stdout, "epoch 1/1", "debug=fast", "nothing is kept")


@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_combines_with_any_setting(kind: str, lab: Lab, tmp_path: Path) -> None:
    enough = ["debug.batches=1", "model.filters=[16,16,16]"] if kind == "overfit" else []
    outcome = lab(*TINY, *AWKWARD, f"debug={kind}", *enough)
    assert (outcome.code, remaining_files(tmp_path)) == (0, []), outcome.stderr
    assert f"debug={kind}" in outcome.stdout


def test_a_network_that_memorises_a_few_images_passes(lab: Lab) -> None:
    outcome = lab(*TINY, "debug=overfit", "debug.batches=2", "loss=label_smoothing", "model.filters=[16,16,16]")
    assert outcome.code == 0, outcome.stderr
    first, last, least = map(float, re.findall(r"from ([\d.]+) to ([\d.]+) .*value is ([\d.]+)\)", outcome.stdout)[0])
    assert least == pytest.approx(0.5003, abs=1e-3)  # the entropy of (0.91, 0.01, ...), the floor under label smoothing
    assert last - least <= 0.2 * (first - least)
    assert "accuracy 100.00%" in outcome.stdout


def test_a_network_that_does_not_learn_fails_with_an_explanation(lab: Lab, tmp_path: Path) -> None:
    outcome = lab(*TINY, "debug=overfit", "debug.passes=2", "optimizer.lr=1e-9")
    assert (outcome.code, remaining_files(tmp_path)) == (1, [])
    holds(outcome.stderr, "debug=overfit", "2.30", "in 6 steps", "wrong labels", "learning rate", "will not learn")


def test_a_nan_loss_ends_a_trial_at_once(lab: Lab) -> None:
    outcome = lab(*TINY, "debug=overfit", "optimizer=sgd", "optimizer.lr=1e30", "grad_clip=0", "bn=false")
    assert outcome.code == 1
    holds(outcome.stderr, "nan", "in 3 steps")


def test_a_profile_divides_a_step_among_its_phases(lab: Lab) -> None:
    outcome = lab(*TINY, "debug=profile", "debug.batches=3", "debug.operators=500")
    assert outcome.code == 0, outcome.stderr
    phases, operators = (
        re.findall(r"^(.+?) +[\d.]+ +([\d.]+)%$", part, re.MULTILINE) for part in outcome.stdout.split("the slowest")
    )
    assert [name for name, _ in phases] == ["data", "forward", "backward", "optimizer", "callbacks", "Lightning"]
    assert sum(float(share) for _, share in phases) == pytest.approx(100, abs=0.5)
    assert "aten::convolution_backward" in dict(operators)
    shares = [float(share) for _, share in operators]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=5)  # each is rounded
    assert len(lab(*TINY, "debug=profile", "debug.batches=1", "debug.operators=4").stdout.splitlines()) == 14


def test_an_error_in_a_trial_shows_its_traceback(
    lab: Lab, outside: Callable[..., tuple[str, ...]], tmp_path: Path
) -> None:
    words = [word for word in TINY if not word.startswith("model.")]
    outcome = lab(*words, "debug=fast", *outside("late_lab", LATE, "model", "_target_: late_lab.Net\n"))
    assert (outcome.code, list(tmp_path.glob("cifar_lab_debug_*"))) == (1, [])
    *traceback, line = outcome.stderr.splitlines()
    assert line == "error: only in training"
    assert traceback[0].startswith("Traceback")
    assert any("late_lab.py" in each for each in traceback)


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (["-m", "seed=0,1", "debug=fast"], ["debug=fast", "--multirun"]),
        (["study=loss", "debug=overfit"], ["debug=overfit", "study="]),
        (["-m", "debug=fast,overfit"], ["debug=fast,overfit"]),
        (["resume=auto", "debug=fast"], ["debug=", "resume="]),
        (["debug=quick"], ["debug=quick", "fast, overfit, profile"]),
        (["debug=overfit", "debug.batches=0"], ["debug.batches=0", "whole number of at least 1"]),
        (["debug.batches=2"], ["debug.batches"]),
    ],
)
def test_an_impossible_trial_is_refused(words: list[str], facts: list[str], lab: Lab) -> None:
    refusal(lab(*TINY, *words), *facts)


def test_a_trial_is_not_a_run_that_can_be_found() -> None:
    def identity(*words: str) -> str:
        return fingerprint(plan_of(parsed([*TINY, *words])).composition)

    assert len({identity(), *(identity(f"debug={kind}") for kind in KINDS)}) == 4
    assert identity("debug=null") == identity()
    with pytest.raises(ValueError, match="does not accept debug="):
        run([*TINY, "debug=fast"])
