"""Passwords that stand in URIs, kept out of messages, tracking and saved configurations."""

from __future__ import annotations

import re

_PASSWORD = re.compile(r"(?<=://)([^/\s:@]*):([^/\s@]+)@")


def without_passwords(text: str) -> str:
    """`text` with `***` in place of every password in `scheme://user:password@host`."""
    return _PASSWORD.sub(r"\1:***@", text)
