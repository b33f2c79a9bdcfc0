"""`compile=true` trains the same network under the same parameter names."""

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._inductor.exc import InvalidCxxCompiler

from cifar_lab.machine.compilation import compiled
from cifar_lab.machine.hardware import choose
from cifar_lab.models import CNN
from cifar_lab.runs import Run
from cifar_lab.train import fitting
from cifar_lab.train.attempt import Attempt
from cifar_lab.train.continuity import compiled_as_recorded
from tests.comparison import differences
from tests.conftest import TINY, Compose, Outcome, refusal
from tests.faults import Fault, command

Lab = Callable[..., Outcome]
Printed = pytest.CaptureFixture[str]
PLAIN = (*TINY, "trainer.precision=32-true", "logger=none")
Compilations = list[tuple[nn.Module, bool]]


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> Compilations:
    """Record the networks to compile, and whether with CUDA graphs, instead of compiling; needs no compiler."""
    asked: Compilations = []

    @contextmanager
    def noting(network: nn.Module, cuda_graphs: bool) -> Iterator[None]:
        asked.append((network, cuda_graphs))
        yield

    monkeypatch.setattr("cifar_lab.machine.compilation.compiled", noting)
    monkeypatch.setattr("cifar_lab.machine.compilation.check_compiler", lambda device: None)
    return asked


def test_a_compiled_network_keeps_its_names_and_its_copies_are_not_compiled() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    names = list(network.state_dict())
    with compiled(network):
        assert list(network.state_dict()) == names
        assert copy.deepcopy(network)._compiled_call_impl is None


def test_a_compiled_run_without_a_compiler_is_refused_in_one_line(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", missing)
    refusal(lab(*PLAIN, "compile=true"), "compile=true", "C++", "g++", "CXX")
    assert not list(Path().iterdir())


def test_cuda_graphs_without_a_gpu_are_left_out_with_a_one_line_note(
    composed: Compose, compilations: Compilations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Printed
) -> None:
    monkeypatch.setattr("cifar_lab.machine.hardware.training_device", lambda accelerator: "cpu")
    monkeypatch.setattr(fitting, "_fit_and_test", lambda *_: {"epochs": 2})
    run, config = Run(tmp_path), composed(*PLAIN, "trainer.accelerator=auto", "compile=true", "cuda_graphs=true")
    result = fitting.fit_and_test(config, Attempt(run))
    (line,) = capsys.readouterr().out.splitlines()
    assert re.match(r"note: .*\bcuda_graphs=true\b", line)
    assert [cuda_graphs for _, cuda_graphs in compilations] == [False]
    assert result == {"epochs": 2, "compile": True, "cuda_graphs": False, "sources": {}}
    assert run.status()["compile"] is True
    assert run.status()["cuda_graphs"] is False


@pytest.mark.parametrize("began", [True, False])
def test_a_resumed_run_is_compiled_if_it_was_compiled_at_its_start(
    composed: Compose, compilations: Compilations, tmp_path: Path, capsys: Printed, began: bool
) -> None:
    run = Run(tmp_path)
    run.set_state("running", compile=began)
    config = composed(f"compile={not began}")
    classifier = nn.Module()
    classifier.model = nn.Linear(2, 2)
    attempt = Attempt(run, checkpoint=run.last_checkpoint)
    with compiled_as_recorded(config, attempt, classifier, choose("cpu")) as does:  # type: ignore[arg-type]
        assert does == {"compile": began, "cuda_graphs": False}
    assert compilations == [(classifier.model, False)] * began
    (line,) = capsys.readouterr().out.splitlines()
    assert re.match(rf"note: .*\bcompile={str(began).lower()}\b", line)
    with compiled_as_recorded(config, Attempt(run), classifier, choose("cpu")) as does:  # type: ignore[arg-type]
        assert does["compile"] is not began


@pytest.mark.slow
@pytest.mark.parametrize("averaging", ["none", "ema", "swa"])
def test_compiled_training_equals_plain_training_within_rounding(lab: Lab, averaging: str) -> None:
    arguments = [*PLAIN, "model.dropout=0", "epochs=3", "data.num_train=63", f"averaging={averaging}"]
    arguments += ["averaging.start=0.4"] if averaging == "swa" else []
    for folder, extra in (("a", []), ("b", ["compile=true"])):
        outcome = lab(*arguments, *extra, f"hydra.run.dir={folder}")
        assert outcome.code == 0, outcome.stderr
    plain, compiled_run = outcome.runs
    assert compiled_run.result()["compile"] is True
    assert compiled_run.result()["flops_per_image"] == plain.result()["flops_per_image"]
    for name in ("loss", "grad_norm", "first_conv_grad_norm"):
        assert compiled_run.steps()[name] == pytest.approx(plain.steps()[name], rel=1e-2)
    assert compiled_run.result()["test/loss"] == pytest.approx(plain.result()["test/loss"], rel=1e-2)
    weights = torch.load(next(compiled_run.weights.glob("*.pth")), weights_only=True)
    CNN(filters=[4, 4, 4]).load_state_dict(weights)


@pytest.mark.slow
def test_a_killed_compiled_run_resumes_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = [*PLAIN, "compile=true", "averaging=ema", "callbacks.checkpoint.every_minutes=1e-9"]
    assert command(*line, "hydra.run.dir=undisturbed").code == 0
    assert command(*line, "hydra.run.dir=disturbed", fault=Fault("batch", 5)).code == -9
    ended = command("resume=disturbed")
    assert ended.code == 0, ended.output
    assert not differences(Run("undisturbed"), Run("disturbed"))
