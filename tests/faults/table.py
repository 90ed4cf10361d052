"""The table of faults as a page of the documentation."""

import json
import re
from pathlib import Path

OBSERVED = Path(__file__).parent / "observed.json"
OBSERVED_RANDOM = Path(__file__).parent / "observed_random.jsonl"

HEAD = """# Faults

What happens when something dies, hangs or is full. Every line was observed: `python -m tests.faults.run --write` hurts
runs of the quickstart recipe (two workers, 300 steps, a checkpoint every 50) one after the other and writes this page.

| fault | what was done | exit code | went on from step | MLflow run | as it should be |
| --- | --- | --- | --- | --- | --- |
"""

RANDOM_HEAD = """## At random moments

`python -m tests.faults.run --random N --seed S` lets one to three faults happen to small runs at random moments
(trainings on one or two workers with ZeRO 0 to 2, populations, grids; stored in a folder or a bucket), and gives the
same command again until it ends. With `--on-ranks` they are trainings on one or two gloo ranks without Ray, hurt in any
phase of a step; with `--on-ranks s3` in a bucket and in segments, as trials of searches are. What is compared, bit for
bit, with the same run that was never hurt: the weights of all models, the figures that do not tell the time, and the
scores. No process may hang or show a traceback. A draw is carried out again by `--random 1 --seed S --first K`;
`tests/faults/observed_random.jsonl` has a line for each of these.
"""
RANDOM_PARTS = {
    "Runs": lambda line: line["run"]["kind"] != "ranks",
    "Ranks": lambda line: line["run"]["kind"] == "ranks" and line["run"]["storage"] == "folder",
    "Ranks, in a bucket and in segments": lambda line: (
        line["run"]["kind"] == "ranks" and line["run"]["storage"] == "s3"
    ),
}


def note(name, row):
    """Keep what was seen of a scenario."""
    known = json.loads(OBSERVED.read_text(encoding="utf-8")) if OBSERVED.exists() else {}
    known[name] = {
        "fault": row.fault,
        "done": row.done,
        "exit_code": row.seen.exit_code,
        "resumed": row.seen.resumed,
        "mlflow": row.seen.mlflow,
        "said": re.sub(r"/tmp/hbtrain-fault-\w+", "FOLDER", row.said),
        "checks": row.checks,
    }
    OBSERVED.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def note_random(line):
    """Keep what was seen of a draw, in place of what was seen of it before."""
    lines = {_place(known): known for known in _random_lines()} | {_place(line): line}
    text = "".join(json.dumps(lines[place], ensure_ascii=False) + "\n" for place in sorted(lines))
    OBSERVED_RANDOM.write_text(re.sub(r"/tmp/hbtrain-fault-\w+", "FOLDER", text), encoding="utf-8")


def _place(line):
    return line["run"]["kind"] == "ranks", line["run"]["storage"], line["seed"], line["number"]


def _random_lines():
    if not OBSERVED_RANDOM.exists():
        return []
    return [json.loads(line) for line in OBSERVED_RANDOM.read_text(encoding="utf-8").splitlines()]


def random_table(lines):
    """Lines of a table: how often each fault happened, and how the runs ended that it happened to."""
    table = ["| fault | happened | in runs | of these ended as unhurt |", "| --- | --- | --- | --- |"]
    happened = {}
    for i, line in enumerate(lines):
        for process in line["processes"]:
            if process["hit"] is not None:
                happened.setdefault(process["fault"], []).append(i)
    for fault, runs in sorted(happened.items()):
        ended = sum(lines[i]["as_unhurt"] for i in set(runs))
        table.append(f"| {fault} | {len(runs)} | {len(set(runs))} | {ended} |")
    total = sum(map(len, happened.values())), len(lines), sum(line["as_unhurt"] for line in lines)
    return [*table, f"| all | {total[0]} | {total[1]} | {total[2]} |"]


def write(names, path):
    """Write the page of all that is known of these scenarios and of random faults."""
    known = json.loads(OBSERVED.read_text(encoding="utf-8"))
    rows = [known[name] for name in names if name in known]
    lines = [HEAD.rstrip("\n")]
    for row in rows:
        steps = ", ".join(map(str, row["resumed"])) or "–"
        verdict = ", ".join(f"**no: {check}**" for check, holds in row["checks"].items() if not holds) or "yes"
        cells = [row["fault"], row["done"], row["exit_code"], steps, ", ".join(row["mlflow"]), verdict]
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    lines += ["", "## What the run said, and what was looked at", ""]
    for row in rows:
        lines += [f"**{row['fault']}.** {', '.join(row['checks'])}.", "", "```", *_folded(row["said"]), "```", ""]
    lines += _random_section(_random_lines())
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _random_section(draws):
    """Lines of the page: what was drawn, and each draw that did not end as the run that was never hurt."""
    lines = [RANDOM_HEAD] if draws else []
    for title, belongs in RANDOM_PARTS.items():
        if chosen := list(filter(belongs, draws)):
            lines += [f"### {title}", "", *random_table(chosen), ""]
            lines += [
                f"- Seed {line['seed']}, draw {line['number']}: {'; '.join(line['wrong'])}."
                for line in chosen
                if not line["as_unhurt"]
            ]
    return lines


def _folded(text, width=110):
    """A long line, folded at spaces."""
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = "  " + word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]
