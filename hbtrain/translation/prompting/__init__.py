"""How models are told which language to translate from and to: a file for each family."""

from hbtrain.translation.prompting.choose import Prompting, prompting_of

__all__ = ["Prompting", "prompting_of"]
