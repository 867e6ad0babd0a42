"""What was found, in sentences: at the head and the end of a chapter, and of a whole model on the first page.

Every sentence is made from verdicts; which of its forms a reader sees depends on them alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..paper import CLAIMS, Claim
from ..statistics import (
    ABSENT,
    CONTRADICTED,
    INCONCLUSIVE,
    NEGLIGIBLE,
    NOTHING_TO_CURE,
    SUPPORTED,
    UNSTABLE,
    UNTESTABLE,
    Estimate,
    Verdict,
)
from .ledger import NOT_RUN, badge, measured, nothing, plain, random_groups

Verdicts = Mapping[str, Verdict]  # by claim; of those that were measured

HOLDS = {
    SUPPORTED: "This holds in {model}",
    NEGLIGIBLE: "This holds in {model}, but too weakly to matter",
    ABSENT: "This does not show in {model}",
    INCONCLUSIVE: "In {model} this is open",
    CONTRADICTED: "In {model} the opposite holds",
    UNSTABLE: "In {model} this has no stable sign",
    NOTHING_TO_CURE: "In {model} there is nothing to cure",
    UNTESTABLE: "This cannot be tested on {model}",
    NOT_RUN: "This was not measured on {model}",
}
FIRST = {"towers": "C9"}  # the claim that a chapter is about, where that is not the first in the paper's order
CORE = ("C4", "C6", "C9")  # the steps without which there are no two towers
FIGURES = {
    "C1": "shallow-hand-over", "C2": "shallow-hand-over", "C3": "locate-margin", "C4": "knockout-group",
    "C7": "towers-attention", "C8": "towers-transfer", "C9": "towers-exchange", "C10": "towers-swap",
    "C11": "imbalance-response", "C12": "order-response", "C13": "imbalance-mitigation", "C14": "order-mitigation",
}  # fmt: skip
# The figure that stands for a chapter where its page opens.
CENTRAL = {
    "task": "task-shots", "locate": "locate-margin", "knockout": "knockout-group", "shallow": "shallow-hand-over",
    "values": "values-logit-minus", "towers": "towers-exchange", "imbalance": "imbalance-response",
    "order": "order-response", "claims": "claims-forest",
}  # fmt: skip
# What the reader takes into the next chapter, if the chapter's first claim is supported, and if not.
FOLLOWS = {
    "locate": (
        "The deep half is thus where to look for the heads that decide.",
        "That the heads of the deep half decide is thus not shown by what they write; the next chapter intervenes.",
    ),
    "knockout": (
        "These heads, chosen by what their queries do, are the ones that the later chapters look into.",
        "The later chapters look into the same heads all the same, and what they say of them is to be read with that.",
    ),
    "shallow": (
        "So a label position can stand for its demonstration when deeper layers read it.",
        "So it is not settled that a label position stands for its demonstration when deeper layers read it.",
    ),
    "values": (
        "What a head takes from a position tells the label; which position it takes it from is the next question.",
        "That the label arrives by these heads' values is thus not shown; where they look is asked all the same.",
    ),
    "towers": (
        "If query and key choose the labels, frequent and near labels should gain; the next two chapters look.",
        "What the paper derives from its towers, a lean towards frequent and near labels, is looked at all the same.",
    ),
    "imbalance": (
        "The count of a label thus works through these heads; the next chapter asks the same of its position.",
        "Whatever the count of a label does, it is not shown to work through these heads; the next chapter looks "
        "at its position.",
    ),
    "order": (
        "With this the paper's argument is complete; the ledger sets all its steps side by side.",
        "This was the last step of the paper's argument; the ledger sets all of them side by side.",
    ),
}


def claims_of(chapter: str) -> list[str]:
    """The claims that a chapter measures, the one that it is about first."""
    own = [name for name, claim in CLAIMS.items() if claim.chapter == chapter]
    return sorted(own, key=lambda name: name != FIRST.get(chapter, name))


def opening(chapter: str, model: str, verdicts: Verdicts) -> str:
    """What a chapter has found on a model, claim by claim; nothing for a chapter without claims.

    Args:
        model: what a reader is told of the run, as Markdown.
    """
    first, *others = [found(name, model, verdicts.get(name)) for name in claims_of(chapter)] or [""]
    if not first:
        return ""
    return "\n\n".join([first, "\n".join(f"- {line}" for line in others)]).strip()


def found(name: str, model: str, verdict: Verdict | None) -> str:
    """One claim with its verdict, effect, control and reason, in one sentence after its own."""
    claim, word = CLAIMS[name], verdict.verdict if verdict else NOT_RUN
    said = HOLDS[word].format(model=model)
    parts = _effect(verdict, claim) + _why(verdict, claim) if verdict else []
    return f"{badge(word)} *{name}. {claim.sentence}* {said}{': ' if parts else ''}{'; '.join(parts)}."


def _effect(verdict: Verdict, claim: Claim) -> list[str]:
    """The effect with its interval, beside what would matter; digits that say nothing are left out."""
    if not verdict.estimate.known:
        return []
    tiny = nothing(verdict.estimate, claim)
    effect = measured(verdict.estimate, claim) if tiny else f"{short(verdict.estimate, claim)} {claim.unit}"
    return [f"**{effect}**, where {plain(claim.smallest, claim)} would matter"]


def short(estimate: Estimate, claim: Claim) -> str:
    """Mean and interval in the unit of the claim, to a tenth of a percent or a hundredth."""
    return format(estimate, "+z.1%" if claim.percent else "+z.2f")


def _why(verdict: Verdict, claim: Claim) -> list[str]:
    """What speaks against more; where nothing does, the control that was passed."""
    if verdict.reason:
        return [verdict.reason]
    control, parts = verdict.control, []
    if control is not None and control.known:
        parts.append(f"its control, which has to be above zero, is {short(control, claim)}")
    if verdict.random_p is not None:
        parts.append(random_groups(verdict, verdict.random_p))
    return parts


def closing(chapter: str, verdicts: Verdicts) -> str:
    """What a reader takes along from a chapter; nothing for a chapter without claims."""
    names = claims_of(chapter)
    if not names:
        return ""
    made = _words(verdicts, names)
    held = [name for name in names if made[name] == SUPPORTED]
    if len(names) == 1:
        said = f"The chapter's claim, {names[0]}, is {made[names[0]]}."
    elif set(made.values()) == {UNTESTABLE}:
        said = f"Of the chapter's {in_words(len(names))} claims, none can be tested."
    else:
        said = f"Of the chapter's {in_words(len(names))} claims, {_hold(held, len(names))}{_listed(held)}."
    return f"{said} {FOLLOWS[chapter][names[0] not in held]}"


def answer(model: str, verdicts: Verdicts) -> str:
    """Whether the paper's account holds in a model: a word, and the steps that it rests on."""
    made = _words(verdicts, CORE)
    held = [name for name, verdict in made.items() if verdict == SUPPORTED]
    steps = "\n".join(f"- {_step(name, made[name], verdicts.get(name))}" for name in CORE)
    return f"**{_in_short(list(made.values()))}** Of the {in_words(len(CORE))} steps that make the two towers, " + (
        f"{_hold(held, len(CORE))} in {model}:\n\n{steps}"
    )


