"""The device of a process: which it may use, in which precision a model computes on it, and how much of it is free.

A device is never guessed. A command of the user's takes the GPU that its process sees (`visible_device`), an evaluation
all that it sees (`visible_devices`); tasks and actors of Ray are told what Ray gave them, and whatever these call is
passed the device by name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

    from hbtrain.config.encoder import Precision

Device = str  # where a process computes: `cpu`, or a GPU that it sees: `cuda`, which is the first, or `cuda:1`


def visible_device() -> Device:
    """A GPU if this process sees one, for commands that compute in the user's own process.

    Users choose by `CUDA_VISIBLE_DEVICES`; an empty value hides all GPUs.
    """
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def visible_devices() -> tuple[Device, ...]:
    """All GPUs that this process sees, the first of them first, or its CPU: see `visible_device`."""
    import torch

    first = visible_device()
    others = range(1, torch.cuda.device_count()) if first == "cuda" else ()
    return (first, *(f"cuda:{number}" for number in others))


def evaluation_precision(wanted: Precision | None, device: str) -> Precision | None:
    """The precision in which transformers embed texts for an evaluation: `wanted`, else bf16 on GPUs that have it; None
    leaves a model as its files say."""
    import torch

    if wanted is None and device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    return wanted


def compute_in(model: SentenceTransformer, precision: Precision) -> None:
    """Have the transformers of a model compute in bf16 or float32, in place; what follows them, such as pooling,
    computes in float32, and so does a model without transformers."""
    import torch
    from sentence_transformers.base.modules import Transformer

    model.float()
    if precision == "fp32":
        return

    def widen(module: object, inputs: object, features: dict[str, Any]) -> None:
        features.update({k: v.float() for k, v in features.items() if getattr(v, "dtype", None) == torch.bfloat16})

    for module in model.modules():
        if isinstance(module, Transformer):
            module.bfloat16()
            module.register_forward_hook(widen)


class _Running:
    """The bodies of `full_float32` that are running, in all threads."""

    lock = threading.Lock()
    count = 0
    restore: Callable[[], None]  # sets again what was set before the first of them


@contextmanager
def full_float32() -> Iterator[None]:
    """Matrix products of float32 numbers with all their bits while the body runs, on CPUs and GPUs.

    By `torch.set_float32_matmul_precision`, `torch.backends.*.fp32_precision` or the environment variable
    `TORCH_ALLOW_TF32_CUBLAS_OVERRIDE`, a process may compute them in TF32 or bf16, with errors of one part in a
    thousand. What was set is set again afterwards, when no other thread needs all bits.
    """
    with _Running.lock:
        if not _Running.count:
            _Running.restore = _set_full_float32()
        _Running.count += 1
    try:
        yield
    finally:
        with _Running.lock:
            _Running.count -= 1
            if not _Running.count:
                _Running.restore()


def _set_full_float32() -> Callable[[], None]:
    """Set it for the process; gives what sets again what was set before."""
    import torch

    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        general = torch.get_float32_matmul_precision()
    except RuntimeError:  # so torch refuses to answer where the backends' settings differ from it
        general = "highest"
    torch.set_float32_matmul_precision("highest")

    def restore() -> None:
        torch.set_float32_matmul_precision(general)
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision

    return restore


def free_bytes(device: torch.device) -> int | None:
    """The memory of a GPU that nothing uses, in bytes, with what torch holds back for later; None for a CPU."""
    import torch

    if device.type != "cuda":
        return None
    held_back = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held_back
