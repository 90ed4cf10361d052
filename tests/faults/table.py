"""The table of faults as a page of the documentation."""

HEAD = """# Faults

What happens when something dies, hangs or is full. Every line was observed: `python -m tests.faults.run --write` hurts
runs of the quickstart recipe (two workers, 300 steps, a checkpoint every 50) one after the other and writes this page.

| fault | what was done | exit code | went on from step | MLflow run | as it should be |
| --- | --- | --- | --- | --- | --- |
"""


def write(rows, path):
    """Write the page."""
    lines = [HEAD.rstrip("\n")]
    for row in rows:
        steps = ", ".join(map(str, row.seen.resumed)) or "–"
        verdict = "yes" if row.good else "**no**: " + ", ".join(name for name, good in row.checks.items() if not good)
        cells = [row.fault, row.done, row.seen.exit_code, steps, ", ".join(row.seen.mlflow), verdict]
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    lines += ["", "## What the run said, and what was looked at", ""]
    for row in rows:
        lines += [f"**{row.fault}.** {', '.join(row.checks)}.", "", "```", *_folded(row.said), "```", ""]
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
