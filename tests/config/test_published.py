"""The published report's tables as they are told in conf/published.yaml."""

from cifar_lab.config import conf_folder
from cifar_lab.config.published import tables

# Percent; None where the report prints no accuracy.
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


def test_every_row_has_its_published_number() -> None:
    told = {table.name: {row.name: row.accuracy for row in table.rows} for table in tables()}
    wanted = {
        name: {row: None if percent is None else round(percent / 100, 6) for row, percent in rows.items()}
        for name, rows in PUBLISHED.items()
    }
    assert told == wanted
    assert {row.name: row.train_loss for table in tables() for row in table.rows if row.train_loss} == TRAIN_LOSS


def test_every_published_experiment_is_a_row() -> None:
    rows = {row.experiment for table in tables() for row in table.rows}
    files = {path.stem for path in (conf_folder() / "experiment").glob("*.yaml")}
    # Ours are the two beyond the report, and its ResNet for as long as its cycles last.
    assert files - rows == {"beyond_cnn", "beyond_resnet18", "resnet_adamw_150"}


def test_rows_are_of_the_reports_protocol_and_alike_in_what_makes_one_run() -> None:
    rows = {row.name: row for table in tables() for row in table.rows}
    assert {row.config["protocol"]["name"] for row in rows.values()} == {"report"}
    alike = [name for name, row in rows.items() if row.settings == rows["loss_ce"].settings]
    assert alike == ["loss_ce", "optimizer_adam"]


def test_a_hypothesis_differs_from_its_row_in_what_it_says() -> None:
    for row in (row for table in tables() for row in table.rows):
        for hypothesis in row.hypotheses:
            tried = hypothesis.row
            differing = {key for key, value in tried.settings.items() if row.settings.get(key) != value}
            typed = {line.partition("=")[0] for line in tried.overrides[len(row.overrides) :]} - {"published"}
            # An option's name stands for the values that it brings.
            assert {next(name for name in typed if f"{key}.".startswith(f"{name}.")) for key in differing} == typed
            assert (tried.accuracy, tried.config["published"]) == (row.accuracy, None)
