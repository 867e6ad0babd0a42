"""A cluster of this machine alone: munge, Slurm's controller and its node, as ordinary processes of one test."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "squeue")
SYSTEM = ("/usr/sbin", "/usr/local/sbin", "/sbin")  # where Debian has daemons, which is not on every user's path
PATIENCE = 900.0  # seconds; it waits for what happens, and never for a time to have passed


def missing() -> list[str]:
    """Programs that are not installed."""
    return [name for name in PROGRAMS if not found(name)]


def found(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *SYSTEM]))


def wait_until(holds: Callable[[], bool], what: str, daemons: list[subprocess.Popen] | None = None) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end or any(daemon.poll() is not None for daemon in daemons or []):
            raise RuntimeError(f"waited in vain: {what}")
        time.sleep(0.1)


@contextmanager
def daemon(*command: str, log: Path) -> Iterator[subprocess.Popen]:
    """A process in the foreground of its own, ended with the test."""
    with log.open("w") as out:
        process = subprocess.Popen([found(command[0]), *command[1:]], stdout=out, stderr=out, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def cluster(folder: Path) -> Iterator[Path]:
    """The path of slurm.conf, while it runs. The folder's path has to be short: a socket lies in it."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    folder.chmod(0o755)
    config, host = folder / "slurm.conf", socket.gethostname().split(".")[0]
    config.write_text(_config(folder, host, *free_ports(2)))
    files = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed", "key-file": "key"}
    beside = [f"--{option}={folder / 'munge'}.{ending}" for option, ending in files.items()]
    with ExitStack() as stack:
        stack.enter_context(daemon("munged", "--foreground", "--force", *beside, log=folder / "munged.out"))
        wait_until((folder / "munge.socket").exists, "munged")
        daemons = [
            stack.enter_context(daemon("slurmctld", "-D", "-i", "-f", str(config), log=folder / "ctld.out")),
            stack.enter_context(daemon("slurmd", "-D", "-N", host, "-f", str(config), log=folder / "d.out")),
        ]
        wait_until(lambda: "idle" in ask(config, "sinfo", "-h", "-o", "%T"), "a node that is idle", daemons)
        yield config


def ask(config: Path, *command: str) -> str:
    """What a command of Slurm prints."""
    environment = os.environ | {"SLURM_CONF": str(config)}
    return subprocess.run(command, capture_output=True, text=True, env=environment).stdout


def _config(folder: Path, host: str, controller: int, node: int) -> str:
    user = getpass.getuser()
    lines = {
        "ClusterName": "one", "SlurmctldHost": host, "SlurmUser": user, "SlurmdUser": user,
        "AuthType": "auth/munge", "AuthInfo": f"socket={folder / 'munge.socket'}", "CredType": "cred/munge",
        "SlurmctldPort": controller, "SlurmdPort": node,
        "StateSaveLocation": folder / "state", "SlurmdSpoolDir": folder / "spool",
        "SlurmctldPidFile": folder / "ctld.pid", "SlurmdPidFile": folder / "d.pid",
        "SlurmctldLogFile": folder / "ctld.log", "SlurmdLogFile": folder / "d.log",
        "ProctrackType": "proctrack/linuxproc", "TaskPlugin": "task/none", "SwitchType": "switch/none",
        "SelectType": "select/cons_tres", "SelectTypeParameters": "CR_Core", "MpiDefault": "none",
        "JobAcctGatherType": "jobacct_gather/none", "AccountingStorageType": "accounting_storage/none",
        "SchedulerParameters": "sched_interval=1,sched_min_interval=0", "ReturnToService": 2,
        "NodeName": f"{host} CPUs={os.cpu_count()} State=UNKNOWN",
        "PartitionName": "main Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
    }  # fmt: skip
    return "".join(f"{name}={value}\n" for name, value in lines.items())
