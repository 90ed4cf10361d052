"""The layout that mteb's retrieval sets have on the Hugging Face hub: configurations of corpus, queries, judgements.

With subsets, mostly languages: `sw-corpus`, `sw-queries`, `sw-qrels`; without: `corpus`, `queries`, and `default` or
`qrels`. A configuration `query` or `queries` serves all subsets that have no queries of their own. In the Nano layout
there are no subsets, and the splits are the languages. A subset `zho-ara` has a Chinese corpus and Arabic queries.
Which files these are says `hub_layout`; they are Parquet or JSON lines, judgements also BEIR's tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hbtrain.errors import DataError
from hbtrain.formats.hub_layout import PLAIN_SPLIT, Configs, read_configs
from hbtrain.formats.judged import JudgedFolder
from hbtrain.formats.language_codes import code_of, codes_of, is_known, pair_of
from hbtrain.formats.languages import LANGUAGE, one_each

_CONFIG = re.compile(r"(?:(?P<subset>.+)-)?(?P<kind>corpus|queries|query|qrels)|(?P<default>default)")
KINDS = ("corpus", "queries", "qrels")
SPLITS = ("test", "dev", "validation")  # the splits that are evaluated, the first of them that is there
Splits = dict[str, list[str]]  # {split: files}


def find_mteb(folder: str, split: str | None = None, languages: Sequence[str] | None = None) -> JudgedFolder:
    """Find the files of a folder in mteb's layout.

    Args:
        folder: on this machine, or a URL.
        split: of the judgements, without which a subset is left out; None: the first of `SPLITS` that is there, or
            the only one. Corpus and queries are those of the same split, or the only ones.
        languages: the language of a set without subsets, whose files do not tell it.

    Raises:
        DataError: there is no such set, or no such split; two subsets are one language; the card is broken.
    """
    subsets = _subsets(folder)
    if set(subsets) == {""}:
        subsets = _without_subsets(folder, subsets[""], languages)
    if split is not None:
        subsets = _with_split(folder, subsets, split)
    sides = {name: pair_of(name) or (name, name) for name in subsets if LANGUAGE.fullmatch(code_of(name))}
    if not sides:
        raise DataError(f"{folder} has subsets that are no languages: {', '.join(sorted(subsets))}")
    codes = codes_of(dict.fromkeys(code for both in sides.values() for code in both))
    keys = {name: "-".join(dict.fromkeys(codes[code] for code in both)) for name, both in sides.items()}
    one_each((key, f"{folder} subset {name}") for name, key in keys.items())
    found: dict[str, dict[str, list[str]]] = {"topics": {}, "qrels": {}, "corpus": {}}
    for name, key in keys.items():
        kinds = subsets[name]
        chosen = split or _judged_split(list(kinds.get("qrels", {PLAIN_SPLIT: []})), f"{folder}, {name}")
        for what, kind in (("topics", "queries"), ("corpus", "corpus"), ("qrels", "qrels")):
            found[what][key] = _files(kinds[kind], chosen, f"{folder}, {kind} of {name}") if kind in kinds else []
    names = {"topics": "queries (such as {language}-queries)", "qrels": "judgements (such as {language}-qrels)"}
    return JudgedFolder(
        form="mteb",
        folder=folder,
        split=split or "any split",
        given="a corpus",
        languages=tuple(sorted(keys.values())),
        files=found,
        names=names | {"corpus": "corpus (such as {language}-corpus)"},
        many=tuple(found),
        all_splits=True,
        sides={keys[name]: (codes[x], codes[y]) for name, (x, y) in sides.items() if x != y},
    )


def _subsets(folder: str) -> dict[str, dict[str, Splits]]:
    """{subset: {one of KINDS: splits}} of the subsets that have a corpus; the subset is empty where there are none."""
    found = _with_corpus(read_configs(folder)) or _with_corpus(read_configs(folder, by_card=False))
    if not found:
        raise DataError(
            f"{folder} is not in mteb's layout: configurations such as sw-corpus, sw-queries and sw-qrels (folders of "
            "Parquet files, or named in README.md), or corpus, queries and default, are expected"
        )
    return found


def _with_corpus(configs: Configs) -> dict[str, dict[str, Splits]]:
    found: dict[str, dict[str, Splits]] = {}
    for config, splits in configs.items():
        if match := _CONFIG.fullmatch(config):
            kind = "qrels" if match["default"] else "queries" if match["kind"] == "query" else match["kind"]
            own = found.setdefault(match["subset"] or "", {})
            if kind not in own or not match["default"]:  # `qrels` comes before `default`
                own[kind] = splits
    common = found.get("", {})
    if "corpus" not in common:
        found = {subset: {k: v for k, v in common.items() if k == "queries"} | kinds for subset, kinds in found.items()}
    return {subset: kinds for subset, kinds in found.items() if "corpus" in kinds}


def _without_subsets(
    folder: str, kinds: Mapping[str, Splits], languages: Sequence[str] | None
) -> dict[str, dict[str, Splits]]:
    """The subsets of a set that has none: its splits, if these are languages, or the one of `languages`."""
    if all(map(is_known, kinds["corpus"])):
        return {
            language: {kind: {PLAIN_SPLIT: splits[language]} for kind, splits in kinds.items() if language in splits}
            for language in kinds["corpus"]
        }
    if languages is None or len(languages) != 1:
        raise DataError(
            f"{folder} is one corpus, whose language is not known: give --languages with one code (its splits are "
            f"{', '.join(sorted(kinds['corpus']))})"
        )
    return {languages[0]: dict(kinds)}


def _with_split(folder: str, subsets: dict[str, dict[str, Splits]], split: str) -> dict[str, dict[str, Splits]]:
    """The subsets that have judgements of a split, or none at all, which is told later."""
    there = {name: set(kinds.get("qrels", {split: []})) for name, kinds in subsets.items()}
    found = {name: kinds for name, kinds in subsets.items() if there[name] & {split, PLAIN_SPLIT}}
    if not found:
        splits = ", ".join(sorted(set().union(*there.values())))
        raise DataError(f"{folder} has no judgements of the split {split}; it has {splits}")
    return found


def _judged_split(there: list[str], where: str) -> str:
    wanted = [name for name in SPLITS if name in there] or there
    if len(there) > 1 and wanted == there:
        raise DataError(f"{where} has judgements of {', '.join(sorted(there))}, of which none is {', '.join(SPLITS)}")
    return wanted[0]


def _files(splits: Splits, wanted: str, where: str) -> list[str]:
    """The files of the wanted split, or of the only one."""
    if wanted not in splits and len(splits) > 1:
        raise DataError(f"{where}: there is no split {wanted} among {', '.join(sorted(splits))}")
    return splits.get(wanted) or next(iter(splits.values()))
