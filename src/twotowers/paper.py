"""What the paper says: its claims, numbers and constants, each with its source; data only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, and how it is judged, fixed before it is measured.

    Attributes:
        chapter: which measures it.
        sentence: the paper's statement in our words.
        effect: what is measured in each demonstration set; its mean is positive if the claim is right.
        smallest: the smallest effect of interest, in the unit of the effect.
        unit: of what the number is.
        control: a second criterion, without which there is no support; empty where there is none.
        needs: which evidence that takes, by the names of `statistics.judge`.
        percent: whether the effect is printed in percent.
        paper: the paper's number, with its source, if one is known.
        two_labels: whether it asks for one of two labels, so that it has no meaning with more.
    """

    chapter: str
    sentence: str
    effect: str
    smallest: float
    unit: str
    control: str = ""
    needs: tuple[str, ...] = ()
    percent: bool = False
    paper: str = ""
    two_labels: bool = False


# Smallest effects of interest: 5 points of an accuracy, a probability, its slope or an attention; 0.1 of a rank
# correlation or of a relative change; 10% of the intact margin. Crossings less than one layer apart have no order:
# what happens within a layer does not show in the residuals between layers. With a standard deviation of 2.5 points,
# one below the mean and one above it are 5 points apart.
LAYER = 1.0
POINTS, SPREAD = 0.05, 0.025
RANK, MARGIN = 0.1, 0.1

CLAIMS: dict[str, Claim] = {
    "C1": Claim(
        "shallow",
        "Demonstrations merge into their labels in shallow layers.",
        "crossing layer of labels minus that of text and separator in the hand-over test; beside it: half the layers "
        "minus the crossing layer of text and separator",
        smallest=LAYER,
        unit="layers",
        control="the lowest share of the intact margin that exchanges of the same places within a class leave, "
        "at any layer, is above zero: they do not cross",
        needs=("control",),
    ),
    "C2": Claim(
        "shallow",
        "The query merges into the last position in shallow layers.",
        "crossing layer of labels minus that of the query in the hand-over test; the last position is its mirror",
        smallest=LAYER,
        unit="layers",
        control="the lowest share of the intact margin that exchanges with a query of the same class, and of labels "
        "within a class, leave, at any layer, is above zero: they do not cross",
        needs=("control",),
    ),
    "C3": Claim(
        "locate",
        "Deep attention raises the answer most.",
        "direct margin of attention in the deep half minus that in the shallow half, as a share of the intact margin",
        smallest=MARGIN,
        unit="of the intact margin",
        percent=True,
    ),
    "C4": Claim(
        "knockout",
        "A few heads carry the task.",
        "two-way accuracy lost without the in-context heads",
        smallest=POINTS,
        unit="of accuracy",
        control="more than random groups of as many heads of the same layers",
        needs=("random",),
        percent=True,
        paper="87.6% to 24.4% after zeroing about 1% of heads (abstract of version 3)",
    ),
    "C5": Claim(
        "knockout",
        "A label's heads serve that label and not the other.",
        "accuracy lost without a label's heads on prompts of that label, or gained on those of the other, whichever is "
        "less; the lower of the two labels",
        smallest=POINTS,
        unit="of accuracy",
        control="more than on prompts whose labels are dealt at random",
        needs=("control",),
        percent=True,
        paper="accuracy falls on the own label and rises on the other (summaries of version 3)",
    ),
    "C6": Claim(
        "values",
        "Values carry the labels.",
        "margin lost when the in-context heads' values at foo and bar positions are exchanged, as a share of the "
        "intact margin",
        smallest=MARGIN,
        unit="of the intact margin",
        control="more than in random groups of as many deep heads",
        needs=("random",),
        percent=True,
        paper="weighted: +0.26 to +0.32 at foo positions, -0.11 to -0.20 at bar positions (summaries of version 3)",
    ),
    "C7": Claim(
        "towers",
        "In-context heads attend more to labels of the query's class.",
        "attention to same-class label positions minus that to others",
        smallest=POINTS,
        unit="of attention",
        control="more than the average of all other deep heads, and than random groups of as many",
        needs=("control", "random"),
        percent=True,
    ),
    "C8": Claim(
        "towers",
        "The weight sets how much label information moves.",
        "rank correlation, over label positions, of attention weight and what the position moves towards its own label "
        "by the model's gradient",
        smallest=RANK,
        unit="rank correlation",
        control="more than the average of all other deep heads, and than random groups of as many",
        needs=("control", "random"),
    ),
    "C9": Claim(
        "towers",
        "Query and key measure similarity.",
        "margin lost when the in-context heads ask with a query of the other class, minus with one of the same class, "
        "as a share of the intact margin",
        smallest=MARGIN,
        unit="of the intact margin",
        control="more than in all deep heads but these together, and than in random groups of as many",
        needs=("control", "random"),
        percent=True,
    ),
    "C10": Claim(
        "towers",
        "Swapped labels change attention more than values.",
        "relative change of attention minus relative change of values when all labels are swapped",
        smallest=RANK,
        unit="relative change",
        control="more than the average of all other deep heads",
        needs=("control",),
        paper="attention -21.8% to -43.0% and +86.0% to +237.8%, values far less (summaries of version 3)",
    ),
    "C11": Claim(
        "imbalance",
        "A label that is shown more often is predicted more often.",
        "slope of P(foo) between the two labels on the share of foo demonstrations that goes when attention in the "
        "in-context heads is balanced by count",
        smallest=POINTS,
        unit="slope",
        control="more than in all deep heads but these together, and than in random groups of as many",
        needs=("control", "random"),
        two_labels=True,
    ),
    "C12": Claim(
        "order",
        "A label that stands near the end is predicted more often.",
        "effect of the last two demonstrations' label on P(foo) that goes when the in-context heads attend without "
        "position",
        smallest=POINTS,
        unit="of probability",
        control="more than in random groups of as many heads",
        needs=("random",),
        percent=True,
        two_labels=True,
    ),
    "C13": Claim(
        "imbalance",
        "Adding weighted minority values steadies accuracy.",
        "size of the shift of P(foo) towards the more frequent label, before minus after the mitigation",
        smallest=POINTS,
        unit="of probability",
        control="more than a constant offset of equal size, and than in random groups of as many heads",
        needs=("control", "random", "before"),
        percent=True,
        paper="fluctuation -22%, relative: less is better (abstract of version 3)",
        two_labels=True,
    ),
    "C14": Claim(
        "order",
        "Removing position in the in-context heads steadies accuracy.",
        "standard deviation of P(gold) over orders, before minus after the mitigation",
        smallest=SPREAD,
        unit="of probability",
        control="more than in random groups of as many heads",
        needs=("random", "before"),
        percent=True,
        paper="standard deviation -17%, relative: less is better (abstract of version 3)",
        two_labels=True,
    ),
}
# The registry's keys of its models. Source: the authors' public notebooks and version 3.
PAPER_MODELS = {
    "gpt2-large": "GPT2-large",
    "gpt-j-6b": "GPT-J",
    "llama-7b": "Llama 7B",
    "llama-13b": "Llama 13B",
    "llama-30b": "Llama 30B",
}

