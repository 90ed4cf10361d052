"""A training step against sentence-transformers' trainer, plain and with the gradient cache. Prints JSON lines.

One model, the same texts, token ids, global batch and precision on both sides, AdamW on both, no dropout. The gradients
of both sides on one batch are compared first; then short runs of each side take turns. Ratios are medians of those
between neighbours; that of the processor's time hardly changes with what else runs on the machine. The optimizer's part
of a step is the same on both sides, and so the floor: no trainer is faster than it.

python tests/bench/bench_step.py                                   # the demo's short texts
python tests/bench/bench_step.py --attention packed                # the same without padding
python tests/bench/bench_step.py --source mixed --batch 32         # texts of mixed lengths, made of the demo's words
python tests/bench/bench_step.py --model e5-small --batch 32       # a folder with a plain Hugging Face encoder
python tests/bench/bench_step.py --source mixed --batch 32 --workers 1 2 --chunks 1 4
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from hbtrain.batching import BatchPlan
from hbtrain.config import Config, from_tree, load_config, to_tree
from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling.gather import ProcessGroup
from hbtrain.modeling.vocabulary import build_tokenizer, train_vocabulary
from hbtrain.training.verify import compare, trained_gradient
from tests.bench.bench_encoding import mixed_texts
from tests.bench.measure import device_name, peak_mib, tell
from tests.bench.pace import Pace
from tests.bench.trainers import Enough, Pairs, alone, silent_worker, train_ours, train_theirs
from tests.distributed.ranks import run_ranks

TEMPERATURE = 0.05
LIMIT = 256
"""Tokens of a text at most."""
MIXED_ROWS = 2000
MIXED_WORDS = (8, 40)
"""Words of a query and of a passage, medians of log-normal lengths."""
TIMED_PLAN_STEPS = 40  # batches of the plan that the other side's pairs are taken from


def save_as_transformer(plain: Path, to: Path) -> None:
    """A sentence-transformers folder of a plain encoder with mean pooling, without dropout."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    path = plain / "config.json"
    settings = json.loads(path.read_text()) | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    path.write_text(json.dumps(settings))
    transformer = Transformer(str(plain))
    transformer.max_seq_length = LIMIT
    pooling = Pooling(settings["hidden_size"], "mean")
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save(str(to))


def build_plain(folder: Path, texts: list[str], arguments: argparse.Namespace) -> None:
    """A small XLM-R with random weights."""
    from tokenizers.processors import BertProcessing
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

    pieces = train_vocabulary(lambda: texts, 8000)
    tokenizer = build_tokenizer(pieces)
    tokenizer.post_processor = BertProcessing(("[SEP]", pieces.index("[SEP]")), ("[CLS]", pieces.index("[CLS]")))
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=len(pieces),
        hidden_size=arguments.hidden,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.hidden // 64,
        intermediate_size=4 * arguments.hidden,
        max_position_embeddings=LIMIT + 8,
        pad_token_id=pieces.index("[PAD]"),
    )
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LIMIT, **names).save_pretrained(folder)


def mixed_source(folder: Path) -> str:
    """A parallel source of texts of mixed lengths in the demo's languages, two of them a row."""
    sides = [mixed_texts(2 * MIXED_ROWS, words, seed) for seed, words in enumerate(MIXED_WORDS)]
    rows = (
        {"id": str(i), **{side: {"en": texts[2 * i], "de": texts[2 * i + 1]} for side, texts in named}}
        for named in [list(zip(("query", "passage"), sides, strict=True))]
        for i in range(MIXED_ROWS)
    )
    path = folder / "mixed.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def our_config(folder: Path, arguments: argparse.Namespace, workers: int, chunks: int) -> Config:
    return load_config(
        "quickstart",
        {
            "data.sources": [arguments.source],
            "data.validation": None,
            "data.cache": str(folder / "cache"),
            "batching.mode": "cross-lingual",
            "batching.global_batch_size": arguments.batch,
            "encoder.backbone": str(folder / "initial"),
            "encoder.max_query_tokens": LIMIT,
            "encoder.max_passage_tokens": LIMIT,
            "encoder.precision": arguments.precision,
            "encoder.attention": arguments.attention,
            "loss.temperature": TEMPERATURE,
            "training.steps": 100_000,
            "training.learning_rate": 1e-5,
            "training.gradient_clipping": 0.0,
            "training.log_every": 100_000,
            "training.validate_every": None,
            "training.checkpoint_every": None,
            "training.chunks": chunks,
            "training.deepspeed": None,
            "resources.workers": workers,
        },
    )


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def our_worker(folder: Path, **options: object) -> object:
    return silent_worker(ProcessGroup(), device(), folder / "initial", folder, **options)


def our_gradient(tree: dict, folder: Path) -> dict:
    gradient = trained_gradient(from_tree(tree), our_worker(folder), 0)
    return {_plain(k): v.numpy() for k, v in gradient.items()} if ProcessGroup().rank == 0 else {}


def our_steps(tree: dict, folder: Path, threads: int, target_s: float, profiled: bool) -> dict:
    torch.set_num_threads(threads)
    pace = Pace(device(), target_s, profiled)
    train_ours(from_tree(tree), partial(our_worker, folder), pace)
    return figures(pace)


def their_steps(folder: Path, pairs: Pairs, settings: dict, threads: int, target_s: float, profiled: bool) -> dict:
    torch.set_num_threads(threads)
    pace = Pace(device(), target_s, profiled)
    _their_run(folder, pairs, settings, pace)
    return figures(pace)


