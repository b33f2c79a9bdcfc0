from cifar_lab.figures import PALETTE
from cifar_lab.runs import Record
from cifar_lab.table.colours import colours_by_name


def _runs(group: str, *options: str | None) -> dict[str, list[Record]]:
    return {str(option): [Record("finished", options={group: option, "model": "cnn"})] for option in options}


def test_an_option_has_the_same_colour_in_every_comparison() -> None:
    of_all = colours_by_name(_runs("loss", "ce", "focal", "mse", "label_smoothing"))
    of_two = colours_by_name(_runs("loss", "mse", "ce"))
    assert of_two == {"mse": of_all["mse"], "ce": of_all["ce"]}
    assert len(set(of_all.values())) == 4


def test_users_options_and_rows_without_runs_get_unused_colours() -> None:
    shipped = colours_by_name(_runs("loss", "ce", "mse"))
    runs = {"not run": [], **_runs("loss", "our_loss", "mse", "ce")}
    colours = colours_by_name(runs, "loss")
    assert {name: colours[name] for name in shipped} == shipped
    assert len(set(colours.values())) == len(runs)


def test_compositions_that_differ_in_more_than_one_group_get_colours_by_their_order() -> None:
    by_rate = {"lr=0.1": [Record("finished", options={"optimizer": "sgd"})], "lr=1": []}
    two_groups = {
        name: [Record("finished", options={"loss": loss, "optimizer": optimizer})]
        for name, loss, optimizer in (("lr=0.1", "mse", "sgd"), ("lr=1", "ce", "adam"))
    }
    assert colours_by_name(by_rate) == colours_by_name(two_groups)
    many = _runs("model", *(f"model_{number}" for number in range(len(PALETTE) + 3)), "cnn")
    assert len(set(colours_by_name(many).values())) == len(many)
