"""The configuration of a run that is read, not trained."""

from collections.abc import Iterable

from omegaconf import DictConfig, OmegaConf

from cifar_lab.config.targets import check_targets
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import Run


def saved(run: Run, allowed: Iterable[str] = ()) -> DictConfig:
    """A run's own configuration, to make its parts from again.

    Args:
        run: Whoever made its folder.
        allowed: Packages whose components may run; a run's folder does not say so.

    Raises:
        ValueError: There is no run, its configuration is damaged, or makes what is not allowed.
    """
    if not run.config_file.exists():
        raise UsageError(f"{run.folder} is no run; name a run's folder, which holds .hydra/config.yaml")
    config = run.config()
    missing = [
        group for group in ("data", "model", "loss", "optimizer", "trainer", "protocol", "bn") if group not in config
    ]
    if missing or "${" in str(config):
        what = f"{missing[0]} is missing" if missing else "it holds an interpolation, ${...}, in place of a value"
        raise UsageError(f"{run.config_file} is damaged: {what}")
    check_targets(config, allowed, "--allow {}")
    return OmegaConf.create(config)