def _step(name: str, word: str, verdict: Verdict | None) -> str:
    """A step with its effect, and what that is an effect of."""
    claim = CLAIMS[name]
    said = f"{badge(word)} {claim.sentence.rstrip('.')} ({name})"
    if verdict is None:
        return f"{said}."
    parts = "; ".join(_effect(verdict, claim) + _why(verdict, claim))
    return f"{said}{': ' if parts else ''}{parts}. The effect is {claim.effect}."


def beyond(verdicts: Verdicts) -> str:
    """What of the ledger holds and what does not: whichever are fewer by name, and what is contradicted."""
    made = _words(verdicts, CLAIMS)
    held = [name for name, word in made.items() if word == SUPPORTED]
    others = [name for name in CLAIMS if name not in held]
    said = f"Of the paper's {in_words(len(CLAIMS))} claims, {in_words(len(held)) if held else 'none'} "
    said += "is supported" if len(held) < 2 else "are supported"
    if not held or not others:
        return f"{said}."
    if len(others) <= len(held):
        return f"{said}. Not supported: {'; '.join(_named(name, made[name]) for name in others)}."
    against = [_named(name) for name in others if made[name] == CONTRADICTED]
    opposite = f" The opposite was found of: {'; '.join(against)}." if against else ""
    return f"{said}: {'; '.join(map(_named, held))}.{opposite}"


def _named(name: str, word: str = "") -> str:
    """A claim within a sentence, with its verdict."""
    return f"{CLAIMS[name].sentence.rstrip('.').lower()} ({name}{', ' if word else ''}{word})"


def _words(verdicts: Verdicts, names: Iterable[str]) -> dict[str, str]:
    return {name: verdicts[name].verdict if name in verdicts else NOT_RUN for name in names}


def _in_short(made: Sequence[str]) -> str:
    """Of the verdicts on the core."""
    if all(verdict == SUPPORTED for verdict in made):
        return "Yes."
    if SUPPORTED in made:
        return "In part."
    if all(verdict == NOT_RUN for verdict in made):
        return "Not measured yet."
    if all(verdict in (UNTESTABLE, NOT_RUN) for verdict in made):
        return "It cannot be tested."
    return "No." if {ABSENT, CONTRADICTED, NEGLIGIBLE} & {*made} else "It is open."


def link_of(claim: str, run: str, figures: Iterable[str]) -> str:
    """The anchor of what shows a claim: its figure, where the run has it, else its verdict on the chapter's page."""
    figure = FIGURES.get(claim)
    return f"fig-{run}-{figure}" if figure in set(figures) else verdict_anchor(claim, run)


def verdict_anchor(claim: str, run: str) -> str:
    """Of the sentence that says a claim's verdict."""
    return f"verdict-{run}-{claim.lower()}"


def in_words(number: int) -> str:
    """Small numbers as words."""
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    return words[number] if number < len(words) else str(number)


def _hold(held: Sequence[str], number: int) -> str:
    """How many of so many, of two or more, hold."""
    if not held:
        return "none holds"
    if len(held) == number:
        return "both hold" if number == 2 else f"all {in_words(number)} hold"
    return f"{in_words(len(held))} {'hold' if len(held) > 1 else 'holds'}"


def _listed(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""