PAPER_TOP = 10  # of both of its lists, in which its in-context heads stand
PAPER_SHARE = 6 / 1024  # heads of a label among all heads: Llama 7B in the paper's version 3

PAPER_STRENGTH = 0.03
# Weighted logit minus: heads, positions, the paper's range and its sign. Source: summaries of version 3.
PAPER_WEIGHTED = (
    ("foo-heads", "foo", "+0.26 to +0.32", 1),
    ("foo-heads", "bar", "-0.02 to -0.14", -1),
    ("bar-heads", "bar", "-0.11 to -0.20", -1),
)

PAPER_PROMPT = "love : bar like : bar eight : foo two : foo one :"

PAPER_ACCURACY = 0.876  # before any head is removed, on five sentence data sets; abstract of version 3

# Log-probability increase summed over layers, in nats: model, attention, MLPs. Source: the authors' public notebooks,
# on a factual prompt whose answer is the sport of a player.
PAPER_SUMS = (("GPT2-large", 5.59, 4.41), ("Llama 7B", 6.08, 3.93))

# Attention after all labels are exchanged: heads, right answer before, the paper's range. Source: summaries of
# version 3, whose numbers we read as those for prompts whose answer was foo.
PAPER_SWAP = (
    ("foo-heads", "foo", "-21.8% to -43.0%"),
    ("bar-heads", "foo", "+86.0% to +237.8%"),
)

# Change of the fluctuation of accuracy with weighted minority values added, in per cent, and its source.
PAPER_FLUCTUATION = (
    (-22.0, "abstract of version 3"),
    (-29.1, "Llama-7B; summaries"),
    (-14.9, "GPT-J; summaries"),
)

# Changes of standard deviations over orders with position removed, in per cent, and their sources.
PAPER_ORDER_ACCURACY = (
    (-17.0, "abstract of version 3"),
    (-23.4, "Llama-7B; summaries"),
    (-10.6, "GPT-J; summaries"),
)
PAPER_ORDER_ATTENTION = ((-40.1, "summaries"), (-37.7, "summaries"))
