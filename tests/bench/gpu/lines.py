"""The lines of a campaign: printed and written at once, read again, and put into one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.bench.measure import rounded

HEAD = ("stage", "case", "device", "failed", "left_out")


class Lines:
    """What a campaign has found so far."""

    def __init__(self, device: str, output: Path | None = None) -> None:
        """Lines measured on a device; `output`: a file of JSON lines that they are appended to."""
        self.all: list[dict[str, Any]] = []
        self._device, self._output = device, output
        if output is not None:
            output.parent.mkdir(parents=True, exist_ok=True)

    def add(self, line: dict[str, Any]) -> None:
        """Print the line as JSON, and append it to the file."""
        line = rounded({"stage": line["stage"], "device": self._device} | line)
        self.all.append(line)
        text = json.dumps(line)
        print(text, flush=True)
        if self._output is not None:
            with self._output.open("a", encoding="utf-8") as file:  # closed after each line: nothing can be lost
                file.write(text + "\n")

    @classmethod
    def read(cls, path: Path) -> Lines:
        """The lines of a file, such as one whose campaign was cut off; they are not printed."""
        found = cls("")
        found.all = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return found

    def table(self) -> str:
        """All figures as one table in Markdown, and below it what failed or was left out."""
        rows = ["| stage | what | figures |", "| --- | --- | --- |"]
        missing, compiled, seconds = [], [], 0.0
        for line in self.all:
            case, figures = line.get("case", ""), {k: v for k, v in line.items() if k not in HEAD and v is not None}
            if reason := line.get("failed") or line.get("left_out"):
                how = "failed" if "failed" in line else "left out"
                missing.append(f"- `{line['stage']}`{f', {case}' if case not in ('', 'end') else ''} {how}: {reason}")
            elif case != "end":
                rows.append(f"| {line['stage']} | {case} | {', '.join(map(_figure, figures.items()))} |")
            if case == "end":
                seconds += line["seconds"]
                compiled += [f"`{line['stage']}`: `{x}`" for x in line["compilers_started"]]
        devices = ", ".join(sorted({line["device"] for line in self.all}))
        notes = [f"On {devices}, {seconds:.0f} s of stages. Compilers started: {'; '.join(compiled) or 'none'}."]
        return "\n".join([*rows, "", *notes, *(["", *missing] if missing else []), ""])


def _figure(item: tuple[str, Any]) -> str:
    name, value = item
    shown = (
        f"{value:,.4g}" if isinstance(value, float) and abs(value) < 1e4 else f"{value:,}" if _number(value) else value
    )
    return f"{name.replace('_', ' ')} {shown}"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
