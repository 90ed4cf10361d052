"""The model card: what a saved model is, how it was trained, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hbtrain.config.batching import Shares, SwitchingConfig, ratio
from hbtrain.reporting.table import markdown, markdown_text, table_of
from hbtrain.storage import write_text

_UNKNOWN = "unknown"
RUN = "hbtrain_run"  # name in a published card's YAML of the run that it is of
AVERAGED = "average_with_initial"  # name in the card's YAML of the share of the weights before training


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model's training. The card calls unknown what is None or empty."""

    base_model: str | None = None
    """A name on the hub or a path; `static` or `transformer` if training began with random weights."""
    languages: tuple[str, ...] = ()  # training languages, as language tags
    sources: Mapping[str, int] = field(default_factory=dict)  # rows of each training source
    # {source: (repositories of the hub that its data come from, where they come from in words)}
    data_sets: Mapping[str, tuple[Sequence[str], str]] = field(default_factory=dict)
    mode: str | None = None
    alpha: float | Mapping[int, float] | None = None
    """Probability of a monolingual batch, or its points {step: probability}."""
    mixture: Mapping[int, Shares] | None = None
    """Points {step: {kind: probability}} of the kinds of batches, instead of mode and alpha."""
    switching: SwitchingConfig | None = None  # how words of `switched` batches were replaced; None: there were none
    global_batch_size: int | None = None
    steps: int | None = None
    temperature: float | None = None
    average: float | None = None  # decay of the moving average over the steps that the weights are; None: they are none
    objectives: Mapping[str, object] = field(default_factory=dict)  # {key of the loss: value} of what is beside InfoNCE
    average_with_initial: float = 0.0  # the share of the weights before training in these
    merged_from: str | None = None  # of which models' weights these are the sum, in words; None: they were trained
    scores: Mapping[str, float] = field(default_factory=dict)
    """Scores under their full names, such as `xquad-r/multi/map`."""
    version: str | None = None  # version of hbtrain

    def render(self, *, query_prefix: str, passage_prefix: str, dimension: int, max_tokens: int | None) -> str:
        """The text of README.md, with its YAML front matter."""
        parts = [
            f"---\n{yaml.safe_dump(self._front_matter(), sort_keys=False, allow_unicode=True)}---",
            "# Retriever",
            f"Maps queries and passages to unit vectors of {dimension} dimensions: their dot product is their cosine "
            "similarity.",
            "## Usage",
            _USAGE,
            f"The prompts stored with the model are {markdown_text(repr(query_prefix))} before a query and "
            f"{markdown_text(repr(passage_prefix))} before a passage. {_limit(max_tokens)}",
            "## Training",
            _table(("what", "value"), self._training_rows()),
            "## Evaluation",
            self._evaluation(),
            "## Limits",
            "Nothing is known about languages and domains other than those above. Biases of the training texts and of "
            f"the base model carry over. {_NO_LICENCE}",
        ]
        return "\n\n".join(parts) + "\n"

    def _front_matter(self) -> dict[str, object]:
        front: dict[str, object] = {"library_name": "sentence-transformers", "pipeline_tag": "sentence-similarity"}
        if self.languages:
            met = self.switching.pairs if self.switching is not None else ()
            front["language"] = list(dict.fromkeys([*self.languages, *(language for _, language in met)]))
        if self._base_is_on_hub():
            front["base_model"] = self.base_model
        if repositories := [name for names, _ in self.data_sets.values() for name in names]:
            front["datasets"] = list(dict.fromkeys(repositories))
        if self.average_with_initial:
            front[AVERAGED] = self.average_with_initial
        front["tags"] = ["sentence-transformers", "sentence-similarity", "feature-extraction", "hbtrain"]
        return front

    def _base_is_on_hub(self) -> bool:
        """Whether the base model's name looks like one of the hub, which is what `base_model` must be."""
        return self.base_model is not None and self.base_model.count("/") == 1 and self.base_model[0] not in "./~"

    def _training_rows(self) -> list[tuple[str, str]]:
        base = self.base_model
        if self.merged_from is not None:
            return [
                ("weights", self.merged_from),
                ("languages", ", ".join(self.languages) or _UNKNOWN),
                ("software", f"hbtrain {self.version or '(version unknown)'}"),
            ]
        if base in ("static", "transformer"):
            base = f"none: random weights ({base})"
        return [
            ("base model", base or _UNKNOWN),
            ("languages", ", ".join(self.languages) or _UNKNOWN),
            ("sources (rows)", ", ".join(f"{name} ({rows:,})" for name, rows in self.sources.items()) or _UNKNOWN),
            *((f"data of {name}", words) for name, (_, words) in self.data_sets.items()),
            *self._kinds(),
            ("global batch size", _known(self.global_batch_size)),
            ("steps", _known(self.steps)),
            ("loss", f"InfoNCE over the global batch, temperature {_known(self.temperature)}"),
            *((f"loss.{key}", str(value)) for key, value in self.objectives.items()),
            *self._weights(),
            ("software", f"hbtrain {self.version or '(version unknown)'}"),
        ]

    def _weights(self) -> list[tuple[str, str]]:
        share, trained = self.average_with_initial, "the trained ones"
        if self.average is not None:
            trained = f"the moving average of the trained ones over the steps (decay {self.average:g})"
        if share:
            return [("weights", f"{share:g} × those before training + {1 - share:g} × {trained}")]
        return [] if self.average is None else [("weights", trained)]

    def _kinds(self) -> list[tuple[str, str]]:
        if self.mixture is None:
            alpha = _by_step(self.alpha) if isinstance(self.alpha, Mapping) else _known(self.alpha)
            return [("batches", self.mode or _UNKNOWN), ("alpha (probability of a monolingual batch)", alpha)]
        ratios = {step: ratio(shares) for step, shares in self.mixture.items()}
        told = _by_step(ratios) if len(ratios) > 1 else next(iter(ratios.values()))
        rows = [("batches", "mixture"), ("mixture (probability of each kind of batch)", told)]
        if self.switching is not None:
            sides = {"query": "queries", "passage": "passages", "both": "queries and passages"}[self.switching.side]
            pairs = ", ".join(f"{one} to {other}" for one, other in self.switching.pairs)
            known = f"{self.switching.share:.0%} of the words of {sides} that lexicons know ({pairs})"
            rows.append(("words replaced by translations in switched batches", known))
        return rows

    def _evaluation(self) -> str:
        return _scores(self.scores) if self.scores else "No scores were recorded with this model."


