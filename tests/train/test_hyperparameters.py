import pytest

from cifar_lab.train.attempt import hyperparameters

SCALARS = {"seed": 3, "epochs": 2, "bn": True, "grad_clip": None}
CONFIG = {**SCALARS, "model": {"filters": [4, 4]}, "optimizer": {"lr": 0.01}}
OPTIONS = {"model": "cnn", "loss": "mse", "optimizer": "sgd", "data": "synthetic", "experiment": "loss_mse"}
ALONE = {"model": "cnn", "loss": "mse", "optimizer": "sgd"}
AXES = ["loss=mse", "optimizer.lr=1e-2", "name=loss-optimizer.lr"]
TYPED = {**ALONE, "epochs": 2, "bn": True, "experiment": "loss_mse"}


@pytest.mark.parametrize(
    ("typed", "common", "columns"),
    [
        (["data=synthetic", "epochs=2", *AXES], ["data", "epochs"], {"loss": "mse", "optimizer.lr": 0.01}),
        ([], None, ALONE),
        (["+epochs=2", "bn=true", "experiment=loss_mse", "seed=3"], None, TYPED),
        (["name=x", "data.root=/a", "logger=tensorboard", "logger.log_graph=true", "allow=[a]"], None, ALONE),
        (["model.filters=[4,4]", "grad_clip=null"], [], {"model.filters": "[4, 4]", "grad_clip": "null"}),
    ],
    ids=["axes of a sweep", "a single run", "what was typed", "what changes no number", "no scalars"],
)
def test_hyperparameters_are_the_axes_or_the_typed_settings_and_always_the_seed(
    typed: list[str], common: list[str] | None, columns: dict[str, object]
) -> None:
    assert hyperparameters(CONFIG, OPTIONS, typed, common) == {**columns, "seed": "3"}
