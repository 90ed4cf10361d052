"""Tags of a new MLflow run: the command that made it, by whom, and with which packages, commit and hardware."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

import psutil

from hbtrain.config import without_passwords

PACKAGES = (
    "hbtrain", "torch", "ray", "deepspeed", "transformers", "sentence-transformers", "faiss-cpu", "faiss-gpu", "mlflow",
)  # fmt: skip


def source_tags(command: str) -> dict[str, str]:
    """What MLflow shows as a run's source: the command line, without passwords, and the commit of the current folder.

    It also names the user, where the environment does.
    """
    # Of a job the browser shows the whole command, of other types what follows its last slash.
    tags = {"mlflow.source.name": without_passwords(command), "mlflow.source.type": "JOB"}
    if commit := _git("rev-parse", "HEAD"):
        tags["mlflow.source.git.commit"] = commit
    if "USER" in os.environ:
        tags["mlflow.user"] = os.environ["USER"]
    return tags


def environment_tags() -> dict[str, str]:
    """What a run was made with: versions of packages, git commit, hardware."""
    tags = {f"version.{name}": found for name, found in versions(PACKAGES)}
    tags["version.python"] = platform.python_version()
    tags["hardware.host"] = platform.node()
    tags["hardware.cpus"] = str(os.cpu_count())
    tags["hardware.memory_gib"] = f"{psutil.virtual_memory().total / 2**30:.1f}"
    commit = _git("rev-parse", "HEAD")
    if commit:
        tags["git.commit"] = commit
        tags["git.dirty"] = str(bool(_git("status", "--porcelain"))).lower()
    return tags


def versions(names: Iterable[str]) -> Iterable[tuple[str, str]]:
    """(name, version) of those of the packages that are installed."""
    for name in names:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def _git(*arguments: str) -> str:
    """Output of a git command in the current folder; empty outside a repository."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
