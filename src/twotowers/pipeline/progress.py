"""How far each of several running chapters is, from the progress bars that their kernels draw."""

from __future__ import annotations

import re
import shutil
import sys
import threading
import time

from ..publishing.markdown import seen

BAR = re.compile(r"(?P<what>[^\r\n:|]+):\s+(?P<percent>\d+)%\|[^\r\n]*<(?P<left>[\d:]+)")  # what tqdm draws
CURSOR = re.compile(r"\x1b\[[\d;]*[A-Za-z]")  # how bars below each other move
LOG_EVERY = 60.0  # seconds between two lines of progress in a log


class Progress:
    """Standard error of a run: a line for each chapter that begins, and how far those that run are.

    A terminal shows the latter in one line that is drawn anew; a log gets it once a minute.
    """

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self._bars: dict[str, str] = {}
        self._said: list[str] = []
        self._lock = threading.Lock()
        self._terminal, self._next = sys.stderr.isatty(), time.monotonic() + LOG_EVERY

    def begin(self, chapter: str) -> Stream:
        """Follow a chapter; what its kernel writes goes to the stream."""
        self._bars[chapter] = ""
        return Stream(self, chapter)

    def end(self, chapter: str) -> None:
        self._bars.pop(chapter, None)

    def read(self, chapter: str, text: str) -> None:
        """Take in what a kernel wrote: the last bar counts, a line that is none is shown with the next `show`."""
        text = CURSOR.sub("", text)
        bars = list(BAR.finditer(text))
        if bars and chapter in self._bars:
            facts = bars[-1].groupdict()  # a bar that is full says nothing of what is done now
            self._bars[chapter] = "" if facts["percent"] == "100" else "{what} {percent} %, {left} left".format(**facts)
        lines = [line for line in text.split("\n") if line.strip() and "\r" not in line and not BAR.search(line)]
        with self._lock:
            self._said += [f"{chapter}: {line}" for line in lines]

    def line(self) -> str:
        """All running chapters: `knockout (knock-out 40 %, 01:10 left), task`."""
        return ", ".join(f"{chapter} ({bar})" if bar else chapter for chapter, bar in list(self._bars.items()))

    def say(self, line: str) -> None:
        with self._lock:
            self._erase()
            print(seen(line), file=sys.stderr, flush=True)

    def show(self) -> None:
        """Say what kernels said, and how far they are."""
        self._tell()
        line = self.line()
        if line and self._terminal:
            with self._lock:
                self._erase()
                print(line[: shutil.get_terminal_size().columns - 1], end="", file=sys.stderr, flush=True)
        elif line and time.monotonic() >= self._next:
            self._next = time.monotonic() + LOG_EVERY
            self.say(self.prefix + line)

    def clear(self) -> None:
        """Say what is still to be said, and leave no unfinished line."""
        self._tell()
        self._erase()

    def _tell(self) -> None:
        with self._lock:
            lines, self._said = self._said, []
        for line in lines:
            self.say(line)

    def _erase(self) -> None:
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class Stream:
    """What papermill takes for the standard error of one chapter."""

    def __init__(self, progress: Progress, chapter: str) -> None:
        self.progress, self.chapter = progress, chapter

    def write(self, text: str) -> None:
        self.progress.read(self.chapter, text)

    def flush(self) -> None:
        """Nothing is held back."""
