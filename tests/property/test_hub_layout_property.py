"""Laws of sets as the hub has them: names tell what files are, and a pool asks each language as it is asked alone."""

from dataclasses import dataclass
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from hbtrain.errors import DataError
from hbtrain.evaluation.benchmarks import load_benchmark, parse_benchmark
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.formats.hub_layout import check_whole, read_configs
from tests.prepared_samples import scratch
from tests.unit.evaluation_samples import HashEncoder
from tests.unit.judged_samples import json_lines, shard

CONFIGS = st.sampled_from(["default", "corpus", "sw-corpus", "swahili-queries", "deu_Latn", "zho-ara-qrels", "pair"])
SPLITS = st.sampled_from(["train", "test", "dev", "validation", "corpus", "queries", "ru", "train.clean"])


@dataclass
class Split:
    config: str
    split: str
    shards: int
    form: str  # of its names
    lacks: int | None  # number of a shard that is not there

    def files(self) -> list[str]:
        folder = "data" if self.config == "default" else self.config
        numbers = [x for x in range(self.shards) if x != self.lacks]
        if self.form == "converted":
            return [f"{folder}/{self.split}/{x:04d}.parquet" for x in numbers]
        end = "-0123456789abcdef" if self.form == "hashed" else ""
        return [f"{folder}/{shard(self.split, x, self.shards, end)}" for x in numbers]


SETS = st.lists(
    st.builds(Split, CONFIGS, SPLITS, st.integers(1, 12), st.sampled_from(["", "hashed", "converted"]), st.none()),
    unique_by=lambda one: (one.config, one.split),
    min_size=1,
    max_size=5,
)


def touched(folder: str, splits: list[Split]) -> None:
    for one in splits:
        for name in one.files():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


@given(SETS)
def test_names_tell_configurations_splits_and_all_shards_in_order(splits):
    with scratch() as folder:
        touched(folder, splits)
        found = read_configs(folder)
        assert {(x, y) for x, of_config in found.items() for y in of_config} == {(x.config, x.split) for x in splits}
        for one in splits:
            assert found[one.config][one.split] == [f"{folder}/{name}" for name in one.files()]
            check_whole(found[one.config][one.split])


@given(st.builds(Split, CONFIGS, SPLITS, st.integers(2, 12), st.sampled_from(["", "hashed"]), st.integers(0, 11)))
def test_a_shard_that_is_not_there_is_noticed(one):
    with scratch() as folder:
        touched(folder, [one])
        try:
            check_whole(read_configs(folder)[one.config][one.split])
        except DataError as error:
            assert one.lacks < one.shards
            assert f"{one.split}-{one.lacks:05d}-of-{one.shards:05d}" in str(error)
        else:
            assert one.lacks >= one.shards


QUESTIONS, DOCUMENTS = [f"q{x}" for x in range(5)], [f"d{x}" for x in range(6)]
JUDGED = st.dictionaries(
    st.sampled_from(QUESTIONS), st.dictionaries(st.sampled_from(DOCUMENTS), st.integers(0, 3), min_size=1), min_size=1
).filter(lambda judged: any(grade for own in judged.values() for grade in own.values()))


@settings(max_examples=25)
@given(JUDGED, st.permutations(DOCUMENTS), st.permutations(QUESTIONS))
def test_in_a_pool_a_language_is_asked_as_it_is_alone(judged, documents, questions):
    """Ids are the same in both languages, their order is not."""
    qrels = [{"query-id": q, "corpus-id": d, "score": grade} for q, own in judged.items() for d, grade in own.items()]
    with scratch() as folder:
        place = Path(folder) / "set"
        for language, ids, asked in (("fi", DOCUMENTS, QUESTIONS), ("sl", documents, questions)):
            json_lines(place / language / "corpus.jsonl", [{"_id": x, "text": f"{language} {x}"} for x in ids])
            json_lines(place / language / "queries.jsonl", [{"_id": x, "text": f"{language} {x}?"} for x in asked])
            json_lines(place / language / "qrels" / "test.jsonl", qrels)
        alone, pooled = (
            evaluate(HashEncoder(), load_benchmark(parse_benchmark(f"{form}={place}"), cache=f"{folder}/cache"))
            for form in ("mteb", "mteb-parallel")
        )
    assert pooled.parallel
    assert [cell for cell in pooled.cells if cell.setting == "mono"] == list(alone.cells)
    assert len([cell for cell in pooled.cells if cell.setting == "cross"]) == 2
