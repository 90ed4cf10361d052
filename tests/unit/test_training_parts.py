import threading

import pytest
import torch

from hbtrain.batching import BatchPlan
from hbtrain.config import load_config
from hbtrain.config.loss import LossConfig
from hbtrain.corpus import ParallelCorpus
from hbtrain.errors import DataError, TrainingError
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.features import token_counts
from hbtrain.modeling.gather import SingleProcess
from hbtrain.modeling.loss import BatchLoss, batch_loss
from hbtrain.modeling.loss_inputs import Embedded, Sizes
from hbtrain.training.best import Patience
from hbtrain.training.engine import scheduler_of
from hbtrain.training.feed import Feed
from hbtrain.training.meter import PHASES, Meter
from hbtrain.training.stopwatch import Stopwatch
from hbtrain.training.validation import validation_plan


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("cache"))
    return load_config("quickstart", {"data.cache": cache, "batching.global_batch_size": 9, "resources.workers": 1})


@pytest.fixture(scope="module")
def corpus(config):
    return ParallelCorpus.from_config(config)


@pytest.fixture(scope="module")
def encoder(config, corpus):
    return Encoder.build(config.encoder, corpus.every_text, 0)


@pytest.fixture
def feed(config, corpus, encoder):
    return Feed(BatchPlan.over(corpus, config), corpus, encoder, config, 0, 1)


def test_feed_prepares_the_shards_of_the_plan(config, corpus, encoder):
    plan = BatchPlan.over(corpus, config)
    whole = Feed(plan, corpus, encoder, config, 0, 1).work(4)
    parts = [Feed(plan, corpus, encoder, config, rank, 2).work(4) for rank in range(2)]
    assert whole.sizes.pairs == [9]
    assert parts[0].sizes == parts[1].sizes == Sizes([5, 4], [0, 0])
    assert sum(part.tokens for part in parts) == whole.tokens
    joined = torch.cat([part.sides[0]["input_ids"] for part in parts])
    assert torch.equal(joined, whole.sides[0]["input_ids"])
    source = corpus.sources["demo"]
    (first,) = source.texts("passage", whole.batch.rows[:1], whole.batch.passage_languages[:1])
    assert encoder.tokenize([first], "passage")["input_ids"].tolist() == (
        whole.sides[1]["input_ids"][: whole.sides[1]["offsets"][1]].tolist()
    )


def test_feed_in_the_background_is_the_feed(feed):
    assert [work.batch.step for work in feed.steps(3, 9)] == list(range(3, 9))
    assert list(feed.steps(5, 5)) == []


def test_feed_that_is_left_early_ends_its_thread(feed):
    for work in feed.steps(0, 1000):
        if work.batch.step == 2:
            break
    assert not [thread for thread in threading.enumerate() if thread.name == "feed" and thread.is_alive()]


def test_an_error_in_the_background_is_raised_at_its_step(feed, monkeypatch):
    real = feed.work
    monkeypatch.setattr(
        feed, "work", lambda step: real(step) if step < 2 else (_ for _ in ()).throw(DataError("row 7"))
    )
    works = feed.steps(0, 10)
    assert [next(works).batch.step, next(works).batch.step] == [0, 1]
    with pytest.raises(DataError, match="row 7"):
        next(works)


def new_meter():
    device = torch.device("cpu")
    return Meter(SingleProcess(), Stopwatch(device), device)


def test_meter_tells_losses_by_kind(feed):
    meter = new_meter()
    works = [feed.work(step) for step in range(12)]
    kinds = {work.batch.kind for work in works}
    assert kinds == {"mono", "cross"}
    for work in works:
        meter.add(work, BatchLoss(torch.tensor(1.0 if work.batch.kind == "mono" else 3.0), {}))
    figures = meter.read()
    assert figures["train/loss_mono"] == 1.0
    assert figures["train/loss_cross"] == 3.0
    assert figures["train/loss"] == pytest.approx(sum(1 if w.batch.kind == "mono" else 3 for w in works) / 12)
    assert figures["train/pairs_per_s"] > 0
    assert sum(figures[f"system/time_share_{phase}"] for phase in PHASES) == pytest.approx(1)
    tokens = sum(int(token_counts(side).sum()) for work in works for side in work.sides)
    computed = sum(x["input_ids"].numel() for work in works for chunk in work.chunks for x in chunk.batches)
    assert figures["train/padding_share"] == pytest.approx(1 - tokens / computed)
    assert figures["system/memory_peak_gib"] > 0.01
    meter.add(works[0], BatchLoss(torch.tensor(2.0), {}))
    assert meter.read()["train/loss"] == 2.0


def test_meter_stops_at_a_loss_of_nan(feed):
    meter = new_meter()
    meter.add(feed.work(0), BatchLoss(torch.tensor(1.0), {}))
    meter.add(feed.work(1), BatchLoss(torch.tensor(float("nan")), {}))
    with pytest.raises(TrainingError, match=r"step 1 is nan: \w+ batch of source demo, rows \d+"):
        meter.read()


