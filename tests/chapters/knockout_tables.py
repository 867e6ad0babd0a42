"""What the page on knock-out is given in tests: tables made by hand."""

import pandas as pd

from twotowers.chapters.knockout import knockout
from twotowers.statistics import summarise

NAN = float("nan")


def ranked_of(drops):
    """A ranking from the margin lost by each head, layers x heads; accuracy is lost at a tenth of it."""
    table = pd.DataFrame([(layer, head, x / 10, x) for layer, row in enumerate(drops) for head, x in enumerate(row)])
    table.columns = ["layer", "head", "accuracy_drop", "margin_drop"]
    return knockout.with_top(table.sort_values("margin_drop", ascending=False, kind="stable", ignore_index=True))


def removed_of(accuracy, zeroed=None, sets=2):
    """A dose table of two prompts a set from (removed, kind) -> (accuracy of bar, of foo)."""
    rows = [
        (n, kind, 0, (zeroed or {}).get((n, kind), n), i, query, label, value)
        for (n, kind), values in accuracy.items()
        for i in range(sets)
        for query, (label, value) in enumerate(zip(("bar", "foo"), values, strict=True))
    ]
    return pd.DataFrame(rows, columns=["removed", "kind", "draw", "zeroed", "set", "query", "label", "accuracy"])


def prompts_of(accuracy, sets=2):
    """A table of named groups from name -> (accuracy of bar, of foo)."""
    rows = [
        (name, i, label, value)
        for name, values in accuracy.items()
        for i in range(sets)
        for label, value in zip(("bar", "foo"), values, strict=True)
    ]
    return pd.DataFrame(rows, columns=["name", "set", "label", "accuracy"])


def serving_of(rows):
    return pd.DataFrame(rows, columns=["layer", "head", "harm_rank", "raise_rank", "worse_rank", "label"])


def located_of(increases):
    """As `Located.heads`, from the increase of each head, layers x heads, the same for both labels."""
    rows = [(i, j, label, x) for i, row in enumerate(increases) for j, x in enumerate(row) for label in ("bar", "foo")]
    return pd.DataFrame(rows, columns=["layer", "head", "label", "log_increase"])


DROPS = [[0.0, 0.1, -0.2], [0.0, 0.0, 0.3], [2.5, 0.0, 0.0], [1.5, -0.5, 0.0]]  # layers x heads


INCREASES = [[9.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.05, 0.5], [3.0, 0.0, -1.0]]


DOSES = {(0, "top"): (1.0, 0.8), (0, "random"): (1.0, 0.8), (1, "top"): (0.5, 0.3), (1, "random"): (1.0, 0.7)}


SPLIT = {
    "none": (1.0, 0.8),
    "bar-heads": (0.25, 0.9),
    "foo-heads": (1.0, 0.79),
    "random for bar-heads": (1.0, 0.8),
    "random for foo-heads": (0.5, 0.5),
}


GROUPS = {
    "none": [],
    "bar-heads": [(3, 0)],
    "foo-heads": [(3, 0), (2, 2)],
    "random for bar-heads": [(3, 1)],
    "random for foo-heads": [(2, 1), (3, 2)],
}


SERVING = serving_of([(3, 0, 1, 1, 1, "bar"), (3, 0, 2, 1, 2, "foo"), (2, 2, 1, 4, 4, "foo")])


def split_of(accuracy, sets=2):
    return summarise(prompts_of(accuracy, sets), ["name", "label"], "accuracy")
