"""All that is to be known about hbtrain on a GPU, in stages within twelve minutes on one device. Prints JSON lines.

Each stage has its own time, and those that matter most come first: a campaign that is cut off has lost nothing of what
its lines say. `--output` appends them to a file at once, and at the end one table in Markdown is printed. Needs no Ray
and no network; what is not installed, or not there, is left out and named.

python -m tests.bench.bench_gpu --output tests/bench/results                 # <device>.jsonl in that folder
python -m tests.bench.bench_gpu --device cpu --shape tiny --budget 360        # to try the script
python -m tests.bench.bench_gpu --table tests/bench/results/nvidia-h200.jsonl  # the table of earlier lines
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.gpu import exactness, machine, retrieval, training
from tests.bench.gpu.campaign import Stage, run_campaign
from tests.bench.gpu.lines import Lines
from tests.bench.gpu.settings import SIZES, Settings, Sizes, stated_peak
from tests.bench.measure import device_name

VARIANTS = {
    "padded attention": {"encoder.attention": "sdpa"},
    "flash-attn": {"encoder.attention": "flash_attention_2"},
    "Muon": {"training.optimizer": "muon"},
    "float32": {"encoder.precision": "fp32"},
}
COMPILED = {"encoder.compile": {"encoder.compile": True}}


def stages_of(sizes: Sizes) -> list[Stage]:
    """All stages, in the order of their worth."""
    first, *others = sorted(sizes.batches)
    return [
        Stage("environment", 30, machine.environment),
        Stage("gradients", 75, exactness.gradients),
        Stage("dropout", 40, exactness.dropout),
        Stage("checkpoints", 75, exactness.checkpoints),
        Stage("scores", 30, exactness.scores),
        Stage(f"step-{first}", 90, partial(training.step, first)),
        Stage("encoding", 80, retrieval.encoding),
        Stage("optimizer", 60, training.optimizer),
        *(Stage(f"step-{batch}", 120, partial(training.step, batch)) for batch in others),
        Stage("variants", 70, partial(training.variants, VARIANTS)),
        Stage("ranks", 40, retrieval.ranks),
        Stage("loss", 20, retrieval.loss),
        Stage("faiss", 60, retrieval.faiss),
        Stage("compile", 90, partial(training.variants, COMPILED)),
        Stage("largest", 90, training.largest),
    ]


def file_of(output: Path | None) -> Path | None:
    """The file of results; in a folder one with the device's name."""
    if output is None or output.suffix == ".jsonl":
        return output
    return output / f"{device_name().lower().replace(' ', '-')}.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try the script")
    parser.add_argument("--shape", choices=SIZES, default="xlmr-base")
    parser.add_argument("--budget", type=float, default=720, help="seconds for everything")
    parser.add_argument("--stages", nargs="+", help="only these, in this order; by default all")
    parser.add_argument("--output", type=Path, help="a file of JSON lines to append to, or a folder")
    parser.add_argument("--peak-tflops", type=float, help="of the device in bf16; by default as its maker states it")
    parser.add_argument("--threads", type=int, help="of torch on a CPU")
    parser.add_argument("--table", type=Path, help="print the table of this file's lines, and measure nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print(Lines.read(arguments.table).table())
        return
    sizes = SIZES[arguments.shape]
    stages = {stage.name: stage for stage in stages_of(sizes)}
    unknown = [name for name in arguments.stages or () if name not in stages]
    if unknown:
        parser.error(f"no such stage: {', '.join(unknown)}; there are {', '.join(stages)}")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("this process sees no GPU; --device cpu --shape tiny tries the script on a CPU")
    peak = arguments.peak_tflops or (stated_peak(device_name()) if arguments.device == "cuda" else None)
    with tempfile.TemporaryDirectory(prefix="hbtrain-campaign-") as folder:
        settings = Settings(arguments.device, sizes, Path(folder), peak, arguments.threads)
        lines = Lines(device_name(), file_of(arguments.output))
        run_campaign([stages[name] for name in arguments.stages or stages], settings, lines, arguments.budget)
    print("\n" + lines.table())


if __name__ == "__main__":
    main()
