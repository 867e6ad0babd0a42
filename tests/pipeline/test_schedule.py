"""Work side by side: who waits for whom, what a failure or an interruption ends, and how far it is."""

import sys
import threading
import time
from types import SimpleNamespace

import pytest

from twotowers.chapters.registry import CHAPTERS, needs
from twotowers.pipeline import looks, schedule
from twotowers.pipeline.freshness import LOOK, State
from twotowers.pipeline.progress import Progress
from twotowers.pipeline.schedule import side_by_side
from twotowers.pipeline.submit import unheard
from twotowers.processes import processes
from twotowers.publishing.run_folder import RunFolder

NEEDS = {"c": ["a"], "d": ["a", "b", "c", "elsewhere"]}


HANG = 600  # seconds until a wait counts as one without end


def nothing():
    pass


def run(work, jobs=2, names="abcd", **options):
    return side_by_side(list(names), NEEDS, jobs, work, **{"look": nothing, "end": nothing} | options)


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_everything_is_done_once_and_behind_what_it_needs(jobs):
    begun, ended, lock = [], [], threading.Lock()

    def work(name):
        with lock:
            assert set(NEEDS.get(name, ())) - {"elsewhere"} <= set(ended)
            begun.append(name)
            assert len(begun) - len(ended) <= jobs
        with lock:
            ended.append(name)
        return name.upper()

    assert run(work, jobs) == {"a": "A", "b": "B", "c": "C", "d": "D"}
    assert sorted(begun) == list("abcd")


def test_two_do_run_at_the_same_time():
    meeting = threading.Barrier(2, timeout=HANG)
    assert run(lambda name: meeting.wait() if name in "ab" else None)


def test_a_failure_lets_the_running_end_and_begins_nothing_more(monkeypatch):
    """`b` goes on until the failure of `a` has been noticed; `e` needs nothing, and would begin otherwise."""
    begun, ended, noticed, plain = [], [], threading.Event(), schedule.wait

    def wait(running, **options):
        found = plain(running, **options)
        if any(job.exception() for job in found.done):
            noticed.set()
        return found

    monkeypatch.setattr(schedule, "wait", wait)

    def work(name):
        begun.append(name)
        if name == "a":
            raise ValueError("a")
        assert noticed.wait(HANG)
        ended.append(name)

    with pytest.raises(ValueError, match="a"):
        run(work, names="abcde")
    assert sorted(begun) == ["a", "b"]
    assert ended == ["b"]


def test_an_interruption_ends_what_is_running():
    stop = threading.Event()

    def look():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(lambda name: stop.wait(HANG), look=look, end=stop.set)
    assert stop.is_set()


def test_it_is_looked_at_while_it_runs(monkeypatch):
    monkeypatch.setattr(schedule, "TICK", 0.01)
    looks = threading.Semaphore(0)
    seen = run(lambda name: all(looks.acquire(timeout=HANG) for _ in range(3)), names="a", look=looks.release)
    assert seen == {"a": True}


def test_progress_tells_the_last_bar_of_each_chapter():
    progress = Progress()
    task, locate = progress.begin("task"), progress.begin("locate")
    assert progress.line() == "task, locate"
    task.write("\rlocate:   8%|8         | 1/13 [00:00<00:07,  1.65it/s]\rlocate:  50%|5   | 6/13 [01:00<02:07, 1it/s]")
    assert progress.line() == "task (locate 50 %, 02:07 left), locate"
    locate.write("\rprobe:  67%|######    | 2/3 [00:02<00:01,  1layer/s]")
    progress.end("task")
    assert progress.line() == "locate (probe 67 %, 00:01 left)"
    task.write("\rlate:   9%|8         | 1/13 [00:00<00:07,  1.65it/s]")  # a chapter that has ended is not shown
    assert progress.line() == "locate (probe 67 %, 00:01 left)"
    locate.write("\rprobe: 100%|##########| 3/3 [00:03<00:00,  1layer/s]")  # full: now it does something else
    assert progress.line() == "locate"


def test_progress_says_other_lines_once_and_bars_of_a_log_now_and_then(capsys, monkeypatch):
    progress = Progress("tiny: ")
    stream = progress.begin("task")
    stream.write("a warning\n  of two lines\n\x1b[A\n")
    stream.write("\rprobe:  10%|#         | 1/10 [00:01<00:09,  1.1layer/s]")
    progress.show()
    progress.show()
    assert capsys.readouterr().err == "task: a warning\ntask:   of two lines\n"
    monkeypatch.setattr(progress, "_next", 0.0)
    progress.show()
    progress.show()
    assert capsys.readouterr().err == "tiny: task (probe 10 %, 00:09 left)\n"


def test_a_terminal_gets_one_line_that_is_drawn_anew(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    progress = Progress()
    progress.begin("task")
    progress.show()
    progress.say("[2/9] tiny: locate")
    progress.clear()
    assert capsys.readouterr().err == "\r\x1b[Ktask\r\x1b[K[2/9] tiny: locate\n\r\x1b[K"


def test_a_job_that_is_cancelled_says_nothing_here(tmp_path, capfd):
    """Its process told of every Ctrl-C with a traceback, on the terminal."""
    submitit = pytest.importorskip("submitit")
    executor = submitit.AutoExecutor(folder=tmp_path, cluster="local")
    with unheard():
        job = executor.submit(time.sleep, 600)
    while not list(tmp_path.glob("*_log.err")):  # its task has begun
        time.sleep(0.1)
    job.cancel()
    while job.state == "RUNNING":
        time.sleep(0.1)
    assert capfd.readouterr().err == ""
    print("still heard", file=sys.stderr)
    assert capfd.readouterr().err == "still heard\n"


def test_a_page_is_drawn_anew_when_those_that_it_reads_are_in_their_places(tmp_path, monkeypatch):
    moved = []

    def draw(root, run, chapter, *given):
        assert needs(chapter) <= set(moved)
        moved.append(chapter)

    lines = [SimpleNamespace(chapter=chapter, state=State(LOOK)) for chapter in reversed(CHAPTERS)]
    monkeypatch.setattr(looks, "run_status", lambda *given: lines)
    monkeypatch.setattr(looks, "_draw_anew", draw)
    with processes(3) as drawing:
        looks.draw_looks_anew(tmp_path, [RunFolder(tmp_path / "a")], drawing)
    assert sorted(moved) == sorted(CHAPTERS)
