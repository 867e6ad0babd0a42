"""What the paper says: its claims, numbers and constants, each with its source; data only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        chapter: which measures it.
        sentence: the paper's statement in our words.
        effect: what is measured; its mean is positive if the claim is right.
        percent: whether the effect is printed in percent.
        paper: the paper's number, with its source, if one is known.
    """

    chapter: str
    sentence: str
    effect: str
    percent: bool = False
    paper: str = ""


CLAIMS: dict[str, Claim] = {
    "C1": Claim(
        "shallow",
        "Demonstrations merge into their labels in shallow layers.",
        "accuracy lost by cutting text to label in the first third of layers, minus that in the last third",
        percent=True,
    ),
    "C2": Claim(
        "shallow",
        "The query merges into the last position in shallow layers.",
        "accuracy lost by cutting query to last position in the first third, minus the same in the last third",
        percent=True,
    ),
    "C3": Claim(
        "locate",
        "Deep attention raises the answer most.",
        "log-probability increase of attention in the deep half minus the shallow half, layer 0 apart (nats)",
    ),
    "C4": Claim(
        "knockout",
        "A few heads carry the task.",
        "accuracy lost without the top 1 % of heads, minus that without random heads of the same layers",
        percent=True,
        paper="87.6 % to 24.4 % after zeroing about 1 % of heads (abstract of version 3)",
    ),
    "C5": Claim(
        "knockout",
        "A label's heads serve that label and not the other.",
        "accuracy lost on prompts of the heads' own label, minus that on prompts of the other label",
        percent=True,
        paper="accuracy falls on the own label and rises on the other (summaries of version 3)",
    ),
    "C6": Claim(
        "values",
        "Values carry the labels.",
        "logit minus of in-context heads' values at foo positions, minus that at bar positions (logits)",
        paper="weighted: +0.26 to +0.32 at foo positions, -0.11 to -0.20 at bar positions (summaries of version 3)",
    ),
    "C7": Claim(
        "towers",
        "In-context heads attend more to labels of the query's class.",
        "attention to same-class label positions minus that to others",
        percent=True,
    ),
    "C8": Claim(
        "towers",
        "The weight sets how much label information moves.",
        "rank correlation of attention weight and log-probability increase over label positions",
    ),
    "C9": Claim(
        "towers",
        "Query and key measure similarity.",
        "AUC of q.k for 'same class' minus AUC of the cosine of the same residuals",
    ),
    "C10": Claim(
        "towers",
        "Swapped labels change attention more than values.",
        "relative change of attention minus relative change of values when all labels are swapped",
        paper="attention -21.8 % to -43.0 % and +86.0 % to +237.8 %, values far less (summaries of version 3)",
    ),
    "C11": Claim(
        "imbalance",
        "A label that is shown more often is predicted more often.",
        "slope of P(foo) between the two labels on the share of foo demonstrations",
    ),
    "C12": Claim(
        "order",
        "A label that stands near the end is predicted more often.",
        "slope of the prediction of foo on how much nearer its demonstrations stand",
    ),
    "C13": Claim(
        "imbalance",
        "Adding weighted minority values steadies accuracy.",
        "fluctuation of accuracy when a demonstration is dropped, before minus after the mitigation",
        percent=True,
        paper="fluctuation -22 % (abstract of version 3)",
    ),
    "C14": Claim(
        "order",
        "Removing position in the in-context heads steadies accuracy.",
        "standard deviation of accuracy over orders, before minus after the mitigation",
        percent=True,
        paper="standard deviation -17 % (abstract of version 3)",
    ),
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
    ("foo-heads", "foo", "-21.8 % to -43.0 %"),
    ("bar-heads", "foo", "+86.0 % to +237.8 %"),
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
