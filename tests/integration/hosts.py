"""Hosts on this machine: each with a network address, processes, `/dev/shm` and temporary files of its own.

A host is a process in fresh Linux namespaces, and a virtual cable from it to a switch, which is a bridge in a namespace
of its own. The namespaces have no names and nothing is left in the machine's own network: all is gone when the
processes that hold them end, which they do when the process that made them does, however that ends.
"""

import contextlib
import functools
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import psutil

from tests.integration.command import PATHS, fork_server
from tests.processes.fork_server import ServerWithin

SUBNET = "10.231.0"
"""Addresses that no packet leaves the switch with, so that they may be in use elsewhere."""
READY_S = 20


class NoHosts(Exception):  # noqa: N818
    """This machine does not let us make hosts; the message says why."""


class Hosts:
    """A switch, and the hosts that are plugged into it."""

    def __init__(self, folder):
        """`folder` is seen by all hosts, as a shared file system is, but for `folder/local`, which each has for itself.

        Raises:
            NoHosts: namespaces or virtual cables cannot be made here.
        """
        self.folder = Path(folder)
        self.local = self.folder / "local"
        self.local.mkdir()
        self._hosts = []
        self._switch = None
        try:
            self._switch = _Namespaces(self.folder, "switch", ["--net"])
            _run(self._switch.enter("ip", "link", "add", "switch", "type", "bridge"))
            _run(self._switch.enter("ip", "link", "set", "switch", "up"))
            # That there are cables is known before the first host asks for one.
            _run(self._switch.enter("ip", "link", "add", "one", "type", "veth", "peer", "name", "other"))
            _run(self._switch.enter("ip", "link", "delete", "one"))
        except (OSError, NoHosts) as error:
            self.close()
            raise NoHosts(f"hosts are network namespaces, which need CAP_SYS_ADMIN and iproute2: {error}") from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def add(self):
        """Another host."""
        host = Host(self, len(self._hosts) + 1)
        self._hosts.append(host)
        return host

    def switch(self, *command):
        """Run a command on the switch."""
        return _run(self._switch.enter(*command))

    def close(self):
        """End all that runs on the hosts, and the hosts."""
        for made in [*self._hosts, *([] if self._switch is None else [self._switch])]:
            made.end()


class Host:
    """One machine.

    Attributes:
        name: what it calls itself.
        address: its IP address.
        local: a folder of that path is there on each host, with other contents.
    """

    def __init__(self, hosts, number):
        self.name = f"host{number}"
        self.address = f"{SUBNET}.{number}"
        self._hosts = hosts
        self._port = f"port{number}"
        self.local = hosts.local
        spaces = ["--net", "--mount", "--uts", "--pid", "--mount-proc"]
        self._namespaces = _Namespaces(hosts.folder, self.name, spaces, self._furnish())
        self._plug_in()

    def _furnish(self):
        """Shell commands for what this host has of its own. Its name is an address of itself only, as on Debian."""
        local = shlex.quote(str(self.local))
        return "; ".join(
            (
                "mount -t tmpfs tmpfs /dev/shm",
                f"mount -t tmpfs tmpfs {local}",
                f"hostname {self.name}",
                f"printf '127.0.0.1 localhost\\n127.0.1.1 {self.name}\\n' >{local}/hosts",
                f"mount --bind {local}/hosts /etc/hosts",
            )
        )

    def _plug_in(self):
        cable = ["link", "add", self._port, "type", "veth", "peer", "name", "eth0", "netns", str(self._namespaces.pid)]
        self._hosts.switch("ip", *cable)
        self._hosts.switch("ip", "link", "set", self._port, "master", "switch", "up")
        for command in (
            ["link", "set", "lo", "up"],
            ["addr", "add", f"{self.address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["route", "add", "default", "dev", "eth0"],
        ):
            _run(self.command("ip", *command))

    def command(self, *arguments):
        """The command line that runs `arguments` on this host."""
        return self._namespaces.enter(*arguments)

    @functools.cached_property
    def fork_server(self):
        """The server of forks on this host: a fork of this session's."""
        environment = os.environ | {"PYTHONPATH": PATHS, "PYTHONUNBUFFERED": "1"}
        return ServerWithin(fork_server().path, self._namespaces.pid, environment, self._hosts.folder)

    def processes(self):
        """What runs on this host, by the namespace of its network."""
        mine = _network_of(self._namespaces.pid)
        return [process for process in psutil.process_iter() if _network_of(process.pid) == mine]

    def lose_power(self):
        """Stop answering, from one moment to the next: no process says goodbye, and no packet that would end a
        connection is heard."""
        self._hosts.switch("ip", "link", "set", self._port, "down")
        self.end()

    def end(self):
        """Kill all processes of this host, and with them its namespaces."""
        self._namespaces.end()
        if "fork_server" in vars(self):
            self.fork_server.end()
            del self.fork_server


class _Namespaces:
    """New namespaces, held by a process that is the first in them; what else runs in them ends with it."""

    def __init__(self, folder, name, flags, setup="true"):
        self.pid = None
        ready = Path(folder) / f"{name}.ready"
        log = Path(folder) / f"{name}.log"
        script = f"set -e; {setup}; touch {shlex.quote(str(ready))}; exec sleep infinity"
        # --pid in any case: as the first process of a namespace dies, the kernel kills all others in it.
        flags = [*flags, "--fork", "--kill-child", *([] if "--pid" in flags else ["--pid"])]
        with log.open("w") as out:
            self._unshare = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", *flags, "sh", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + READY_S
        while not ready.exists():
            if self._unshare.poll() is not None or time.monotonic() > deadline:
                self.end()
                raise NoHosts(log.read_text().strip().partition("\n")[0] or f"no namespaces in {READY_S} s")
            time.sleep(0.02)
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()
        self.pid = int(children[0])
        own = ["mount", "uts", "pid"] if "--mount" in flags else []
        self._spaces = ["--net", *(f"--{space}" for space in own)]

    def enter(self, *command):
        """The command line that runs `command` in these namespaces."""
        return ["nsenter", f"--target={self.pid}", *self._spaces, "--", *map(str, command)]

    def end(self):
        """Kill the first process, and with it all others; none is left when this returns."""
        if self.pid is not None and self._unshare.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._unshare.wait(10)  # the first process is gone when all others are, and this one after it
        self._unshare.kill()
        self._unshare.wait(10)


def _network_of(pid):
    try:
        return Path(f"/proc/{pid}/ns/net").readlink()
    except OSError:
        return None  # it has just ended


def _run(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise NoHosts(f"{shlex.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
