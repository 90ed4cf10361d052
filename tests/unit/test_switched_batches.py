"""Batches of the kind `switched` wherever they are met: feed, verification, audit, validation, inputs, refusals."""

import json

import pytest
import torch

from hbtrain.audit import audit
from hbtrain.audit.picture import draw
from hbtrain.audit.record import record
from hbtrain.audit.tables import notes
from hbtrain.batching import BatchPlan
from hbtrain.batching.switching import Switcher
from hbtrain.config import absolute_paths, load_config, override, to_yaml
from hbtrain.config.load import parse_flags
from hbtrain.corpus import ParallelCorpus
from hbtrain.errors import ConfigError, DataError
from hbtrain.modeling.card import trained_languages
from hbtrain.modeling.embedding import EmbeddingModule
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.gather import SingleProcess
from hbtrain.runs.preflight import preflight
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.run_inputs import checked_inputs
from hbtrain.training.export import model_card
from hbtrain.training.feed import Feed
from hbtrain.training.gradients import Gradients
from hbtrain.training.stopwatch import Stopwatch
from hbtrain.training.validation import validation_plan
from hbtrain.training.verify import plain_loss
from tests.unit.feeding import fed
from tests.unit.tiny_models import encoder_config

NAMES = {"en": "heath birch stone cloud", "de": "Heide Birke Stein Wolke", "ru": "пустошь берёза камень облако"}
WORDS = {language: words.split() for language, words in NAMES.items()}


def row(number):
    """Queries and passages of numbered words, with two hard negatives in some rows."""
    texts = [
        {x: " ".join(f"{words[(number + k * j) % 4]} {number}" for k in range(1, 5)) for x, words in WORDS.items()}
        for j in range(4)
    ]
    return {"id": f"q{number}", "query": texts[0], "passage": texts[1], "negatives": texts[2 : 2 + number % 3]}


@pytest.fixture
def lexicons(tmp_path):
    """Files from English into German and Russian, and from German into English, that know three words of four."""
    files = {}
    for one, other in (("en", "de"), ("en", "ru"), ("de", "en")):
        pairs = zip(WORDS[one][:3], WORDS[other], strict=False)
        path = tmp_path / f"{one}-{other}.txt"
        path.write_text("".join(f"{a}\t{b}\n" for a, b in pairs))
        files[f"{one}-{other}"] = str(path)
    return files


@pytest.fixture
def config(write_source, cache, lexicons):
    def make(**changes):
        small = {
            "data.sources": [str(write_source([row(number) for number in range(30)]))],
            "batching.mixture": {"mono": 1, "switched": 3},
            "batching.switching.lexicons": lexicons,
            "batching.global_batch_size": 10,
            "encoder.static.vocabulary_size": 200,
            "evaluation.benchmarks": [],
            "resources.workers": 1,
            "training.steps": 40,
            "training.deepspeed": None,
        }
        return load_config("quickstart", small | changes)

    return make


def steps_of(config, kind):
    plan = BatchPlan.from_config(config)
    return [step for step in range(40) if plan.batch(step).kind == kind]


def known(texts, language):
    return [word for text in texts for word in text.split() if word in WORDS[language][:3]]


@pytest.mark.parametrize(
    ("side", "replaced"), [("query", [True, False, False]), ("passage", [False, True, True]), ("both", [True] * 3)]
)
def test_known_words_of_the_configured_side_are_replaced_and_of_no_other_batch(config, side, replaced):
    one = config(**{"batching.switching.share": 1, "batching.switching.side": side, "loss.hard_negatives": 2})
    for step in steps_of(one, "switched")[:4]:
        (language,) = set(BatchPlan.from_config(one).batch(step).query_languages)
        texts = fed(one, step)[1]
        assert [not known(given, language) for _, given in texts] == replaced
    plain = override(one, {"batching.switching.share": 0})
    (step, *_) = steps_of(one, "mono")
    assert fed(one, step)[1] == fed(plain, step)[1]


@pytest.mark.parametrize("ranks", [2, 3, 10])
def test_any_number_of_workers_is_given_the_same_texts(config, ranks):
    one = config(**{"batching.switching.side": "both", "loss.hard_negatives": 2})
    for step in steps_of(one, "switched")[:3]:
        whole = fed(one, step)[1]
        parts = [fed(one, step, rank, ranks)[1] for rank in range(ranks)]
        for number, (side, texts) in enumerate(whole):
            given = [part[number] for part in parts if len(part) > number]
            assert {of for of, _ in given} == {side}
            assert [text for _, texts_of in given for text in texts_of] == texts


