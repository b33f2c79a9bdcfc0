"""A search's axes are read from a file or a command line, and refused if they leave a key's range."""

from pathlib import Path

import pytest

from cifar_lab.config import checked, conf_folder, resolved
from cifar_lab.runs.fingerprints import fingerprint
from cifar_lab.search import space
from cifar_lab.search.space import Axis, checked_search
from tests.conftest import Compose

FILES = sorted(path.stem for path in (conf_folder() / "search").glob("*.yaml"))


@pytest.fixture
def first_corner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check only the first corner, because composing takes long."""
    monkeypatch.setattr(space, "around", lambda axes: [[axis[0] for axis in axes]])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "adam" else pytest.mark.slow) for name in FILES]
)
def test_every_corner_of_a_file_can_be_trained(name: str) -> None:
    checked_search([f"search={name}", "data=synthetic"])


@pytest.mark.usefixtures("first_corner")
@pytest.mark.parametrize("name", [name for name in FILES if name != "adam"])
def test_every_file_can_be_searched(name: str) -> None:
    search = checked_search([f"search={name}", "data=synthetic"])
    assert search.name == f"search-{name}-data=synthetic"
    assert len(search.axes) == 3


@pytest.mark.usefixtures("first_corner")
def test_a_file_defines_the_axes_and_their_scales() -> None:
    search = checked_search(["search=adam", "data=synthetic", "epochs=3"])
    assert search.axes == (
        Axis("optimizer.lr", low=1e-4, high=1e-2, log=True),
        Axis("optimizer.weight_decay", low=1e-6, high=1e-2, log=True),
        Axis("loss.smoothing", low=0.0, high=0.3),
    )
    assert search.name == "search-adam-data=synthetic-epochs=3"
    assert search.former is not None and search.former.folder == Path("outputs/search-adam")
    assert (search.fixed, search.epochs) == (("search=adam", "data=synthetic", "epochs=3"), 3)


@pytest.mark.usefixtures("first_corner")
def test_a_typed_setting_fixes_narrows_or_adds_an_axis() -> None:
    typed = [
        "optimizer.lr=1e-3",
        "loss.smoothing=interval(0,0.1)",
        "batch_size=range(32,129,32)",
        "activation=relu,elu",
    ]
    search = checked_search(["search=adam", "data=synthetic", *typed])
    assert search.axes == (
        Axis("optimizer.weight_decay", low=1e-6, high=1e-2, log=True),
        Axis("loss.smoothing", low=0.0, high=0.1),
        Axis("batch_size", low=32, high=128, step=32),
        Axis("activation", ("relu", "elu")),
    )
    assert "optimizer.lr=1e-3" in search.fixed


@pytest.mark.usefixtures("first_corner")
def test_without_a_file_the_folder_is_named_by_the_axes() -> None:
    search = checked_search(["data=synthetic", "optimizer.lr=interval(1e-4,1e-2)", "loss=ce,mse"])
    assert search.name == "search-optimizer.lr-loss-data=synthetic"


def test_numbers_have_four_digits_and_stay_within_their_interval() -> None:
    axis = Axis("optimizer.lr", low=1e-4, high=0.0123449, log=True)
    assert axis.word(0.00123456) == "optimizer.lr=0.001235"
    assert axis.word(0.0123448) == "optimizer.lr=0.01234"
    assert axis.word(1.00001e-4) == "optimizer.lr=0.0001"
    assert Axis("batch_size", low=32, high=128, step=32).word(64) == "batch_size=64"


REFUSED = {
    "search=adm": ("search=adm", "adam"),
    "search=adam,sgd": ("search=adam,sgd",),
    "search=adam protocol=report": ("protocol=report",),
    "search=adam data.val_fraction=0": ("data.val_fraction=0",),
    "search=adam seed=0,1": ("seed=0,1",),
    "search=adam name=${model}": ("name=${model}",),
    "search=adam study=loss": ("study=loss",),
    "search=adam resume=auto": ("resume=auto",),
    "search=adam hydra.run.dir=x": ("hydra.run.dir=x", "name="),
    "search=adam hydra/launcher=joblib": ("hydra/launcher=joblib", "name="),
    "epochs=3": ("search=adam", "interval"),
    "model.dropout=interval(0,2)": ("model.dropout=2.0", "1"),
    "optimizer.lr=interval(1e-2,1e-4)": ("optimizer.lr=interval(1e-2,1e-4)",),
    "loss=label_smoothing loss.smoothing=tag(log,interval(0,0.1))": ("loss.smoothing=tag(log,interval(0,0.1))", "0"),
    "model.dropout=range(0,1,0.1)": ("model.dropout=range(0,1,0.1)", "interval()"),
    "loss=choice(ce)": ("loss=choice(ce)", "choice()"),
}


@pytest.mark.parametrize("line", REFUSED)
def test_an_impossible_space_is_refused_in_one_line(line: str) -> None:
    with pytest.raises(ValueError, match=r"^\S[^\n]*$") as refused:
        checked_search([*line.split(), "data=synthetic"])
    assert [fact for fact in REFUSED[line] if fact not in str(refused.value)] == []


@pytest.mark.usefixtures("first_corner")
def test_a_users_file_is_found_and_needs_axes(tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "mine.yaml").write_text(
        "# @package _global_\nepochs: 7\naxes:\n  l1: tag(log,interval(1e-8,1e-3))\n"
    )
    (tmp_path / "search" / "none.yaml").write_text("# @package _global_\nepochs: 7\n")
    search = checked_search(["search=mine", "data=synthetic"], tmp_path)
    assert (search.epochs, search.axes) == (7, (Axis("l1", low=1e-8, high=1e-3, log=True),))
    assert search.command(["l1=1e-6"])[:2] == ["--config-dir", str(tmp_path)]
    with pytest.raises(ValueError, match=r"search=none\b.*axes:"):
        checked_search(["search=none", "data=synthetic"], tmp_path)


def test_train_refuses_open_axes_and_trains_a_search_file_without_them(composed: Compose) -> None:
    with pytest.raises(ValueError, match=r"\boptimizer\.weight_decay\b.*\bloss\.smoothing\b.*cifar_lab\.search"):
        checked(["search=adam", "data=synthetic", "optimizer.lr=1e-3"])
    typed = ["optimizer.lr=1e-3", "optimizer.weight_decay=1e-4", "loss.smoothing=0.1"]
    by_file = checked(["search=adam", "data=synthetic", *typed]).composition
    by_hand = resolved(composed("optimizer=adam", "loss=label_smoothing", "data=synthetic"))
    assert fingerprint(by_file) == fingerprint(by_hand)
