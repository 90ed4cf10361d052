"""`hbtrain submit`: runs a command as a job of a Ray cluster. `cluster/submit` in a checkout does the same."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from itertools import dropwhile
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from hbtrain.errors import ConfigError, HbtrainError, Terminated
from hbtrain.reporting.console import replace_unencodable

COMMANDS = ("train", "evaluate", "sweep")
PASSED_VARIABLES = (
    "DO_NOT_TRACK",
    "HBTRAIN_CACHE",
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "MLFLOW_DISABLE_TELEMETRY",
    "MLFLOW_TRACKING_URI",
    "OMP_NUM_THREADS",
)
"""Environment variables that are passed on to the job. Everyone with access to the cluster can read them."""


def submit(*arguments: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> None:
    """Run a command on a Ray cluster, as a job: `hbtrain submit train quickstart --storage /shared/runs`."""
    sys.exit(run(arguments, "hbtrain submit"))


def run(arguments: Sequence[str], program: str) -> int:
    """Submit a job, print its output until it ends, and return its exit code.

    Args:
        arguments: options, a command, and the command's own arguments.
        program: name of the program in the help.
    """
    replace_unencodable()
    options = _parser(program).parse_args(arguments)
    from hbtrain.cluster.jobs import check_not_running, follow, job_client, send_job

    mode = os.environ.get("RAY_AUTH_MODE")
    try:
        _check_passwords(options.arguments)
        _check(options.command, options.arguments)
        environment = _environment(options.env)
        client = job_client(options.address)
        entrypoint = f"python -m hbtrain.cli.main {options.command} {shlex.join(options.arguments)}"
        check_not_running(client, entrypoint)
        job = send_job(client, entrypoint, environment)
    except HbtrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    # Ray's own command sends the token only with this variable.
    ray = "ray" if os.environ.get("RAY_AUTH_MODE") == mode else "RAY_AUTH_MODE=token ray"
    address = shlex.quote(client.get_address())
    print(f"job {job}: {entrypoint}\n  stop it with   {ray} job stop --address {address} {job}", flush=True)
    if options.no_wait:
        return 0
    how = f"follow it with   {ray} job logs --follow --address {address} {job}"
    try:
        return follow(client, job)
    except KeyboardInterrupt as end:
        print(f"the job goes on; {how}", file=sys.stderr)
        return end.exit_code if isinstance(end, Terminated) else 130
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        print(f"error: the cluster does not answer any more ({reason}); where the job goes on, {how}", file=sys.stderr)
        return 1


def _parser(program: str) -> argparse.ArgumentParser:
    """A parser that leaves all arguments after the command to the job; cyclopts would parse flags among them."""
    from hbtrain.cluster.jobs import CHECKOUT

    sent = "this installed package" if CHECKOUT is None else "the sources of this checkout"
    about = f"Run a training, an evaluation or a sweep as a job of a Ray cluster, with {sent}."
    parser = argparse.ArgumentParser(prog=program, description=about)
    parser.add_argument("--address", help="the cluster's dashboard; by default $RAY_API_SERVER_ADDRESS")
    parser.add_argument("--env", action="append", default=[], metavar="NAME[=VALUE]", help="one more variable to pass")
    parser.add_argument("--no-wait", action="store_true", help="do not wait for the job's end")
    parser.add_argument("command", choices=COMMANDS, help="what to run")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="as without a cluster")
    return parser


def _check(command: str, arguments: list[str]) -> None:
    """Raise ConfigError or DataError for a mistake in the command that can be found before the job is sent."""
    from hbtrain.config import load_config
    from hbtrain.config.load import parse_flags
    from hbtrain.evaluation.benchmarks import parse_benchmarks
    from hbtrain.runs.run_inputs import ACCEPT, named_data_sets
    from hbtrain.storage import is_remote
    from hbtrain.sweeps.space import base_config, trials_of
    from hbtrain.sweeps.space_file import load_space, with_flags

    if not arguments:
        raise ConfigError(f"{command} what? give its arguments as without a cluster")
    first, *rest = (argument for argument in arguments if argument != ACCEPT)
    merges = (command, first) == ("sweep", "merge")
    if command == "evaluate" or merges:
        flags = parse_flags(list(dropwhile(lambda argument: merges and not argument.startswith("--"), rest)))
        files = _several(flags.get("catalogue"))
        if "data" not in flags:
            parse_benchmarks(_several(flags.get("benchmark")), files)
        key, output = "--output", str(flags.get("output", ""))
    else:
        if command == "train":
            files, config = [first], load_config(first, parse_flags(rest))
        else:
            space = with_flags(load_space(first), parse_flags(rest))
            trials_of(space)
            files, config = [first, space.recipe], base_config(space)
        named_data_sets(config)
        files += config.data.catalogue
        key, output = "storage", config.storage
    if not Path(output).is_absolute() and not is_remote(output):
        flag = f"--{key.removeprefix('--')}"
        raise ConfigError(
            f"{key} = {output!r}: a job's own folder is temporary; give an absolute path that all nodes see, or a URI: "
            f"{flag} /... or s3://..."
        )
    _check_sent(files)


def _several(value: Any) -> list[str]:
    """The values of a flag that takes several, each as text."""
    return [] if value is None else [str(x) for x in value] if isinstance(value, list) else [str(value)]


def _check_sent(files: Sequence[str]) -> None:
    """Raise ConfigError for a recipe or space that the job would not find.

    A checkout is sent as a whole, with its recipes and spaces; an installed hbtrain is sent without other files.
    """
    from hbtrain.cluster.jobs import CHECKOUT

    for name in files:
        if CHECKOUT is None and Path(name).suffix in {".yaml", ".yml"} and not Path(name).is_absolute():
            raise ConfigError(f"{name}: a job gets no files from here; give an absolute path that all nodes see")


def _check_passwords(arguments: list[str]) -> None:
    """Raise ConfigError for an argument with a password."""
    from hbtrain.config import without_passwords

    for argument in arguments:
        if without_passwords(argument) != argument:
            raise ConfigError(
                f"{without_passwords(argument)} holds a password, which everyone with access to the cluster could read "
                "in the job's command; set MLFLOW_TRACKING_URI on the cluster"
            )


def _environment(more: list[str]) -> dict[str, str]:
    """The environment variables for the job; `more` are the values of `--env`.

    Raises:
        ConfigError: a variable is not set, or holds a password.
    """
    from hbtrain.config import without_passwords

    environment = {name: os.environ[name] for name in PASSED_VARIABLES if name in os.environ}
    for text in more:
        name, equals, value = text.partition("=")
        if not equals and name not in os.environ:
            raise ConfigError(f"--env {name}: it is not set here; set it, or write --env {name}=VALUE")
        environment[name] = value if equals else os.environ[name]
    for name, value in environment.items():
        if without_passwords(value) != value:
            raise ConfigError(f"{name} holds a password, which a job's settings would show; set it on the cluster")
    return environment