@pytest.mark.parametrize("side", ["query", "passage"])
def test_the_plain_computation_that_verify_compares_with_has_the_same_texts(config, side):
    one = config(**{"batching.switching.side": side, "loss.hard_negatives": 1, "seed": 5})
    corpus = ParallelCorpus.from_config(one)
    encoder = Encoder.build(encoder_config("static"), corpus.every_text, 0)
    module = EmbeddingModule(encoder.model, None)
    gradients = Gradients(module, SingleProcess(), one, Stopwatch(torch.device("cpu")))
    step = steps_of(one, "switched")[1]
    work = Feed(BatchPlan.over(corpus, one), corpus, encoder, one, 0, 1).work(step)
    with torch.no_grad():
        plain = plain_loss(one, encoder, module, corpus, step)
        assert gradients.loss(work).total.item() == pytest.approx(plain.item(), rel=1e-5)
        unswitched = plain_loss(override(one, {"batching.switching.share": 0}), encoder, module, corpus, step)
    assert unswitched.item() != pytest.approx(plain.item(), rel=1e-3)


def test_only_languages_with_a_lexicon_are_drawn_alike(config):
    one = config(**{"batching.mixture": {"switched": 1}, "data.languages": ["ru", "de", "en"]})
    plan = BatchPlan.from_config(one)
    assert {offer.label: offer.weight for offer in plan.catalogue.offers} == {
        "source switched de": 0.5,
        "source switched en": 0.5,
    }


def test_the_audit_counts_switched_batches_and_the_words_that_lexicons_know(config, tmp_path):
    one = config(**{"batching.switching.share": 0.25})
    found = audit(one, sample=40)
    assert found.counts.kinds == {kind: len(steps_of(one, kind)) for kind in ("mono", "switched")}
    assert found.counts.expected_kinds == {"mono": 10, "switched": 30}
    corpus, plan = ParallelCorpus.from_config(one), BatchPlan.from_config(one)
    words, of_lexicons = 0, 0
    for batch in map(plan.batch, steps_of(one, "switched")):
        texts = corpus.sources["source"].texts("query", batch.rows, batch.query_languages)
        words += sum(not word.isdigit() for text in texts for word in text.split())
        of_lexicons += len(known(texts, batch.query_languages[0]))
    assert (found.tokens.words, found.tokens.known_words) == (words, of_lexicons)
    said = f"the lexicons know {of_lexicons / words:.0%} of the words of these texts, of which 25% are replaced"
    assert any(said in note for note in notes(found))
    assert json.loads(json.dumps(record(found)))["kinds"]["switched"]["batches"] == len(steps_of(one, "switched"))
    draw(found, tmp_path / "audit.png")


def test_lexicons_are_named_by_flags_and_read_back(tmp_path, lexicons):
    flags = [*("--batching.mixture.switched", "1"), *("--batching.switching.lexicons.en:pt-BR", lexicons["en-de"])]
    config = load_config("quickstart", parse_flags([*flags, "--batching.switching.share", "0.3"]))
    assert config.batching.switching.pairs == {("en", "pt-BR"): lexicons["en-de"]}
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "again.yaml") == config


def test_paths_of_lexicons_are_those_of_the_folder_that_the_command_stands_in(monkeypatch, tmp_path, lexicons):
    monkeypatch.chdir(tmp_path)
    config = load_config("quickstart", {"batching.switching.lexicons": {"en-de": "en-de.txt", "en-fr": "nowhere.txt"}})
    assert absolute_paths(config).batching.switching.lexicons == {"en-de": lexicons["en-de"], "en-fr": "nowhere.txt"}


def test_lexicons_are_inputs_of_a_run_where_they_are_used(config, lexicons, tmp_path):
    one = config()
    before = checked_inputs([one], None, "run x", accept=False).digests
    (tmp_path / "en-ru.txt").write_text("heath\tвереск\n")
    with pytest.raises(DataError, match=r"batching\.switching\.lexicons\.en-ru = .*: the content has changed"):
        checked_inputs([one], before, "run x", accept=False)
    unused = override(one, {"batching.mixture": {"mono": 1}})
    assert not any(
        name.startswith("batching.") for name in checked_inputs([unused], None, "run x", accept=False).digests
    )


def test_only_other_values_than_the_defaults_change_the_folder_of_a_run(config):
    one = config(**{"batching.mixture": None, "batching.switching.lexicons": {}, "name": "mine"})
    changed = [{"share": 0.4}, {"side": "both"}, {"lexicons": {"en-de": "x"}}]
    others = [override(one, {f"batching.switching.{k}": v for k, v in change.items()}) for change in changed]
    assert len({RunFolder.current(each).name for each in (one, *others)}) == 4