def test_patience():
    patience = Patience(2)
    assert [patience.improved(loss, step) for step, loss in enumerate((3.0, 2.0, 2.5))] == [True, True, False]
    assert not patience.exhausted
    assert not patience.improved(2.0, 3)
    assert patience.exhausted
    assert patience.best == (1, 2.0)
    assert patience.reason == "stopped early: no better validation loss than 2.0000"
    assert not Patience(None, waited=100).exhausted


def test_weights_of_training_do_not_trip_validation(config, cache, write_source, rows):
    """Sources of training are unknown there, and so may languages be; one of weight 0 is not validated."""
    weights = {"language_weights": {"de": 2.0, "ru": 0.0, "zh": 3.0}, "source_weights": {"demo": 2.0}}
    weighted = config.model_copy(update={"batching": config.batching.model_copy(update=weights)})
    validation = ParallelCorpus.open([str(write_source(rows(100, ("de", "en", "ru"))))])
    plan = validation_plan(weighted, validation)
    assert plan.languages == ("de", "en")
    assert plan.batching.language_weights == {"de": 2.0}


def test_validation_adapts_to_its_source(config, cache, write_source, rows):
    def planned(count, languages, training=("de", "en")):
        validation = ParallelCorpus.open([str(write_source(rows(count, languages)))])
        return validation_plan(
            config.model_copy(update={"data": config.data.model_copy(update={"languages": training})}), validation
        )

    assert planned(100, ("de", "en", "ru")).languages == ("de", "en")
    english = planned(100, ("en", "ru"))
    assert {english.catalogue.offers[number].kind for number in english.draws(0, 50)} == {"mono"}
    assert planned(4, ("de", "en")).batching.global_batch_size == 4
    with pytest.raises(DataError, match="none of the training languages"):
        planned(100, ("zh",))


def test_meter_tells_terms_by_kind_and_what_a_guide_drops_by_languages(feed):
    meter = new_meter()
    works = [feed.work(step) for step in range(12)]
    dropped, negatives = {}, {}
    for work in works:
        batch = work.batch
        counts = torch.tensor([[row % 3, 8] for row in batch.rows.tolist()])
        for x, y, (out, of) in zip(batch.query_languages, batch.passage_languages, counts.tolist(), strict=True):
            for key in ("", f"_{batch.kind}", f"/{x}-{y}"):
                dropped[key], negatives[key] = dropped.get(key, 0) + out, negatives.get(key, 0) + of
        value = torch.tensor(2.0 if batch.kind == "mono" else 5.0)
        terms = {"contrastive": value, "bridge": 3 * value}
        meter.add(work, BatchLoss(value, terms, counts))
    figures = meter.read()
    for term, factor in (("loss", 1), ("contrastive", 1), ("bridge", 3)):
        assert figures[f"train/{term}_mono"] == pytest.approx(2 * factor)
        assert figures[f"train/{term}_cross"] == pytest.approx(5 * factor)
        assert figures[f"train/{term}_mono"] < figures[f"train/{term}"] < figures[f"train/{term}_cross"]
    told = {k.removeprefix("train/guided_out"): x for k, x in figures.items() if k.startswith("train/guided_out")}
    assert told == pytest.approx({key: out / negatives[key] for key, out in dropped.items()})
    meter.add(works[0], BatchLoss(torch.tensor(2.0), {}))
    assert not [key for key in meter.read() if "guided" in key or "bridge" in key]


@pytest.mark.parametrize("weights", [{0: 1.0, 5: 0.5}, {0: 0.5, 5: 1.0}])
def test_a_contrastive_term_whose_weight_changes_is_told_at_every_step(feed, weights):
    config = LossConfig(terms={"contrastive": weights})
    assert not config.is_plain
    meter, losses = new_meter(), []
    for step in range(8):
        work = feed.work(step)
        size = work.sizes.pairs[0]
        q_bD, p_bD = (torch.nn.functional.normalize(torch.randn(size, 8), dim=1) for _ in range(2))
        own = Embedded(q_bD, p_bD, p_bD[:0])
        loss = batch_loss(own, Sizes([size], [0]), SingleProcess(), config, None, weights=config.weights(step))
        losses.append(float(loss.total) / config.weights(step)["contrastive"])
        meter.add(work, loss)
    assert meter.read()["train/contrastive"] == pytest.approx(sum(losses) / 8, abs=1e-5)


@pytest.mark.parametrize(
    ("schedule", "warmup", "rates"),
    [
        ("constant", 0, [1, 1, 1, 1, 1]),
        ("constant", 4, [0, 0.25, 0.5, 0.75, 1]),
        ("linear", 2, [0, 0.5, 1, 0.75, 0.5]),
    ],
)
def test_the_rate_rises_over_the_warm_up_whatever_the_schedule(schedule, warmup, rates):
    values = {"training.schedule": schedule, "training.warmup_steps": warmup, "training.steps": 6}
    training = load_config("quickstart", values | {"training.learning_rate": 1.0}).training
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=training.learning_rate)
    scheduler, found = scheduler_of(optimizer, training), []
    for _ in rates:
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert found == pytest.approx(rates)
