"""The tables of docs/scale.md: what a step takes on 1, 8, 64 and 512 GPUs, by the formulas of hbtrain.planning.

python tests/bench/simulate_scale.py --write docs/scale.md     # put the tables in their places
python tests/bench/simulate_scale.py --pairs 256 --network-gb-s 20
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from hbtrain.planning.communication import model_messages
from hbtrain.planning.memory import Zero, loss_bytes, model_states
from hbtrain.planning.shape import BackboneShape, distilbert_shape, transformers_shape
from tests.bench.scale import Hardware, Workload, largest_batch, simulate

XLMR = {"model_type": "xlm-roberta", "vocab_size": 250002, "max_position_embeddings": 514, "type_vocab_size": 1}
XLMR_BASE = XLMR | {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
XLMR_LARGE = XLMR | {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
WORLD_SIZES = (1, 8, 64, 512)
SHARES = (0.01, 0.05, 0.1, 0.5)
GATHERING_ANEW = {"stage": 3, "stage3_max_reuse_distance": 0}
ZERO = {
    "0": Zero(0),
    "1": Zero.of({"stage": 1}),
    "2": Zero.of({"stage": 2}),
    "3": Zero.of({"stage": 3}),
    "3, gathering anew": Zero.of(GATHERING_ANEW),
}
TINY = distilbert_shape(1500, 512, 2, 64, 2, 128)
"""The transformer of tests/distributed/test_scale_ranks.py, whose engines were measured."""

GPUS = tuple(f"{w} GPU{'s'[: w > 1]}" for w in WORLD_SIZES)
GB, GIB = 1e9, 2**30


def tables(work: Workload, hardware: Hardware) -> dict[str, str]:
    """{name: Markdown table}."""
    backbones = {"XLM-R base": transformers_shape(XLMR_BASE), "XLM-R large": transformers_shape(XLMR_LARGE)}
    known = {name: shape for name, shape in backbones.items() if shape is not None}
    return {
        "shapes": _shapes(known),
        "states": _states(known, work),
        "memory": _memory(known, work, hardware),
        "communication": _communication(known, work, hardware),
        "time": _time(known, work, hardware),
        "limit": _limit(known, work, hardware),
        "loss": _loss(known, work),
        "measured": _measured(),
    }


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown; the first column is text."""
    marks = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in [head, marks, *rows])


def _shapes(backbones: dict[str, BackboneShape]) -> str:
    rows = [
        [name, f"{s.parameters:,}", f"{s.embedding_parameters:,}", f"{s.matrix_parameters:,}", s.dimension]
        for name, s in backbones.items()
    ]
    return table(["backbone", "parameters", "in embeddings", "N: in matrices of layers", "D"], rows)


def _states(backbones: dict[str, BackboneShape], work: Workload) -> str:
    rows = []
    for name, shape in backbones.items():
        for stage, zero in ZERO.items():
            row: list[object] = [f"{name}, ZeRO {stage}"]
            for world_size in WORLD_SIZES:
                s = model_states(shape, shape.parameters, world_size, zero, work.number_bytes)
                row.append(f"{(s.standing + s.gradients + max(s.gathered, s.step)) / GIB:.2f}")
            rows.append(row)
    return table(["GiB a GPU", *GPUS], rows)


def _memory(backbones: dict[str, BackboneShape], work: Workload, hardware: Hardware) -> str:
    rows = []
    chunked = Workload(**{**vars(work), "chunks": 8})
    checkpointed = Workload(**{**vars(work), "checkpointing": True})
    for name, shape in backbones.items():
        for way, how in (("whole graph", work), ("8 chunks", chunked), ("checkpointing", checkpointed)):
            steps = [simulate(shape, w, ZERO["0"], how, hardware) for w in WORLD_SIZES]
            activations = f"{steps[0].activations / GIB:.2f}"
            rows.append([f"{name}, {way}", activations, *(f"{s.memory / GIB:.1f}" for s in steps)])
    return table(["GiB a GPU, ZeRO 0", "of it activations", *GPUS], rows)


def _communication(backbones: dict[str, BackboneShape], work: Workload, hardware: Hardware) -> str:
    rows = []
    for name, shape in backbones.items():
        for stage in ("0", "1", "3", "3, gathering anew"):
            label = "1, 2" if stage == "1" else stage
            steps = [simulate(shape, w, ZERO[stage], work, hardware) for w in WORLD_SIZES]
            rows.append([f"{name}, ZeRO {label}", *(f"{s.model_sent / GB:.2f}" for s in steps)])
        steps = [simulate(shape, w, ZERO["1"], work, hardware) for w in WORLD_SIZES]
        rows.append([f"{name}, embeddings of the loss", *(f"{s.embeddings_sent / GB:.3f}" for s in steps)])
    return table(["GB sent by a GPU in a step", *GPUS], rows)


