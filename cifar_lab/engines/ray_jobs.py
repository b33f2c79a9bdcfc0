"""Run the jobs of a sweep as Ray tasks, on this machine or on a cluster that shares its folders.

Hydra's plugin configures Ray and the resources of a task. We wait for the tasks ourselves, because the plugin gives up
all tasks when one is killed, reacts to Ctrl-C only at the end, is aborted by SIGTERM, and cannot join a running cluster
since it sets the memory of a new one.
"""

import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from omegaconf import DictConfig, OmegaConf, open_dict

from cifar_lab.engines.handover import RunFailedError
from cifar_lab.engines.in_turn import Jobs
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.machine.interruption import Interruption

_LOOK_SECONDS = 1.0
# Variables that Ray reads at import and start: print equal lines of different runs, and keep the niceness at 0. With
# Ray's 15, jobs would wait for other programs.
_ENVIRONMENT = dict.fromkeys(
    ("RAY_DEDUP_LOGS", "RAY_COLOR_PREFIX", "RAY_USAGE_STATS_ENABLED", "RAY_worker_niceness"), "0"
)
# Variables that a run may read and that may be missing in the environment of a node's Ray.
_PASSED_ON = ("CIFAR_LAB_", "OMP_NUM_THREADS")


class RayJobs(Jobs):
    """The jobs of a command line, each as a Ray task."""

    def run(self, numbers: Sequence[int]) -> None:
        """Let Ray run the jobs, and read their outcome.

        Raises:
            RunFailedError: A process was killed more often than Ray restarts its job. The other jobs have ended.
            KeyboardInterrupt: A signal was received; the jobs have stopped and can be resumed.
            ValueError: Ray cannot be started, or its cluster cannot be reached.
        """
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import ray

        interruption = Interruption()
        try:
            with interruption.listening():
                launcher = self.launcher(numbers)
                _start(launcher.ray_cfg.init)
                interruption.take_back()  # Ray ends the process at SIGTERM
                own = _own_resources(launcher)
                self.parallel = max(1, int(ray.cluster_resources().get("CPU", 1) // (own["num_cpus"] or 1)))
                launcher.task_function = self.handed(numbers)  # with the number of parallel jobs, known only now
                returned, killed = _waited_for(_submitted(launcher, self.words(numbers), own), interruption)
        finally:
            ray.shutdown()
        interruption.check()
        for one in returned:
            one.return_value  # noqa: B018 - raises the job's exception
        if killed:
            raise RunFailedError("a process was killed; the same command runs the remaining jobs")
        self.look()


def _start(init: DictConfig) -> None:
    """Start Ray on this machine, or join the cluster that `init` or the environment names."""
    import ray

    settings: Any = OmegaConf.to_container(init, resolve=True)
    address = str(settings["address"] or "")
    host, separator, port = address.partition(":")
    if separator and port.isdecimal():  # if nothing listens there, Ray retries for minutes
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise UsageError(f"hydra/launcher=ray: no cluster at {address}: {error.strerror or error}") from None
    try:
        ray.init(**{key: value for key, value in settings.items() if value is not None})
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(f"hydra/launcher=ray: {' '.join(str(error).split())}") from None


def _own_resources(launcher: Any) -> dict[str, Any]:
    """Return the resources of a task."""
    import ray

    own: Any = OmegaConf.to_container(launcher.ray_cfg.remote, resolve=True)
    if own["num_gpus"] is None:  # without a number, Ray hides a node's GPUs from the task
        accelerator = launcher.config.trainer.accelerator
        own["num_gpus"] = int(accelerator != "cpu" and ray.cluster_resources().get("GPU", 0) > 0)
    return own


def _submitted(launcher: Any, jobs: Sequence[Sequence[str]], own: dict[str, Any]) -> list[Any]:
    import ray

    setup_globals()
    configure_log(launcher.config.hydra.hydra_logging, launcher.config.hydra.verbose)
    passed_on = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
    # Stored once, because they are the same for all jobs.
    shared = (launcher.hydra_context, launcher.config, launcher.task_function, Singleton.get_state())
    common = ray.put((os.getcwd(), passed_on, *shared))
    task = ray.remote(**own)(_run)
    return [task.remote(common, number, list(lines)) for number, lines in enumerate(jobs)]


def _waited_for(tasks: list[Any], interruption: Interruption) -> tuple[list[JobReturn], list[Any]]:
    """Wait until all tasks have ended, and pass on signals; return the results and the killed tasks."""
    import ray

    returned, killed, waiting, is_cancelled = [], [], tasks, False
    while waiting:
        done, waiting = ray.wait(waiting, timeout=_LOOK_SECONDS)
        for one in done:
            try:
                returned.append(ray.get(one))
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError:  # its process or node has ended, or it never started
                killed.append(one)
        if interruption.received is not None and not is_cancelled:
            is_cancelled = True
            for one in waiting:
                ray.cancel(one)  # Ctrl-C in its process: the run saves and stops
    return returned, killed


def _run(
    common: tuple[str, dict[str, str], Any, DictConfig, Callable[[DictConfig], object], Any],
    number: int,
    lines: list[str],
) -> JobReturn:
    """Run a job in a process of Ray, as Hydra's joblib launcher does."""
    folder, passed_on, context, config, task, singletons = common
    os.chdir(folder)
    # SIGINT is ignored if Ray was started in a script's background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(passed_on)
    setup_globals()
    Singleton.set_state(singletons)
    composed = context.config_loader.load_sweep_config(config, lines)
    with open_dict(composed):
        composed.hydra.job.id, composed.hydra.job.num = f"{composed.hydra.job.name}_{number}", number
    HydraConfig.instance().set_config(composed)
    return run_job(
        hydra_context=context,
        config=composed,
        task_function=task,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
