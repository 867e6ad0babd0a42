"""Functions called in processes of their own: results, errors, and processes that are ended."""

import math
import os

import pytest

from twotowers.pipeline.processes import ProcessError, end_processes, processes


def test_what_is_called_runs_in_another_process_and_gives_its_result_or_error():
    with processes(2) as call:
        assert call(math.sqrt, 16.0) == 4.0
        assert call(os.getpid) != os.getpid()
        with pytest.raises(ValueError, match="math domain error"):
            call(math.sqrt, -1.0)


def test_one_at_a_time_needs_no_other_process():
    with processes(1) as call:
        assert call(os.getpid) == os.getpid()


def test_a_process_that_is_ended_is_one_sentence():
    with processes(2) as call:
        end_processes()
        with pytest.raises(ProcessError, match="A process that drew figures was ended"):
            call(os.getpid)
