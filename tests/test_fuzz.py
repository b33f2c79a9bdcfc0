"""Any drawn input is refused in one line or gives a right result; no other exception occurs, and no code runs."""

import io
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st

from cifar_lab.config import checked
from cifar_lab.data.cifar10 import load
from cifar_lab.data.files import DataError
from cifar_lab.runs import CheckpointError, read_checkpoint
from tests.comparison import equal
from tests.data.test_cifar10 import COUNT, Writer, random_batches, write_binary, write_python
from tests.mutations import EDITS, Edit, damaged, damaged_member, fuzzed
from tests.runs.test_checkpoints import CHECKPOINT

# Actions of payloads, by the names of Python's audit events.
_CODE = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "socket.connect")
_calls: list[str] = []
sys.addaudithook(lambda event, _: _calls.append(event) if event in _CODE else None)


@contextmanager
def refusing(error: type[Exception]) -> Iterator[None]:
    """Accept an expected error with a one-line message, and check that no code was run meanwhile."""
    _calls.clear()
    refusals = []
    try:
        yield
    except error as refusal:
        refusals.append(str(refusal))
    assert [len(line.splitlines()) for line in refusals] in ([], [1])
    assert not _calls


def test_running_code_is_detected() -> None:
    with pytest.raises(AssertionError), refusing(ValueError):
        os.system("true")


@fuzzed(st.tuples(st.sampled_from([write_binary, write_python]), EDITS), few=30)
def test_a_damaged_data_file_is_refused_or_gives_images_and_classes(
    drawn: tuple[Writer, list[Edit]], folder: Path
) -> None:
    write, edits = drawn
    folder = folder / write.__name__
    whole = folder / "whole"
    if not whole.exists():
        shutil.copy(min(write(folder / "data", random_batches()).glob("data_batch_2*")), whole)
    min((folder / "data").glob("data_batch_2*")).write_bytes(damaged(whole.read_bytes(), edits))
    with refusing(DataError):
        for data, count in zip(load(folder / "data", False, COUNT), (5 * COUNT, COUNT), strict=True):
            assert data.images.shape == (count, 32, 32, 3) and data.images.dtype == torch.uint8
            assert data.labels.shape == (count,) and data.labels.dtype == torch.int64
            assert data.labels.min() >= 0 and data.labels.max() <= 9


_BYTES = io.BytesIO()
torch.save({**CHECKPOINT, "loops": {"done": [1, 2]}, "optimizer_states": [{"step": torch.tensor(3)}]}, _BYTES)


@fuzzed(EDITS)
def test_a_damaged_checkpoint_is_refused_or_read_unchanged(edits: list[Edit], folder: Path) -> None:
    path = folder / "last.ckpt"
    path.write_bytes(damaged(_BYTES.getvalue(), edits))
    with refusing(CheckpointError):
        assert equal(read_checkpoint(path), torch.load(io.BytesIO(_BYTES.getvalue()), weights_only=True))


@fuzzed(st.tuples(st.integers(0, 15), EDITS))
def test_a_checkpoint_damaged_under_correct_checksums_is_refused_or_read_as_a_dictionary(
    drawn: tuple[int, list[Edit]], folder: Path
) -> None:
    path = folder / "last.ckpt"
    path.write_bytes(damaged_member(_BYTES.getvalue(), *drawn))
    with refusing(CheckpointError):
        assert isinstance(read_checkpoint(path), dict)


_KEYS = """
epochs seed bn optimizer.lr model.filters grad_clip name allow resume data.root scheduler.T_max trainer.precision
hydra.run.dir hydra.sweep.dir hydra.callbacks published model loss optimizer scheduler augment experiment data study
hydra/launcher loss._target_ optimizer.betas optimizer._target_ activation._args_ trainer.profiler logger callbacks lrr
"""
_PLAIN = """
1 0 -1 0.5 1e-3 1e400 nan inf true null '' vgg_a sgd mse step none [4,4,4] [] {} {a:1} warm_restarts 32-true os.system
torch.load
"""
_PLAIN_VALUES = st.sampled_from([*_PLAIN.split(), "9" * 30, "9" * 5_000])
_NASTY = r"""
${oc.env:HOME} ${hydra:job.name} ${run_folder:true} ${epochs} ${seed}${seed} ${oc.env:NONE} '${ ${ } [[[[ ]]]] ' " \
glob(*) glob([*,a],exclude=b) range(0,1000000000) shuffle(range(0,1000000000)) range(1,3) range(0.0,1,1e-300)
range(0,inf) range(3,1,0) choice(1,2) choice() sort(3,1) interval(0,1) tag(a,choice(1,2)) int(1.5) float(a)
json_str({a:1}) eval(1) a,b 1,2, é🙂 ~ ~/x ../../x !!python/x
"""
_NASTY_VALUES = st.sampled_from(
    [
        *_NASTY.split(),
        *("${oc.create:'{_target_: os.system}'}", "{_target_:os.system,command:touch marker}", "\u202e", "\ud800"),
        *("[" * 300 + "]" * 300, "a" * 10_000, "\0", "\x1b[31m", "\n"),
    ]
)
_VALUES = _PLAIN_VALUES | _NASTY_VALUES | st.tuples(_NASTY_VALUES, _PLAIN_VALUES).map("".join)
_KEY = st.sampled_from(_KEYS.split())
_SETTINGS = st.builds("{}={}".format, _KEY, _VALUES)
_MALFORMED = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["+", "++", "~", "+ ", ""]),
    _KEY,
    st.sampled_from(["", "@a=", "==", " = "]),
    _VALUES,
)
_RIGHT = """
epochs=3 seed=7 bn=true grad_clip=null model=vgg_a loss=mse optimizer=sgd augment=none experiment=loss_focal
scheduler=warm_restarts name=a optimizer.lr=1e-3 trainer.precision=32-true
"""
_LINES = st.builds(
    lambda right, drawn: [*right, *drawn],
    st.lists(st.sampled_from(_RIGHT.split()), max_size=3),
    st.lists(_SETTINGS | _MALFORMED | st.text(max_size=20) | _VALUES, max_size=2),
)
_FLAGS = st.sampled_from(["", "--multirun", "-m", "--config-dir .", "--config-dir=nowhere", "--foo", "--"])


@fuzzed(st.tuples(_FLAGS, _LINES), few=6)
def test_a_random_command_line_is_refused_in_one_line_or_can_be_run(drawn: tuple[str, list[str]], folder: Path) -> None:
    flags, lines = drawn
    before = time.process_time()
    with refusing(ValueError):
        asked = checked([*flags.split(), "data=synthetic", *(line for line in lines if not line.startswith("-"))])
        assert len(asked.jobs) <= 10_000
    assert time.process_time() - before < 30
    assert not list(folder.iterdir())
