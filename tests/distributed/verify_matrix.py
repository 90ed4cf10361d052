"""The gradient of every layout against a plain process: `python tests/distributed/verify_matrix.py` prints the table.

Workers 1, 2, 3; ZeRO 0 to 3; chunks 1 and 4; fp32 and bf16; with and without LoRA. Hard negatives, the symmetric loss,
gradient checkpointing and shared passages are on in all of them.
"""

import itertools
import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from hbtrain.config import from_tree, load_config, to_tree
from hbtrain.config.encoder import StaticConfig
from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.gather import ProcessGroup
from hbtrain.training.verify import compare, plain_gradient, trained_gradient
from hbtrain.training.worker import Worker
from tests.distributed.ranks import run_ranks

LAYOUTS = list(itertools.product((0, 1, 2, 3), (1, 4), ("fp32", "bf16"), (False, True)))
"""ZeRO stage, chunks, precision, LoRA"""
HALF = [layout for layout in LAYOUTS if (layout[0] + (layout[1] == 4) + (layout[2] == "bf16") + layout[3]) % 2 == 0]
"""Those in which any three of the options meet in each of their combinations, and the fourth follows from them."""
LANGUAGES = ("de", "en", "ru")


def write_source(folder):
    """Rows with 0 to 2 hard negatives; every fifth shares its passage, every seventh its negative is a passage."""
    path = folder / "source.jsonl"
    rows = [
        {
            "id": f"r{i}",
            "query": {x: f"question {i} {'so ' * (i % 9)}in {x}" for x in LANGUAGES},
            "passage": {x: f"answer {i - i % 5 % 2} {'and ' * (i * 7 % 23)}in {x}" for x in LANGUAGES},
            "passage_id": f"p{i - i % 5 % 2}",
            "negatives": [
                {x: f"answer {(i + 4 * j) % 12} {'and ' * ((i + 4 * j) % 12 * 7 % 23)}in {x}" for x in LANGUAGES}
                for j in range(1, 1 + i % 3)
            ],
            "scores": [0.5 + i % 4 / 10, *(0.3 + (i + j) % 5 / 8 for j in range(1, 1 + i % 3))],
        }
        for i in range(14)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config(folder, workers, stage, chunks, precision, lora, **overrides):
    """A tiny transformer over rows that collide."""
    section = {"layers": 2, "hidden_size": 16, "heads": 2, "intermediate_size": 32, "vocabulary_size": 300}
    return load_config(
        "quickstart",
        {
            "data.sources": [str(folder / "source.jsonl")],
            "data.validation": None,
            "data.cache": str(folder / "cache"),
            "training.validate_every": None,
            "batching.global_batch_size": 13,
            "encoder.backbone": "transformer",
            "encoder.transformer": {**section, "dropout": 0.1},
            "encoder.max_passage_tokens": 40,
            "encoder.gradient_checkpointing": True,
            "encoder.precision": precision,
            "encoder.lora": {"rank": 4, "alpha": 8} if lora else None,
            "loss.symmetric": True,
            "loss.hard_negatives": 2,
            "loss.block_rows": 4,
            "training.chunks": chunks,
            "training.deepspeed": {"zero_optimization": {"stage": stage}},
            "resources.workers": workers,
            **overrides,
        },
    )


def build_initial(folder, settings):
    """The encoder that all start from."""
    encoder = settings.encoder.model_copy(update={"lora": None})
    Encoder.build(encoder, ParallelCorpus.from_config(settings).every_text, 0).save(folder / "initial")


def build_frozen(folder, settings):
    """A model to guide and to teach: of the trained one's dimension, and of another kind."""
    encoder = settings.encoder.model_copy(update={"backbone": "static", "static": StaticConfig(dimension=16)})
    Encoder.build(encoder, ParallelCorpus.from_config(settings).every_text, 1).save(folder / "frozen")


def worker(folder):
    """This rank's place; it keeps and tells nothing."""
    initial, model = Path(folder) / "initial", Path(folder) / "model"
    return Worker(ProcessGroup(), torch.device("cpu"), initial, model, lambda _: None, lambda _: None, model.parent)


def on_rank(trees, folder, step=0):
    """The gradient of a step under each configuration; on rank 0, the others take part."""
    gradients = [trained_gradient(from_tree(tree), worker(folder), step) for tree in trees]
    return [{k: v.numpy() for k, v in g.items()} for g in gradients] if ProcessGroup().rank == 0 else None


def agreements(folder, workers, layouts, step=0, **overrides):
    """[Agreement] of the layouts on so many workers."""
    configs = [config(folder, workers, *layout, **overrides) for layout in layouts]
    gradients = run_ranks(on_rank, workers, [to_tree(c) for c in configs], str(folder), step)[0]
    found, plain = [], {}
    for settings, (_, _, precision, lora), got in zip(configs, layouts, gradients, strict=True):
        if (precision, lora) not in plain:
            plain[precision, lora] = plain_gradient(settings, folder / "initial", step, torch.device("cpu"))
        tensors = {name: torch.from_numpy(g) for name, g in got.items()}
        found.append(compare(tensors, plain[precision, lora], precision))
    return found


def main():
    folder = Path(tempfile.mkdtemp(prefix="verify-"))
    write_source(folder)
    build_initial(folder, config(folder, 1, *LAYOUTS[0]))
    print("| workers | ZeRO | chunks | precision | LoRA | norm ratio | cosine | largest difference | |")
    print("|--:|--:|--:|---|---|--:|--:|--:|---|")
    for workers in (1, 2, 3):
        for layout, a in zip(LAYOUTS, agreements(folder, workers, LAYOUTS), strict=True):
            stage, chunks, precision, lora = layout
            print(
                f"| {workers} | {stage} | {chunks} | {precision} | {'yes' if lora else 'no'} | {a.norm_ratio:.7f} "
                f"| {a.cosine:.7f} | {a.largest_difference:.1e} | {'right' if a.holds else 'WRONG'} |"
            )
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