def _time(backbones: dict[str, BackboneShape], work: Workload, hardware: Hardware) -> str:
    rows = []
    for name, shape in backbones.items():
        for world_size in WORLD_SIZES:
            s = simulate(shape, world_size, ZERO["0"], work, hardware)
            parts = (s.encoder_s, s.loss_s, s.model_s, s.embeddings_s, s.seconds)
            batch = world_size * work.pairs_per_rank
            rate = batch / s.seconds
            times = [f"{1000 * part:.1f}" for part in parts]
            rows.append([f"{name}, {world_size}", f"{batch:,}", *times, f"{rate:,.0f}", f"{s.loss_share:.1%}"])
    head = ["ms, ZeRO 0", "batch", "encoder", "loss", "gradients, weights", "embeddings", "step", "pairs/s"]
    return table([*head, "loss : encoder"], rows)


def _limit(backbones: dict[str, BackboneShape], work: Workload, hardware: Hardware) -> str:
    rows = []
    for name, shape in backbones.items():
        batches = [largest_batch(shape, share, work, hardware) for share in SHARES]
        rows.append([name, *(f"{b:,} ({b // work.pairs_per_rank:,})" for b in batches)])
    return table(["largest batch (GPUs)", *(f"{share:.0%} of the encoder" for share in SHARES)], rows)


def _loss(backbones: dict[str, BackboneShape], work: Workload) -> str:
    rows = []
    for name, shape in backbones.items():
        row: list[object] = [name]
        for world_size in WORLD_SIZES:
            batch = work.pairs_per_rank * world_size
            ours = loss_bytes(work.pairs_per_rank, batch, shape.dimension, work.block_rows, world_size)
            row.append(f"{ours / 2**20:,.0f} ({4 * batch**2 / 2**20:,.0f})")
        rows.append(row)
    return table(["MiB (a full B x B matrix alone)", *GPUS], rows)


def _measured() -> str:
    rows = []
    for precision, number_bytes in (("fp32", 4), ("bf16", 2)):
        for stage, zero in ZERO.items():
            s = model_states(TINY, TINY.parameters, 2, zero, number_bytes)
            m = model_messages(TINY, TINY.parameters, zero, number_bytes)
            sizes = (s.parameters, s.masters, s.optimizer, m.all_reduce, m.all_gather, m.reduce_scatter)
            rows.append([f"{precision}, ZeRO {stage}", *(f"{size:,}" for size in sizes)])
    head = ["bytes", "weights", "float32 copies", "moments", "all-reduced", "gathered", "reduce-scattered"]
    return table(head, rows)


def written(page: str, made: dict[str, str]) -> str:
    """The page with each table between its marks."""
    for name, text in made.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        inside = f"{begin}\n{text}\n{end}"
        page, count = re.subn(f"{begin}.*?{end}", lambda _, inside=inside: inside, page, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"the page must have one {begin} ... {end}")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    work, hardware = Workload(), Hardware()
    parser.add_argument("--pairs", type=int, default=work.pairs_per_rank, help="pairs of a GPU in a step")
    parser.add_argument("--query-tokens", type=int, default=work.query_tokens)
    parser.add_argument("--passage-tokens", type=int, default=work.passage_tokens)
    parser.add_argument("--tflops", type=float, default=hardware.flops_per_s / 1e12, help="peak of a GPU")
    parser.add_argument("--utilisation", type=float, default=hardware.utilisation)
    parser.add_argument("--loss-tflops", type=float, default=hardware.loss_flops_per_s / 1e12, help="in float32")
    parser.add_argument("--node-gb-s", type=float, default=hardware.node_bytes_per_s / GB, help="within a machine")
    parser.add_argument("--network-gb-s", type=float, default=hardware.network_bytes_per_s / GB, help="between them")
    parser.add_argument("--write", type=Path, help="a page whose tables are to be replaced")
    given = parser.parse_args()
    work = Workload(given.pairs, given.query_tokens, given.passage_tokens)
    rates = (given.loss_tflops * 1e12, hardware.ranks_per_node, given.node_gb_s * GB, given.network_gb_s * GB)
    made = tables(work, Hardware(given.tflops * 1e12, given.utilisation, *rates))
    if given.write is not None:
        given.write.write_text(written(given.write.read_text(encoding="utf-8"), made), encoding="utf-8")
        return
    for name, text in made.items():
        print(f"{name}\n{text}\n")


if __name__ == "__main__":
    main()
