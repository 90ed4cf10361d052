"""The section `loss` of a configuration: the terms of the loss, and what a guide, a teacher and translations add to it.

docs/training.md says when to use what; `hbtrain.modeling.objectives` has the formulas and their sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import isfinite
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from hbtrain.config.section import Float, NonNegativeInt, PositiveFloat, PositiveInt, Section, Weight

Term = Literal[
    "contrastive",
    "teacher_kl",
    "teacher_margin",
    "teacher_mse",
    "teacher_cosine",
    "jensen_shannon",
    "reversed",
    "bridge",
]
"""A term of the loss, by the name that it has in `loss.terms` and, after `train/`, in MLflow."""
TERMS: tuple[Term, ...] = get_args(Term)

TEACHER_TERMS: tuple[Term, ...] = ("teacher_kl", "teacher_margin", "teacher_mse", "teacher_cosine")
VECTOR_TERMS: tuple[Term, ...] = ("teacher_mse", "teacher_cosine")
"""Terms of the teacher's vectors, which must have the student's dimension; the other two need scores only."""
QUERY_TERMS: tuple[Term, ...] = ("jensen_shannon", "reversed", "bridge")
"""Terms that need the query of a pair in another language as well."""

TEMPERED_TERMS: tuple[Term, ...] = ("contrastive", "teacher_kl", *QUERY_TERMS)
"""Terms with a softmax over the student's scores."""

SCORES = "scores"
"""As a guide or teacher: the scores that are kept with the rows of the data, instead of a model."""

Weights = dict[Term, float]  # {term: its weight at a step}
TermWeights = dict[Term, float | dict[int, float]]  # {term: weight, or points {step: weight}}


UNLESS_GIVEN: TermWeights = {"contrastive": 1.0}
"""Weights of terms that `loss.terms` says nothing of; all others have none."""


def read_terms(value: Any) -> Any:
    """The weights of terms as they were written, checked: {term: weight}, or {term: {step: weight}}.

    Raises:
        ValueError: it is neither, or a term, a step or a weight is not allowed.
    """
    forms = "give weights {term: weight}, or {term: {step: weight}}, whose points are joined by straight lines"
    given = value.items() if isinstance(value, Mapping) else None
    if given is None:
        raise ValueError(forms)
    terms: TermWeights = {}
    for term, written in given:
        if term not in TERMS:
            raise ValueError(f"{term!r} is no term of the loss; they are {', '.join(TERMS)}")
        if not isinstance(written, Mapping):
            terms[term] = _weight(written, term)
            continue
        points: dict[int, float] = {}
        for at, weight in written.items():
            if not (str(at).isascii() and str(at).isdigit()):
                raise ValueError(f"{at!r} of {term} is no step; {forms}, where a step is 0 or more")
            if int(at) in points:
                raise ValueError(f"step {int(at)} of {term} stands there twice; leave one out")
            points[int(at)] = _weight(weight, f"{term} at step {int(at)}")
        if not points:
            raise ValueError(f"{term} has no point; {forms}")
        terms[term] = points
    if not any(max(_points(weight).values()) > 0 for weight in (UNLESS_GIVEN | terms).values()):
        raise ValueError("all terms have weight 0; one at least must be above 0")
    return terms


def _weight(value: Any, of: str) -> float:
    """A weight as a number, also one that YAML takes for a text, such as 1e-3."""
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):  # OverflowError: an integer of hundreds of digits
        number = float("nan")
    if not isfinite(number) or number < 0:
        raise ValueError(f"the weight of {of} is {value!r}; it must be a number, 0 or more")
    return number


def _points(weight: float | dict[int, float]) -> dict[int, float]:
    """{step: weight}, in the order of steps; a constant weight has one point."""
    return dict(sorted(weight.items())) if isinstance(weight, dict) else {0: weight}


