"""Which two words are written for the labels of a prompt set: two given ones, or the names of its own classes.

With two given words either stands for either class equally often (`design`). With names of classes the labels are
called *first* and *second* in every table, since the words change from set to set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import TaskError
from .written import shown

NATURAL, FLIPPED = "natural", "flipped"  # the classes' own names, and each the name of the other class
ROLES = ("first", "second")


@dataclass(frozen=True)
class LabelPair:
    """The labels of a task.

    Attributes:
        asked: `natural`, `flipped`, or two words with a comma between them.
        names: how tables call the two labels; the words themselves, where they are given.
        own: category -> its name as a label, where that is not the category's.
    """

    asked: str = "foo,bar"
    names: tuple[str, str] = ("foo", "bar")
    own: Mapping[str, str] = field(default_factory=dict)

    def words(self, categories: Sequence[str]) -> dict[str, str]:
        """What is written for each label, by its name, in a set of two categories, that of the first label first."""
        if self.asked not in (NATURAL, FLIPPED):
            return {name: name for name in self.names}
        written = [self.own.get(category, category) for category in categories]
        return dict(zip(self.names, written if self.asked == NATURAL else written[::-1], strict=True))

    def account(self) -> str:
        """What a reader is told of them, in plain text."""
        second, first = sorted(self.names, reverse=True)  # in the place of foo, of bar
        instead = f" Where the text says foo and bar, read {second} and {first}." if self != LabelPair() else ""
        if self.asked == NATURAL:
            said = f"Each category is labelled with its own name; the two of a set are called {first} and {second}."
        elif self.asked == FLIPPED:
            said = (
                f"Each category is labelled with the name of the other, so that only the demonstrations say which is "
                f"which; the two of a set are called {first} and {second}."
            )
        else:
            said = (
                f"One category is labelled {second}, the other {first}, and the draw is made anew for every "
                f"demonstration set, so only the demonstrations say which is which."
            )
        return said + instead


def label_pair(asked: str, own: Mapping[str, str] | None = None) -> LabelPair:
    """The labels that were asked for: `natural`, `flipped`, or two words; their order does not matter.

    Raises:
        TaskError: it is none of these.
    """
    if asked in (NATURAL, FLIPPED):
        return LabelPair(asked, ROLES, dict(own or {}))
    words = sorted((word.strip() for word in asked.split(",")), reverse=True)
    if len(words) != 2 or not all(map(shown, words)) or len(set(map(shown, words))) < 2 or not asked.isprintable():
        raise TaskError(
            f"The labels '{asked}' cannot be used; give two different words with a comma between them, or {NATURAL}, "
            f"or {FLIPPED}."
        )
    return LabelPair(",".join(words), (words[0], words[1]))
