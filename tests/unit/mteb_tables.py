"""The table of mteb's tasks that ships, made anew from mteb: `python -m tests.unit.mteb_tables`."""

from __future__ import annotations

import json
from pathlib import Path

import mteb

import hbtrain.evaluation
from hbtrain.hub import catalogue

FILE = Path(hbtrain.evaluation.__file__).parent / "mteb_tasks.json"
OTHER_COPIES = {"miracl": "MIRACLRetrieval", "mr-tydi": "MrTidyRetrieval", "webfaq": "WebFAQRetrieval"}
"""{data set: name of mteb's task}, where the catalogue has the files of their makers."""


def tasks() -> dict[str, str]:
    """{data set of the catalogue: name of mteb's task}: those above, and all whose repository is a task's own."""
    own = {task.metadata.dataset["path"]: task.metadata.name for task in mteb.get_tasks(task_types=["Retrieval"])[::-1]}
    sources = {name: getattr(one.sources[0], "repository", None) for name, one in catalogue().items()}
    same = {name: own[place] for name, place in sources.items() if place in own}
    return dict(sorted({**same, **OTHER_COPIES}.items()))


CONFUSED = {("MrTidyRetrieval", "japanese")}
"""Subsets that are left out: mteb counts 880 documents and 6,999,867 queries there."""


def task(benchmark: str, name: str) -> dict:
    """A task of the table, from mteb's description and its counts."""
    data = mteb.get_task(name).metadata
    [split] = data.eval_splits
    counted = data.descriptive_stats[split]["hf_subset_descriptive_stats"]
    subsets = {
        subset: [
            languages,
            _texts(counted[subset], "documents"),
            _texts(counted[subset], "queries"),
            counted[subset]["relevant_docs_statistics"]["num_relevant_docs"],
        ]
        for subset, languages in data.hf_subsets_to_langscripts.items()
        if (name, subset) not in CONFUSED and subset in counted
    }
    found = {"benchmark": benchmark, "name": name, "revision": data.dataset["revision"], "split": split}
    found |= {"main_score": data.main_score, "subsets": subsets}
    return found | ({"pairs": True, "own_ids": False} if name == "BelebeleRetrieval" else {})


def _texts(counts: dict, kind: str) -> int:
    """How many documents or queries there are; Belebele's counts have only how many distinct ones."""
    number = counts.get(f"num_{kind}")
    return counts[f"{kind}_text_statistics"]["unique_texts"] if number is None else number


def build() -> dict:
    """The whole table."""
    return {"mteb": mteb.__version__, "tasks": [task(*one) for one in tasks().items()]}


def text(table: dict) -> str:
    """The table as it is written, a line for each subset."""
    tasks = []
    for one in table["tasks"]:
        head = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in one.items() if key != "subsets"]
        rows = [f"  {json.dumps(name)}: {json.dumps(counts)}" for name, counts in one["subsets"].items()]
        tasks.append("{" + ", ".join(head) + ', "subsets": {\n' + ",\n".join(rows) + "\n}}")
    return f'{{"mteb": {json.dumps(table["mteb"])}, "tasks": [\n' + ",\n".join(tasks) + "\n]}\n"


if __name__ == "__main__":
    FILE.write_text(text(build()), encoding="utf-8")
