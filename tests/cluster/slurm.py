"""A Slurm of two nodes on this machine for tests: munged, slurmctld and two slurmd as processes of the caller.

All its files are in one folder. It runs as root or as any user. `python -m tests.cluster.slurm COMMAND` runs a command
with such a Slurm.
"""

import getpass
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NODES = ("node1", "node2")
CPUS_PER_NODE = 2
_COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
# Debian installs daemons in a folder that only root's PATH has.
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"

# A container lacks accounting, cgroups and binding to cores. Jobs start at once because tests wait for them.
_CONFIGURATION = """
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=10
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=500
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0
NodeName=node1 NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[1]} CPUs={cpus} RealMemory=2000
NodeName=node2 NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[2]} CPUs={cpus} RealMemory=2000
PartitionName=lab Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
PartitionName=short Nodes=node1,node2 MaxTime=1 State=UP
"""


class Slurm:
    """A running Slurm, which a process reaches through `environment`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _PATH}

    def __call__(self, *command: str) -> str:
        """Run one of Slurm's commands and return its standard output."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    def jobs(self) -> dict[str, str]:
        """States of the jobs that have not ended, by job number: `{"2_0": "RUNNING"}`."""
        lines = self("squeue", "--array", "--noheader", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def end_within_two_minutes(self, job: str) -> None:
        """Limit a running job to one to two more minutes; the limit stays when the job is requeued."""
        hours_minutes_seconds = self("squeue", "--noheader", f"--jobs={job}", "--format=%M").split(":")
        age = sum(int(part) * 60**power for power, part in enumerate(reversed(hours_minutes_seconds)))
        self("scontrol", "update", f"JobId={job}", f"TimeLimit={age // 60 + 2}")

    def cancel_all(self) -> None:
        """Cancel all jobs and wait until none is left."""
        self("scancel", "--user", getpass.getuser())
        _wait_for(lambda: not self.jobs(), self.folder)


def missing() -> str:
    """Return why Slurm cannot run here, or an empty string if it can."""
    absent = [command for command in _COMMANDS if shutil.which(command, path=_PATH) is None]
    packages = "apt-get install slurmctld slurmd slurm-client munge"
    return f"{', '.join(absent)} not found: {packages}" if absent else ""


@contextmanager
def running(folder: Path) -> Iterator[Slurm]:
    """Run a Slurm in an empty folder until the end of the context, which cancels the remaining jobs.

    Raises:
        RuntimeError: It does not start; the message has the daemons' output.
    """
    _write_configuration(folder)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": _PATH}
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munge = [f"--{option}={folder}/munge/{name}" for option, name in files.items()]
    commands = [["munged", "--foreground", *munge], ["slurmctld", "-D"]]
    commands += [["slurmd", "-D", "-N", node] for node in NODES]
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        with (folder / "output").open("w") as output:
            for command in commands:
                daemons.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))
                if command[0] == "munged":
                    _wait_for((folder / "munge" / "socket").exists, folder)
        slurm = Slurm(folder)
        _wait_for(lambda: _idle(slurm) == len(NODES), folder)
        yield slurm
        slurm.cancel_all()
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(30)


def _write_configuration(folder: Path) -> None:
    # munged requires folders that only their owner can write, and a socket folder that others can enter.
    (folder / "munge").mkdir(mode=0o755)
    (folder / "state").mkdir()
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    ports = _free_ports(1 + len(NODES))
    host = socket.gethostname().partition(".")[0]
    told = {"host": host, "user": getpass.getuser(), "folder": folder, "ports": ports, "cpus": CPUS_PER_NODE}
    (folder / "slurm.conf").write_text(_CONFIGURATION.format(**told))
    version = subprocess.run(["slurmd", "-V"], env={"PATH": _PATH}, check=True, capture_output=True, text=True).stdout
    if int(re.findall(r"\d+", version)[0]) >= 23:  # otherwise slurmd looks for control groups, which nothing here needs
        (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _idle(slurm: Slurm) -> int:
    try:
        return slurm("sinfo", "--Node", "--partition=lab", "--noheader", "--format=%T").split().count("idle")
    except subprocess.CalledProcessError:  # not up yet
        return 0


def _wait_for(condition: Callable[[], bool], folder: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            told = (folder / "output").read_text()
            raise RuntimeError(f"Slurm does not answer as it should within {seconds:.0f} s: {told}")
        time.sleep(0.1)


def main() -> None:
    """Run the command line with a Slurm, and exit with the command's exit code."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        Path(folder).chmod(0o755)
        with running(Path(folder)) as slurm:
            code = subprocess.run(sys.argv[1:], env={**os.environ, **slurm.environment}, check=False).returncode
    sys.exit(code)


if __name__ == "__main__":
    main()
