"""The section `batching`: which kinds of batches there are, how often each is drawn, and how languages are."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from hbtrain.config.section import Float, Fraction, NonNegativeInt, PositiveInt, Section, Weight

SamplingTemperature = Annotated[Float, Field(ge=0.05)]

Mode = Literal["hybrid", "monolingual", "cross-lingual", "multilingual", "english"]

Kind = Literal["mono", "cross", "multi", "switched"]
"""A kind of batch: in one language; pairs of two languages; pairs of one language each, languages mixed; in one
language, with words replaced by translations."""
KINDS: tuple[Kind, ...] = get_args(Kind)
"""All kinds, in the order in which one uniform number decides between them: a new kind stands at the end."""

Shares = dict[Kind, float]  # {kind: probability}, which sum to 1

SINGLE_KIND: dict[str, Kind] = {
    "monolingual": "mono",
    "english": "mono",
    "cross-lingual": "cross",
    "multilingual": "multi",
}
"""The kind of all batches, by mode; in the mode `hybrid`, alpha or a mixture decides."""


def read_mixture(value: Any) -> Any:
    """A mixture as it was written, checked: {kind: weight}, or points {step: {kind: weight}}; None stays None.

    Raises:
        ValueError: it is neither, or a kind, a step or a weight is not allowed.
    """
    if value is None:
        return None
    forms = "give weights {kind: weight}, or points {step: {kind: weight}} joined by straight lines"
    if not isinstance(value, Mapping) or not value:
        raise ValueError(forms)
    is_point = [isinstance(weights, Mapping) for weights in value.values()]
    if not any(is_point):
        return _weights(value, "")
    if not all(is_point):
        raise ValueError(f"it has weights of kinds beside points; {forms}")
    points: dict[int, dict[Kind, float]] = {}
    for written, weights in value.items():
        step = int(written) if str(written).isascii() and str(written).isdigit() else None
        if step is None:
            raise ValueError(f"{written!r} is no step; {forms}, where a step is 0 or more")
        if step in points:
            raise ValueError(f"step {step} stands there twice, and only one of them would count; leave one out")
        points[step] = _weights(weights, f" at step {step}")
    return points


def _weights(weights: Mapping[Any, Any], where: str) -> dict[Kind, float]:
    checked: dict[Kind, float] = {}
    for kind, weight in weights.items():
        if kind not in KINDS:
            raise ValueError(f"{kind!r}{where} is no kind of batch; they are {', '.join(KINDS)}")
        number = _weight(weight)
        if number is None:
            raise ValueError(f"the weight of {kind}{where} is {weight!r}; it must be a number, 0 or more")
        checked[kind] = number
    if not 0 < sum(checked.values()) < float("inf"):
        raise ValueError(f"the weights{where} add up to {sum(checked.values()):g}; one at least must be above 0")
    return checked


def _weight(value: Any) -> float | None:
    """A weight as a number, also one that YAML takes for a text, such as 1e-3; None if it is none."""
    try:
        number = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):  # OverflowError: an integer of hundreds of digits
        return None
    return number if number is not None and isfinite(number) and number >= 0 else None


Mixture = Annotated[dict[Kind, float] | dict[int, dict[Kind, float]] | None, BeforeValidator(read_mixture)]


def mixture_points(mixture: Mapping[Any, Any]) -> dict[int, Shares]:
    """The points {step: {kind: probability}} of a mixture that `read_mixture` has checked, in the order of steps; a
    constant one has a single point, at step 0."""
    points = mixture if any(isinstance(weights, Mapping) for weights in mixture.values()) else {0: mixture}
    return {
        step: {kind: weights[kind] / sum(weights.values()) for kind in KINDS if weights.get(kind, 0.0) > 0}
        for step, weights in sorted(points.items())
    }


def ratio(shares: Shares) -> str:
    """Probabilities of kinds for labels and tables: `0.4 mono : 0.4 cross : 0.2 multi`."""
    return " : ".join(f"{share:.4g} {kind}" for kind, share in shares.items())


class SwitchingConfig(Section):
    """Batches of the kind `switched`, in which words are replaced by translations (arXiv 2305.05295)."""

    share: Fraction = 0.5
    """Probability that a word which the lexicons know is replaced."""
    side: Literal["query", "passage", "both"] = "query"
    """Whose words are replaced; hard negatives go with passages."""
    lexicons: dict[str, str] = Field({})
    """{pair of languages: file}, such as {en-de: en-de.txt} for English words and their translations into German: on
    each line a word, a tab or blank, a translation (MUSE's form), plain or .gz; or FreeDict's .dict.dz; as a path or
    URI."""

    @field_validator("lexicons")
    @classmethod
    def _for_one_pair_each(cls, value: dict[str, str]) -> dict[str, str]:
        pairs = [language_pair(name) for name in value]
        for name, pair in zip(value, pairs, strict=True):
            if pairs.count(pair) > 1:
                raise ValueError(f"two lexicons lead from {pair[0]!r} to {pair[1]!r}; join their files ({name})")
        return value

    @property
    def pairs(self) -> dict[tuple[str, str], str]:
        """{(language of the words, language of the translations): file}."""
        return {language_pair(name): file for name, file in self.lexicons.items()}


def language_pair(name: str) -> tuple[str, str]:
    """(language of the words, language of their translations) of a lexicon's name. Raises ValueError."""
    parts = name.split(":" if ":" in name else "-")
    if len(parts) != 2 or not all(parts) or parts[0] == parts[1]:
        raise ValueError(
            f"{name!r} is no pair of languages; name lexicons by two languages, from and to, such as en-de, or "
            "en:pt-BR where one has a hyphen"
        )
    return parts[0], parts[1]


class BatchingConfig(Section):
    """How global batches are made (arXiv 2408.10536, section 3)."""

    mode: Mode = "hybrid"
    """Which kinds of batches there are: hybrid has monolingual and cross-lingual ones, by alpha or a mixture;
    monolingual, cross-lingual and multilingual have one kind; english has monolingual ones in English."""
    alpha: Fraction | dict[NonNegativeInt, Fraction] = 0.5
    """Probability that a batch is monolingual, or points {step: probability} joined by straight lines."""
    mixture: Mixture = None
    """Weights {kind: weight} of the kinds of batches (`mono`, `cross`, `multi`, `switched`), or points {step: {kind:
    weight}} that straight lines join; none means that mode and alpha decide."""
    switching: SwitchingConfig = SwitchingConfig()
    global_batch_size: PositiveInt = 256
    """Pairs of a step, of all workers together."""
    language_temperature: SamplingTemperature | None = None
    """Languages of monolingual batches are drawn in proportion to pairs^(1/temperature); none means uniformly."""
    pair_temperature: SamplingTemperature | None = None
    """Pairs (x, y) of cross-lingual batches, and languages of multilingual ones, are drawn in proportion to
    size^(1/temperature); none is 1, by size; a million is uniformly."""
    language_weights: dict[str, Weight] = Field({})
    """{language: factor} of how often a language is drawn; 1 for those not named, 0 leaves one out."""
    source_weights: dict[str, Weight] = Field({})
    """{source: factor} of how much each row of a source counts; 1 for those not named, 0 leaves one out."""
    cross_languages: Literal["pair", "batch"] = "pair"
    """Whether each pair of a cross-lingual batch draws its own (x, y), or one (x, y) serves the whole batch."""

    @field_validator("alpha")
    @classmethod
    def _has_points(cls, value: float | dict[int, float]) -> float | dict[int, float]:
        if isinstance(value, dict) and not value:
            raise ValueError("a schedule needs at least one point {step: probability}")
        return value

    @model_validator(mode="after")
    def _one_decides(self) -> BatchingConfig:
        for key in ("mode", "alpha"):
            value = getattr(self, key)
            if self.mixture is not None and value != type(self).model_fields[key].default:
                raise ValueError(
                    f"mixture and {key} = {value} both decide the kinds of batches; leave one out "
                    "(--batching.mixture null leaves out a recipe's)"
                )
        if "switched" in self.kinds and not self.switching.lexicons:
            raise ValueError(
                "mixture has switched batches, whose translations come from bilingual lexicons; give "
                "batching.switching.lexicons, such as {en-de: en-de.txt}, or leave switched out"
            )
        return self

    @property
    def kind_points(self) -> dict[int, Shares]:
        """Points {step: {kind: probability}}, in the order of steps, of how often each kind of batch is drawn.

        Between points there are straight lines; before the first and after the last the probabilities are constant. A
        kind that is left out has probability 0.
        """
        if self.mixture is not None:
            return mixture_points(self.mixture)
        if self.mode in SINGLE_KIND:
            return {0: {SINGLE_KIND[self.mode]: 1.0}}
        alphas = self.alpha if isinstance(self.alpha, dict) else {0: self.alpha}
        return {step: {"mono": alpha, "cross": 1.0 - alpha} for step, alpha in sorted(alphas.items())}

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of batches that can occur, in the order of `KINDS`."""
        points = self.kind_points.values()
        return tuple(kind for kind in KINDS if any(shares.get(kind, 0.0) > 0 for shares in points))
