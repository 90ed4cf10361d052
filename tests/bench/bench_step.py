"""A training step against sentence-transformers' trainer, plain and with the gradient cache. Prints JSON lines.

One XLM-R-shaped model, the same texts, token ids, global batch and precision on both sides, AdamW on both. The
gradients of both sides on one batch are compared first; then runs of each side take turns.

python tests/bench/bench_step.py --workers 1 2 --batch 128 --source demo
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from hbtrain.batching import BatchPlan
from hbtrain.config import from_tree, load_config, to_tree
from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling.gather import ProcessGroup
from hbtrain.modeling.vocabulary import build_tokenizer, train_vocabulary
from hbtrain.training.loop import train_worker
from hbtrain.training.verify import compare, trained_gradient
from hbtrain.training.worker import Worker
from tests.bench.measure import device_name, peak_mib, tell
from tests.distributed.ranks import run_ranks

WARM_UP = 3
TEMPERATURE = 0.05
LIMIT = 256
"""Tokens of a text at most."""


def build_model(folder: Path, texts: list[str], arguments: argparse.Namespace) -> None:
    """A small XLM-R with random weights and mean pooling, without dropout, in a sentence-transformers folder."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
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
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(folder / "xlmr")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=LIMIT,
    ).save_pretrained(folder / "xlmr")
    transformer = Transformer(str(folder / "xlmr"))
    SentenceTransformer(modules=[transformer, Pooling(arguments.hidden, "mean")], device="cpu").save(
        str(folder / "initial")
    )


def our_config(folder: Path, arguments: argparse.Namespace, workers: int, chunks: int) -> object:
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
            "loss.temperature": TEMPERATURE,
            "training.steps": WARM_UP + arguments.steps,
            "training.learning_rate": 1e-5,
            "training.gradient_clipping": 0.0,
            "training.log_every": 1,
            "training.validate_every": None,
            "training.checkpoint_every": None,
            "training.chunks": chunks,
            "training.deepspeed": None,
            "resources.workers": workers,
        },
    )


def our_worker(folder: str, emit: object) -> Worker:
    path = Path(folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Worker(ProcessGroup(), device, path / "initial", path / "model", emit, lambda _: None, path / "checkpoints")


def our_gradient(tree: dict, folder: str) -> dict | None:
    gradient = trained_gradient(from_tree(tree), our_worker(folder, lambda _: None), 0)
    return {_plain(k): v.numpy() for k, v in gradient.items()} if ProcessGroup().rank == 0 else None


def our_seconds(tree: dict, folder: str, threads: int) -> tuple[float, float]:
    """Of a step, and MiB at the peak."""
    torch.set_num_threads(threads)
    times: list[float] = []
    train_worker(from_tree(tree), our_worker(folder, lambda event: times.append(time.perf_counter())))
    return _per_step(times), _memory()


def their_run(folder: str, pairs: list, workers: int, steps: int, chunk: int | None, precision: str, threads: int):
    """Their trainer over so many steps: seconds of a step, MiB at the peak, and the first step's gradient."""
    import datasets
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.sentence_transformer import losses
    from transformers import TrainerCallback

    torch.set_num_threads(threads)
    datasets.disable_progress_bars()
    model = SentenceTransformer(str(Path(folder) / "initial"), device="cpu")
    times: list[float] = []
    gradient: dict = {}

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **_):
            if not gradient:
                gradient.update(
                    (_plain(n), p.grad.float().flatten().cpu().numpy().copy())
                    for n, p in model.named_parameters()
                    if p.grad is not None
                )

        def on_step_end(self, args, state, control, **_):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append(time.perf_counter())

    several = workers > 1
    if chunk is None:
        loss = losses.MultipleNegativesRankingLoss(model, 1 / TEMPERATURE, gather_across_devices=several)
    else:
        loss = losses.CachedMultipleNegativesRankingLoss(
            model, 1 / TEMPERATURE, mini_batch_size=chunk, gather_across_devices=several
        )
    queries, passages = zip(*pairs, strict=True)
    trainer = SentenceTransformerTrainer(
        model=model,
        args=Arguments(
            output_dir=str(Path(folder) / "theirs"),
            per_device_train_batch_size=len(pairs) // steps // workers,
            max_steps=steps,
            learning_rate=1e-5,
            max_grad_norm=0.0,
            use_cpu=not torch.cuda.is_available(),
            bf16=precision == "bf16",
            ddp_backend="gloo" if several else None,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=datasets.Dataset.from_dict({"query": queries, "passage": passages}),
        loss=loss,
        callbacks=[Watch()],
    )
    trainer.train()
    return _per_step(times) if steps > WARM_UP else 0.0, _memory(), gradient


def _plain(name: str) -> str:
    """A parameter's name without what the wrapping on either side puts before it."""
    return name.removeprefix("model.")


def _per_step(times: list[float]) -> float:
    """Seconds; 0 on ranks that are told nothing."""
    if not times:
        return 0.0
    return (times[-1] - times[WARM_UP - 1]) / (len(times) - WARM_UP)


def _memory() -> float:
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else peak_mib()


def planned_pairs(config: object, steps: int) -> list[tuple[str, str]]:
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
    tree = to_tree(config)
    rows = arguments.batch // workers // chunks
    chunk = None if chunks == 1 else rows
    threads = max(1, arguments.cores // workers)
    ours = run_ranks(our_gradient, workers, tree, str(folder), timeout_s=400)[0]
    first = planned_pairs(config, 1)
    theirs = run_ranks(
        their_run, workers, str(folder), first, workers, 1, chunk, arguments.precision, threads,
        timeout_s=400, connect=False,
    )[0][2]  # fmt: skip
    agreement = compare(
        {k: torch.from_numpy(v) for k, v in theirs.items()},
        {k: torch.from_numpy(v) for k, v in ours.items()},
        arguments.precision,
    )
    steps = WARM_UP + arguments.steps
    pairs = planned_pairs(config, steps)
    our_times, their_times, our_memory, their_memory = [], [], 0.0, 0.0
    for _ in range(arguments.repeats):
        seconds, mib = run_ranks(our_seconds, workers, tree, str(folder), threads, timeout_s=900)[0]
        our_times.append(seconds)
        our_memory = max(our_memory, mib)
        seconds, mib, _ = run_ranks(
            their_run, workers, str(folder), pairs, workers, steps, chunk, arguments.precision, threads,
            timeout_s=900, connect=False,
        )[0]  # fmt: skip
        their_times.append(seconds)
        their_memory = max(their_memory, mib)
    tell(
        "step",
        workers=workers,
        chunks=chunks,
        batch=arguments.batch,
        precision=arguments.precision,
        source=Path(arguments.source).name,
        hidden=arguments.hidden,
        layers=arguments.layers,
        their_gradient_by_ours=agreement.norm_ratio,
        cosine=agreement.cosine,
        our_pairs_per_s=arguments.batch / statistics.median(our_times),
        their_pairs_per_s=arguments.batch / statistics.median(their_times),
        speed_by_theirs=statistics.median(their_times) / statistics.median(our_times),
        our_peak_mib=our_memory,
        their_peak_mib=their_memory,
        our_seconds=statistics.median(our_times),
        their_seconds=statistics.median(their_times),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--chunks", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--source", default="demo")
    arguments = parser.parse_args()
    print(f"on {device_name()}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = ParallelCorpus.open([arguments.source], str(folder / "cache"))
        build_model(folder, list(corpus.every_text()), arguments)
        for workers in arguments.workers:
            for chunks in arguments.chunks:
                compare_sides(folder, arguments, workers, chunks)


if __name__ == "__main__":
    main()
