"""Logs a run to Weights & Biases. Imported only if W&B is used."""

import os
import shutil
import uuid
from pathlib import Path

from lightning.pytorch.loggers import WandbLogger
from PIL import Image

from cifar_lab.train.loggers.remote import Remote, line

_SECONDS = 30  # timeout for the server's answers and for the final upload; all data is also on disk
_VARIABLES = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}  # error reports go to W&B's developers
# By default W&B sends data about the machine, the user and the program; only device utilisation is kept.
_NOTHING_BY_ITSELF = {
    **dict.fromkeys(("x_disable_meta", "x_disable_machine_info", "disable_git", "disable_code"), True),
    **dict.fromkeys(("x_save_requirements", "save_code"), False),
    **dict.fromkeys(("host", "program", "x_executable"), ""),
    "console": "off",
}


class WandB(Remote, WandbLogger):
    """Lightning's logger with runs grouped by sweep, and stored in the run's folder until they are uploaded.

    Args:
        save_dir: The run's folder.
        project: W&B project.
        entity: W&B user or team. Default: the account's default.
        offline: Only write files. If False, files are written, with a note, if the server cannot be reached.
    """

    service = "wandb"

    def __init__(
        self, save_dir: str | Path, project: str = "cifar-lab", entity: str | None = None, offline: bool = True
    ) -> None:
        for name, value in _VARIABLES.items():
            os.environ.setdefault(name, value)
        import wandb

        limits = {"init_timeout": _SECONDS, "login_timeout": _SECONDS, "finish_timeout": _SECONDS}
        settings = wandb.Settings(**_NOTHING_BY_ITSELF, **limits, finish_timeout_raises=True)
        # Lightning's `offline` would change the environment variables of the process.
        mode = "offline" if offline else "online"
        super().__init__(save_dir=save_dir, project=project, entity=entity, mode=mode, settings=settings)
        self._wandb_init.pop("anonymous", None)  # W&B warns about this argument

    def _open(self) -> None:
        import wandb

        description, start = self.description, self._wandb_init
        start["id"] = self._id = self.known_id or uuid.uuid4().hex[:8]
        start |= {"name": description.name, "group": description.group, "tags": list(description.tags)}
        start["config"] = {**description.hyperparameters, "command": description.command, "config": description.config}
        try:
            begun = super(Remote, self).experiment
        except Exception as error:  # W&B raises many types
            if start["mode"] == "offline":
                raise
            self.note(f"{line(error)}; the run is kept offline, and `wandb sync` uploads it")
            start["mode"] = "offline"
            wandb.teardown()  # otherwise W&B still holds the run under its id
            begun = super(Remote, self).experiment
        self.keep_id(str(self._id))
        self.has_history = begun.resumed

    def _log_image(self, name: str, image: Image.Image, step: int) -> None:
        self.log_image(name, [image], step)

    def _close(self, succeeded: bool) -> None:
        assert self._experiment is not None
        own = Path(self._experiment.dir).parent
        self._experiment.finish(exit_code=0 if succeeded else 1)
        if not self.has_history:  # this attempt's files hold the whole run
            for earlier in own.parent.glob(f"*run-*-{self._id}"):
                if earlier != own:
                    shutil.rmtree(earlier, ignore_errors=True)