class LossConfig(Section):
    """The loss: InfoNCE, with the passages of the whole global batch as candidates of every query, and other terms."""

    temperature: PositiveFloat = 0.05
    """Cosines are divided by it before the softmax; smaller is stricter with the hardest negatives."""
    learn_temperature: bool = False
    """Train the temperature along with the encoder; `temperature` is where it starts."""
    symmetric: bool = False
    """Also score passages against queries, and take the mean of both directions."""
    hard_negatives: NonNegativeInt = 0
    """Hard negatives of its row that each pair adds, in the language of its passage, as candidates of every query."""
    matryoshka_dimensions: tuple[PositiveInt, ...] = ()
    """Prefixes of the embedding that are trained to serve alone (arXiv 2205.13147); the loss is the mean over them
    and the whole."""
    block_rows: PositiveInt = 512
    """Rows of the score matrix that exist at one time; memory grows with block_rows x global_batch_size."""
    terms: Annotated[TermWeights, BeforeValidator(read_terms)] = Field({})
    """{term: weight} or {term: {step: weight}}, straight lines between steps; the loss is the sum of weight x term.
    Terms: contrastive (1 unless given), teacher_kl, teacher_margin, teacher_mse, teacher_cosine, jensen_shannon,
    reversed, bridge."""
    guide: str | None = None
    """A model by name or folder, or `scores` for those kept with the rows: a candidate that it scores above the
    positive less the margin is no negative (arXiv 2402.16829)."""
    guide_margin: Float = 0.0
    """How far below the positive's score, by the guide, a candidate must be to stay a negative."""
    guide_relative: bool = False
    """Whether `guide_margin` is a share of the size of the positive's score; else it is a difference of scores."""
    guide_language: str | None = None
    """A language such as `en`: the guide reads the translation of each text in it, where the row has one."""
    teacher: str | None = None
    """A model by name or folder, or `scores` for those kept with the rows, that the terms named after it learn from."""
    teacher_temperature: PositiveFloat | None = None
    """Of the softmax over the teacher's scores, in teacher_kl; by default that of the student, `temperature`."""
    teacher_scale: PositiveFloat = 1.0
    """What the teacher's scores are multiplied by in teacher_margin: a student's cosines cannot follow a
    cross-encoder's logits."""
    teacher_language: str | None = None
    """A language such as `en`, where the teacher knows no other: it reads the translation of each text in it, which
    every row must have."""
    positives: Literal["own", "translations"] = "own"
    """translations: candidates of the batch that are the passage of a pair in another language are positives too;
    own: they are left out."""
    positives_form: Literal["out", "in"] = "out"
    """Whether the mean over several positives is taken outside the logarithm, which pulls all of them alike, or inside
    (arXiv 2004.11362)."""
    translations: NonNegativeInt = 0
    """Passages of its row in other languages that each pair brings along as candidates of every query."""
    hardness: Weight = 0.0
    """Each negative's part of the softmax is multiplied by exp(hardness x its cosine), which is held fixed
    (arXiv 2503.04812)."""
    hardness_of: Literal["all", "in_batch", "hard_negatives"] = "all"
    """Which negatives `hardness` is for: hard_negatives are a pair's own ones, in_batch all others."""

    @property
    def term_points(self) -> dict[Term, dict[int, float]]:
        """{term: {step: weight}} of the terms that have a weight above 0 at some step, in the order of terms and steps.

        Between points there are straight lines; before the first and after the last the weight is constant.
        """
        terms = UNLESS_GIVEN | self.terms
        points = {term: _points(terms[term]) for term in TERMS if term in terms}
        return {term: of_term for term, of_term in points.items() if max(of_term.values()) > 0}

    @property
    def is_plain(self) -> bool:
        """Whether InfoNCE is the whole loss at every step, so that its term is not told apart from it."""
        return self.term_points == {"contrastive": {0: 1.0}}

    @property
    def active_terms(self) -> tuple[Term, ...]:
        """The terms that have a weight above 0 at some step, in the order of `TERMS`."""
        return tuple(self.term_points)

    def weights(self, step: int) -> Weights:
        """{term: weight} of the active terms at a step."""
        return {term: _between(points, step) for term, points in self.term_points.items()}

    @property
    def needs_translated_queries(self) -> bool:
        """Whether a term needs the query of each pair in another language."""
        return any(term in QUERY_TERMS for term in self.active_terms)

    @property
    def plain(self) -> LossConfig:
        """The same with InfoNCE as the only term, of a pair's own positive, without guide and hardness: what validation
        measures, for its batches have no teacher, and so that runs with other objectives can be compared."""
        return LossConfig(
            temperature=self.temperature,
            learn_temperature=self.learn_temperature,
            symmetric=self.symmetric,
            hard_negatives=self.hard_negatives,
            matryoshka_dimensions=self.matryoshka_dimensions,
            block_rows=self.block_rows,
        )

    @property
    def beside_plain(self) -> dict[str, Any]:
        """{key: value} of what makes this loss another than the plain one."""
        plain = self.plain.model_dump(mode="json")
        return {key: value for key, value in self.model_dump(mode="json").items() if value != plain[key]}

    @model_validator(mode="after")
    def _guide_fits(self) -> LossConfig:
        if self.guide is None:
            if self.guide_margin or self.guide_relative or self.guide_language is not None:
                raise ValueError("loss.guide_margin, guide_relative and guide_language need loss.guide")
            return self
        if self.guide == SCORES and self.guide_language is not None:
            raise ValueError("loss.guide_language is for a model as guide; scores of rows are of one text each")
        if self.guide == SCORES and not self.hard_negatives:
            raise ValueError(
                "loss.guide scores drops hard negatives by the scores of their rows; set loss.hard_negatives, or give "
                "a model as loss.guide"
            )
        largest = 1.0 if self.guide_relative else 2.0
        if abs(self.guide_margin) > largest and (self.guide_relative or self.guide != SCORES):
            what = "a share of the positive's score" if self.guide_relative else "a difference of cosines"
            raise ValueError(
                f"loss.guide_margin {self.guide_margin:g} is {what}; it must be between -{largest:g} and {largest:g}"
            )
        return self

    @model_validator(mode="after")
    def _teacher_fits(self) -> LossConfig:
        learning = [term for term in self.active_terms if term in TEACHER_TERMS]
        if self.teacher is None:
            if learning:
                raise ValueError(f"loss.terms has {learning[0]}, which needs a model, or scores, in loss.teacher")
            if self.teacher_temperature is not None or self.teacher_scale != 1.0 or self.teacher_language is not None:
                raise ValueError(
                    "loss.teacher_temperature, teacher_scale and teacher_language need a model, or scores, in "
                    "loss.teacher"
                )
            return self
        if not any(term in TEACHER_TERMS for term in self.terms):
            raise ValueError(
                f"loss.teacher {self.teacher}: no term learns from it; add one to loss.terms, such as "
                "{teacher_kl: 1.0}, or leave it out"
            )
        if self.teacher == SCORES:
            vectors = [term for term in learning if term in VECTOR_TERMS]
            if vectors:
                raise ValueError(
                    f"loss.terms has {vectors[0]}, which needs a teacher's vectors: a model as loss.teacher"
                )
            if self.teacher_language is not None:
                raise ValueError("loss.teacher_language is for a model as teacher; scores of rows are of one text each")
            if not self.hard_negatives:
                raise ValueError(
                    "loss.teacher scores is of each row's passage and hard negatives; set loss.hard_negatives, or give "
                    "a model as loss.teacher"
                )
        return self

    @model_validator(mode="after")
    def _candidates_fit(self) -> LossConfig:
        if self.hardness and self.hardness_of == "hard_negatives" and not self.hard_negatives:
            raise ValueError("loss.hardness_of hard_negatives needs loss.hard_negatives above 0")
        if self.learn_temperature and not any(term in TEMPERED_TERMS for term in self.active_terms):
            raise ValueError("loss.learn_temperature: no term of loss.terms has a temperature")
        if "contrastive" not in self.active_terms:
            for key, default in (("guide", None), ("hardness", 0.0), ("positives", "own"), ("symmetric", False)):
                if (value := getattr(self, key)) != default:
                    raise ValueError(f"loss.{key} {value} is for the contrastive term, which has weight 0")
        return self


def _between(points: Mapping[int, float], step: int) -> float:
    """The weight at a step, on the straight line between the points around it."""
    steps = list(points)
    if step <= steps[0]:
        return points[steps[0]]
    for left, right in pairwise(steps):
        if step <= right:
            return points[left] + (points[right] - points[left]) * (step - left) / (right - left)
    return points[steps[-1]]