def test_validation_is_switched_as_far_as_its_languages_go(config, write_source):
    one = config(**{"batching.mixture": {"cross": 1, "switched": 1}, "batching.switching.lexicons": {"en-ru": "x"}})

    def kinds(languages):
        rows = [row(number) for number in range(30, 50)]
        kept = [{**r, **{side: {x: r[side][x] for x in languages} for side in ("query", "passage")}} for r in rows]
        source = str(write_source([{**r, "negatives": []} for r in kept], f"{'-'.join(languages)}.jsonl"))
        plan = validation_plan(one, ParallelCorpus.open([source]))
        return {(batch.kind, batch.languages[batch.query_codes[0]]) for batch in map(plan.batch, range(60))}

    assert kinds(["en", "ru"]) == {("cross", "en"), ("cross", "ru"), ("switched", "en")}
    assert kinds(["de", "ru"]) == {("mono", "de"), ("mono", "ru")}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batching.switching.lexicons": {}}, "batching: mixture has switched batches, whose translations come"),
        ({"batching.switching.lexicons": {"en": "x"}}, "'en' is no pair of languages; name lexicons by two languages"),
        ({"batching.switching.lexicons": {"en-pt-BR": "x"}}, "'en-pt-BR' is no pair of languages"),
        ({"batching.switching.lexicons": {"en-en": "x"}}, "'en-en' is no pair of languages"),
        ({"batching.switching.lexicons": {"en-de": "x", "en:de": "y"}}, "two lexicons lead from 'en' to 'de'"),
        ({"batching.switching.share": 1.5}, "batching.switching.share = 1.5"),
        ({"batching.switching.side": "answer"}, "batching.switching.side = 'answer'"),
        ({"batching.switching.lexicons": {"eng-de": "x"}}, "the one from 'eng' to 'de' is for texts in eng, and"),
        ({"batching.switching.lexicons": {"en-de": "gone.txt"}}, "lexicons, from en to de: cannot read gone.txt"),
        (
            {"batching.mixture": {"switched": 1}, "batching.global_batch_size": 31},
            "source source cannot fill a batch: it offers at most 30 switched rows in de, en, ru",
        ),
    ],
)
def test_what_contradicts_itself_or_the_data_is_refused_in_one_line(config, changes, words):
    with pytest.raises((ConfigError, DataError)) as error:
        preflight(config(**changes))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_language_that_lexicons_lead_from_needs_the_rows_of_a_batch(config, write_source):
    rows = [{**row(number), "query": {x: row(number)["query"][x] for x in ("en", "de")[: 1 + (number < 9)]}}
            for number in range(30)]  # fmt: skip
    one = config(**{"batching.mixture": {"switched": 1}, "data.sources": [str(write_source(rows, "few.jsonl"))]})
    with pytest.raises(DataError, match="no source can fill a code-switched batch in 'de': the largest offers 9 rows"):
        BatchPlan.from_config(one)
    fewer = override(one, {"batching.switching.lexicons": {"en-ru": "x"}})
    assert {offer.label for offer in BatchPlan.from_config(fewer).catalogue.offers} == {"few switched en"}


def test_a_lexicon_with_an_odd_line_starts_nothing(hbtrain, tmp_path):
    (tmp_path / "en-de.txt").write_text("stone Stein\nstepping stone Trittstein\n")
    flags = ["--batching.mixture", "{switched: 1}", "--batching.switching.lexicons.en-de", "en-de.txt"]
    code, _, err = hbtrain("train", "quickstart", *flags)
    assert code == 2
    assert err.splitlines()[-1].startswith("error: batching.switching.lexicons, from en to de: ")
    assert "en-de.txt line 2: a line that is no word with a translation" in err


def test_the_model_card_tells_what_was_switched(config, tmp_path):
    one = config(**{"batching.switching.side": "both"})

    def card(of):
        made = model_card(of, ParallelCorpus.from_config(of), ("de",), 60)
        return made.render(query_prefix="", passage_prefix="", dimension=8, max_tokens=None)

    told = "50% of the words of queries and passages that lexicons know (en to de, en to ru, de to en)"
    assert f"| words replaced by translations in switched batches | {told} |" in card(one)
    plain = override(one, {"batching.mixture": {"mono": 1}})
    assert "lexicons" not in card(plain)
    for of, seen in ((one, ("de", "en", "ru")), (plain, ("de",))):  # what evaluations and comparisons call seen
        (tmp_path / "README.md").write_text(card(of))
        assert sorted(trained_languages(tmp_path)) == sorted(seen)


def test_lexicons_are_read_only_where_batches_are_switched(config):
    unread = config(**{"batching.mixture": {"mono": 1}, "batching.switching.lexicons": {"en-de": "gone.txt"}})
    texts = ["heath"]
    assert Switcher.from_config(unread).of_batch(BatchPlan.from_config(unread).batch(0), "query", texts) is texts
