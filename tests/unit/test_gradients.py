"""The gradient cache on one process: with dropout it is the gradient of the same draws with the whole graph."""

import pytest
import torch

from hbtrain.batching import BatchPlan
from hbtrain.config import load_config
from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling.embedding import EmbeddingModule
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.gather import SingleProcess
from hbtrain.training.feed import Feed
from hbtrain.training.gradients import Gradients
from hbtrain.training.stopwatch import Stopwatch
from tests.unit.tiny_models import encoder_config


class PlainEngine:
    """What `Gradients` asks of an engine, with autograd alone."""

    def __init__(self, module):
        self.module = module
        self.parts = []

    def __call__(self, batches):
        return self.module(batches)

    def backward(self, loss, last=True):
        loss.backward()
        self.parts.append(last)


def prepared(cache, dropout, **overrides):
    config = load_config(
        "quickstart", {"data.cache": str(cache), "batching.global_batch_size": 20, "resources.workers": 1, **overrides}
    )
    encoder_section = encoder_config("transformer").model_copy(
        update={"transformer": encoder_config("transformer").transformer.model_copy(update={"dropout": dropout})}
    )
    corpus = ParallelCorpus.from_config(config)
    encoder = Encoder.build(encoder_section, corpus.every_text, 0)
    module = EmbeddingModule(encoder.model, 0.1 if config.loss.learn_temperature else None).train()
    engine = PlainEngine(module)
    feed = Feed(BatchPlan.over(corpus, config), corpus, encoder, config, 0, 1)
    gradients = Gradients(engine, SingleProcess(), config, Stopwatch(torch.device("cpu")))
    return engine, gradients, feed.work(3)


def gradient_of(module):
    found = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    return found


LANGUAGES = {
    "loss.terms": {"jensen_shannon": 1.0, "reversed": 0.4, "bridge": 0.2},
    "loss.translations": 2,
    "loss.positives": "translations",
    "loss.hardness": 2.0,
}


@pytest.mark.parametrize(
    "settings",
    [{"training.chunks": 3}, {"training.chunks": 7}, {"training.chunk_tokens": 90}, {"training.chunks": 3} | LANGUAGES],
)
@pytest.mark.parametrize("learned", [False, True])
def test_chunks_give_the_gradient_of_the_whole_graph_with_dropout(cache, settings, learned):
    engine, gradients, work = prepared(cache, 0.2, **settings, **{"loss.learn_temperature": learned})
    assert len(work.chunks) > 1
    loss = gradients.backward(work).total
    cached = gradient_of(engine.module)
    assert engine.parts == [False] * (len(work.chunks) - 1) + [True]
    whole_loss = gradients.loss(work).total
    whole_loss.backward()
    whole = gradient_of(engine.module)
    assert loss.item() == pytest.approx(whole_loss.item(), rel=1e-6)
    assert cached.keys() == whole.keys()
    assert ("log_scale" in whole) == learned
    for name, want in whole.items():
        torch.testing.assert_close(cached[name], want, rtol=1e-4, atol=1e-7)


def test_dropout_is_really_on_and_drawn_by_step(cache):
    _, gradients, work = prepared(cache, 0.2)
    _, without, _ = prepared(cache, 0.0)
    assert gradients.loss(work).total.item() == gradients.loss(work).total.item()
    assert gradients.loss(work).total.item() != without.loss(work).total.item()
