"""Hosts on one machine: network, process, mount and host name spaces with an SSH server in each."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

SHARED = Path("/mnt/sweeper")  # where each host sees the shared folder, as clusters/local.yaml says
BRIDGE = "sweeper-br"
NETWORK = "10.77.31"
HOME = "/sweeper-home"  # of root on each host
SSH = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR")

# What a host runs as its first process. $1: name, $2: folder of its own, $3: the shared folder.
INIT = f"""
set -e
hostname "$1"
mount --bind "$2/passwd" /etc/passwd
mount --bind "$2/home" {HOME}
mount --bind "$3" {SHARED}
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mkdir /run/sshd
exec /usr/sbin/sshd -D -e -h {HOME}/host_key -o StrictModes=no -o UsePAM=no -o PidFile=none -o MaxStartups=100
"""


def missing() -> str | None:
    """Return why there can be no hosts here, or None."""
    if os.geteuid() != 0:
        return "needs root, to make namespaces"
    tools = ("ip", "unshare", "nsenter", "ssh", "ssh-keygen", "rsync", "/usr/sbin/sshd", f"{sys.prefix}/bin/ray")
    absent = [tool for tool in tools if not shutil.which(tool)]
    return f"needs {', '.join(absent)}" if absent else None


@dataclass
class Host:
    """A host, with its name, its address and the process that all others on it descend from."""

    name: str
    address: str
    first: subprocess.Popen[bytes]

    def processes(self, text: str) -> list[str]:
        """Return the command lines on the host that contain the text."""
        inside = Path(f"/proc/{self.first.pid}/task/{self.first.pid}/children").read_text().split()
        if not inside:
            return []
        command = ["nsenter", "--target", inside[0], "--pid", "--mount", "ps", "-eo", "args", "--no-headers"]
        lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
        return [line for line in lines if text in line and "ps -eo" not in line]

    def cut(self) -> None:
        """Pull the cable."""
        _run("ip", "link", "set", self.name, "down")


@contextmanager
def hosts(names: list[str], folder: Path, shared: Path) -> Iterator[list[Host]]:
    """Start hosts. They can be reached as root by SSH with `folder`/key, and have the venv of this process.

    folder: for what each host keeps, empty. shared: what all of them see as SHARED.
    """
    with ExitStack() as stack:
        for path in (SHARED, Path(HOME)):
            if not path.exists():
                path.mkdir(parents=True)
                stack.callback(path.rmdir)
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key"))
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
        stack.callback(_run, "ip", "link", "delete", BRIDGE)
        _run("ip", "address", "add", f"{NETWORK}.254/24", "dev", BRIDGE)
        _run("ip", "link", "set", BRIDGE, "up")
        started = [
            stack.enter_context(_host(name, f"{NETWORK}.{number}", folder, shared))
            for number, name in enumerate(names, 1)
        ]
        for host in started:
            _wait_for_ssh(host, folder / "key")
        yield started


@contextmanager
def _host(name: str, address: str, folder: Path, shared: Path) -> Iterator[Host]:
    own = folder / name
    (own / "home" / ".ssh").mkdir(parents=True)
    shutil.copy(folder / "key.pub", own / "home" / ".ssh" / "authorized_keys")
    (own / "home" / "sweeper-venv").symlink_to(sys.prefix)
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(own / "home" / "host_key"))
    users = Path("/etc/passwd").read_text().splitlines()
    (own / "passwd").write_text("\n".join(["root:x:0:0:root:" + HOME + ":/bin/bash", *users[1:]]) + "\n")
    with ExitStack() as stack:
        _run("ip", "netns", "add", name)
        stack.callback(_run, "ip", "netns", "delete", name)
        _run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        stack.callback(_run, "ip", "link", "delete", name)  # the kernel takes its time to delete a namespace
        _run("ip", "link", "set", name, "master", BRIDGE, "up")
        for command in (f"address add {address}/24 dev eth0", "link set eth0 up", "link set lo up"):
            _run("ip", "-n", name, *command.split())
        _run("ip", "-n", name, "route", "add", "default", "via", f"{NETWORK}.254")  # Ray asks it for the host's address
        new = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        init = ["sh", "-c", INIT, "sh", name, str(own), str(shared)]
        with open(own / "log", "wb") as log:
            first = subprocess.Popen(["ip", "netns", "exec", name, *new, *init], stdout=log, stderr=log)
        stack.callback(_stop, first)
        yield Host(name, address, first)


def _stop(first: subprocess.Popen[bytes]) -> None:
    first.kill()  # --kill-child: the first process of its namespace dies with it, and so do all others
    first.wait(30)


def _wait_for_ssh(host: Host, key: Path) -> None:
    command = ["ssh", *SSH, "-i", str(key), f"root@{host.address}", "true"]
    for _ in range(100):
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise TimeoutError(f"{host.name} has no SSH server: {subprocess.run(command, capture_output=True, check=False)}")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
