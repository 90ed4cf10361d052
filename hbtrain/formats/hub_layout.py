"""Which files of a data set's repository on the Hugging Face hub hold which split of which configuration.

The authority is the card (`configs` in the head of README.md). Where it names no files, or is missing, names tell:
`<config>/<split>-00000-of-00001.parquet` (older ones with a hash before the ending), `data/` for the configuration
`default`, `<config>/<split>/0000.parquet` (the hub's own conversion); and JSON lines or Parquet in BEIR's names,
`corpus.jsonl`, `queries.jsonl` or `queries-<split>.jsonl`, `qrels/<split>.tsv` or `qrels-<split>.jsonl`, in a folder
for each subset or in none. A folder may hold some of a repository's files, but each split whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from hbtrain.errors import DataError
from hbtrain.formats.inputs import open_plain
from hbtrain.formats.locations import list_files, named

LEVELS = 4  # how deep a repository's files are looked for
CARD = "README.md"
_HEAD = re.compile(r"\A\ufeff?---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", re.DOTALL)
_SHARD = re.compile(r"(?P<start>.*-)(?P<number>\d{5})-of-(?P<shards>\d{5})(?P<end>(?:-[0-9a-f]{6,})?\.parquet)")
_PARQUET = re.compile(
    r"(?P<config>[^/]+)/(?:(?P<folder>(?:partial-)?[\w.]+)/\d{4}|(?P<split>[\w.]+)-\d{5}-of-\d{5}(?:-[0-9a-f]{6,})?"
    r"|(?:[\w.-]*-)?(?P<only>\w+))\.parquet"
)
_BEIR = re.compile(
    r"(?:(?P<subset>[^/]+)/)?(?P<kind>corpus|queries|qrels)(?:(?:-|(?<=qrels)/)(?P<split>[A-Za-z]\w*))?"
    r"\.(?:jsonl|tsv|parquet)(?:\.gz)?"
)
_PARTIAL = re.compile(r".*/partial-[\w.]+/\d{4}\.parquet")
PLAIN_SPLIT = "all"
"""The split of files whose names name none, such as `corpus.jsonl`."""

Configs = dict[str, dict[str, list[str]]]
"""{configuration: {split: files}}"""


def read_configs(folder: str, by_card: bool = True) -> Configs:
    """The configurations of a folder, each with its splits and their files, shards in order.

    Args:
        folder: on this machine, or a URL.
        by_card: whether the card decides, if there is one that names files that are there; else only names do.

    Whether a split is whole is not looked at here, but by `check_whole` where it is used.

    Raises:
        DataError: the folder or its card cannot be read.
    """
    start = named(folder).rstrip("/") + "/"
    files = {named(path).removeprefix(start): path for path in list_files(folder, LEVELS)}
    return (_by_card(folder, files) if by_card else {}) or _by_names(files)


def _by_names(files: Mapping[str, str]) -> Configs:
    found: Configs = {}
    for name, path in files.items():
        if match := _BEIR.fullmatch(name):
            config = f"{match['subset']}-{match['kind']}" if match["subset"] else match["kind"]
            split = match["split"] or PLAIN_SPLIT
        elif match := _PARQUET.fullmatch(name):
            config = "default" if match["config"] == "data" else match["config"]
            split = match["folder"] or match["split"] or match["only"]
        else:
            continue
        found.setdefault(config, {}).setdefault(split, []).append(path)
    return found


def _by_card(folder: str, files: Mapping[str, str]) -> Configs:
    """The configurations whose files the card names, as far as they are there."""
    found: Configs = {}
    for config, split, pattern in _card_entries(files[CARD], folder) if CARD in files else ():
        wanted = _glob(pattern)
        matching = [path for name, path in files.items() if wanted.fullmatch(name)]
        if matching:
            paths = found.setdefault(config, {}).setdefault(split, [])
            paths += [path for path in matching if path not in paths]
    return found


def _card_entries(path: str, folder: str) -> list[tuple[str, str, str]]:
    """(configuration, split, pattern of its files) of each entry of a card."""
    with open_plain(path) as stream:
        text = stream.read().decode(errors="replace").replace("\r\n", "\n")
    head = _HEAD.match(text)
    try:
        card = yaml.safe_load(head[1]) if head else None
    except yaml.YAMLError as error:
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise DataError(f"{path}: the head of the card is not YAML: {reason}; fetch it again") from error
    configs = card.get("configs") if isinstance(card, dict) else None
    entries = []
    for config in configs if isinstance(configs, list) else ():
        if isinstance(config, dict) and "data_files" in config:
            base = str(config.get("data_dir") or "").strip("/")
            for split, pattern in _data_files(config["data_files"]):
                entries.append((str(config.get("config_name", "default")), split, f"{base}/{pattern}".lstrip("/")))
    return entries


def _data_files(given: Any, split: str = "train") -> list[tuple[str, str]]:
    """(split, pattern) from the forms that `data_files` may have: a pattern, a list of them, or {split, path}."""
    if isinstance(given, list):
        return [one for part in given for one in _data_files(part, split)]
    if isinstance(given, dict):
        return _data_files(given.get("path", []), str(given.get("split", split)))
    return [(split, given.removeprefix("./"))] if isinstance(given, str) else []


def _glob(pattern: str) -> re.Pattern[str]:
    """A pattern of paths, in which `*` stands for anything within a name and `**` for folders as well."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(wild.get(part, re.escape(part)) for part in parts))


def check_whole(paths: Sequence[str]) -> None:
    """Check the files of a split.

    Raises:
        DataError: shards are missing; or it is there in two forms, or only in part, as the hub converts large sets
            (`partial-train`).
    """
    for path in paths:
        if _PARTIAL.fullmatch(named(path)):
            raise DataError(f"{path} is a part of its split only, as the hub converts large sets; fetch the rest")
    shards = [(path, match) for path in paths if (match := _SHARD.fullmatch(named(path)))]
    names = {named(path).removesuffix(".gz") for path in paths}
    if (
        (shards and len(shards) < len(paths))
        or len(names) < len(paths)
        or len({x.rpartition(".")[2] for x in names}) > 1
    ):
        raise DataError(f"both {paths[0]} and {paths[-1]} hold the same split; leave one out")
    if shards:
        path, match = shards[0]
        wanted, there = int(match["shards"]), {int(found["number"]) for _, found in shards}
        if {found["shards"] for _, found in shards} != {match["shards"]} or len(shards) > len(there):
            raise DataError(f"both {path} and {shards[-1][0]} hold the same split; leave one out")
        if missing := sorted(set(range(wanted)) - there):
            lacking = f"{match['start']}{missing[0]:05d}-of-{wanted:05d}.parquet"
            raise DataError(f"{path} is one of {wanted} files, and {lacking} is not there; fetch all of them")
