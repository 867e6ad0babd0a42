"""Which words are written for the labels of a prompt set: given ones, or the names of its own classes.

A prompt set shows two classes unless a task says otherwise, and has as many labels. With given words each stands for
each class equally often (`design`). With names of classes the labels are called *first*, *second* and so on in every
table, since the words change from set to set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..clustering import OF_SET
from ..errors import TaskError
from .written import shown

NATURAL, FLIPPED = "natural", "flipped"  # the classes' own names, and each the name of another class
ROLES = OF_SET
WORDS = ("foo", "bar", "baz", "qux", "quux", "corge", "grault", "garply")  # without a meaning, if none are given
MOST = len(WORDS)  # classes of a prompt set


@dataclass(frozen=True)
class TaskLabels:
    """The labels of a task, one for each class that a prompt set shows.

    Attributes:
        asked: `natural`, `flipped`, or words with a comma between them.
        names: how tables call the labels; the words themselves, where they are given.
        own: category -> its name as a label, where that is not the category's.
    """

    asked: str = "foo,bar"
    names: tuple[str, ...] = ("foo", "bar")
    own: Mapping[str, str] = field(default_factory=dict)

    @property
    def usual(self) -> bool:
        """Whether they are those that a task of so many classes has unless others are asked for."""
        return self == usual_labels(len(self.names))

    @property
    def of_categories(self) -> bool:
        """Whether categories are labelled with names of categories."""
        return self.asked in (NATURAL, FLIPPED)

    def all_words(self, categories: Sequence[str]) -> list[str]:
        """All that may be written for a label in sets of these categories."""
        if not self.of_categories:
            return [*self.names]
        return [self.own.get(category, category) for category in categories]

    def words(self, categories: Sequence[str]) -> dict[str, str]:
        """What is written for each label, by its name, in a set of so many categories, that of the first label first.

        Flipped, each category has the name of the next, the last that of the first.
        """
        if not self.of_categories:
            return {name: name for name in self.names}
        written = self.all_words(categories)
        return dict(zip(self.names, written if self.asked == NATURAL else [*written[1:], written[0]], strict=True))

    def account(self) -> str:
        """What a reader is told of them, in plain text."""
        number, named = _number(len(self.names)), f"{', '.join(self.names[:-1])} and {self.names[-1]}"
        only = "so only the demonstrations say which is which"
        if self.of_categories:
            name = "its own name" if self.asked == NATURAL else f"the name of another of its set, {only}"
            said = f"Each category is labelled with {name}; the {number} of a set are called {named}."
        else:
            said = (
                f"The {number} categories of a set are labelled {named}, and the draw is made anew for every "
                f"demonstration set, {only}."
            )
        if self == TaskLabels():
            return said
        if len(self.names) == 2:
            return f"{said} Where the text says foo and bar, read {' and '.join(sorted(self.names, reverse=True))}."
        return (
            f"{said} Where the text says foo and bar, read these {number}; where it says the other label, or the other "
            f"class, read all others, or, of an exchange, the next of {', '.join(sorted(self.names))}, in a circle. "
            f"Two-way accuracy is then that between all {number}."
        )


def usual_labels(classes: int) -> TaskLabels:
    """The labels of a task of so many classes, unless others are asked for."""
    return task_labels(",".join(WORDS[:classes]), classes=classes)


def task_labels(asked: str, own: Mapping[str, str] | None = None, *, classes: int = 2) -> TaskLabels:
    """The labels that were asked for: `natural`, `flipped`, or as many words as classes; their order does not matter.

    Raises:
        TaskError: it is none of these.
    """
    if asked in (NATURAL, FLIPPED):
        return TaskLabels(asked, ROLES[:classes], dict(own or {}))
    words = sorted((word.strip() for word in asked.split(",")), reverse=True)
    wrong = len(words) != classes or not all(map(shown, words)) or len(set(map(shown, words))) < classes
    if wrong or not asked.isprintable():
        raise TaskError(
            f"The labels '{asked}' cannot be used; give {_number(classes)} different words with a comma between them, "
            f"or {NATURAL}, or {FLIPPED}."
        )
    return TaskLabels(",".join(words), tuple(words))


def _number(classes: int) -> str:
    return "two" if classes == 2 else str(classes)


def number_shown(task: str, there: int, shows: str) -> int:
    """How many categories each prompt set of a task shows, of all that are there: so many, or `all`.

    Raises:
        TaskError: the task has too few, or too many to show all.
    """
    number = there if shows == "all" else int(shows)
    if number > there:
        raise TaskError(f"The task '{task}' has {there} categories, so it cannot show {number}; ask for fewer.")
    if number > MOST:
        raise TaskError(
            f"The task '{task}' has {there} categories, but a prompt set shows {MOST} at most; ask for "
            f":classes={MOST}, or fewer."
        )
    return number
