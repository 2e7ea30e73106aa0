"""A Slurm on this machine: one node with as many processors as are asked for, on the loopback interface alone.

As root, with Debian's packages slurm-wlm and munge. All files lie in a folder of the caller's, and what was started is ended by its process
id.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

CONF = """ClusterName=local
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
JobRequeue=1
KillWait=5
MinJobAge=600
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,requeue_delay=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1024 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def wait(until, seconds, what):
    """The first true answer of `until`."""
    end = time.monotonic() + seconds
    while True:
        found = until()
        if found:
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"{seconds} s passed, and still not: {what}")
        time.sleep(0.1)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Slurm:
    def __init__(self, folder, cpus):
        self.folder, self.processes = Path(folder), []
        host = socket.gethostname().split(".")[0]
        for name in ["state", "spool", "munge"]:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.conf = self.folder / "slurm.conf"
        # slurmd refuses to be told of more processors than there are.
        cpus = min(cpus, os.cpu_count())
        self.conf.write_text(CONF.format(host=host, folder=self.folder, cpus=cpus, ports=free_ports(2)))
        path = os.environ["PATH"] + ":/usr/sbin:/sbin"
        self.environment = {**os.environ, "SLURM_CONF": str(self.conf), "PATH": path}

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def daemon(self, words):
        """In the foreground, so that its process is known; in a session of its own, so that nothing else ends it."""
        log = open(self.folder / f"{Path(words[0]).name}.out", "wb")
        process = subprocess.Popen(words, stdout=log, stderr=log, env=self.environment, start_new_session=True)
        self.processes.append(process)

    def start(self):
        munge = self.folder / "munge"
        key = munge / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        munge.chmod(0o700)
        files = [f"--key-file={key}", f"--socket={self.folder}/munge.sock", f"--pid-file={munge}/munged.pid"]
        files += [f"--log-file={munge}/munged.log", f"--seed-file={munge}/munged.seed"]
        which = lambda name: shutil.which(name, path=self.environment["PATH"])
        # --force: also as root, and in a folder that others may reach.
        self.daemon([which("munged"), "--foreground", "--force", *files])
        wait(lambda: (self.folder / "munge.sock").exists(), 20, "munged listens")
        self.daemon([which("slurmctld"), "-D", "-f", str(self.conf)])
        self.daemon([which("slurmd"), "-D", "-f", str(self.conf)])
        wait(lambda: "idle" in self.call("sinfo", "-h", "-o", "%t", check=False), 40, "the node is idle")

    def stop(self):
        if self.processes:
            self.call("scancel", "--user", "root", check=False)
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes = []

    def call(self, *words, check=True):
        ran = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=False)
        if check and ran.returncode:
            raise RuntimeError(f"{' '.join(words)} ended with {ran.returncode}: {ran.stderr.strip()}")
        return ran.stdout.strip()

    def states(self, job):
        """The state of each task of a job that Slurm still knows."""
        # A job that has tasks is listed task by task with -r.
        shown = self.call("squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%K %T", check=False)
        return dict(line.split(None, 1) for line in shown.splitlines())

    def ended(self, job, seconds):
        """The states once no task waits or runs any more."""
        going = {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED"}
        return wait(lambda: (s := self.states(job)) and not going & set(s.values()) and s, seconds, f"job {job} ends")
