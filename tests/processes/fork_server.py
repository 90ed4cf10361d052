"""Python programs that begin as forks of a process which has imported the large libraries: they cost their work.

`python fork_server.py SOCKET` imports them, and forks for every request on its socket. A fork becomes the program that
is asked for: arguments, environment, folder and open files are the client's. Each such program has a server of its own
for a child, which forks the workers of a Ray cluster that the program starts (see `sitecustomize`). A program ends with
the client that asked for it, and a server with the process that started it.

`fork_server.py SOCKET PID`, itself a fork, forks in the Linux namespaces of that process.
"""

import ctypes
import fcntl
import gc
import importlib
import io
import json
import os
import random
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types
from contextlib import suppress
from pathlib import Path

WORKERS = "HBTRAIN_TEST_FORKS"
"""The variable with the socket of the server that forks workers."""
LIBRARIES = (
    "deepspeed", "peft", "sentence_transformers", "transformers.integrations.deepspeed",
    "jsonschema", "matplotlib.backends.backend_agg", "matplotlib.figure", "matplotlib.layout_engine",
)  # fmt: skip
"""No module of ours, which may be of another version than what is tested, and not Ray, which reads variables, and draws
ids from a generator that has its state from its import: forks would give different things the same id."""
HEAD_BYTES, MOST_FILES, FREE_FILE = 8, 64, 500
OPTIONS = ("-u", "-B")
"""Those that Ray starts Python with; they do not matter here."""


class Forked:
    """A program that a server has forked; as `subprocess.Popen`."""

    def __init__(self, path, arguments, environment, files, folder):
        """`arguments` are those of Python; `files` maps file descriptors of the program to those of this process."""
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(path)
        body = json.dumps([arguments, environment, list(files), folder]).encode()
        socket.send_fds(self._server, [len(body).to_bytes(HEAD_BYTES, "big")], list(files.values()))
        self._server.sendall(body)
        self._told = b""
        self.returncode = None
        while b"\n" not in self._told:
            self._told += self._server.recv(64) or b"0\n1\n"
        self.pid = int(self._told.split()[0])

    def poll(self):
        """Its exit code, or minus the signal that ended it; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout=None):
        """The same, when it has ended."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            lines = self._told.split(b"\n")
            if len(lines) == 3:
                self.returncode = int(lines[1])
                break
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            if not select.select([self._server], [], [], left)[0]:
                raise subprocess.TimeoutExpired("a fork", timeout)
            # A server that is gone was killed, and what it forked is nobody's.
            self._told += self._server.recv(64) or b"-9\n"
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


class Server:
    """A process that forks programs; ends with this one."""

    def __init__(self, environment):
        self._folder = tempfile.TemporaryDirectory(prefix="forks-", ignore_cleanup_errors=True)
        self.path = str(Path(self._folder.name) / "socket")
        command = [sys.executable, __file__, self.path]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
        _wait_for(self.path, self._process)


class ServerWithin:
    """A fork of a server that forks in the namespaces of another process; ends with this one, or when it is told."""

    def __init__(self, server, pid, environment, folder):
        """`server` is the path of a `Server`; its own `path` is below `folder`, which these namespaces see as well."""
        self.path = str(Path(folder) / f"forks-{pid}" / "socket")
        Path(self.path).parent.mkdir()
        theirs, self._owner = os.pipe()
        files = {0: theirs, 1: 1, 2: 2}
        self._process = Forked(server, [__file__, self.path, str(pid)], environment, files, str(folder))
        os.close(theirs)
        _wait_for(self.path, self._process)

    def end(self):
        os.close(self._owner)
        self._process.wait(10)


def _wait_for(path, process):
    while not Path(path).exists():
        assert process.poll() is None, "the server of forks has ended"
        time.sleep(0.05)


def leave_to_fork(path):
    """Have the server at `path` do what this process was started for, and end as that ends.

    Returns where there is no such server, as when it was killed.
    """
    files = [int(path.name) for path in Path("/proc/self/fd").iterdir()]
    files = {file: file for file in files if _is_open(file)}
    try:
        fork = Forked(path, sys.orig_argv[1:], dict(os.environ), files, str(Path.cwd()))
    except (ConnectionRefusedError, FileNotFoundError):
        return
    for file in files:
        os.close(file)
    code = fork.wait()
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


def _is_open(file):
    try:
        os.fstat(file)
    except OSError:
        return False
    return True


def _enter(pid):
    """Have the forks of this process in all namespaces of another one."""
    libc = ctypes.CDLL(None, use_errno=True)
    spaces = [os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name in ("net", "uts", "pid", "mnt")]
    for space in spaces:
        if libc.setns(space, 0):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(space)
    sys.modules["platform"]._uname_cache = None  # it knows the name of the other machine


def _listener(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}.new")
    listener.listen(64)
    Path(f"{path}.new").rename(path)  # whoever sees it can connect
    return listener


