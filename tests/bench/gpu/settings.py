"""What a campaign is about: the device, the sizes of what is measured, and the folder of its files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.ports import free_port

PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0}
"""{part of a GPU's name: TFLOP/s in bf16 with dense matrices, as its maker states them}."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of what is measured."""

    hidden: int
    layers: int
    heads: int
    vocabulary: int  # pieces of the tokenizer, and rows of the embedding table
    tokens: tuple[int, ...]  # of a pair, on average
    batches: tuple[int, ...]  # pairs of a step
    graph_tokens: int  # tokens that have a graph at one time; larger batches are cut into chunks of so many
    largest: tuple[int, ...]  # batches that are tried with a gradient cache
    target_s: float  # for which a side is measured, about
    zero_stages: tuple[int, ...]
    encoded: int  # texts of the measurement of encoding
    queries: int
    candidates: int
    dimension: int
    faiss: str  # the index, and how many vectors it has
    faiss_vectors: int
    loss_pairs: int


SIZES = {
    "xlmr-base": Sizes(
        hidden=768, layers=12, heads=12, vocabulary=250_002, tokens=(100, 320), batches=(100, 512, 4096),
        graph_tokens=131_072, largest=(16_384, 65_536), target_s=3.0, zero_stages=(0, 1, 2, 3), encoded=8192,
        queries=4096, candidates=1_000_000, dimension=768, faiss="IVF1024,Flat", faiss_vectors=300_000,
        loss_pairs=65_536,
    ),
    "tiny": Sizes(
        hidden=64, layers=2, heads=1, vocabulary=3000, tokens=(24,), batches=(8, 32), graph_tokens=600, largest=(64,),
        target_s=0.2, zero_stages=(0, 1, 2, 3), encoded=64, queries=600, candidates=3000, dimension=32,
        faiss="IVF4,Flat", faiss_vectors=1000, loss_pairs=256,
    ),
    "least": Sizes(
        hidden=64, layers=1, heads=1, vocabulary=300, tokens=(8,), batches=(4, 8), graph_tokens=40, largest=(16,),
        target_s=0.01, zero_stages=(1,), encoded=8, queries=20, candidates=100, dimension=8, faiss="IVF1,Flat",
        faiss_vectors=100, loss_pairs=16,
    ),
}  # fmt: skip
"""{name: sizes}: of the campaign itself; to try it on a CPU; to test that all of it runs."""


@dataclass(frozen=True)
class Settings:
    """What every stage is given."""

    device_name: str  # cuda or cpu
    sizes: Sizes
    folder: Path  # for models, texts and checkpoints
    peak_tflops: float | None  # of the device in bf16; None where it is not known
    threads: int | None = None  # of torch on a CPU

    @property
    def device(self) -> torch.device:
        return torch.device(self.device_name)

    def prepare_process(self) -> None:
        """Make this process one that stages can run in: its random numbers, the group of one rank that training needs,
        and no texts of libraries on the way to standard output."""
        import torch.distributed as dist
        from transformers.utils import logging

        os.environ |= {
            "HF_HUB_OFFLINE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "RANK": "0",
            "LOCAL_RANK": "0", "WORLD_SIZE": "1", "TOKENIZERS_PARALLELISM": "true",
        }  # fmt: skip
        if self.device.type == "cpu":
            os.environ["DS_ACCELERATOR"] = "cpu"
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        if not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo", rank=0, world_size=1)

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def stated_peak(name: str) -> float | None:
    """The bf16 TFLOP/s that a GPU's maker states; None for one that is not in the list."""
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)
