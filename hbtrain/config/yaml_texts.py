"""Reading YAML without its traps: the language `no` is a text, and a key that stands twice is an error.

YAML 1.1 takes `no`, `on` and `y` for truth values, `007` for a number and `2024-01-01` for a date. Here a value that is
not in quotes stays the text that was written wherever the schema expects a text; so do keys, but for numbers.
"""

from __future__ import annotations

from typing import Any

import yaml

from hbtrain.config.keys import all_keys, has_named_entries, takes_text
from hbtrain.errors import ConfigError

TAG = "tag:yaml.org,2002:"
TEXT, MERGE = f"{TAG}str", f"{TAG}merge"
NUMBERS = {f"{TAG}int", f"{TAG}float"}
MISTAKEN = {f"{TAG}bool", f"{TAG}timestamp", *NUMBERS}
"""What YAML takes some texts for."""


def parse_yaml(text: str, origin: str, key: str = "", *, all_texts: bool = False) -> Any:
    """The values of a YAML document.

    Args:
        text: the document.
        origin: what messages call it, such as `recipe mine.yaml`.
        key: dotted key of the configuration whose value the document is; by default it is a mapping of its keys.
        all_texts: whether every value but lists and mappings is a text, as in documents with other keys.

    Raises:
        ConfigError: it is not YAML, or a key stands twice in a mapping.
    """
    loader = yaml.BaseLoader(text) if all_texts else yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _keep_texts(node, key, origin, set() if all_texts else set(all_keys()), set())
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: what Python cannot hold, such as a date
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{origin} is not YAML{line}: {getattr(error, 'problem', None) or error}") from error
    finally:
        loader.dispose()


def _keep_texts(node: yaml.Node, key: str, origin: str, known: set[str], seen: set[int]) -> None:
    """Mark as texts what stands at keys that take texts, below a node that stands at `key`; an alias is seen once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        if node.tag in MISTAKEN and takes_text(key):
            node.tag = TEXT
    elif isinstance(node, yaml.SequenceNode):
        for member in node.value:
            _keep_texts(member, key, origin, known, seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for name, value in node.value:
            below = key
            if isinstance(name, yaml.ScalarNode) and name.tag != MERGE:
                line = name.start_mark.line + 1
                if name.value in lines:
                    raise ConfigError(
                        f"{origin} has the key {name.value} twice in one mapping, in lines {lines[name.value]} and "
                        f"{line}, and only one of them would count: join them, or leave one out"
                    )
                lines[name.value] = line
                if name.tag in MISTAKEN and (name.tag not in NUMBERS or has_named_entries(key)):
                    name.tag = TEXT
                if key not in known:  # else it is of the value of that key
                    # In a sweep's space, whole dotted keys stand where they are varied or fixed.
                    below = name.value if name.value in known else f"{key}.{name.value}".strip(".")
            _keep_texts(value, below, origin, known, seen)
