"""On the PYTHONPATH of a command: torch says that the machine has two GPUs, of which a process sees those it may.

As CUDA does: all of them, or those in CUDA_VISIBLE_DEVICES. Whoever then computes on one fails, as there is none.
"""

import importlib.abc
import importlib.machinery
import os
import sys


def visible():
    """The GPUs that this process sees."""
    return [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "0,1").split(",") if name]


class Finder(importlib.abc.MetaPathFinder):
    """Finds torch.cuda as anyone would, and has it tell of the GPUs once it is loaded."""

    def find_spec(self, name, path, target=None):
        if name != "torch.cuda":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            module.is_available = lambda: bool(visible())
            module.device_count = lambda: len(visible())

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