def _serve(listener, owner):
    """Fork for every client until the file `owner` ends: what a fork is asked for, in that fork; None at the end."""
    poll = select.poll()
    for file in (listener, owner):
        poll.register(file, select.POLLIN)
    clients, ends = {}, {}  # {descriptor: (client, pid)}, {pidfd: the client's descriptor}
    while True:
        for file, _ in poll.poll():
            if file == owner.fileno():
                return None
            if file == listener.fileno():
                client, _ = listener.accept()
                asked = _asked(client)
                pid = os.fork()
                if pid == 0:
                    for other in (listener, owner, client, *(known for known, _ in clients.values())):
                        other.close()
                    for end in ends:
                        os.close(end)
                    return asked
                for sent in asked[2].values():
                    os.close(sent)
                end = os.pidfd_open(pid)
                clients[client.fileno()], ends[end] = (client, pid), client.fileno()
                poll.register(client, select.POLLIN)
                poll.register(end, select.POLLIN)
                _tell(client, pid)
            elif file in ends:
                client, pid = clients.pop(ends.pop(file))
                poll.unregister(file)
                with suppress(KeyError):
                    poll.unregister(client)
                os.close(file)
                _tell(client, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                client.close()
            elif file in clients:  # its end
                poll.unregister(file)
                os.kill(clients[file][1], signal.SIGKILL)


def _asked(client):
    """What a client of `Forked` sends: arguments, environment, {descriptor: the one that was sent}, folder."""
    head, sent, _, _ = socket.recv_fds(client, HEAD_BYTES, MOST_FILES)
    with client.makefile("rb", buffering=0) as stream:
        body, size = b"", int.from_bytes(head, "big")
        while len(body) < size:
            body += stream.read(size - len(body))
    arguments, environment, files, folder = json.loads(body)
    return arguments, environment, dict(zip(files, sent, strict=True)), folder


def _tell(client, number):
    with suppress(OSError):  # the client may be gone
        client.sendall(f"{number}\n".encode())


def _become(asked, path):
    """Let this fork be the process that `python ARGUMENTS` would be, on the Python path `path`; its arguments."""
    arguments, environment, files, folder = asked
    os.setpgid(0, 0)  # Ray ends groups of processes
    # Out of each other's way first.
    high = {file: fcntl.fcntl(sent, fcntl.F_DUPFD, FREE_FILE) for file, sent in files.items()}
    for sent in files.values():
        os.close(sent)
    for file, sent in high.items():
        os.dup2(sent, file)
        os.close(sent)
    sys.stdin = sys.__stdin__ = open(0, encoding=sys.stdin.encoding, closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = _unbuffered(1, sys.stdout)
    sys.stderr = sys.__stderr__ = _unbuffered(2, sys.stderr)
    os.environ.clear()
    os.environ.update(environment)
    importlib.reload(sys.modules["huggingface_hub.constants"])  # which reads variables once
    os.chdir(folder)
    own = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [*filter(None, own), *path]
    tempfile.tempdir = None  # to be found anew
    random.seed()
    sys.modules["numpy"].random.seed()
    return [argument for argument in arguments if argument not in OPTIONS]


def _unbuffered(file, like):
    """A stream as Python with -u makes one: what the other one, of another file, knows of its file is not true here."""
    raw = io.FileIO(file, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding=like.encoding, errors=like.errors, write_through=True)


def _run(arguments):
    """Run -m MODULE ARGUMENTS or FILE ARGUMENTS."""
    os.environ.pop(WORKERS, None) if arguments[0].endswith("default_worker.py") else None
    sys.modules.pop("sitecustomize", None)
    importlib.import_module("sitecustomize")
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    sys.argv = arguments
    sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
    main = types.ModuleType("__main__")
    main.__file__ = arguments[0]
    sys.modules["__main__"] = main
    exec(compile(Path(arguments[0]).read_bytes(), arguments[0], "exec"), main.__dict__)


def _worker_server():
    """Start the server for this process's workers: what a fork is asked for, in that fork, and None in this process."""
    folder = Path(tempfile.mkdtemp(dir=Path(sys.argv[1]).parent))  # of a short path, for sockets
    listener = _listener(folder / "socket")
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        asked = _serve(listener, theirs)
        if asked is None:
            shutil.rmtree(folder)
            os._exit(0)
        return asked
    listener.close()
    theirs.close()
    ours.detach()  # open until this process ends
    os.environ[WORKERS] = str(folder / "socket")
    return None


def main():
    path = [folder for folder in sys.path[1:] if folder not in os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    # Here, since this module is also imported where only its own folder is on the path (see `leave_to_fork`).
    from tests.processes.mlflow_tables import UTILS, copy_empty_databases

    for name in (*LIBRARIES, UTILS):
        importlib.import_module(name)
    gc.freeze()  # what stays is not copied for being looked at
    copy_empty_databases()()  # also made before there are forks
    if sys.argv[2:]:
        _enter(int(sys.argv[2]))
    asked = _serve(_listener(sys.argv[1]), os.fdopen(os.dup(0)))
    if asked is None:
        os._exit(0)
    arguments = _become(asked, path)
    asked = _worker_server()
    if asked is not None:
        arguments = _become(asked, path)
    _run(arguments)


if __name__ == "__main__":
    main()
