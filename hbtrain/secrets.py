"""Passwords and tokens that stand in URIs, kept out of messages, tracking and saved configurations."""

from __future__ import annotations

import re

# Up to the last @ before a slash: clients take passwords that hold an @. One slash, for `Path` folds two into one.
_PASSWORD = re.compile(r"(?<=:/)(/?[^/\s:@]*):([^/\s]+)@")
_PARAMETER = re.compile(
    r"(?i)([?&;][^=&;\s]*(?:password|passwd|pwd|secret|token|signature|credential|key)[^=&;\s]*=)[^&;\s'\")\]]+"
)


def without_passwords(text: str) -> str:
    """`text` with `***` in place of every password in `scheme://user:password@host` and `?password=...`."""
    return _PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))
