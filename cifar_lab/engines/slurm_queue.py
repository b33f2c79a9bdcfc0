"""Watch the jobs that this process has queued in Slurm. Imports submitit, from the extra [slurm]."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from submitit import SlurmJob
from submitit.core.core import InfoWatcher

# Interval between queries of the queue, which load the cluster's shared controller.
_LOOK_SECONDS = 30


class Queue(InfoWatcher):
    """Finds ended jobs by `squeue`, because submitit's `sacct` needs accounting, which not every cluster has.

    Otherwise submitit would wait forever for a killed job, which leaves no result.
    """

    def __init__(self) -> None:
        super().__init__(delay_s=_LOOK_SECONDS)
        self._printed = ""

    @property
    def jobs(self) -> list[str]:
        """Numbers of the jobs, one per array."""
        return sorted({job.partition("_")[0] for job in self._registered}, key=int)

    def wait(self) -> None:
        """Wait until all jobs have ended."""
        while not all(self.is_done(job) for job in list(self._registered)):
            time.sleep(1)

    def get_state(self, job_id: str, mode: str = "standard") -> str:
        """Return a job's state in submitit's terms."""
        return self.get_info(job_id, mode=mode).get("State", "UNKNOWN")

    def _make_command(self) -> list[str] | None:
        if self._registered <= self._finished:
            return None
        return ["squeue", "--me", "--array", "--noheader", "--format=%i|%T|%r"]

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        """Return the state of each job. A job in the queue counts as not ended, whatever state Slurm reports."""
        lines = (string if isinstance(string, str) else string.decode()).splitlines()
        listed = {job: (state, why) for job, state, why in (line.split("|") for line in lines)}
        arrays = {job.partition("_")[0] for job in self._registered if "_" in job}
        states_of = {job: listed.get(job, ("ENDED", "")) for job in self._registered - arrays}
        waits = {job: why for job, (state, why) in states_of.items() if state == "PENDING"}
        ended = [job for job, (state, _) in states_of.items() if state == "ENDED"]
        self._tell(waits, len(states_of) - len(waits) - len(ended), len(ended))
        # submitit counts an array as a job of its own.
        states = {**dict.fromkeys(states_of, "RUNNING"), **dict.fromkeys(waits, "PENDING")}
        return {job: {"State": state} for job, state in {**states, **dict.fromkeys([*ended, *arrays], "ENDED")}.items()}

    def _tell(self, waits: dict[str, str], running: int, ended: int) -> None:
        # Print why jobs wait, because some would wait forever: PartitionTimeLimit means a wrong partition or time.
        whys = ", ".join(sorted(set(waits.values()) - {"None"}))
        line = f"{len(waits)} waiting{f' ({whys})' if whys else ''}, {running} running, {ended} ended"
        if line != self._printed:
            self._printed = line
            print(f"Slurm's job {' '.join(self.jobs)}: {line}", flush=True)


@contextmanager
def watched() -> Iterator[Queue]:
    """Make submitit use `squeue` within the context to find ended jobs."""
    queue, watcher = Queue(), SlurmJob.watcher
    SlurmJob.watcher = queue  # type: ignore[assignment]
    try:
        yield queue
    finally:
        SlurmJob.watcher = watcher
