"""What is known of a run that somebody else has made: who, when, with which version, and how a page says so.

Such a run is marked in its record, under `contributed`. It is never executed and never counts as this project's own;
it does not become stale when the code moves on, but damage to it is noticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import UserError
from ..publishing.markdown import escape
from ..publishing.run_folder import RunFolder
from ..publishing.specification import specification_digest
from .freshness import DAMAGED, MISSING, STALE, State

KEY = "contributed"  # of a run's record, and of what its figures' records say
CONTRIBUTED = "contributed"  # the state of its chapters
AGAIN = "remove its folder and import its archive again"


class NotOursError(UserError):
    """A run that somebody else has made, where one of one's own is asked for."""


@dataclass(frozen=True)
class Contribution:
    """Where a run comes from.

    Attributes:
        by: who ran it, if they say so.
        date: of its last chapter, as 2026-11-30; `imported`: the day on which it was taken in.
        version: of twotowers, that it was made with.
        archive_sha256: of what was handed in; `specification_sha256`: of the claims that it measured.
    """

    by: str | None
    date: str
    imported: str
    version: str
    archive_sha256: str
    specification_sha256: str

    @property
    def by_whom(self) -> str:
        return f"by {self.by}" if self.by else "by somebody who gives no name"

    @property
    def said(self) -> str:
        """In one sentence, as Markdown."""
        whom = f"by {escape(self.by)}" if self.by else self.by_whom
        return (
            f"This run was contributed {whom}: it was made on {escape(self.date)} with twotowers "
            f"{escape(self.version)}, and taken in on {escape(self.imported)}."
        )

    def record(self) -> dict[str, Any]:
        return asdict(self)


def contribution(run: RunFolder) -> Contribution | None:
    """Where a run comes from; None if it is our own."""
    return contribution_in(run.record_or_empty())


def contribution_in(record: Mapping[str, Any]) -> Contribution | None:
    said = record.get(KEY)
    if said is None:
        return None
    fields = Contribution.__dataclass_fields__
    known = said if isinstance(said, dict) else {}
    given: dict[str, Any] = {name: str(known.get(name, "")) for name in fields}
    return Contribution(**given | {"by": str(known["by"]) if known.get("by") else None})


def notice(made: Contribution) -> str:
    """What stands at the head of each of its pages."""
    return (
        f":::{{admonition}} Contributed\n:class: note contributed\n{made.said} It has not been run again by this "
        f"project. Its numbers are as they were handed in, whatever has changed in the code since; text, figures and "
        f"verdicts were made from them when it was taken in.\n:::"
    )


def state_of(run: RunFolder, made: Contribution, chapter: str) -> State:
    """The state of a chapter of a contributed run: damage and another specification count, nothing else does."""
    entry = run.entry(chapter)
    if not entry:
        return State(MISSING, (AGAIN,))
    if damage := run.damage(entry):
        return State(DAMAGED, (*damage, AGAIN))
    if made.specification_sha256 != specification_digest():
        return State(STALE, ("the specification of the claims is another than it was made for",))
    return State(CONTRIBUTED, (f"{made.by_whom}, made on {made.date} with twotowers {made.version}, not run here",))