def add_scores(folder: Path, scores: Mapping[str, float]) -> None:
    """Replace the scores in the card of a saved model; does nothing if the folder has no card."""
    readme = folder / "README.md"
    if not readme.exists():
        return
    before, heading, rest = readme.read_text(encoding="utf-8").partition("## Evaluation\n")
    if heading:
        _, limits, after = rest.partition("## Limits\n")
        write_text(readme, f"{before}{heading}\n{_scores(scores)}\n\n{limits}{after}")


def published(
    text: str,
    repository: str,
    *,
    run: str,
    results: Sequence[Any],
    data: Mapping[str, str],
    batch_plan: str | None,
    licence: str | None,
) -> str:
    """The card of a model that goes to the hub.

    Args:
        text: of the card in its folder.
        repository: `ORG/NAME`, from which others load it.
        run: name of the run's folder.
        results: `huggingface_hub.EvalResult`, of which the card's model-index is made.
        data: {source: licence} of the data that it was trained on, as far as they are known.
        batch_plan: fingerprint of the first batches; None: not known.
        licence: of the model, as the hub writes it; None: none is claimed.
    """
    from huggingface_hub import ModelCard as HubCard

    card = HubCard(text)
    card.data.model_name = repository.partition("/")[2]
    card.data.eval_results = list(results) or None
    if licence is not None:
        card.data.license = licence
    card.data[RUN] = run
    facts = [
        *((f"licence of {name}", licence_of_data) for name, licence_of_data in data.items()),
        ("batch plan (fingerprint of the first 16 batches)", batch_plan or _UNKNOWN),
        ("run", run),
    ]
    claimed = f"Its licence is {licence}; those of its base model and of its training data hold as well."
    training, heading, rest = card.text.partition("## Evaluation\n")
    _, _, *rows = _table(("what", "value"), facts).splitlines()  # of the table at the section's end
    body = "\n".join([training.rstrip(), *rows, "", f"{heading}{rest}"])
    body = body.replace(_FOLDER, repository).replace("# Retriever\n", f"# {card.data.model_name}\n", 1)
    body = body if licence is None else body.replace(_NO_LICENCE, claimed)
    return f"---\n{card.data.to_yaml()}\n---\n{body}"


def trained_languages(folder: Path) -> tuple[str, ...] | None:
    """The languages that a model has seen in training, also in translations of single words, from its card; None if
    hbtrain did not write the card, or if it has no languages, as before training."""
    languages = _own_front_matter(folder).get("language")
    return tuple(map(str, languages)) if isinstance(languages, list) else None


def average_with_initial(folder: Path) -> float:
    """The share of the weights before training in those of a model, from its card; 0 if it tells of none."""
    share = _own_front_matter(folder).get(AVERAGED)
    return float(share) if isinstance(share, int | float) else 0.0


def _own_front_matter(folder: Path) -> dict[str, Any]:
    """The YAML at the head of a model's card; empty if hbtrain did not write it."""
    try:
        _, front, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
        known = yaml.safe_load(front)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return known if isinstance(known, dict) and "hbtrain" in (known.get("tags") or ()) else {}


_FOLDER = "path/to/this/folder"  # what stands for it in the example
_NO_LICENCE = (
    "No licence is claimed for this model: the licences of its base model and of its training data decide how it may "
    "be used."
)
_USAGE = f"""```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{_FOLDER}")
queries = model.encode(["Where does the Danube rise?"], prompt_name="query")
passages = model.encode(
    ["Die Donau entspringt im Schwarzwald.", "Le Rhin prend sa source dans les Alpes."], prompt_name="passage"
)
scores = queries @ passages.T  # cosine similarities, one row a query
```"""


def _scores(scores: Mapping[str, float]) -> str:
    return _table(("score", "value"), [(name, f"{value:.4f}") for name, value in scores.items()])


def _known(value: object) -> str:
    return _UNKNOWN if value is None else str(value)


def _by_step(points: Mapping[int, object]) -> str:
    return ", ".join(f"{value} at step {step}" for step, value in sorted(points.items())) + "; linear in between"


def _limit(max_tokens: int | None) -> str:
    if max_tokens is None:
        return "Texts of any length are read whole."
    return f"Texts are cut to {max_tokens} tokens, the prompt included."


def _table(header: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    return markdown(table_of("", header, rows, labels=2))
