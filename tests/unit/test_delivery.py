"""From a feed to a device: how texts are cut there, in which order copies are made and waited for, errors, the end."""

import threading
from types import SimpleNamespace

import pytest
import torch

from hbtrain.batching import BatchPlan
from hbtrain.config import load_config
from hbtrain.corpus import ParallelCorpus
from hbtrain.errors import DataError
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.features import token_counts
from hbtrain.training import feed as feed_module
from hbtrain.training.chunks import Cut, padded_tokens
from hbtrain.training.delivery import Delivery
from hbtrain.training.feed import Feed
from tests.unit.tiny_models import encoder_config

GPU, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("cache"))
    sizes = {"batching.global_batch_size": 100, "encoder.max_query_tokens": 12, "encoder.max_passage_tokens": 20}
    return load_config("quickstart", {"data.cache": cache, "resources.workers": 1, **sizes})


@pytest.fixture(scope="module")
def corpus(config):
    return ParallelCorpus.from_config(config)


@pytest.fixture(scope="module")
def encoder(corpus):
    return Encoder.build(encoder_config("transformer"), corpus.every_text, 0)


@pytest.fixture
def new_feed(config, corpus, encoder):
    """Of a rank, and how it computes."""

    def new(device=GPU, rank=0, world_size=1, **training):
        settings = config.model_copy(update={"training": config.training.model_copy(update=training)})
        return Feed(BatchPlan.over(corpus, config), corpus, encoder, settings, rank, world_size, device=device)

    return new


def test_a_side_is_one_batch_on_a_gpu_and_four_of_like_length_on_a_cpu(new_feed):
    on_gpu, on_cpu = new_feed(GPU).work(0), new_feed(CPU).work(0)
    assert len(on_gpu.chunks) == len(on_cpu.chunks) == 1
    assert [len(work.chunks[0].batches) for work in (on_gpu, on_cpu)] == [2, 8]
    assert on_gpu.tokens == on_cpu.tokens
    assert on_gpu.computed_tokens >= on_cpu.computed_tokens
    assert len(new_feed(GPU, chunks=3).work(0).chunks[2].batches) == 2


@pytest.mark.parametrize(("pass_tokens", "agree"), [(1000, False), (999, True), (150, True)])
def test_ranks_agree_only_where_their_texts_might_not_fit_into_one_batch(new_feed, monkeypatch, pass_tokens, agree):
    monkeypatch.setattr(feed_module, "PASS_TOKENS", pass_tokens)  # a rank has 50 pairs of at most 20 tokens
    assert not new_feed(GPU).agrees, "there is one rank"
    assert not new_feed(CPU, 0, 2).agrees
    assert not new_feed(GPU, 0, 2, chunks=3).agrees
    assert new_feed(CPU, 0, 2, chunk_tokens=10**6).agrees
    ranks = [new_feed(GPU, rank, 2) for rank in range(2)]
    assert [feed.agrees for feed in ranks] == [agree, agree]
    if not agree:
        assert all(len(feed.work(0).chunks[0].batches) == 2 and feed.work(0).cut is None for feed in ranks)


def test_what_ranks_agree_on_keeps_the_budget_on_all_of_them(new_feed, monkeypatch):
    monkeypatch.setattr(feed_module, "PASS_TOKENS", 150)
    feeds = [new_feed(GPU, rank, 2) for rank in range(2)]
    works = [feed.work(3) for feed in feeds]
    assert all(max(work.cut.batches) > 1 for work in works)
    agreed = Cut(1, tuple(map(max, *(work.cut.batches for work in works))))
    agreed = agreed._replace(batches=(agreed.batches[0] + 1, agreed.batches[1]))  # as if a third rank needed more
    for feed, work in zip(feeds, works, strict=True):
        cut = feed.agreed(work, agreed)
        (chunk,) = cut.chunks
        assert len(chunk.batches) == sum(agreed.batches)
        assert all(batch["input_ids"].numel() <= 150 for batch in chunk.batches)
        assert sorted(torch.cat(chunk.positions).tolist()) == list(range(100))
        assert cut.computed_tokens == padded_tokens(chunk)
        assert sum(int(token_counts(batch).sum()) for batch in chunk.batches) == work.tokens


def test_work_is_in_order_and_the_next_is_there_when_the_optimizer_takes_its_step(new_feed):
    feed = new_feed(CPU)
    with Delivery(feed, CPU, None).steps(2, 5) as works:
        seen = []
        for work in works:
            seen.append(work.batch.step)
            works.fetch()
            works.fetch()  # the next one, not the one after
    assert seen == [2, 3, 4]
    assert list(works) == []


def test_work_that_is_not_asked_for_any_more_ends_the_feed(new_feed):
    with Delivery(new_feed(CPU), CPU, None).steps(0, 1000) as works:
        next(works)
        works.fetch()
    assert not [thread for thread in threading.enumerate() if thread.name == "feed" and thread.is_alive()]


def test_an_error_of_the_next_step_lets_this_one_end_and_is_told_to_the_others(new_feed, monkeypatch):
    feed = new_feed(CPU, 0, 2, chunk_tokens=200)
    real = feed.work
    monkeypatch.setattr(feed, "work", lambda step: real(step) if step < 1 else (_ for _ in ()).throw(DataError("row")))
    delivery, agreed = Delivery(feed, CPU, None), []

    def all_reduce(numbers, operation, group):
        agreed.append(numbers.tolist())

    monkeypatch.setattr("torch.distributed.all_reduce", all_reduce)
    with delivery.steps(0, 5) as works:
        work = next(works)
        works.fetch()
        assert work.batch.step == 0
        assert agreed == [[len(work.chunks), 1, 1, 0, 0, 0], [0] * 6]
        with pytest.raises(DataError, match="row"):
            next(works)


class Streams:
    """Stands for CUDA: notes what is done on which stream."""

    def __init__(self, monkeypatch):
        self.done, self.current = [], "computing"
        computing = SimpleNamespace(wait_stream=lambda other: self.done.append(f"computing waits for {other}"))
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: "copies")
        monkeypatch.setattr(torch.cuda, "stream", self.on)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: computing)
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: self.note("pinned", x))
        monkeypatch.setattr(torch.Tensor, "to", lambda x, device, non_blocking: self.note(f"to {device}", x))
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda x, stream: self.note("kept", x))

    def on(self, name):
        streams = self

        class On:
            def __enter__(self):
                streams.current = name

            def __exit__(self, *error):
                streams.current = "computing"

        return On()

    def note(self, what, x):
        if f"{what} on {self.current}" not in self.done[-2:]:
            self.done.append(f"{what} on {self.current}")
        return x


def test_copies_of_the_next_step_are_made_on_a_stream_of_their_own_and_waited_for_by_the_device(new_feed, monkeypatch):
    feed = new_feed(GPU)
    prepared = [feed.work(step) for step in range(2)]
    monkeypatch.setattr(feed, "steps", lambda start, stop: (work for work in prepared))
    streams = Streams(monkeypatch)
    copied = ["pinned on copies", "to cuda on copies"]
    with Delivery(feed, GPU, None).steps(0, 2) as works:
        next(works)
        assert streams.done == [*copied, "computing waits for copies", "kept on computing"]
        streams.done.clear()
        works.fetch()
        assert streams.done == copied, "the device is not made to wait while it computes"
        streams.done.clear()
        next(works)
        assert streams.done == ["computing waits for copies", "kept on computing"]
