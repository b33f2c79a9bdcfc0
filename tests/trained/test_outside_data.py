"""Networks trained on a user's data, with and without that data."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar_lab import evaluate, export, predict
from tests.conftest import TINY, Called, Lab, names, refusal

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
def run(lab: Lab, outside: Callable[..., tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run trained on images in the folder `mine`, which its configuration names as `data.root`."""
    monkeypatch.setenv("CIFAR_LAB_DATA", str(tmp_path / "nowhere"))
    (tmp_path / "mine").mkdir()
    drawn = np.random.default_rng(0)
    images, labels = drawn.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8), np.arange(60) % 10
    np.savez(tmp_path / "mine" / "images.npz", images=images, labels=labels)
    lines = ("defaults: [base/in_memory, _self_]", "_target_: folder_lab.Folder", "root: mine")
    tiny = (word for word in TINY if not word.startswith(("data", "epochs")))
    outcome = lab(*tiny, "epochs=1", "logger=none", "name=x", *outside("folder_lab", MODULE, "data", "\n".join(lines)))
    assert outcome.code == 0, outcome.stderr
    return outcome.runs[0].folder


def test_the_data_is_read_from_its_recorded_folder_and_missing_only_if_needed(
    run: Path, tmp_path: Path, called: Called
) -> None:
    refusal(called(evaluate.main, run, "--json"), "--allow folder_lab")
    code, out, err = called(evaluate.main, run, "--json", "--allow", "folder_lab")
    assert code == 0, err
    (told,) = json.loads(out)
    assert told["acc"] == pytest.approx(told["own_test_acc"])
    assert told["data"] == "mine"

    shutil.rmtree(tmp_path / "mine")
    refusal(called(evaluate.main, run, "--allow", "folder_lab"), "mine/images.npz")
    code, out, err = called(export.main, run, "--format", "safetensors", "--json", "--allow", "folder_lab")
    assert code == 0, err
    assert json.loads(out)["compared"]["generated"]
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    code, out, err = called(predict.main, run, "red.png", "--json", "--allow", "folder_lab")
    assert code == 0, err
    assert json.loads(out)["image"] == "red.png"


def test_data_that_holds_out_images_against_the_protocol_is_refused(
    lab: Lab, outside: Callable[..., tuple[str, ...]]
) -> None:
    module = MODULE.replace("kept = np.load", "return synthetic.generate(60, 20, 0)\n        kept = np.load")
    module = f"from cifar_lab.data import synthetic{module}"
    option = outside("alone_lab", module, "data", "_target_: alone_lab.Folder\nroot: mine")
    tiny = [word for word in TINY if not word.startswith("data")]
    names(lab(*tiny, "logger=none", "protocol=report", *option).stderr, "protocol=report", "Folder", "0.1")
