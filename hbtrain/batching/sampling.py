"""Weights of sources and languages: what, beside their sizes, decides how often they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hbtrain.config.schema import BatchingConfig
from hbtrain.corpus.index import SourceIndex
from hbtrain.errors import ConfigError, DataError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sampling:
    """`batching.source_weights`, `batching.language_weights` and the temperatures, for given training languages.

    Attributes:
        languages: the training languages, those of weight 0 left out; codes are places in this tuple.
        language_weights: float64 [L], positive.
        source_weights: by name; a source that is not named has weight 1.
        language_temperature: of monolingual batches; None: languages are drawn by their weights alone.
        pair_temperature: of pairs that are drawn row by row or batch by batch; None is 1: by size.
    """

    languages: tuple[str, ...]
    language_weights: Floats
    source_weights: Mapping[str, float]
    language_temperature: float | None = None
    pair_temperature: float | None = None

    @classmethod
    def of(cls, batching: BatchingConfig, languages: Sequence[str]) -> Sampling:
        """The sampling of a configuration whose training languages are `languages`, weights of 0 included.

        Raises:
            ConfigError: a weight of a language that is not trained; no language is left, or not English where the mode
                needs it.
        """
        for language in batching.language_weights:
            if language not in languages:
                raise ConfigError(
                    f"batching.language_weights: {language!r} is not among the training languages "
                    f"{', '.join(languages)}"
                )
        weights = {language: batching.language_weights.get(language, 1.0) for language in languages}
        left = tuple(language for language, weight in weights.items() if weight > 0)
        if not left:
            raise ConfigError("batching.language_weights: every training language has weight 0; raise one")
        if batching.mode == "english":
            if "en" not in left:
                raise ConfigError(f"batching.mode = 'english' needs en among the training languages {', '.join(left)}")
            left = ("en",)
        return cls(
            languages=left,
            language_weights=np.array([weights[language] for language in left]),
            source_weights=batching.source_weights,
            language_temperature=batching.language_temperature,
            pair_temperature=batching.pair_temperature,
        )

    def source_weight(self, name: str) -> float:
        """How much each row of a source counts."""
        return self.source_weights.get(name, 1.0)

    def language_shares(self, sizes: Mapping[int, float]) -> dict[int, float]:
        """Probability of each language of monolingual batches.

        Args:
            sizes: {code: weighted pairs in that language}.
        """
        power = 0.0 if self.language_temperature is None else 1.0 / self.language_temperature
        share = {code: size**power * float(self.language_weights[code]) for code, size in sizes.items()}
        total = sum(share.values())
        return {code: one / total for code, one in share.items()}

    def pair_weights(self, sizes: Floats) -> Floats | None:
        """float64 [L, L]: the weight of a pair (query language, passage language); None where all weigh the same.

        A pair weighs as much as its query's and its passage's language together, times size^(1/temperature - 1): as
        there are `size` rows that offer it, it is drawn in proportion to size^(1/temperature). A pair (x, x) has one
        language, which counts once.

        Args:
            sizes: weighted rows that offer each pair.
        """
        tempered = self.pair_temperature not in (None, 1.0)
        if not tempered and (self.language_weights == self.language_weights[0]).all():
            return None
        weights = np.outer(self.language_weights, self.language_weights)
        np.fill_diagonal(weights, self.language_weights)
        if tempered and self.pair_temperature is not None:
            offered = sizes > 0
            weights[offered] *= (sizes[offered] / sizes.max()) ** (1.0 / self.pair_temperature - 1.0)
        return np.maximum(weights, np.finfo(np.float64).tiny)  # however small, never never


def weighted_sources(sources: Sequence[SourceIndex], weights: Mapping[str, float]) -> list[SourceIndex]:
    """The sources of a weight above 0.

    Raises:
        ConfigError: a weight of a source that there is not.
        DataError: no source is left.
    """
    names = [source.name for source in sources]
    for name in weights:
        if name not in names:
            raise ConfigError(f"batching.source_weights: no source is called {name!r}; they are {', '.join(names)}")
    left = [source for source in sources if weights.get(source.name, 1.0) > 0]
    if not left:
        raise DataError("batching.source_weights: every source has weight 0; raise one")
    return left
