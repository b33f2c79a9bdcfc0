"""Command lines that cannot run: refused in one line with exit code 2, before torch is imported or a folder made."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cifar_lab.config import checked, resolved
from cifar_lab.config.checks import unknown_key
from cifar_lab.config.combinations import notes
from cifar_lab.config.command_line import parsed
from cifar_lab.config.preflight import plan_of
from cifar_lab.runs.fingerprints import leaves
from tests.config.typed import check_typed
from tests.conftest import TINY, Compose, Lab, refusal

# Facts that each line's message names: the setting with its value, the nearest existing key, limits, allowed values.
# These are refused before or during composition.
NOT_COMPOSED = {
    "bn=yess": ("bn=yess", "true", "false"),
    "epochs=abc": ("epochs=abc", "1"),
    "experiment=best": ("experiment=best", "best_cnn", "activation_elu"),
    f"name={'${seed}' * 21}": ("20", "${...}"),
    "lrr=0.1": ("lrr", "optimizer.lr"),
    "~loss": ("~loss", "loss="),
    "~hydra.run.dir": (),
    "loss=foo": ("loss=foo", "ce", "focal", "label_smoothing", "mse"),
    "model=vgg": ("model=vgg", "vgg_a", "cnn", "resnet14"),
    "hydra.mode=foo": ("hydra.mode=foo", "--multirun"),
    "hydra.output_subdir=.hydra": ("hydra.output_subdir=.hydra",),
    "hydra.sweep.dir=x": ("hydra.sweep.dir=x", "hydra.run.dir="),
    "hydra.sweep.subdir=x": ("hydra.sweep.subdir=x", "hydra.run.dir="),
    "hydra.sweeper.max_batch_size=2": ("hydra.sweeper.max_batch_size=2",),
    "hydra/launcher=basic": ("hydra/launcher=basic", "--multirun"),
    "-m hydra.run.dir=x": ("hydra.run.dir=x", "hydra.sweep.dir="),
    "-m +hydra.sweeper.params.seed=1": ("hydra.sweeper.params.seed=1", "loss=ce,mse"),
    "-m seed=0,1 seed=2,3": ("seed=0,1 seed=2,3",),
    "-m loss=ce,mse seed=0 loss=ce": ("loss=ce,mse loss=ce",),
    "study=loss seed=0,1 seed=2": ("seed=0,1 seed=2",),
    "-m seed=0,1 name=x${seed}": ("name=x${seed}", "x0", "x1"),
    "-m seed=0,1 hydra.sweep.dir=${loss._target_}/${seed}": ("hydra.sweep.dir=${loss._target_}/${seed}",),
    "activation@foo=relu": ("activation@foo=relu", "@"),
    "--foo": ("--foo",),
    "--seed=1": ("--seed=1", "seed=1"),
    "--epochs 3": ("--epochs", "epochs=3"),
    "callbacks=null": ("callbacks=null", "none"),
    "optimizer=sgd scheduler=one_cycle optimizer.momentum=0.5": ("optimizer.momentum", "scheduler.cycle_momentum"),
    "optimizer=muon scheduler=one_cycle optimizer.sgd_momentum=0": ("optimizer.sgd_momentum",),
    "loss=ce,mse": ("loss=ce,mse", "--multirun"),
    "study=los": ("study=los", "loss", "activation", "augment"),
    "study=loss,width": ("study=loss,width",),
    "study=loss loss=foo": ("loss=foo", "ce"),
    "study=smoothing loss=ce": ("loss.smoothing",),
    "~study": ("~study",),
    "study=loss study=width": ("study=loss study=width",),
    "-m name=a,b": ("name=a,b", "name"),
    "-m optimizer.lr=interval(0.1,0.2)": ("optimizer.lr=interval(0.1,0.2)",),
    "-m experiment=glob(foo*)": ("experiment=glob(foo*)",),
    "-m optimizer.lr=1e-3,-1": ("optimizer.lr=-1", "0"),
    "-m seed=range(0,1000000000)": ("seed=range(0,1000000000)", "10,000"),
    "-m seed=range(0,200) batch_size=range(1,200)": ("10,000",),
    "-m seed=range(-1,100)": ("seed=-1", "0", "2**32 - 1"),
    "data=cifar10 data.root=NOWHERE": ("NOWHERE", "CIFAR-10", "cifar-10-batches-bin/"),
    "--config-dir NOWHERE epochs=1": ("--config-dir NOWHERE",),
}
# Keys that Hydra does not find.
UNKNOWN = {
    "lrr=0.1": ("lrr", "optimizer.lr"),
    "epoch=3": ("epoch", "epochs"),
    "zzz=3": ("zzz", "--help"),
    "optimizer.lrr=0.1": ("optimizer.lrr", "optimizer.lr"),
    "optimizer.momentum=0.9": ("optimizer.momentum", "amsgrad", "betas"),
    "loss.gamma=1": ("loss.gamma", "loss"),
    "probe.every=10": ("probe.every", "probe"),
    "trainer.max_epochs=3": ("trainer.max_epochs", "epochs="),
    "trainer.gradient_clip_val=1": ("trainer.gradient_clip_val", "grad_clip="),
    "trainer.logger=false": ("trainer.logger", "logger="),
}
# Values that are refused once composed.
COMPOSED = {
    "epochs=0": ("epochs=0", "1"),
    "epochs=-0.5": ("epochs=-0.5", "1"),
    "epochs=7.0": ("epochs=7.0", "whole", "6.6"),
    f"epochs={'9' * 400}": ("epochs", "400", "2**63"),
    "optimizer.lr=abc": ("optimizer.lr=abc", "0"),
    "optimizer.lr=-1": ("optimizer.lr=-1", "0"),
    "optimizer.lr=nan": ("optimizer.lr=nan", "0"),
    "optimizer.lr=true": ("optimizer.lr=True", "0"),
    "optimizer.lr=null": ("optimizer.lr=None", "0"),
    "optimizer.betas=[0.9,1]": ("optimizer.betas=1", "0"),
    "optimizer.betas=0.9": ("optimizer.betas=0.9", "[0.9, 0.999]"),
    "optimizer.betas=[0.9]": ("optimizer.betas=[0.9]", "2"),
    "data.mean=[0,0,0,0]": ("data.mean=[0, 0, 0, 0]", "3"),
    "data.std=[1,1]": ("data.std=[1, 1]", "3"),
    "optimizer.fused=true optimizer.foreach=true": ("optimizer.fused=true", "optimizer.foreach=true"),
    "optimizer=sgd optimizer.dampening=0.1": ("optimizer.nesterov=true", "optimizer.dampening=0"),
    "optimizer.foreach=maybe": ("optimizer.foreach=maybe", "true", "false", "null"),
    "model.dropout=1": ("model.dropout=1", "0", "1"),
    "loss=focal loss.alpha=0": ("loss.alpha=0", "0"),
    "model.filters=[64,x,256]": ("model.filters=x", "1"),
    "model.filters=[8.0,8,8]": ("model.filters=8.0", "1"),
    "model.filters=[8,8]": ("model.filters=[8, 8]", "three"),
    "model=speed_cnn model.widths=[8,8]": ("model.widths=[8, 8]", "three"),
    "model=vgg_a model.stages=[[1],[1],[1],[1],[1],[1]]": ("model.stages=[[1], [1], [1], [1], [1], [1]]", "five"),
    "model=resnet14 model.widths=[4,4]": ("model.blocks=[2, 2, 2]", "model.widths=[4, 4]"),
    "model.init=glorot": ("model.init=glorot", "default", "xavier", "he"),
    "loss=label_smoothing loss.smoothing=2": ("loss.smoothing=2", "0", "1"),
    "seed='7'": ("seed=7", "${oc.decode:${oc.env:NAME}}"),
    "seed=-1": ("seed=-1", "0", "2**32 - 1"),
    "grad_clip=-1": ("grad_clip=-1", "0"),
    "data.train_size=0": ("data.train_size=0", "1"),
    "data.train_size=1e2": ("data.train_size=100.0", "1"),
    "data.train_size=[{_target_:torch.load,f:x}]": ("data.train_size=[{'_target_': 'torch.load', 'f': 'x'}]",),
    "data.mean=[{_target_:torch.load,f:x},0,0]": ("data.mean={'_target_': 'torch.load', 'f': 'x'}",),
    "data=cifar10 data.download=no": ("data.download=no", "true", "false", "null"),
    "data=cifar10 data.root=1": ("data.root=1",),
    "augment=randaugment augment.magnitude=31": ("augment.magnitude=31", "0", "30"),
    "augment.padding=32": ("augment.padding=32", "32"),
    "tta=mirror": ("tta=mirror", "flip", "flip_translate"),
    "tta_below=0.9": ("tta_below=0.9", "tta=flip_translate"),
    "augment=cutmix augment.alpha=0": ("augment.alpha=0", "augment=flip_crop"),
    "trainer.memory_format=nhwc": ("trainer.memory_format=nhwc", "auto", "channels_last", "contiguous"),
    "trainer.precision=foo": ("trainer.precision=foo", "auto", "32-true", "bf16-mixed"),
    "trainer.limit_train_batches=abc": ("trainer.limit_train_batches=abc", "1"),
    "trainer.limit_train_batches=2.5": ("trainer.limit_train_batches=2.5", "1", "1.0"),
    "trainer.max_time=1h": ("trainer.max_time=1h", "DD:HH:MM:SS"),
    "trainer.profiler=simpel": ("trainer.profiler=simpel", "simple", "advanced", "pytorch"),
    "trainer.accelerator=tpu": ("trainer.accelerator=tpu", "auto", "cpu", "gpu", "mps"),
    "scheduler=plateau scheduler.lightning.monitor=val_loss": ("scheduler.lightning.monitor=val_loss", "val/loss"),
    "scheduler=plateau scheduler.factor=1": ("scheduler.factor=1", "1"),
    "callbacks=early_stopping callbacks.early_stopping.monitor=val_acc": (
        "callbacks.early_stopping.monitor=val_acc",
        "val/acc",
    ),
    "probe=gradient probe.every=0": ("probe.every=0", "1"),
    "probe=gradient probe.etas=[0.5,0]": ("probe.etas=0", "0"),
    "probe=gradient probe.etas=1": ("probe.etas=1", "0.001, 0.0033"),
    "probe=gradient probe.relative=[-1e-3]": ("probe.relative=-0.001", "0"),
    "probe=gradient probe.relative=[true]": ("probe.relative=True", "0"),
    "probe=gradient probe.at=[1.5]": ("probe.at=1.5", "0"),
    "callbacks=snapshots callbacks.snapshots.every_epochs=0": ("callbacks.snapshots.every_epochs=0", "1"),
    # keys
    "+lrr=0.1": ("lrr", "optimizer.lr"),
    "~optimizer.lr": ("optimizer.lr",),
    # combinations
    "data.val_fraction=0": ("protocol.name=holdout", "data.val_fraction=0"),
    "protocol.val_fraction=0": ("protocol.name=holdout", "protocol.val_fraction=0"),
    "protocol=report data.val_fraction=0.1": ("protocol.name=report", "data.val_fraction=0.1"),
    "protocol.name=mine data.val_fraction=0": ("protocol.val_fraction=0.1", "data.val_fraction=0"),
    "optimizer=sgd optimizer.momentum=0": ("optimizer.nesterov=true", "optimizer.momentum"),
    "averaging=swa averaging.start=0.99 epochs=10": ("averaging.start=0.99", "10"),
    "averaging=swa epochs=1": ("averaging.start=0.8", "1"),
    "averaging=swa averaging.epochs=500 epochs=6": ("averaging.start=0.8", "6"),
    "averaging=lookahead averaging.alpha=1.5": ("averaging.alpha=1.5", "1"),
    "averaging=ema trainer.precision=bf16-true": ("trainer.precision=bf16-true", "bf16-mixed"),
    "optimizer.relative_lr.norms=-1": ("optimizer.relative_lr.norms=-1", "0"),
    "+optimizer.relative_lr.norm=2": ("optimizer.relative_lr.norm", "optimizer.relative_lr.norms"),
    "optimizer=muon optimizer.ns_steps=0": ("optimizer.ns_steps=0", "1"),
    "scheduler=linear scheduler.warmup_epochs=2 epochs=2": ("scheduler.warmup_epochs=2", "epochs=2"),
    "optimizer.fused=true trainer.precision=16-mixed": ("optimizer.fused=true", "trainer.precision=16-mixed"),
    "scheduler=step scheduler.lightning.frequency=2": ("scheduler.lightning.frequency=2",),
    "scheduler=plateau scheduler.lightning.interval=step": ("scheduler.lightning.interval=step",),
    "scheduler=one_cycle scheduler.total_steps=9 scheduler.lightning.interval=epoch": ("scheduler.total_steps",),
    "cuda_graphs=true": ("cuda_graphs=true", "compile=true"),
    "trainer=cpu cuda_graphs=true compile=true": ("cuda_graphs=true", "trainer.accelerator=cpu"),
    "cuda_graphs=true compile=true trainer.accumulate_grad_batches=2": (
        "cuda_graphs=true",
        "accumulate_grad_batches=1",
    ),
    # several processes
    "trainer.devices=0": ("trainer.devices=0", "[0,1]", "auto"),
    "trainer.devices='0,1'": ("trainer.devices=0,1", "[0,1]", "auto"),
    "trainer.devices=true": ("trainer.devices=True", "[0,1]", "auto"),
    "trainer.strategy=fsdp": ("trainer.strategy=fsdp", "auto", "ddp"),
    "trainer.num_nodes=2": ("trainer.num_nodes=2", "torchrun", "--nnodes=2", "docs/scaling.md"),
    "trainer.devices=7 batch_size=6": ("batch_size=6", "7"),
    "trainer=cpu trainer.devices=2 trainer.sync_batchnorm=true": ("trainer.sync_batchnorm=true", "bn=false"),
    "trainer.devices=2 probe=gradient": ("trainer.devices=2", "probe="),
    "trainer.devices=2 trainer.accelerator=mps": ("trainer.devices=2", "trainer.accelerator=mps"),
    "trainer.devices=2 jobs_per_device=2": ("trainer.devices=2", "jobs_per_device="),
    "trainer=ddp trainer.devices=2 compile=true cuda_graphs=true": ("trainer.devices=2", "cuda_graphs="),
    # allowed targets
    "optimizer._target_=os.system": ("optimizer._target_=os.system",),
}
# Settings of options that are not the default, and Hydra's own.
TYPED = {
    **COMPOSED,
    **UNKNOWN,
    "hydra.foo=1": ("hydra.foo",),
    "optimizer=adam optimizer.momentum=0.9": ("optimizer.momentum", "amsgrad", "betas"),
}


def _check_names(line: str, facts: tuple[str, ...]) -> None:
    """Check that the line names each fact as a whole word: `optimizer.lr` is not in `optimizer.lrr`."""
    for fact in facts:
        assert re.search(rf"(?<!\w){re.escape(fact)}(?!\w)", line), f"{fact} is missing in: {line}"


def _check_refused(lab: Lab, line: str, facts: tuple[str, ...], nowhere: Path) -> None:
    words = [word.replace("NOWHERE", str(nowhere)) for word in line.split()]
    data = [] if "data=" in line else ["data=synthetic"]
    _check_names(refusal(lab(*data, *words)), tuple(fact.replace("NOWHERE", str(nowhere)) for fact in facts))
    assert not list(Path().iterdir())


@pytest.mark.parametrize("line", NOT_COMPOSED)
def test_a_command_line_is_refused_in_one_line_that_names_the_remedy(lab: Lab, tmp_path: Path, line: str) -> None:
    _check_refused(lab, line, NOT_COMPOSED[line], tmp_path / "nowhere")


@pytest.mark.slow
@pytest.mark.parametrize("line", TYPED)
def test_a_typed_setting_is_refused_before_torch_is_imported(lab: Lab, tmp_path: Path, line: str) -> None:
    _check_refused(lab, line, TYPED[line], tmp_path / "nowhere")


@pytest.mark.parametrize("line", UNKNOWN)
def test_the_nearest_key_is_named(composed: Compose, line: str) -> None:
    _check_names(unknown_key(line.partition("=")[0], dict(leaves(resolved(composed("data=synthetic"))))), UNKNOWN[line])


@pytest.mark.parametrize("line", COMPOSED)
def test_a_composition_is_refused_in_one_line_that_names_the_remedy(composed: Compose, line: str) -> None:
    with pytest.raises(ValueError, match=r"^\S[^\n]*$") as refused:
        check_typed(composed, line, *([] if "data=" in line else ["data=synthetic"]))
    _check_names(str(refused.value), COMPOSED[line])


@pytest.mark.parametrize(
    "line",
    [
        "bn=yes optimizer.lr=1 grad_clip=null data.train_size=10 trainer.limit_train_batches=0.5 trainer.precision=64 "
        "hydra.run.dir=x callbacks=early_stopping callbacks.early_stopping.patience=3 scheduler=one_cycle "
        "scheduler.total_steps=100 probe=gradient probe.etas=[0.5,1,2,4] probe.relative=[] probe.at=[]",
        "model=vgg_a model.dropout=null bn=1 scheduler=warm_restarts scheduler.T_0=1 scheduler.T_mult=1 "
        "epochs=1000000000000",
        "loss='mse' experiment=null study=null trainer.max_time=00:00:01:00 trainer.profiler=simple",
        "-m experiment=glob(scheduler_st*) hydra.sweep.dir=x",
        "loss=ce,mse seed=range(0,99) -m",
        pytest.param("model=vgg_a model.dropout=0.2", marks=pytest.mark.slow),
        pytest.param("experiment=swa", marks=pytest.mark.slow),
        pytest.param("-m seed=range(0,9999)", marks=pytest.mark.slow),
        pytest.param("epochs=3 --multirun loss=ce,mse bn=true,false", marks=pytest.mark.slow),
    ],
)
def test_a_valid_command_line_is_accepted(line: str) -> None:
    plan_of(parsed([*line.split(), "data=synthetic"]))


def test_the_last_of_several_values_of_a_key_counts() -> None:
    assert checked([*TINY, "seed=1", "seed=2"]).composition["seed"] == 2
    study = checked([*TINY, "study=loss", "seed=1", "seed=2"])
    assert {word for job in study.jobs for word in job.words if word.startswith("seed=")} == {"seed=2"}


def test_bn_is_read_as_meant() -> None:
    config = checked([*TINY, "bn=no"]).composition
    assert (config["bn"], config["model"]["batch_norm"]) == (False, False)


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        ("experiment=loss_focal loss=ce", ("loss=ce", "loss.alpha", "loss.gamma")),
        ("averaging=swa averaging.start=0", ("averaging.start=0",)),
        ("l1=1e30", ("l1=1e+30",)),
        ("averaging=swa averaging.lr=0.05", ("averaging.lr=0.05", "50", "optimizer.lr=0.001")),
        ("experiment=loss_focal optimizer.lr=1", None),
    ],
)
def test_an_allowed_but_unusual_setting_causes_a_one_line_note(line: str, facts: tuple[str, ...] | None) -> None:
    plan = plan_of(parsed([*line.split(), "data=synthetic"]))
    # A separate note says that the images were replaced.
    _check_notes([line for line in plan.notes if not line.startswith("data=")], facts)


@pytest.mark.parametrize(
    ("scheduler", "epochs", "facts"),
    [
        *(("step", 20, ("scheduler.step_size=20", "20")), ("step", 21, None)),
        *(("warm_restarts", 40, ("40", "70")), ("warm_restarts", 70, None), ("warm_restarts", 200, ("200", "310"))),
    ],
)
def test_an_unused_part_of_a_schedule_is_noted(
    composed: Compose, scheduler: str, epochs: int, facts: tuple[str, ...] | None
) -> None:
    _check_notes(notes({**resolved(composed(f"scheduler={scheduler}")), "epochs": epochs}), facts)


@pytest.mark.parametrize("word", ["scheduler=plateau", "callbacks=early_stopping"])
def test_a_monitor_of_the_test_set_under_protocol_last_is_noted(composed: Compose, word: str) -> None:
    _check_notes(notes(resolved(composed(word, "protocol=last"))), (word.split("=")[0], "test set"))
    _check_notes(notes(resolved(composed(word, "protocol=report"))), None)


def _check_notes(lines: list[str], facts: tuple[str, ...] | None) -> None:
    assert len(lines) == (facts is not None)
    _check_names("".join(lines), facts or ())


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_component_from_outside_is_accepted_once_its_package_is_allowed(
    lab: Lab, outside: Callable[..., tuple[str, ...]]
) -> None:
    source = "import torch\nclass Huber(torch.nn.HuberLoss): pass\n"
    *own, allow = outside("outside_lab", source, "loss", "_target_: outside_lab.Huber\ndelta: 0.5\n")
    refused = lab(*own, *TINY)
    refusal(refused, "outside_lab.Huber", "allow=[outside_lab]")
    assert not refused.runs
    allowed = checked([*own, *TINY, allow, "loss.delta=0.25"]).composition
    assert allowed["loss"] == {"_target_": "outside_lab.Huber", "delta": 0.25}
    _check_names(refusal(lab(*own, *TINY, allow, "loss.delte=1")), ("delte", "loss.delta"))


def test_our_ranges_do_not_apply_to_a_users_component(tmp_path: Path) -> None:
    _write(
        tmp_path / "scheduler" / "cyclic.yaml",
        "_target_: torch.optim.lr_scheduler.CyclicLR\n_partial_: true\nbase_lr: 0.1\nmax_lr: 0.2\n"
        "mode: triangular\nlightning: {interval: step, frequency: 1}\n",
    )
    plan_of(parsed(["--config-dir", str(tmp_path), "scheduler=cyclic", "data=synthetic"]))


def test_flags_may_stand_anywhere() -> None:
    plan = plan_of(parsed([*TINY[:2], "-m", *TINY[2:], "seed=0,1"]))
    assert [job.words for job in plan.jobs] == [[*TINY, "seed=0"], [*TINY, "seed=1"]]


@pytest.mark.parametrize(
    ("group", "text", "facts"),
    [
        (
            "optimizer",
            "_target_: torch.optim.Adam\n_partial_: true\nlrr: 0.1\n",
            ("optimizer=mine", "torch.optim.Adam", "lrr", "lr"),
        ),
        ("experiment", "# @package _global_\noptimizer:\n  lrr: 0.1\n", ("optimizer", "lrr", "optimizer.lr")),
    ],
)
def test_a_misspelt_key_in_a_users_file_is_named(
    lab: Lab, tmp_path: Path, group: str, text: str, facts: tuple[str, ...]
) -> None:
    _write(tmp_path / "conf" / group / "mine.yaml", text)
    _check_names(refusal(lab("--config-dir", str(tmp_path / "conf"), f"{group}=mine", *TINY)), facts)


@pytest.mark.parametrize(
    ("group", "text", "facts"),
    [
        ("loss", b"", ("mine.yaml", "empty")),
        ("loss", b"- ce\n", ("mine.yaml", "list")),
        ("loss", "_target_: torch.nn.CrossEntropyLoss # \xe9\n".encode("latin-1"), ("mine.yaml", "UTF-8")),
        ("experiment", b"epochs: 3\n", ("mine.yaml", "# @package _global_")),
        ("optimizer", b"_target_: torch.optim.Adam\nlr: 0.1\n", ("optimizer=mine", "_partial_: true")),
        (
            "scheduler",
            b"_target_: torch.optim.lr_scheduler.ExponentialLR\n_partial_: true\ngamma: 0.9\n",
            ("scheduler=mine", "lightning: {interval: epoch, frequency: 1}"),
        ),
    ],
)
def test_a_users_file_that_is_not_an_option_is_named_with_the_remedy(
    lab: Lab, tmp_path: Path, group: str, text: bytes, facts: tuple[str, ...]
) -> None:
    folder = tmp_path / "o'brien's, conf"  # a name that Hydra's grammar must quote
    _write(folder / group / "mine.yaml", "").write_bytes(text)
    line = refusal(lab("--config-dir", str(folder), f"{group}=mine", *TINY))
    assert all(fact in line for fact in facts), line


def test_a_users_option_may_have_all_arguments_of_a_librarys_class(tmp_path: Path) -> None:
    _write(tmp_path / "loss" / "mine.yaml", "_target_: torch.nn.CrossEntropyLoss\nlabel_smoothing: 0.1\n")
    plan_of(parsed(["--config-dir", str(tmp_path), "loss=mine", "data=synthetic"]))
