"""What cannot be run is refused in one line, with exit code 2, before torch is imported and any folder made."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cifar_lab.config import checked, run_application
from cifar_lab.config.preflight import Preflight
from cifar_lab.train import launch
from tests.conftest import TINY, Outcome

Lab = Callable[..., Outcome]

REFUSED = {
    # values
    "bn=yess": "bn=yess: it takes true or false",
    "epochs=abc": "epochs=abc: it takes a whole number from 1 on",
    "epochs=0": "epochs=0: it takes a whole number from 1 on",
    f"epochs={'9' * 400}": "epochs is a number of 400 digits; it takes less than 2**63",
    f"name={'${seed}' * 21}": "a command line takes 20 interpolations, ${...}, at most",
    "epochs=-1": "epochs=-1: it takes a whole number from 1 on",
    "epochs=1e2": "epochs=1e2: it takes a whole number from 1 on",
    "epochs=null": "epochs=null: it takes a whole number from 1 on",
    "batch_size=0": "batch_size=0: it takes a whole number from 1 on",
    "batch_size=1.5": "batch_size=1.5: it takes a whole number from 1 on",
    "optimizer.lr=abc": "optimizer.lr=abc: it takes a number above 0",
    "optimizer.lr=-1": "optimizer.lr=-1: it takes a number above 0",
    "optimizer.lr=nan": "optimizer.lr=nan: it takes a number above 0",
    "optimizer.lr=inf": "optimizer.lr=inf: it takes a number above 0",
    "optimizer.lr=true": "optimizer.lr=True: it takes a number above 0",
    "optimizer.lr=null": "optimizer.lr=None: it takes a number above 0",
    "optimizer.lr=[1]": "optimizer.lr=[1]: it takes a number above 0",
    "optimizer.betas=[0.9,1]": "optimizer.betas=1: it takes a number from 0 to below 1",
    "optimizer.betas=0.9": "optimizer.betas=0.9: it takes a list like [0.9, 0.999]",
    "model.dropout=1.5": "model.dropout=1.5: it takes a number from 0 to 1",
    "model.filters=[64,x,256]": "model.filters=x: it takes a whole number from 1 on",
    "model.init=glorot": "model.init=glorot is unknown; one of default, xavier, he",
    "loss=label_smoothing loss.smoothing=2": "loss.smoothing=2: it takes a number from 0 to 1",
    "seed=-1": "seed=-1: it takes a whole number from 0 to 2**32 - 1",
    "l1=-1": "l1=-1.0: it takes a number from 0 on",
    "grad_clip=-1": "grad_clip=-1.0: it takes a number from 0 on",
    "scheduler.T_max=abc": "scheduler.T_max=abc: it takes a whole number from 1 on",
    "data.train_size=0": "data.train_size=0: it takes a whole number from 1 on",
    "augment=randaugment augment.magnitude=31": "augment.magnitude=31: it takes a whole number from 0 to 30",
    "trainer.memory_format=nhwc": "trainer.memory_format=nhwc is unknown; one of auto, channels_last, contiguous",
    "probe=gradient probe.every=0": "probe.every=0: it takes a whole number from 1 on",
    "probe=gradient probe.etas=[0.5,0]": "probe.etas=0: it takes a number above 0",
    "probe=gradient probe.etas=1": "probe.etas=1: it takes a list like [0.001, 0.0033, ",
    "probe=gradient probe.relative=[-1e-3]": "probe.relative=-0.001: it takes a number above 0",
    "probe=gradient probe.relative=[null]": "probe.relative=None: it takes a number above 0",
    "probe=gradient probe.relative=[true]": "probe.relative=True: it takes a number above 0",
    "probe=gradient probe.at=[1.5]": "probe.at=1.5: it takes a whole number from 0 on",
    "callbacks=snapshots callbacks.snapshots.every_epochs=0": "every_epochs=0: it takes a whole number from 1 on",
    # keys
    "probe.every=10": "probe.every: probe has no every",
    "lrr=0.1": "lrr is unknown; did you mean optimizer.lr?",
    "+lrr=0.1": "lrr is unknown; did you mean optimizer.lr?",
    "++lrr=0.1": "lrr is unknown; did you mean optimizer.lr?",
    "epoch=3": "epoch is unknown; did you mean epochs?",
    "optimizer.lrr=0.1": "optimizer.lrr: optimizer has no lrr; did you mean optimizer.lr?",
    "+optimizer.lrr=0.1": "optimizer.lrr: optimizer has no lrr; did you mean optimizer.lr?",
    "optimizer=adam optimizer.momentum=0.9": "optimizer.momentum: optimizer has no momentum; it has amsgrad, betas",
    "trainer.max_epochs=3": "trainer.max_epochs is set by epochs=",
    "trainer.gradient_clip_val=1": "trainer.gradient_clip_val is set by grad_clip=",
    "trainer.logger=false": "trainer.logger is set by logger=",
    "hydra.foo=1": "hydra.foo: hydra has no foo; it has ",
    "~loss": "~loss: every group needs an option; set loss= to another one",
    "~optimizer.lr": "optimizer.lr was removed; every key has its place, set it instead",
    # options
    "loss=foo": "loss=foo does not exist; there are ce, focal, label_smoothing, mse",
    "model=vgg": "model=vgg does not exist; did you mean vgg_a? there are cnn, resnet14",
    "experiment=best": "experiment=best does not exist; did you mean best_cnn? there are activation_elu",
    # together
    "optimizer=sgd optimizer.momentum=0": "optimizer.nesterov=true needs a momentum",
    "averaging=swa averaging.start=0.99 epochs=10": "averaging.start=0.99 of 10 epochs leaves none to average",
    "cuda_graphs=true": "cuda_graphs=true records what torch.compile has made; set compile=true too",
    "cuda_graphs=true compile=true trainer=cpu": "cuda_graphs=true needs a GPU, and trainer.accelerator=cpu",
    "cuda_graphs=true compile=true trainer.accumulate_grad_batches=2": "cuda_graphs=true cannot accumulate",
    "averaging=swa epochs=1": "averaging.start=0.8 of 1 epochs leaves none to average",
    "averaging=swa averaging.epochs=500 epochs=6": "averaging.start=0.8 of 6 epochs leaves none to average",
    "data.download=no data=cifar10": "data.download=no: it takes true or false, or null",
    "optimizer.foreach=maybe": "optimizer.foreach=maybe: it takes true or false, or null",
    "data.train_size=1e2": "data.train_size=100.0: it takes a whole number from 1 on",
    "model.filters=[8.0,8,8]": "model.filters=8.0: it takes a whole number from 1 on",
    "trainer.precision=foo": "trainer.precision=foo is unknown; one of auto, 32-true, bf16-mixed",
    "trainer.limit_train_batches=abc": "trainer.limit_train_batches=abc: it takes a number above 0",
    "experiment=null": "experiment=null does not exist; there are ",
    "loss.gamma=1": "loss.gamma: loss has no gamma",
    "~hydra.run.dir": "",
    "hydra.mode=foo": "hydra.mode=foo",
    "activation@foo=relu": "activation@foo=relu: packages (@) are not used here",
    "-m name=a,b": "name=a,b: a sweep takes values of a list, and never of name",
    "-m optimizer.lr=interval(0.1,0.2)": "optimizer.lr=interval(0.1,0.2): a sweep takes values of a list",
    "-m experiment=glob(foo*)": "experiment=glob(foo*) matches nothing",
    "data.root=1 data=cifar10": "data.root=1: it takes a word",
    "--foo": "--foo",
    # sweeps
    "loss=ce,mse": "loss=ce,mse is several values; add --multirun to run each",
    "-m loss=ce,foo": "loss=foo does not exist",
    "-m optimizer.lr=1e-3,-1": "optimizer.lr=-1: it takes a number above 0",
    "-m seed=range(0,3) epochs=1,0": "epochs=0: it takes",
    "-m seed=range(0,1000000000)": "seed=range(0,1000000000) is more than 10,000 jobs; a sweep takes that many at most",
    "-m seed=shuffle(range(0,1000000000))": "is more than 10,000 jobs",
    "-m optimizer.lr=range(0.1,1,1e-300)": "is more than 10,000 jobs",
    "-m optimizer.lr=range(0.1,inf)": "is more than 10,000 jobs",
    "-m seed=range(0,200) batch_size=range(1,200)": "the sweep is more than 10,000 jobs",
    "-m seed=range(-1,100)": "seed=-1: it takes a whole number from 0 to 2**32 - 1",
    # what may be made
    "optimizer._target_=os.system": "optimizer._target_=os.system lies outside this project",
    "loss._target_=torch.load": "loss._target_=torch.load lies outside this project",
    "loss._target_=torch.nn.modules.module.torch.load": "lies outside this project",
    "loss._target_=cifar_lab.runs.shutil.rmtree": "lies outside this project",
    "data.train_size=[{_target_:torch.load,f:x}]": "data.train_size=[{'_target_': 'torch.load', 'f': 'x'}]: it takes",
    "data.mean=[{_target_:torch.load,f:x},0,0]": "it takes",
    # data
    "data.root=/nonexistent": "no CIFAR-10 in /nonexistent: put cifar-10-batches-bin/",
    "--config-dir /nonexistent epochs=1": "--config-dir /nonexistent is no folder",
}


@pytest.mark.parametrize("line", REFUSED)
def test_it_is_refused_in_one_line_that_names_the_mend(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = line.split()
    data = [] if "data." in line else ["data=synthetic"]
    with pytest.raises(SystemExit) as refusal:
        run_application(lambda: launch(checked([*words, *data])))
    assert refusal.value.code == 2
    printed = capsys.readouterr()
    (message,) = printed.err.splitlines()
    assert message.startswith("error: ")
    assert REFUSED[line] in message
    assert printed.out == ""


@pytest.mark.parametrize("line", ["bn=yess", "lrr=0.1", "loss=foo", "optimizer.lr=nan", "data.root=/nonexistent"])
def test_the_command_leaves_nothing_behind_and_imports_nothing_heavy(tmp_path: Path, line: str) -> None:
    code = (
        "import sys\nfrom cifar_lab.train import main\ntry: main()\n"
        "finally: assert not {'torch', 'lightning', 'pandas'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, line]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    (message,) = done.stderr.splitlines()
    assert message.startswith("error: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "line",
    [
        "bn=yes",
        "bn=1",
        "optimizer.lr=1e-3",
        "optimizer.lr=1",
        "grad_clip=null",
        "data.train_size=10",
        "model=vgg_a model.dropout=0.2",
        "model=vgg_a model.dropout=null",
        "experiment=swa",
        "-m experiment=glob(scheduler_*) seed=range(0,2)",
        "seed=0,1 -m",
        "epochs=3 --multirun loss=ce,mse bn=true,false",
        "hydra.run.dir=x",
        "-m hydra.sweep.dir=x loss=ce,mse",
        "-m seed=range(0,9999)",
        "scheduler=warm_restarts scheduler.T_0=1 scheduler.T_mult=1 epochs=1000000000000",
        "trainer.limit_train_batches=0.5",
        "trainer.precision=64",
        "callbacks=early_stopping callbacks.early_stopping.patience=3",
        "scheduler=one_cycle scheduler.total_steps=100",
        "probe=gradient probe.etas=[0.5,1,2,4] probe.relative=[] probe.at=[]",
    ],
)
def test_it_is_accepted(line: str) -> None:
    Preflight([*line.split(), "data=synthetic"]).check()


def test_bn_is_read_as_meant(lab: Lab) -> None:
    (run,) = lab(*TINY, "epochs=1", "bn=no").runs
    assert run.config()["bn"] is False
    assert run.config()["model"]["batch_norm"] is False


@pytest.mark.parametrize(
    ("line", "note"),
    [
        (
            "experiment=loss_focal loss=ce",
            "loss=ce replaces the experiment's, whose loss.alpha and loss.gamma fall away",
        ),
        ("scheduler=step epochs=20", "scheduler.step_size=20: no step within 20 epochs"),
        ("scheduler=warm_restarts epochs=40", "warm restarts: epoch 40 lies within a cycle that ends at epoch 70"),
        ("experiment=resnet_adamw", "warm restarts: epoch 200 lies within a cycle that ends at epoch 310"),
        ("scheduler=warm_restarts epochs=70", None),
        ("scheduler=step epochs=21", None),
        ("experiment=loss_focal optimizer.lr=1", None),
    ],
)
def test_what_is_allowed_but_worth_a_word_is_said_in_one_line(line: str, note: str | None) -> None:
    preflight = Preflight([*line.split(), "data=synthetic"])
    preflight.check()
    # That the images were replaced is another note.
    assert [line for line in preflight.notes if not line.startswith("data=")] == ([note] if note else [])


def _component(folder: Path, module: str) -> None:
    package = folder / module
    package.mkdir()
    (package / "__init__.py").write_text(
        "import torch\nclass Huber(torch.nn.Module):\n"
        "    def __init__(self, delta=1.0):\n        super().__init__(); self.delta = delta\n"
        "    def forward(self, logits, labels):\n"
        "        one_hot = torch.nn.functional.one_hot(labels, 10).float()\n"
        "        return torch.nn.functional.huber_loss(logits, one_hot, delta=self.delta)\n"
    )
    (folder / "conf" / "loss").mkdir(parents=True)
    (folder / "conf" / "loss" / "huber.yaml").write_text(f"_target_: {module}.Huber\ndelta: 0.5\n")


def test_a_component_from_outside_runs_once_its_package_is_allowed(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _component(tmp_path, "outside_lab")
    monkeypatch.syspath_prepend(tmp_path)
    own = ["--config-dir", str(tmp_path / "conf"), "loss=huber", *TINY, "epochs=1"]
    refused = lab(*own)
    assert refused.code == 2
    assert "outside_lab.Huber lies outside this project; allow=[outside_lab] lets it run" in refused.stderr
    assert not refused.runs
    allowed = lab(*own, "allow=[outside_lab]", "loss.delta=0.25")
    assert allowed.code == 0
    assert allowed.runs[0].config()["loss"] == {"_target_": "outside_lab.Huber", "delta": 0.25}
    assert "loss has no delte; did you mean loss.delta?" in lab(*own, "allow=[outside_lab]", "loss.delte=1").stderr


def test_our_ranges_do_not_speak_of_a_component_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "scheduler").mkdir()
    own = tmp_path / "scheduler" / "cyclic.yaml"
    own.write_text(
        "_target_: torch.optim.lr_scheduler.CyclicLR\n_partial_: true\nbase_lr: 0.1\nmax_lr: 0.2\n"
        "mode: triangular\nlightning: {interval: step, frequency: 1}\n"
    )
    Preflight(["--config-dir", str(tmp_path), "scheduler=cyclic", "data=synthetic"]).check()


def test_flags_may_stand_anywhere_and_the_home_folder_is_known(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = lab(*TINY, "epochs=1", "seed=0,1", "-m")
    assert outcome.code == 0
    assert len(outcome.runs) == 2
    monkeypatch.setenv("HOME", "/nonexistent")
    assert "no CIFAR-10 in /nonexistent/data:" in lab("data.root=~/data").stderr


def test_a_misspelt_key_in_the_users_own_file_is_named(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "conf" / "optimizer").mkdir(parents=True)
    own = tmp_path / "conf" / "optimizer" / "mine.yaml"
    own.write_text("_target_: torch.optim.Adam\n_partial_: true\nlrr: 0.1\n")
    outcome = lab("--config-dir", str(tmp_path / "conf"), "optimizer=mine", *TINY)
    assert outcome.code == 2
    assert outcome.stderr == "error: optimizer=mine: torch.optim.Adam has no lrr; did you mean lr?\n"
    (tmp_path / "conf" / "experiment").mkdir()
    experiment = tmp_path / "conf" / "experiment" / "mine.yaml"
    experiment.write_text("# @package _global_\noptimizer:\n  lrr: 0.1\n")
    outcome = lab("--config-dir", str(tmp_path / "conf"), "experiment=mine", *TINY)
    assert outcome.code == 2
    assert "optimizer has no lrr; did you mean optimizer.lr?" in outcome.stderr
