"""A global batch with everything a term of the loss may ask for, cut for ranks as training cuts it."""

import itertools

import torch
from torch.nn.functional import normalize

from hbtrain.batching import shard_sizes
from hbtrain.config.loss import LossConfig
from hbtrain.modeling.gather import SingleProcess
from hbtrain.modeling.loss import batch_loss
from hbtrain.modeling.loss_inputs import Embedded, Owners, PairIds, Reference, References, Scores, Sizes
from hbtrain.training.plain_loss import WholeBatch

B, D, E = 11, 6, 5
NEGATIVE_OWNERS = [0, 0, 2, 3, 3, 4, 4, 7, 8, 8, 10, 10]
"""So that the shards of two or three ranks have other numbers of them."""
TRANSLATION_OWNERS = [0, 0, 2, 5, 6, 6, 7]
QUERY_OWNERS = [0, 1, 3, 4, 6]
"""The last of three ranks has no translated query, and no translation."""
QUERIES = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1]
PASSAGES = [0, 1, 2, 3, 4, 4, 6, 7, 8, 0, 10]
NEGATIVES = [7, 20, 21, 22, 10, 24, 24, 27, 28, 29, 30, 0]


def vectors(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def reference(seed=9, dimension=E):
    """Unit vectors of all texts by a model that embeds in another dimension."""
    counts = (B, B, len(NEGATIVE_OWNERS), len(TRANSLATION_OWNERS))
    return Reference(*(normalize(vectors(seed + i, n, dimension), dim=1) for i, n in enumerate(counts)))


def kept_scores(seed=19):
    return Scores(vectors(seed, B), vectors(seed + 1, len(NEGATIVE_OWNERS)))


class Sample:
    """The batch: leaves that require gradients, and what is known of them."""

    def __init__(self, with_queries=True, references=None, scale=10.0):
        counts = {"q": B, "p": B, "n": len(NEGATIVE_OWNERS), "t": len(TRANSLATION_OWNERS), "u": len(QUERY_OWNERS)}
        if not with_queries:
            counts["u"] = 0
        self.leaves = {name: vectors(i, n, D).requires_grad_() for i, (name, n) in enumerate(counts.items())}
        self.leaves["scale"] = torch.tensor([scale]).requires_grad_()
        self.owners = Owners(*map(torch.tensor, (NEGATIVE_OWNERS, TRANSLATION_OWNERS, QUERY_OWNERS[: counts["u"]])))
        translated = [PASSAGES[owner] for owner in TRANSLATION_OWNERS]
        self.ids = PairIds(torch.tensor(QUERIES), torch.tensor(PASSAGES + NEGATIVES + translated))
        self.references = references or References()

    def whole(self):
        """As the plain computation takes it."""
        unit = {name: normalize(x, dim=1) for name, x in self.leaves.items() if name != "scale"}
        candidates = torch.cat([unit["p"], unit["n"], unit["t"]])
        ids = self.ids.query_B, self.ids.candidate_C
        return WholeBatch(unit["q"], candidates, unit["u"], self.leaves["scale"], *ids, self.owners, self.references)

    def loss(self, config, group=None, weights=None):
        """A rank's part of the loss, by the code that trains."""
        group = group or SingleProcess()
        pairs = shard_sizes(B, group.world_size)
        bounds = [sum(pairs[:r]) for r in range(group.world_size + 1)]
        owners = {"n": self.owners.negative_M, "t": self.owners.translation_K, "u": self.owners.query_O}
        cuts = {name: torch.searchsorted(x, torch.tensor(bounds)).tolist() for name, x in owners.items()}
        cuts |= {"q": bounds, "p": bounds}
        own = {name: slice(*cut[group.rank : group.rank + 2]) for name, cut in cuts.items()}
        sizes = {name: [stop - start for start, stop in itertools.pairwise(cut)] for name, cut in cuts.items()}
        unit = {name: normalize(self.leaves[name][own[name]], dim=1) for name in own}
        u_oD = unit["u"] if sum(sizes["u"]) else None
        embedded = Embedded(unit["q"], unit["p"], unit["n"], self.leaves["scale"], unit["t"], u_oD)
        everyone = Sizes(pairs, sizes["n"], sizes["t"], sizes["u"] if sum(sizes["u"]) else ())
        references = References(*(of_rank(x, own) for x in (self.references.guide, self.references.teacher)))
        return batch_loss(embedded, everyone, group, config, self.ids, self.owners, references, weights)


def of_rank(known, own):
    """The part of a guide or teacher that a rank is given."""
    if isinstance(known, Reference):
        parts = (known.q_bE, "q"), (known.p_bE, "p"), (known.n_mE, "n"), (known.t_kE, "t")
        return Reference(*(x[own[name]] for x, name in parts))
    return known and Scores(known.positive_b[own["p"]], known.negative_m[own["n"]])


def of_scores(s_BC, g_BC=None, t_BC=None, **settings):
    """The loss of pairs, without anything they bring along, whose cosines are given: by student, guide and teacher."""
    given = [None if x is None else Reference(torch.eye(len(s_BC)), torch.tensor(x).T) for x in (g_BC, t_BC)]
    s_BB = torch.tensor(s_BC)
    own = Embedded(torch.eye(len(s_BB)), s_BB.T.contiguous(), s_BB[:0])
    sizes, settings = Sizes([len(s_BB)], [0]), {"temperature": 0.1, **settings}
    return batch_loss(own, sizes, SingleProcess(), LossConfig(**settings), None, None, References(*given))
