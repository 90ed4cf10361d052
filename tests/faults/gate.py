"""A gate in front of a server on this machine, which can be shut, or let only some requests through."""

import random
import socket
import threading
from contextlib import contextmanager, suppress

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
REFUSAL = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(SLOW_DOWN), SLOW_DOWN)
)


class Gate:
    """Passes connections on to a port. `state` is `open`, `away` (none is taken) or `throttled` (half get a 503)."""

    def __init__(self, port):
        self._behind = port
        self._sockets = []
        self._random = random.Random(0)
        self.state = "open"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._take, daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def being(self, state):
        """In `state` for the block, and what is connected is cut off at its beginning."""
        self.state = state
        for one in self._sockets:
            close(one)
        self._sockets = []
        try:
            yield
        finally:
            self.state = "open"

    def close(self):
        self._listener.close()

    def _take(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.state == "away":
                close(near)
            elif self.state == "throttled" and self._random.random() < 0.5:
                threading.Thread(target=refuse, args=(near,), daemon=True).start()
            else:
                far = socket.create_connection(("127.0.0.1", self._behind))
                self._sockets += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=copy, args=(source, target), daemon=True).start()


def refuse(connection):
    """Read a request's head, answer that there are too many, and take what is left until the client has gone."""
    head = b""
    with suppress(OSError):
        connection.settimeout(10)
        while b"\r\n\r\n" not in head and (part := connection.recv(65536)):
            head += part
        connection.sendall(REFUSAL)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    close(connection)


def copy(source, target):
    with suppress(OSError):
        while part := source.recv(65536):
            target.sendall(part)
    close(source)
    close(target)


def close(connection):
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
