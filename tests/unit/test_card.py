from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from huggingface_hub import ModelCard as HubCard

from hbtrain.modeling import Encoder, ModelCard
from hbtrain.modeling.card import add_scores, average_with_initial, trained_languages
from tests.unit.tiny_models import TEXTS, encoder_config

PROPERTIES: dict[str, Any] = {
    "query_prefix": "Query: ",
    "passage_prefix": "Passage: ",
    "dimension": 16,
    "max_tokens": 20,
}
FULL = ModelCard(
    base_model="sentence-transformers/LaBSE",
    languages=("de", "no", "zh"),
    sources={"help | pages": 1234, "talks": 5},
    mode="hybrid",
    alpha=0.25,
    global_batch_size=512,
    steps=100,
    temperature=0.05,
    objectives={"guide": "some/model", "terms": {"bridge": 0.2}},
    scores={"xquad-r/multi/map": 0.123456},
    version="0.1.0",
)


def front_matter(readme: str) -> dict[str, Any]:
    assert readme.startswith("---\n")
    loaded: dict[str, Any] = yaml.safe_load(readme.split("---\n")[1])
    return loaded


def test_front_matter_is_what_hubs_read() -> None:
    readme = FULL.render(**PROPERTIES)
    front = front_matter(readme)
    assert front["library_name"] == "sentence-transformers"
    assert front["pipeline_tag"] == "sentence-similarity"
    assert front["language"] == ["de", "no", "zh"]  # not False for Norwegian
    assert front["base_model"] == "sentence-transformers/LaBSE"
    assert "license" not in front
    assert HubCard(readme).data.to_dict()["language"] == ["de", "no", "zh"]


def test_the_training_is_told() -> None:
    readme = FULL.render(**PROPERTIES)
    for fact in (
        "| base model | sentence-transformers/LaBSE |",
        "| sources (rows) | help \\| pages (1,234), talks (5) |",
        "| batches | hybrid |",
        "| alpha (probability of a monolingual batch) | 0.25 |",
        "| global batch size | 512 |",
        "| steps | 100 |",
        "temperature 0.05 |",
        "| loss.guide | some/model |",
        "| loss.terms | {'bridge': 0.2} |",
        "hbtrain 0.1.0",
        "| xquad-r/multi/map | 0.1235 |",
        "cut to 20 tokens",
        "16 dimensions",
        "No licence is claimed",
    ):
        assert fact in readme


def test_scores_can_be_added_to_a_saved_card(tmp_path: Path) -> None:
    without = replace(FULL, scores={})
    readme = tmp_path / "README.md"
    readme.write_text(without.render(**PROPERTIES), encoding="utf-8")
    add_scores(tmp_path, {"old/mono/map": 0.5})
    add_scores(tmp_path, FULL.scores)
    assert readme.read_text(encoding="utf-8") == FULL.render(**PROPERTIES)
    readme.unlink()
    add_scores(tmp_path, FULL.scores)
    assert not readme.exists()


def test_training_languages_are_read_from_a_card_of_ours_only(tmp_path: Path) -> None:
    assert trained_languages(tmp_path) is None
    readme = tmp_path / "README.md"
    for text, known in (
        (FULL.render(**PROPERTIES), ("de", "no", "zh")),
        (ModelCard().render(**PROPERTIES), None),
        ("---\nlanguage: [en]\ntags: [sentence-transformers]\n---\n# Another's", None),
        ("---\nlanguage: en\ntags: [hbtrain]\n---\n", None),
        ("# No front matter", None),
        ("---\n{\n---\n", None),
    ):
        readme.write_text(text, encoding="utf-8")
        assert trained_languages(tmp_path) == known


def test_the_share_of_the_weights_before_training_is_told_and_read(tmp_path: Path) -> None:
    for share in (0.0, 0.3):
        (tmp_path / "README.md").write_text(replace(FULL, average_with_initial=share).render(**PROPERTIES), "utf-8")
        assert average_with_initial(tmp_path) == share
        assert trained_languages(tmp_path) == ("de", "no", "zh")
    assert average_with_initial(tmp_path / "none") == 0.0


def test_a_schedule_of_alpha_is_told() -> None:
    readme = ModelCard(alpha={100: 0.2, 0: 1.0}).render(**PROPERTIES)
    assert "1.0 at step 0, 0.2 at step 100; linear in between" in readme


def test_what_is_unknown_is_called_so() -> None:
    readme = ModelCard().render(**{**PROPERTIES, "max_tokens": None})
    assert readme.count("unknown") == 9
    assert "No scores were recorded" in readme
    assert "read whole" in readme
    assert not {"language", "base_model", "license"} & set(front_matter(readme))
    for start in ("static", "/data/models/mine", "./a/b"):
        assert "base_model" not in front_matter(ModelCard(base_model=start).render(**PROPERTIES))
    assert "none: random weights (static)" in ModelCard(base_model="static").render(**PROPERTIES)


def test_the_usage_in_a_saved_card_works(tmp_path: Path) -> None:
    encoder = Encoder.build(encoder_config("static"), lambda: TEXTS, 0)
    encoder.save(tmp_path / "model", FULL)
    readme = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "'Query: ' before a query" in readme
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace("path/to/this/folder", str(tmp_path / "model")), names)
    queries = encoder.encode(["Where does the Danube rise?"], "query")
    passages = encoder.encode(
        ["Die Donau entspringt im Schwarzwald.", "Le Rhin prend sa source dans les Alpes."], "passage"
    )
    np.testing.assert_allclose(names["scores"], queries @ passages.T, atol=1e-5)
