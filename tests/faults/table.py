"""The table of faults as a page of the documentation."""

import json
import re
from pathlib import Path

OBSERVED = Path(__file__).parent / "observed.json"

HEAD = """# Faults

What happens when something dies, hangs or is full. Every line was observed: `python -m tests.faults.run --write` hurts
runs of the quickstart recipe (two workers, 300 steps, a checkpoint every 50) one after the other and writes this page.

| fault | what was done | exit code | went on from step | MLflow run | as it should be |
| --- | --- | --- | --- | --- | --- |
"""


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


def write(names, path):
    """Write the page of all that is known of these scenarios."""
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
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


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
