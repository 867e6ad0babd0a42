"""Functions called in processes of their own: results, errors, and processes that are ended."""

import math
import os
import threading
import time

import pytest

from twotowers.processes import ProcessError, processes


def test_what_is_called_runs_in_another_process_and_gives_its_result_or_error():
    with processes(2) as made:
        assert made.call(math.sqrt, 16.0) == 4.0
        assert made.call(os.getpid) != os.getpid()
        with pytest.raises(ValueError, match="math domain error"):
            made.call(math.sqrt, -1.0)


def test_one_at_a_time_needs_no_other_process():
    with processes(1) as made:
        assert made.call(os.getpid) == os.getpid()


def test_a_process_that_is_ended_is_one_sentence():
    with processes(2) as made, pytest.raises(ProcessError, match="A process that worked for this one was ended"):
        made.call(os._exit, 1)


def test_nobody_has_to_wait_for_what_is_of_no_use_any_more():
    with processes(2) as made:
        assert made.call(math.sqrt, 16.0) == 4.0  # they are there
        threading.Timer(0.1, made.end).start()
        with pytest.raises(ProcessError, match="was ended"):
            made.call(time.sleep, 600)


def test_what_is_printed_is_no_result(capfd):
    with processes(2) as made:
        assert made.call(print, "said") is None
    assert capfd.readouterr() == ("", "said\n")


def test_what_begins_when_nobody_waits_any_more_is_ended_too():
    with processes(2) as made:
        made.end()
        with pytest.raises(ProcessError, match="was ended"):
            made.call(time.sleep, 600)
