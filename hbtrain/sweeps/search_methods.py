"""How a space is searched: successive halving (ASHA), several objectives (Pareto), or a population (PBT)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from hbtrain.config import EvaluationConfig
from hbtrain.errors import ConfigError
from hbtrain.evaluation.benchmark import SETTINGS, Benchmark
from hbtrain.evaluation.metrics import metrics
from hbtrain.evaluation.scoring import cutoff

MINIMISED = {"rank_distance": "multi"}  # {metric of which lower is better: the setting that has it}

PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def _metric(objective: str) -> str:
    setting, _, metric = objective.partition("/")
    if setting not in SETTINGS or (metric not in metrics() and MINIMISED.get(metric) != setting):
        raise ValueError(
            f"an objective is written <setting>/<metric>, such as multi/map: settings are {', '.join(SETTINGS)}, "
            f"metrics {', '.join(metrics())}, and multi/rank_distance"
        )
    return objective


Objective = Annotated[str, AfterValidator(_metric)]


class _Search(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seed: Annotated[int, Field(ge=0)] = 0  # of the draws; that of the trials is the recipe's

    def stops(self, steps: int) -> tuple[int, ...]:
        """The steps after which trials are compared; the last is `steps`, the whole training.

        Raises:
            ConfigError: `steps` are too few.
        """
        return (steps,)


class _ByOneScore(_Search):
    objective: Objective = "multi/map"

    @property
    def objectives(self) -> tuple[str, ...]:
        """The objective, in the form that searches for several objectives have."""
        return (self.objective,)


class Asha(_ByOneScore):
    """A sampler (TPE) proposes values; at each rung, only the best share of the trials goes on (arXiv 1810.05934)."""

    method: Literal["asha"]
    trials: PositiveInt = 12
    rungs: PositiveInt | tuple[PositiveInt, ...] = 3
    """How many rungs, the end of training included, each after `reduction` times as many steps as the one before; or
    the steps of the rungs."""
    reduction: Annotated[float, Field(gt=1, le=100)] = 3.0  # at a rung, one of so many trials goes on

    def stops(self, steps: int) -> tuple[int, ...]:
        if isinstance(self.rungs, int):
            found = [max(1, round(steps / self.reduction**n)) for n in reversed(range(self.rungs))]
        else:
            found = [*self.rungs, *([] if self.rungs[-1:] == (steps,) else [steps])]
        if found != sorted(set(found)):
            raise ConfigError(
                f"search.rungs = {self.rungs!r}: rungs at steps {', '.join(map(str, found))} do not ascend within "
                f"training.steps = {steps}; give fewer, or more steps"
            )
        return tuple(found)


class Pareto(_Search):
    """A sampler (TPE for several objectives) proposes values, and every trial is trained in full."""

    method: Literal["pareto"]
    trials: PositiveInt = 12
    objectives: Annotated[tuple[Objective, ...], Field(min_length=2)] = (
        "mono/map",
        "cross/map",
        "multi/map",
        "multi/rank_distance",
    )

    @field_validator("objectives")
    @classmethod
    def _differ(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("an objective is listed twice")
        return value


class Pbt(_ByOneScore):
    """The members of a population train in parallel; after each interval, the worst continue the state of the best with
    another alpha or mixture (arXiv 1711.09846)."""

    method: Literal["pbt"]
    population: Annotated[int, Field(ge=2)] = 4
    intervals: Annotated[int, Field(ge=2)] = 4  # how many intervals of equal length training has
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """The share of the population that is replaced, and also the share of the best that replaces it."""
    resample: Fraction = 0.25
    """Probability that a new alpha or mixture is drawn from the whole range rather than moved by `factor`."""
    factor: Annotated[float, Field(gt=1)] = 1.2  # alpha, or a weight, is multiplied or divided by this

    def stops(self, steps: int) -> tuple[int, ...]:
        if self.intervals > steps:
            raise ConfigError(f"search.intervals = {self.intervals} are more than training.steps = {steps}")
        return tuple(round(steps * (n + 1) / self.intervals) for n in range(self.intervals))


Search = Asha | Pareto | Pbt
_ANY: TypeAdapter[Search] = TypeAdapter(Annotated[Search, Field(discriminator="method")])


def read_search(tree: Any, origin: str) -> Search:
    """Read the `search` section of a space, which `origin` names in the ConfigError where a key or a value is wrong."""
    if not isinstance(tree, Mapping):
        raise ConfigError(f"`search` of {origin} must hold keys and values, not {tree!r}")
    try:
        return _ANY.validate_python(dict(tree))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        keys = [str(part) for part in first["loc"] if part in tree]
        if first["type"].startswith("union_tag"):
            known = "asha, pareto or pbt"
            raise ConfigError(f"search.method = {tree.get('method')!r} in {origin}: must be {known}") from error
        if first["type"] == "extra_forbidden":
            methods: dict[str, type[BaseModel]] = {"asha": Asha, "pareto": Pareto, "pbt": Pbt}
            fields = methods[tree["method"]].model_fields
            raise ConfigError(
                f"unknown key search.{keys[0]} in {origin}: {tree['method']} has {', '.join(sorted(fields))}"
            ) from error
        said = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"search.{keys[0]} = {tree[keys[0]]!r} in {origin}: {said[:1].lower()}{said[1:]}") from error


def summary_of(search: Search) -> str:
    """What a sweep prints at its start: `pareto, 12 trials by mono/map, cross/map`."""
    size = f"a population of {search.population}" if isinstance(search, Pbt) else f"{search.trials} trials"
    return f"{search.method}, {size} by {', '.join(search.objectives)}"


def trials_in(search: Search) -> int:
    """How many trials, or members of a population, a search has."""
    return search.population if isinstance(search, Pbt) else search.trials


def is_minimised(objective: str) -> bool:
    """Whether lower values of an objective, `<setting>/<metric>`, are better."""
    return objective.partition("/")[2] in MINIMISED


def check_objectives(objectives: Sequence[str], benchmark: Benchmark, evaluation: EvaluationConfig) -> None:
    """Raise ConfigError for an objective that the evaluation of `benchmark` does not give."""
    for objective in objectives:
        setting, _, metric = objective.partition("/")
        if evaluation.index is not None and not 0 < cutoff(metric) <= evaluation.depth:
            raise ConfigError(
                f"the objective {objective} is not known where an index ranks (evaluation.index = "
                f"{evaluation.index!r}), which finds the first {evaluation.depth} candidates; choose one that looks no "
                f"further with --search.objective, such as {setting}/ndcg@10"
            )
        few = len(benchmark.languages) < 2 and setting == "cross"
        if setting not in benchmark.settings or few:
            raise ConfigError(
                f"the objective {objective} is not given by the benchmark {benchmark.name} (it has "
                f"{', '.join(benchmark.settings)} in {', '.join(benchmark.languages)}); choose another with "
                "--search.objective, or name another benchmark first in evaluation.benchmarks"
            )
