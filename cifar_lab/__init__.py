"""Ablation experiments on CIFAR-10, each defined by its configuration."""

import importlib
import logging
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

try:
    __version__ = version("cifar-lab")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

# Silence library messages about caches, CUDA_HOME and Slurm that need no action from the user.
for _name in ("matplotlib", "torch.utils.cpp_extension"):
    logging.getLogger(_name).setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message="The `srun` command is available")

# Former module names, which older option files, docs and notebooks use; they work until version 0.3.
MOVED = {
    "cifar_lab.analysis": "",  # its seven features are now separate packages
    "cifar_lab.analysis.claims": "cifar_lab.report.claims.claims",
    "cifar_lab.analysis.landscape_bands": "cifar_lab.landscape.batch_norm.bands",
    "cifar_lab.analysis.landscape_smoothness": "cifar_lab.landscape.batch_norm.smoothness",
    "cifar_lab.analysis.report_page": "cifar_lab.report.page.writing",
    "cifar_lab.analysis.run_report": "cifar_lab.train.summary",
    "cifar_lab.analysis.statistics": "cifar_lab.statistics.accuracies",
    "cifar_lab.analysis.sweep_report": "cifar_lab.table.output",
    "cifar_lab.analysis.tables": "cifar_lab.table.text",
    "cifar_lab.callbacks": "",
    "cifar_lab.callbacks.averaging": "cifar_lab.train.callbacks.averaging",
    "cifar_lab.callbacks.probe": "cifar_lab.landscape.probe",
    "cifar_lab.callbacks.snapshots": "cifar_lab.train.callbacks.snapshots",
    "cifar_lab.callbacks.tensorboard": "cifar_lab.train.loggers.tensorboard",
    "cifar_lab.classifier": "cifar_lab.train.classifier",
    "cifar_lab.command": "cifar_lab.terminal.command",
    "cifar_lab.train.callbacks.probe": "cifar_lab.landscape.probe",
    "cifar_lab.train.callbacks.tensorboard": "cifar_lab.train.loggers.tensorboard",
}


def current(target: str) -> str:
    """Return the current name of a component that has moved.

    `cifar_lab.callbacks.averaging.EMA` is now `cifar_lab.train.callbacks.averaging.EMA`.

    Args:
        target: The value of a `_target_`, from an option file or a run's configuration.
    """
    module, _, name = target.rpartition(".")
    return f"{MOVED[module]}.{name}" if module in MOVED else target


class _Moved(MetaPathFinder, Loader):
    """Import hook that finds a module under its former name, with a warning."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = MOVED[spec.name]
        if not new:
            package = ModuleType(spec.name)
            package.__path__ = []
            return package
        line = f"{spec.name} has moved to {new}; the old name works until version 0.3"
        warnings.warn(line, FutureWarning, stacklevel=2)
        module = importlib.import_module(new)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Restore the spec of the module's current name; the module has already been executed."""
        if module.__spec__ is not None and module.__spec__.loader_state is not None:
            module.__spec__ = module.__spec__.loader_state


sys.meta_path.insert(0, _Moved())
