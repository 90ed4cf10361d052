"""Names and texts in the form that MLflow takes, so that no figure is refused for its name.

A name of a metric, parameter or tag holds at most 250 letters, digits, blanks, and `/ . - _ :`, and is a path as well,
without `..`. Benchmarks, languages and domains are called whatever their users call them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH, MAX_PARAM_VAL_LENGTH, MAX_TAG_VAL_LENGTH

RUN_NAME_LENGTH, EXPERIMENT_NAME_LENGTH = 250, 256
"""Characters of these names in MLflow's databases; MLflow itself allows longer ones, which only SQLite stores."""

MAX_PART_LENGTH = 100  # characters of a part of a name between slashes, so that a long one leaves room for the others

_NOT_ALLOWED = re.compile(r"[^\w.\- :]")


def allowed_name(name: str) -> str:
    """The name of a metric, parameter or tag as MLflow takes it; a name that it takes stays as it is.

    `recall@10` becomes `recall_at_10`. A part between slashes that holds something else gets `_` in its place and six
    hexadecimal digits at its end, the same for the same part, so that two names never become one.
    """
    allowed = "/".join(map(_allowed_part, name.split("/")))
    return allowed if len(allowed) <= MAX_ENTITY_KEY_LENGTH else _shortened(allowed, MAX_ENTITY_KEY_LENGTH, name)


def allowed_parameter(name: str, value: str) -> tuple[str, str]:
    """Name and value of a parameter."""
    return allowed_name(name), allowed_text(value, MAX_PARAM_VAL_LENGTH)


def allowed_tags(tags: Mapping[str, object]) -> dict[str, str]:
    """Tags with names and values that MLflow takes."""
    return {allowed_name(name): allowed_text(str(value), MAX_TAG_VAL_LENGTH) for name, value in tags.items()}


def allowed_text(text: str, limit: int) -> str:
    """A text of at most `limit` characters that every database takes, cut at the end of a line if there are several.

    Half surrogate pairs, as undecodable file names hold them, become `?`; NUL characters are left out.
    """
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")
    if len(text) <= limit:
        return text
    head, newline, _ = text[: limit - 1].rpartition("\n")
    return f"{head}{newline}…" if newline else f"{text[: limit - 1]}…"


def _allowed_part(part: str) -> str:
    allowed = _NOT_ALLOWED.sub("_", part.replace("@", "_at_"))
    if allowed == part.replace("@", "_at_") and len(part) <= MAX_PART_LENGTH and part not in {"", ".", ".."}:
        return allowed
    return _shortened(allowed, MAX_PART_LENGTH, part)


def _shortened(allowed: str, limit: int, name: str) -> str:
    """At most `limit` characters: the beginning of `allowed`, and a digest of `name`."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{allowed[: limit - len(digest) - 1]}-{digest}"