def their_gradient(folder: Path, pairs: Pairs, settings: dict) -> dict:
    """Of the batch that `pairs` are, as their optimizer is given it."""
    gradient = {}

    def keep() -> None:
        named = model.named_parameters()
        gradient.update(
            {_plain(n): p.grad.float().flatten().cpu().numpy().copy() for n, p in named if p.grad is not None}
        )
        raise Enough

    model = _their_model(folder)
    try:
        _their_run(folder, pairs, settings, lambda _: True, model, keep)
    except Enough:
        return gradient
    raise AssertionError("there was no step")


def _their_model(folder: Path) -> object:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder / "initial"), device=str(device()))


def _their_run(
    folder: Path, pairs: Pairs, settings: dict, after_step: object, model: object = None, keep: object = None
):
    options = {} if keep is None else {"before_step": keep}
    model = model or _their_model(folder)
    run = partial(train_theirs, model, pairs, after_step=after_step, device=device(), folder=folder, **settings)
    if settings["several"]:
        run(**options)
    else:
        with alone():
            run(**options)


def figures(pace: Pace) -> dict:
    memory = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else peak_mib()
    return {"seconds": pace.seconds, "processor_s": pace.processor_s, "peak_mib": memory, **pace.figures}


def _plain(name: str) -> str:
    """A parameter's name without what the wrapping on either side puts before it."""
    return name.removeprefix("model.")


def planned_pairs(config: Config, steps: int) -> Pairs:
    """The texts of the first steps' batches, prefixes included."""
    corpus = ParallelCorpus.from_config(config)
    plan = BatchPlan.over(corpus, config)
    pairs = []
    for step in range(steps):
        batch = plan.batch(step)
        source = corpus.sources[batch.source]
        queries = source.texts("query", batch.rows, batch.query_languages)
        passages = source.texts("passage", batch.rows, batch.passage_languages)
        pairs += [
            (config.encoder.query_prefix + q, config.encoder.passage_prefix + p)
            for q, p in zip(queries, passages, strict=True)
        ]
    return pairs


def compare_sides(folder: Path, arguments: argparse.Namespace, workers: int, chunks: int) -> None:
    """One line: gradients on the first batch, then time and memory of both sides."""
    config = our_config(folder, arguments, workers, chunks)
    tree, threads = to_tree(config), max(1, arguments.cores // workers)
    rows = arguments.batch // workers
    settings = {
        "batch": rows,
        "chunk": None if chunks == 1 else rows // chunks,
        "bf16": arguments.precision == "bf16",
        "several": workers > 1,
        "temperature": TEMPERATURE,
    }

    def of_rank_0(function: object, *given: object, connect: bool = True) -> dict:
        return run_ranks(function, workers, *given, timeout_s=900, connect=connect)[0]

    ours = of_rank_0(our_gradient, tree, folder)
    theirs = of_rank_0(their_gradient, folder, planned_pairs(config, 1), settings, connect=False)
    sides = ({k: torch.from_numpy(v) for k, v in side.items()} for side in (theirs, ours))
    agreement = compare(*sides, arguments.precision)
    pairs, found = planned_pairs(config, TIMED_PLAN_STEPS), {"our": [], "their": []}
    for _ in range(arguments.repeats):
        timing = (threads, arguments.seconds, arguments.profile)
        found["our"].append(of_rank_0(our_steps, tree, folder, *timing))
        found["their"].append(of_rank_0(their_steps, folder, pairs, settings, *timing, connect=False))
    sides = {
        f"{side}_{name}": statistics.median(run[name] for run in runs)
        for side, runs in found.items()
        for name in runs[0]
    }
    ratios = {
        name: float(np.median([t[of] / o[of] for o, t in zip(found["our"], found["their"], strict=True)]))
        for name, of in (("speed_by_theirs", "seconds"), ("processor_time_of_theirs_by_ours", "processor_s"))
    }
    tell(
        "step",
        workers=workers,
        chunks=chunks,
        batch=arguments.batch,
        precision=arguments.precision,
        attention=arguments.attention,
        source=Path(arguments.source).name,
        model=Path(arguments.model).name if arguments.model else f"{arguments.layers} x {arguments.hidden}",
        threads=threads,
        their_gradient_by_ours=agreement.norm_ratio,
        cosine=agreement.cosine,
        **ratios,
        **sides,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--chunks", type=int, nargs="+", default=[1])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement, about")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="measure the optimizer's part, with torch's profiler")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--attention", default="auto", help="encoder.attention of ours; packed computes no padding")
    parser.add_argument("--source", default="demo", help="demo, mixed or a parallel source")
    parser.add_argument("--model", help="a folder with a plain Hugging Face encoder; by default one of random weights")
    arguments = parser.parse_args()
    print(f"on {device_name()}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.source == "mixed":
            arguments.source = mixed_source(folder)
        if arguments.model:
            shutil.copytree(arguments.model, folder / "plain")
        else:
            texts = list(ParallelCorpus.open([arguments.source], str(folder / "cache")).every_text())
            build_plain(folder / "plain", texts, arguments)
        save_as_transformer(folder / "plain", folder / "initial")
        for workers in arguments.workers:
            for chunks in arguments.chunks:
                compare_sides(folder, arguments, workers, chunks)


if __name__ == "__main__":
    main()
