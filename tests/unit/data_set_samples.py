"""Small data sets in a stand-in of the hub, and a user's own catalogue that names them."""

import json

from tests.unit.evaluation_samples import paragraph

LANGUAGES = ("de", "en", "fr")


def rows(word, languages=LANGUAGES, count=8):
    """Parallel JSON lines, as bytes."""
    texts = ({x: f"{word} {n} {x}" for x in languages} for n in range(count))
    lines = (json.dumps({"id": f"q{n}", "query": text, "passage": text}) for n, text in enumerate(texts))
    return "".join(f"{line}\n" for line in lines).encode()


def questions(language):
    """A file in LAReQA's form, as bytes."""
    sentences = [f"{word} {language}." for word in ("One", "Two", "Three")]
    made = [paragraph(sentences, {"a": 0, "b": 1, "c": 2})]
    return json.dumps({"data": [{"title": "t", "paragraphs": made}]}).encode()


def write_entry(folder, name, hub, files, patterns, form, purposes, languages=LANGUAGES, **more):
    """A catalogue's file of one data set, whose repository of the same name is made in the hub; gives its path."""
    source = {
        "repository": f"owner/{name}",
        "revision": hub.add(f"owner/{name}", files, gated := more.pop("gated", False)),
    }
    entry = {
        "name": name,
        "title": "a set of this test",
        "purposes": list(purposes),
        "form": form,
        "languages": languages if isinstance(languages, dict) else list(languages),
        "sources": [source | {"files": list(patterns), **({"gated": "true"} if gated else {})}],
        "licence": {"name": "cc0-1.0", "page": "https://example.org"},
        "citation": "none",
        "checked": "made here",
        **more,
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(entry), encoding="utf-8")
    return str(path)


def benchmark(folder, hub, name="capitals", **more):
    """A catalogue's file of a benchmark in LAReQA's form."""
    files = {f"{x}.json": questions(x) for x in LANGUAGES}
    return write_entry(folder, name, hub, files, ["{language}.json"], "xquad-r", ["benchmark"], **more)


def pairs(folder, hub, name="pairs", word="lake", count=8, **more):
    """A catalogue's file of a training set of parallel JSON lines."""
    files = {"data.jsonl": rows(word, count=count)}
    return write_entry(folder, name, hub, files, ["data.jsonl"], "parallel", ["training"], **more)
