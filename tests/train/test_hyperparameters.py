from cifar_lab.train.hyperparameters import hyperparameters

CONFIG = {
    "seed": 3,
    "epochs": 2,
    "bn": True,
    "grad_clip": None,
    "model": {"filters": [4, 4]},
    "optimizer": {"lr": 0.01},
}
OPTIONS = {"model": "cnn", "loss": "mse", "optimizer": "sgd", "data": "synthetic", "experiment": "loss_mse"}
IDENTITY = {"model": "cnn", "loss": "mse", "optimizer": "sgd", "seed": "3"}


def test_a_job_of_a_sweep_has_its_axes_and_the_seed() -> None:
    typed = ["data=synthetic", "epochs=2", "loss=mse", "optimizer.lr=1e-2", "name=loss-optimizer.lr"]
    assert hyperparameters(CONFIG, OPTIONS, typed, common=["data", "epochs"]) == {
        "loss": "mse",
        "optimizer.lr": 0.01,
        "seed": "3",
    }


def test_a_run_of_its_own_has_what_was_typed_and_what_every_run_has() -> None:
    assert hyperparameters(CONFIG, OPTIONS, []) == IDENTITY
    typed = ["+epochs=2", "bn=true", "experiment=loss_mse", "seed=3"]
    assert hyperparameters(CONFIG, OPTIONS, typed) == {
        **IDENTITY,
        "epochs": 2,
        "bn": True,
        "experiment": "loss_mse",
    }


def test_where_things_are_and_how_they_are_shown_is_no_hyperparameter() -> None:
    typed = ["name=x", "data.root=/a", "logger=tensorboard", "logger.log_graph=true", "allow=[a]"]
    assert hyperparameters(CONFIG, OPTIONS, typed) == IDENTITY


def test_what_is_no_scalar_is_text() -> None:
    values = hyperparameters(CONFIG, OPTIONS, ["model.filters=[4,4]", "grad_clip=null"], common=[])
    assert values == {"model.filters": "[4, 4]", "grad_clip": "null", "seed": "3"}
