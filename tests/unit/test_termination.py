"""Signals that ask a process to end, sent to this one and to a child."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from hbtrain.cluster.termination import (
    asked_by,
    postponed_termination,
    signals_preserved,
    termination_as_exception,
)
from hbtrain.errors import Terminated
from tests.integration.command import ROOT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_what_runs_and_handlers_are_as_before(number):
    before = signal.getsignal(number)
    with (
        pytest.raises(Terminated, match=f"ended by {number.name}; the same command goes on"),
        termination_as_exception(),
    ):
        os.kill(os.getpid(), number)
        raise AssertionError
    assert signal.getsignal(number) == before


def test_it_is_postponed_while_a_training_runs():
    with termination_as_exception():
        assert asked_by() is None
        with postponed_termination():
            os.kill(os.getpid(), signal.SIGTERM)
        assert asked_by() == "SIGTERM"
    with termination_as_exception():
        assert asked_by() is None, "that was another command"


def test_handlers_of_ray_do_not_stay():
    with pytest.raises(Terminated), termination_as_exception():
        with signals_preserved():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
        os.kill(os.getpid(), signal.SIGTERM)


def test_without_a_command_handlers_are_left_alone():
    before = signal.getsignal(signal.SIGTERM)
    with signals_preserved():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_thread_sets_no_handlers():
    done = []

    def body():
        with termination_as_exception(), signals_preserved():
            done.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert done == [signal.getsignal(signal.SIGTERM)]


TWICE = """
import os, signal
from hbtrain.cluster.termination import postponed_termination, termination_as_exception
with termination_as_exception(), postponed_termination():
    os.kill(os.getpid(), signal.SIGUSR1)
    print("goes on")
    os.kill(os.getpid(), signal.SIGTERM)
    print("never")
"""

ONCE = """
import os, signal, sys
from hbtrain.cli.main import app, main
@app.command
def wait():
    print("at work")
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
sys.argv = ["hbtrain", "wait"]
main()
"""


@pytest.mark.parametrize("script", [TWICE, ONCE])
def test_the_exit_code_is_that_of_sigterm(script):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 143, done.stderr
    if script == TWICE:
        assert done.stdout == "goes on\n"
        assert done.stderr == ""
    else:
        assert done.stderr == "ended by SIGTERM; the same command goes on, a training from its last checkpoint\n"
