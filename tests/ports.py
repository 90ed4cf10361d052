"""Ports for servers that tests start."""

import secrets
import socket

FIRST, LAST = 20_000, 32_000
"""Below those that the system gives to whoever asks for any, above those of Ray's workers: chosen, and used later."""


def free_port():
    """A port that nobody listens on, and that nobody is given by chance before it is used."""
    while True:
        port = FIRST + secrets.randbelow(LAST - FIRST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
