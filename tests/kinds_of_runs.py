"""Runs that tests of several commands read, each trained once by the fixture `trained`, and a way to edit them."""

import json

import yaml

from cifar_lab.runs import Run
from tests.conftest import TINY

FINISHED = (*TINY, "logger=none")
HALVES = "data.mean=[0.5,0.5,0.5]"
AVERAGED = (
    *(*FINISHED, "averaging=swa", "optimizer=sgd", "averaging.start=0.5", "protocol=report"),
    *("trainer.precision=bf16-mixed", HALVES),
)
WITHOUT_BN = (*FINISHED, "trainer.precision=bf16-mixed", "bn=false", HALVES)
EMA = (*FINISHED, "averaging=ema", "averaging.decay=0.5", "activation=mish")
# Keys of a finished run's result that tables read.
RESULT = {
    **dict.fromkeys(("test/acc", "test/acc_final", "val/acc"), 0.5),
    "seconds": 10.0,
    "images_per_second": 500.0,
    "best_epoch": 1,
    "epochs": 50,
    "num_parameters": 100,
    "train_size": 45_000,
    "train_available": 45_000,
    "test_size": 10_000,
    "precision": "32-true",
    "protocol": "holdout",
    "options": {"data": "cifar10", "optimizer": "adam", "protocol": "holdout"},
    "hardware": {"device_name": "a CPU"},
}


def change(run: Run, **options: dict[str, object]) -> None:
    """Change settings in both files of a run's configuration, by option."""
    composition = json.loads(run.composition_file.read_text())
    config = composition["config"]
    config |= {name: {**config[name], **settings} for name, settings in options.items()}
    run.composition_file.write_text(json.dumps(composition))
    run.config_file.write_text(yaml.safe_dump(config))
