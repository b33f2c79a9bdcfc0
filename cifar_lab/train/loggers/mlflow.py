"""Logs a run to MLflow. Imported only if MLflow is used."""

import os
from contextlib import suppress

import yaml
from lightning.pytorch.loggers import MLFlowLogger
from PIL import Image

from cifar_lab.runs import guarded
from cifar_lab.train.loggers.remote import Remote, keep_id, read_ids

_LOCAL = "sqlite:///mlflow.db"  # the default of `mlflow ui`
# MLflow's defaults block training for minutes if a server cannot be reached, and report usage to its developers.
_VARIABLES = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_NAME, _PARENT = "mlflow.runName", "mlflow.parentRunId"
_KIND = {"mlflow.experimentKind": "custom_model_development"}  # otherwise its page opens with language models


class MLflow(Remote, MLFlowLogger):
    """Lightning's logger with runs nested under their sweep's run, and no data about user, program and git repository.

    Args:
        experiment_name: Name of the MLflow experiment.
        tracking_uri: Address of a server, or a database. Default: `MLFLOW_TRACKING_URI`, else `mlflow.db` in the
            current folder.
    """

    service = "mlflow"

    def __init__(self, experiment_name: str, tracking_uri: str | None = None) -> None:
        for name, value in _VARIABLES.items():
            os.environ.setdefault(name, value)
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or _LOCAL
        self._try(
            lambda: super(MLflow, self).__init__(experiment_name, tracking_uri=uri)
        )  # may fail to open a database

    def _open(self) -> None:
        self.has_history = self._continued()
        if not self.has_history:
            self._begin()

    def _continued(self) -> bool:
        """Reopen the run of an earlier attempt; return False if the server does not have it."""
        if self.known_id is None or not self._has(self.known_id):
            return False
        self._run_id = self.known_id
        self._mlflow_client.update_run(self._run_id, status="RUNNING")
        return True

    def _has(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return bool(self._mlflow_client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False

    def _begin(self) -> None:
        description, client, experiment = self.description, self._mlflow_client, self._experiment_of_its_name()
        tags = {_NAME: description.name, **dict.fromkeys(description.tags, "true")}
        if description.group is not None:
            tags[_PARENT] = self._parent(experiment, description.group)
        # Use the client, because MLflow's fluent API and Lightning's logger add the user, program and git repository.
        self._run_id = client.create_run(experiment, tags=tags).info.run_id
        self.keep_id(self._run_id)
        self.log_hyperparams(dict(description.hyperparameters))
        client.log_text(self._run_id, yaml.safe_dump(dict(description.config), sort_keys=False), "config.yaml")
        client.log_text(self._run_id, description.command, "command.txt")

    def _experiment_of_its_name(self) -> str:
        from mlflow.exceptions import MlflowException

        client, name = self._mlflow_client, self._experiment_name
        if (experiment := client.get_experiment_by_name(name)) is None:
            with suppress(MlflowException):  # another process created it first
                return str(client.create_experiment(name, tags=_KIND))
            experiment = client.get_experiment_by_name(name)
        return str(experiment.experiment_id)

    def _parent(self, experiment: str, name: str) -> str:
        """Return the id of the sweep's parent run; the sweep's first run creates it."""
        file = self.description.run.folder.parent / self.description.run.loggers_file.name
        with guarded(file):
            known = read_ids(file).get(self.service)
            if known is not None and self._has(known):
                return known
            parent = self._mlflow_client.create_run(experiment, tags={_NAME: name}).info.run_id
            self._mlflow_client.set_terminated(parent)
            keep_id(file, self.service, parent)
            return str(parent)

    def _log_image(self, name: str, image: Image.Image, step: int) -> None:
        self._mlflow_client.log_image(self._run_id, image, artifact_file=f"{name}.png")

    def _close(self, succeeded: bool) -> None:
        self._mlflow_client.set_terminated(self._run_id, "FINISHED" if succeeded else "FAILED")
