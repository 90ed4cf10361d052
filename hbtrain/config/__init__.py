"""Typed configuration: schema, recipes, overrides."""

from hbtrain.config.keys import all_keys, flatten
from hbtrain.config.load import (
    absolute_paths,
    evaluation_from_flags,
    from_tree,
    load_config,
    override,
    recipe_names,
    recipe_summary,
    to_flat,
    to_tree,
    to_yaml,
    training_values,
)
from hbtrain.config.schema import Config, EvaluationConfig
from hbtrain.errors import without_passwords

__all__ = [
    "Config",
    "EvaluationConfig",
    "absolute_paths",
    "all_keys",
    "evaluation_from_flags",
    "flatten",
    "from_tree",
    "load_config",
    "override",
    "recipe_names",
    "recipe_summary",
    "to_flat",
    "to_tree",
    "to_yaml",
    "training_values",
    "without_passwords",
]
