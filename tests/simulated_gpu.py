"""A GPU that is simulated on a CPU: its tensors say that they are on a device, and hold their numbers on the CPU.

As on a GPU, operands on different devices are an error, and so is taking an array of a device's tensor; gradients and
results are real. Kernels are counted, and the places where the host waits for the device, by the line of hbtrain that
caused them. Its time is not simulated, nor are its memory and its rounding.

`SimulatedGPU` changes torch for the whole process, so it is used in processes of its own (`tests.distributed.ranks`).
"""

import sys
from collections import Counter
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import hbtrain

NAME = "simulated"
ROOT = str(Path(hbtrain.__file__).parent)
MOVES = {"_to_copy", "copy_", "_copy_from"}
WITHOUT_KERNEL = {"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "detach", "lift_fresh"}
WAITING = {"_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "unique_dim", "is_nonzero"}
"""What has a result whose size, or value, the host must know."""
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
"""Take indices that are on the CPU, and copy them to the device."""


class DeviceTensor(torch.Tensor):
    """A tensor on the simulated GPU; `held` has its numbers."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )

    def __init__(self, held):
        self.held = held

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return SimulatedGPU.active.run(operation, args, kwargs or {})

    def __repr__(self):
        return f"DeviceTensor({self.held!r})"


class SimulatedGPU(TorchDispatchMode):
    """Computes on the simulated GPU while it is entered; one in a process.

    Attributes:
        device: for `Tensor.to` and the like.
        kernels: {place: kernels}, where a place is `file.py:line` in hbtrain.
        waits: {(place, why): times that the host waited}.
    """

    active = None

    def __init__(self):
        super().__init__()
        SimulatedGPU.active = self
        _setup_privateuseone_for_python_backend(NAME)
        getattr(torch, NAME).get_amp_supported_dtype = lambda: [torch.bfloat16]  # asked for by gradient checkpointing
        self._library = torch.library.Library("aten", "IMPL")
        self._library.impl("empty.memory_format", self._empty, "PrivateUse1")
        self._library.impl("empty_strided", self._empty_strided, "PrivateUse1")
        self._library.impl("_copy_from", self._copy_from, "PrivateUse1")
        self.device = torch.device(NAME, 0)
        self.kernels, self.waits = Counter(), Counter()

    def clear(self):
        self.kernels.clear()
        self.waits.clear()

    def moved(self, module):
        """The module with its parameters and buffers on the device."""
        for part in module.modules():
            for name, weight in part._parameters.items():
                if weight is not None:
                    part._parameters[name] = torch.nn.Parameter(weight.data.to(self.device), weight.requires_grad)
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = buffer.to(self.device)
        return module

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return self.run(operation, args, kwargs or {})

    def run(self, operation, args, kwargs):
        """The operation on what the tensors hold; the result is on the device if its operands are."""
        name = operation.overloadpacket.__name__
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        on_device = any(isinstance(x, DeviceTensor) for x in tensors)
        asked = kwargs.get("device")
        to_device = on_device if asked is None else torch.device(asked).type == NAME
        if not on_device and not to_device:
            return operation(*args, **kwargs)
        if name in MOVES:
            self._count_move(name, tensors, to_device, kwargs)
        else:
            self._count(operation, name, tensors)
        if asked is not None:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        kwargs.pop("non_blocking", None)
        result = operation(*tree_map(held, args), **tree_map(held, kwargs))
        if name == "copy_":
            return args[0]
        known = {id(x.held): x for x in tensors if isinstance(x, DeviceTensor)}

        def shown(x):
            if not to_device or not isinstance(x, torch.Tensor):
                return x
            return known[id(x)] if id(x) in known else DeviceTensor(x)

        return tree_map(shown, result)

    def _count(self, operation, name, tensors):
        elsewhere = [x for x in tensors if not isinstance(x, DeviceTensor) and x.dim() > 0]
        if elsewhere and len(elsewhere) < len(tensors):
            if name not in INDEXING:
                shapes = [(str(x.device), tuple(x.shape)) for x in tensors]
                raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got {shapes}")
            self.waits[place(), "an index is on the CPU"] += 1
        if name in WAITING:
            self.waits[place(), name] += 1
        if not operation.is_view and name not in WITHOUT_KERNEL:
            self.kernels[place()] += 1

    def _count_move(self, name, tensors, to_device, kwargs):
        source = tensors[-1] if name == "copy_" else tensors[0]
        target = isinstance(tensors[0], DeviceTensor) if name == "copy_" else to_device
        if isinstance(source, DeviceTensor) and target:
            self.kernels[place()] += 1
        elif isinstance(source, DeviceTensor):
            self.waits[place(), "to the CPU"] += 1
        elif target and not kwargs.get("non_blocking"):
            self.waits[place(), "from the CPU"] += 1

    # What torch itself calls below the level of modes: for tensors made of Python's numbers.

    def _empty(self, size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
        return DeviceTensor(torch.empty(size, dtype=dtype, device="cpu"))

    def _empty_strided(self, size, stride, *, dtype=None, layout=None, device=None, pin_memory=None):
        return DeviceTensor(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))

    def _copy_from(self, source, target, non_blocking=False):
        held(target).copy_(held(source))
        if not isinstance(source, DeviceTensor):
            self.waits[place(), "from the CPU"] += 1
        return target


class Counting(TorchDispatchMode):
    """Counts what would be kernels and waits on a GPU, for what computes on the CPU, such as DeepSpeed here."""

    def __init__(self):
        super().__init__()
        self.kernels = self.waits = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        self.kernels += not operation.is_view and name not in WITHOUT_KERNEL and name not in WAITING
        self.waits += name in WAITING
        return operation(*args, **(kwargs or {}))


def held(x):
    """What a tensor of the device holds; anything else as it is."""
    return x.held if isinstance(x, DeviceTensor) else x


def place():
    """The innermost line of hbtrain that is running."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(ROOT):
            return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back
    return "torch"
