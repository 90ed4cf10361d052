"""Texts embedded by a model that is not trained, on 1, 2 and 3 ranks: each once, the same vectors, on all machines."""

import json
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hbtrain.batching import BatchPlan
from hbtrain.config import from_tree, load_config, override, to_tree
from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling import encoder as encoder_module
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.gather import ProcessGroup, SingleProcess
from hbtrain.training import frozen_models, text_embedding
from hbtrain.training.checkpoint_files import checkpoints_in
from hbtrain.training.feed import Feed
from hbtrain.training.frozen_models import FrozenModels
from hbtrain.training.loop import Trainer
from hbtrain.training.text_embedding import PHASE
from tests.distributed.ranks import run_ranks
from tests.distributed.test_engine_ranks import worker
from tests.unit.tiny_models import encoder_config

STEPS = range(2, 6)


def write(folder):
    table = [
        {
            "id": f"r{i}",
            "query": {x: f"question {i} {'so ' * (i % 7)}{x}" for x in ("de", "en")},
            "passage": {x: f"answer {i} {'and ' * (i % 11)}{x}" for x in ("de", "en")},
            "negatives": [{x: f"answer {i + 1} {x}" for x in ("de", "en")}],
        }
        for i in range(40)
    ]
    (folder / "source.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    texts = [text for row in table for side in ("query", "passage") for text in row[side].values()]
    Encoder.build(encoder_config("transformer"), lambda: texts, 0).save(folder / "model")
    return load_config(
        "quickstart",
        {
            "data.sources": [str(folder / "source.jsonl")],
            "data.cache": str(folder / "cache"),
            "batching.global_batch_size": 9,
            "encoder.static.vocabulary_size": 200,
            "evaluation.benchmarks": [],
            "loss.guide": str(folder / "model"),
            "loss.hard_negatives": 1,
        },
    )


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write(tmp_path_factory.mktemp("frozen"))


def on_rank(tree, caches, stop=STEPS.stop):
    """What a rank reports: texts that it embeds, phases begun, what it is told, the guide's vectors of its texts."""
    frozen_models.BLOCK_TEXTS = 25
    encoder_module.BATCH_TEXTS = {"cpu": 4}
    group = ProcessGroup()
    config = override(from_tree(tree), {"data.cache": caches[group.rank % len(caches)]})
    embedded, phases, told, encode = [], [], [], Encoder.encode

    def recorded(self, texts, side, *more, share, **options):
        vectors = encode(self, texts, side, *more, share=share, **options)
        embedded.extend((side, text) for text, vector in zip(texts, vectors, strict=True) if vector.any())
        return vectors

    text_embedding.Encoder.encode = recorded
    corpus = ParallelCorpus.from_config(config)
    plan = BatchPlan.over(corpus, config)
    frozen = FrozenModels(
        config, group, torch.device("cpu"), lambda phase, step=None: phases.append(phase), told.append
    )
    frozen.prepare(plan, corpus, range(STEPS.start, stop))
    feed = Feed(plan, corpus, Encoder.build(config.encoder, corpus.every_text, 0), config, group.rank, group.world_size)
    feed.frozen = frozen
    guides = [feed.work(step).references.guide for step in range(STEPS.start, stop)]
    return embedded, phases, told, [[x.numpy() for x in (guide.q_bE, guide.p_bE, guide.n_mE)] for guide in guides]


def joined(ranks):
    """The guide's vectors of the global batches, from those of ranks."""
    return [
        [np.concatenate(side) for side in zip(*step, strict=True)] for step in zip(*(r[3] for r in ranks), strict=True)
    ]


def sizes(cache):
    return {path.parent.name: path.stat().st_size for path in Path(cache).rglob("vectors.bin")}


def test_any_number_of_ranks_embeds_each_text_once_and_the_same(config, tmp_path):
    found = {}
    for workers in (1, 2, 3):
        ranks = run_ranks(on_rank, workers, to_tree(config), [str(tmp_path / str(workers))])
        texts = [text for embedded, *_ in ranks for text in embedded]
        assert len(texts) == len(set(texts))
        assert all(embedded for embedded, *_ in ranks)
        assert len({tuple(phases) for _, phases, *_ in ranks}) == 1  # or a rank would seem to hang
        found[workers] = set(texts), joined(ranks), sizes(tmp_path / str(workers))
        again = run_ranks(on_rank, workers, to_tree(config), [str(tmp_path / str(workers))])
        assert not any(embedded or told for embedded, _, told, _ in again)
        assert all(
            np.array_equal(x, y)
            for one, two in zip(joined(ranks), joined(again), strict=True)
            for x, y in zip(one, two, strict=True)
        )
    for workers in (2, 3):
        assert found[workers][0] == found[1][0]
        assert found[workers][2] == found[1][2]
        for one, other in zip(found[workers][1], found[1][1], strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(one, other, strict=True))


def test_what_one_machine_has_is_handed_to_those_that_lack_it(config, tmp_path):
    caches = [str(tmp_path / "one"), str(tmp_path / "other")]
    first = run_ranks(on_rank, 1, to_tree(config), caches[1:], STEPS.start + 2)
    ranks = run_ranks(on_rank, 3, to_tree(config), caches)
    texts = [text for embedded, *_ in (*first, *ranks) for text in embedded]
    assert len(texts) == len(set(texts))
    assert sizes(caches[0]) == sizes(caches[1])
    alone = run_ranks(on_rank, 1, to_tree(config), caches[:1])
    assert not alone[0][0]
    for one, other in zip(joined(ranks), joined(alone), strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(one, other, strict=True))
    for one, other in zip(joined(first), joined(alone), strict=False):
        assert all(np.array_equal(x, y) for x, y in zip(one, other, strict=True))


def one_after_the_other(tree, cache, marks):
    """Two groups of one rank each that begin at the same time."""
    group, rank = ProcessGroup(), ProcessGroup().rank
    (Path(marks) / str(rank)).touch()
    while len([*Path(marks).iterdir()]) < group.world_size:
        time.sleep(0.01)

    frozen_models.BLOCK_TEXTS = 25
    embedded, encode = [], Encoder.encode

    def recorded(self, texts, side, *more, **options):
        embedded.extend((side, text) for text in texts)
        time.sleep(0.05)
        return encode(self, texts, side, *more, **options)

    text_embedding.Encoder.encode = recorded
    config = override(from_tree(tree), {"data.cache": cache})
    corpus = ParallelCorpus.from_config(config)
    frozen = FrozenModels(config, SingleProcess(), torch.device("cpu"))
    frozen.prepare(BatchPlan.over(corpus, config), corpus, STEPS)
    return embedded


def test_two_runs_at_one_time_embed_each_text_once(config, tmp_path):
    (tmp_path / "marks").mkdir()
    found = run_ranks(one_after_the_other, 2, to_tree(config), str(tmp_path / "cache"), str(tmp_path / "marks"))
    texts = [text for embedded in found for text in embedded]
    assert len(texts) == len(set(texts))
    assert not all(found)  # the second finds all that the first has embedded


def test_a_run_that_was_killed_goes_on_where_it_was(config, tmp_path):
    part = run_ranks(on_rank, 2, to_tree(config), [str(tmp_path)], STEPS.start + 1)
    for name in ("vectors.bin", "digests.bin"):
        for path in tmp_path.rglob(name):
            with path.open("ab") as file:
                file.write(b"\x07" * 5)
    rest = run_ranks(on_rank, 2, to_tree(config), [str(tmp_path)])
    texts = [text for embedded, *_ in (*part, *rest) for text in embedded]
    assert len(texts) == len(set(texts))
    assert np.array_equal(joined(part)[0][1], joined(rest)[0][1])


def trained(tree, folder, folder_of_checkpoints):
    """What is told in a training, the phases that it begins, and the weights that it ends with."""
    config, events, phases = from_tree(tree), [], []
    parts = replace(
        worker(folder, events, folder_of_checkpoints), on_phase=lambda phase, step=None: phases.append((phase, step))
    )
    trainer = Trainer(config, parts)
    trainer.run()
    weights = {name: x.detach().float().numpy() for name, x in trainer.module.named_parameters()}
    return [(event.step, event.note) for event in events if event.note], phases, weights


def test_a_training_embeds_before_its_first_step_and_a_resumed_one_nothing(config, tmp_path):
    small = {
        "data.validation": None,
        "loss.guide_margin": -0.1,
        "training.checkpoint_every": 2,
        "training.log_every": 1,
        "training.steps": 5,
        "training.validate_every": None,
    }
    one = override(config, small | {"data.cache": str(tmp_path / "cache")})
    Encoder.build(one.encoder, ParallelCorpus.from_config(one).every_text, 0).save(tmp_path / "initial")
    whole = run_ranks(trained, 2, to_tree(one), str(tmp_path), str(tmp_path / "whole"))
    (notes, phases, weights), (_, other_phases, _) = whole
    told = [(step, note) for step, note in notes if one.loss.guide in note]
    assert [step for step, _ in told] == [0, 0]
    assert re.search(rf"^{one.loss.guide} has embedded \d+ texts in \d+ s, of \d+$", told[1][1])
    assert phases == other_phases
    names = [phase for phase, _ in phases]
    assert names.index("restore") < names.index(PHASE) < names.index("data")
    assert PHASE not in names[names.index("data") :]
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / checkpoints_in(tmp_path / "cut")[0])
    (notes, _, resumed), _ = run_ranks(trained, 2, to_tree(one), str(tmp_path), str(tmp_path / "cut"))
    assert not [note for _, note in notes if one.loss.guide in note]
    assert all(np.array_equal(resumed[name], x) for name, x in weights.items())
