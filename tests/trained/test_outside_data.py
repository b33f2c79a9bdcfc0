"""Networks trained on data from outside, where that data is and where it is not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar_lab import evaluate, export, predict
from tests.conftest import TINY, Outcome

Lab = Callable[..., Outcome]
MODULE = """
from pathlib import Path
import numpy as np
from cifar_lab.data.datamodule import InMemoryDataModule
class Folder(InMemoryDataModule):
    def __init__(self, root, **options):
        super().__init__(**options)
        self.root = root
    def load(self):
        kept = np.load(Path(self.root) / "images.npz")
        return (kept["images"], kept["labels"]), (kept["images"][:20], kept["labels"][:20])
"""


@pytest.fixture
def run(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run trained on images in the folder `mine`, which its configuration names as `data.root`."""
    (tmp_path / "folder_lab.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CIFAR_LAB_DATA", str(tmp_path / "nowhere"))
    (tmp_path / "mine").mkdir()
    drawn = np.random.default_rng(0)
    images, labels = drawn.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8), np.arange(60) % 10
    np.savez(tmp_path / "mine" / "images.npz", images=images, labels=labels)
    conf = tmp_path / "conf" / "data"
    conf.mkdir(parents=True)
    lines = ("defaults: [base/in_memory, _self_]", "_target_: folder_lab.Folder", "root: mine")
    (conf / "folder.yaml").write_text("\n".join(lines))
    tiny = (word for word in TINY if not word.startswith("data"))
    outcome = lab(*tiny, "name=x", "--config-dir", "conf", "data=folder", "allow=[folder_lab]")
    assert outcome.code == 0, outcome.stderr
    return outcome.runs[0].folder


def ended(
    main: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: object
) -> Outcome:
    monkeypatch.setattr("sys.argv", ["command", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert isinstance(exit_.value.code, int)
    return Outcome(exit_.value.code, *capfd.readouterr(), [])


def test_its_data_is_looked_for_where_it_was_and_missed_where_it_is_needed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = ended(evaluate.main, monkeypatch, capfd, run, "--json")
    assert (outcome.code, "--allow folder_lab lets it run" in outcome.stderr) == (2, True)
    outcome = ended(evaluate.main, monkeypatch, capfd, run, "--json", "--allow", "folder_lab")
    assert outcome.code == 0, outcome.stderr
    (told,) = json.loads(outcome.stdout)
    assert told["acc"] == pytest.approx(told["own_test_acc"])
    assert told["data"] == "folder"

    shutil.rmtree(tmp_path / "mine")
    outcome = ended(evaluate.main, monkeypatch, capfd, run, "--allow", "folder_lab")
    assert outcome.code == 2
    (line,) = outcome.stderr.splitlines()
    assert "mine/images.npz" in line
    outcome = ended(export.main, monkeypatch, capfd, run, "--format", "weights", "--allow", "folder_lab")
    assert outcome.code == 0, outcome.stderr
    assert "on 256 generated images, as its data is not here" in outcome.stdout
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    outcome = ended(predict.main, monkeypatch, capfd, run, "red.png", "--json", "--allow", "folder_lab")
    assert outcome.code == 0, outcome.stderr
    assert json.loads(outcome.stdout)["image"] == "red.png"
