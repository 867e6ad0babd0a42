"""The chapters, in the order of the book. What needs what follows from what each hands on and reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UnknownNameError
from ..paper import CLAIMS
from ..publishing.run_folder import effects_file, handed_file


@dataclass(frozen=True)
class Chapter:
    """One line of the registry.

    Attributes:
        name: of its text in `book/chapters`, and of its folder here.
        hands_on: names under which it hands results on to later chapters.
        reads: hand-offs that it reads; a chapter that judges a claim reads `accuracy`, too.
    """

    name: str
    hands_on: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


REGISTRY: tuple[Chapter, ...] = (
    Chapter("task", hands_on=("accuracy",)),
    Chapter("locate"),
    Chapter("knockout", hands_on=("heads", "ranking", "folds")),
    Chapter("shallow"),
    Chapter("values", reads=("heads", "folds")),
    Chapter("towers", reads=("heads", "ranking", "folds")),
    Chapter("imbalance", reads=("heads", "folds")),
    Chapter("order", reads=("heads", "folds")),
    Chapter("claims"),
)
CHAPTERS = tuple(chapter.name for chapter in REGISTRY)
GATE = "accuracy"  # handed on by `task`: whether the model does the task at all, which every judged claim asks


def find(name: str) -> Chapter:
    """A chapter by its name.

    Raises:
        UnknownNameError: there is none.
    """
    for chapter in REGISTRY:
        if chapter.name == name:
            return chapter
    raise UnknownNameError("chapter", name, CHAPTERS)


def needs_two_labels(name: str) -> bool:
    """Whether a chapter's question has no meaning with more than two labels: it is so of all its claims."""
    own = [claim.two_labels for claim in CLAIMS.values() if claim.chapter == find(name).name]
    return bool(own) and all(own)


def files_read(name: str) -> dict[str, str]:
    """What a chapter reads of its run's folder, with the chapter that makes it."""
    makers = {handed: chapter.name for chapter in REGISTRY for handed in chapter.hands_on}
    judged = [claim for claim, text in CLAIMS.items() if text.chapter == name]
    read = {handed_file(handed): makers[handed] for handed in find(name).reads}
    if judged:
        read[handed_file(GATE)] = makers[GATE]
    if name == "claims":
        read |= {effects_file(claim): text.chapter for claim, text in CLAIMS.items()}
    return {file: maker for file, maker in read.items() if maker != name}


def needs(name: str) -> set[str]:
    """The chapters whose results a chapter reads."""
    return set(files_read(name).values())


def with_needed(names: Sequence[str]) -> list[str]:
    """Chapters and all that they need, in the order of the book.

    Raises:
        UnknownNameError: a chapter that does not exist.
    """
    wanted, ahead = set[str](), [find(name).name for name in names]
    while ahead:
        name = ahead.pop()
        if name not in wanted:
            wanted.add(name)
            ahead += needs(name)
    return [name for name in CHAPTERS if name in wanted]
