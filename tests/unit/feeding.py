"""A feed whose texts can be read."""

from hbtrain.batching import BatchPlan
from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling.encoder import Encoder
from hbtrain.training.feed import Feed


class Recorder:
    """An encoder's tokenizer that keeps the texts that it is given."""

    packs = False

    def __init__(self, encoder):
        self._encoder, self.texts = encoder, []

    def tokenize(self, texts, side):
        self.texts.append((side, list(texts)))
        return self._encoder.tokenize(texts, side)


def fed(config, step, rank=0, ranks=1):
    """The work of a rank in a step, and the texts that it tokenizes: queries, passages and so on, [(side, texts)]."""
    corpus = ParallelCorpus.from_config(config)
    tokenizer = Recorder(Encoder.build(config.encoder, corpus.every_text, 0))
    feed = Feed(BatchPlan.over(corpus, config), corpus, tokenizer, config, rank, ranks)
    tokenizer.texts.clear()  # of what it has tried the tokenizer with
    return feed.work(step), tokenizer.texts
