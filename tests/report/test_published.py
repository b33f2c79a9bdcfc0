"""The published report's tables as listed in conf/published.yaml."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from cifar_lab.config import conf_folder
from cifar_lab.report import published
from cifar_lab.report.published import Table

# Percent; None if the report prints no accuracy.
PUBLISHED = {
    "activation": {"activation_leaky_relu": 89.45, "activation_relu": 89.31, "activation_elu": 87.45},
    "loss": {"loss_ce": 88.42, "loss_label_smoothing": 89.61, "loss_focal": 87.61, "loss_mse": 90.03},
    "optimizer": {"optimizer_adam": 88.42, "optimizer_sgd": 78.58, "optimizer_sign_sgd": 82.64},
    "scheduler": {"scheduler_step": 88.53, "scheduler_plateau": 88.44, "scheduler_cosine": 88.98},
    "best": {"best_cnn": 91.53, "swa": 85.17},
    "resnet": {"resnet_adamw": 95.22},
    "vgg": {
        f"{name},optimizer.lr={rate}": None
        for name in ("vgg_a", "vgg_a_bn")
        for rate in ("1e-4", "5e-4", "1e-3", "2e-3")
    },
}
TRAIN_LOSS = {
    "vgg_a,optimizer.lr=1e-3": {1: 1.744, 2: 1.198, 5: 0.600, 10: 0.226, 20: 0.083},
    "vgg_a_bn,optimizer.lr=1e-3": {1: 1.373, 2: 0.879, 5: 0.440, 10: 0.140, 20: 0.043},
}


TOLD = yaml.safe_load((conf_folder() / "published.yaml").read_text(encoding="utf-8"))["tables"]
# A plain row of each kind, one with a hypothesis, and one with its own settings.
FEW = ("loss_ce", "optimizer_adam", "optimizer_sgd", "vgg_a,optimizer.lr=1e-3")


@pytest.fixture(scope="module", params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["few", "all"])
def composed_tables(request: pytest.FixtureRequest) -> tuple[Table, ...]:
    """The composed rows of the tables: a few, or all in the slow tests."""
    few = [{**table, "rows": [row for row in table["rows"] if _name(row) in FEW]} for table in TOLD]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml, "safe_load", lambda text: {"tables": TOLD if request.param else few})
        return published.tables.__wrapped__()


def _name(row: Mapping[str, Any]) -> str:
    return ",".join([row["experiment"], *row.get("overrides", ())])


def _percent(experiment: str) -> float | None:
    text = (conf_folder() / "experiment" / f"{experiment}.yaml").read_text(encoding="utf-8")
    found = re.search(r"^published: (\S+)$", text, re.MULTILINE)
    return None if found is None else round(100 * float(found.group(1)), 6)


def test_every_row_has_a_published_number_and_every_published_experiment_is_a_row() -> None:
    told = {table["name"]: {_name(row): _percent(row["experiment"]) for row in table["rows"]} for table in TOLD}
    assert told == PUBLISHED
    rows = {row["experiment"] for table in TOLD for row in table["rows"]}
    files = {path.stem for path in (conf_folder() / "experiment").glob("*.yaml")}
    # Our additions: two experiments beyond the report, three fast ones, and the ResNet trained for whole cycles.
    assert files - rows == {"fast_91", "fast_94", "fast_96", "resnet_adamw_150"}


def test_a_composed_row_has_its_listed_settings(composed_tables: tuple[Table, ...]) -> None:
    for table in composed_tables:
        for row in table.rows:
            percent = PUBLISHED[table.name][row.name]
            assert row.accuracy == (None if percent is None else round(percent / 100, 6))
            assert row.train_loss == TRAIN_LOSS.get(row.name, {})
            assert row.config["protocol"]["name"] == "report"


def test_a_hypothesis_differs_from_its_row_only_in_its_listed_settings(composed_tables: tuple[Table, ...]) -> None:
    rows = [row for table in composed_tables for row in table.rows]
    assert any(row.hypotheses for row in rows)
    for row in rows:
        for hypothesis in row.hypotheses:
            tried = hypothesis.row
            differing = {key for key, value in tried.settings.items() if row.settings.get(key) != value}
            typed = {line.partition("=")[0] for line in tried.overrides[len(row.overrides) :]} - {"published"}
            # An option's name stands for the values that it sets.
            assert {next(name for name in typed if f"{key}.".startswith(f"{name}.")) for key in differing} == typed
            assert (tried.accuracy, tried.config["published"]) == (row.accuracy, None)
