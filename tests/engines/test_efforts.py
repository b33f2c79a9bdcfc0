from typing import Any

from cifar_lab.config.command_line import parsed
from cifar_lab.config.preflight import plan_of
from cifar_lab.engines.efforts import efforts_of
from cifar_lab.engines.handover import Turn
from cifar_lab.train.cost import effort


def test_jobs_are_weighted_by_their_cost_relative_to_the_first() -> None:
    plan = plan_of(parsed(["--multirun", "model=cnn,vgg_a", "epochs=2,6", "seed=0,1"]))
    known = {"CNN": 5.0, "VGG": 20.0}

    def of(config: dict[str, Any]) -> float | None:
        return known[config["model"]["_target_"].rpartition(".")[2]] * config["epochs"]

    assert efforts_of(plan, of) == [1, 1, 3, 3, 4, 4, 12, 12]
    assert efforts_of(plan, lambda config: None) == [1] * 8
    turn = Turn.of(1, [0, 1, 3, 0, 4], each=10.0)
    assert turn.seconds_left() == 10 + 30 + 40
    assert Turn.of(2, [1, 1, 3, 0, 4]).seconds_left(own=60.0, own_left=30.0) == 30 + 60 / 3 * 4


def test_settings_that_do_not_change_the_cost_are_not_weighed() -> None:
    plan = plan_of(parsed(["--multirun", "optimizer.lr=1e-3,1e-4", "seed=0,1"]))
    assert efforts_of(plan, lambda config: 1 / 0) == [1] * 4


def test_an_effort_is_proportional_to_images_and_operations() -> None:
    (job,) = plan_of(parsed(["epochs=2", "data=synthetic", "data.num_train=100"])).jobs
    from cifar_lab.config.naming import plain

    config = plain(job.composed)
    alone = effort(config)
    assert alone is not None
    assert effort({**config, "epochs": 6}) == 3 * alone
    assert effort({**config, "data": {**config["data"], "train_size": 45}}) == alone / 2
    wide = {**config["model"], "filters": [2 * width for width in config["model"]["filters"]]}
    assert 2 * alone < effort({**config, "model": wide}) < 4 * alone
    assert effort({**config, "model": {"_target_": "torch.nn.Bilinear"}}) is None
