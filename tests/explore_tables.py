"""Tables of single prompts in single heads, made by hand, for pages that are drawn without a model."""

import pandas as pd

NAN = float("nan")
PARTS = ("query-other", "query-same", "keys", "values", "keys-values")
HOSTILE = "</script><script>alert(1)</script> ``` $1$ \u202eevil \"'&<b>"


def explore_tables(
    heads=(("3.1", "in-context"), ("2.0", "lowest exchange score")), text="cat", labels=("bar", "foo"), unknown=False
):
    """Two prompts of one set of two demonstrations, `six: bar` and one of `text`; the second label is the first's.

    With `unknown` no number is known.
    """
    names = [name for name, _ in heads]
    first, second = labels
    queries = [(0, 0, text, second, first, "ten", "dog"), (0, 1, "ten", first, second, text, "ten")]
    prompts = pd.DataFrame(queries, columns=["set", "query", "text", "label", "towards", "other", "same"])
    written = [("six", 0, "text"), (":", 0, "between"), (first, 0, "label"), (text, 1, "text"), (":", 1, "between"),
               (second, 1, "label"), ("dog", 2, "text"), (":", 2, "between")]  # fmt: skip
    tokens = pd.DataFrame(
        [(0, q, i, *token, *([0.125] * len(names))) for q in (0, 1) for i, token in enumerate(written)],
        columns=["set", "query", "position", "token", "demonstration", "kind", *names],
    )
    # weight, query_other, query_same, keys, score, value, moved
    numbers = {0: (0.25, 0.5, 0.2, 0.55, 1.5, 0.75, -0.125), 1: (0.6, 0.1, 0.58, 0.3, 3.25, -0.5, 0.375)}
    rows = [
        (0, q, labels[q], name, i, ("six", text)[i], labels[i], i != q, *numbers[i])
        for q in (0, 1)
        for name in names
        for i in (0, 1)
    ]
    columns = ["set", "query", "towards", "head", "demonstration", "text", "label", "same", "weight"]
    columns += ["query_other", "query_same", "keys", "score", "value", "moved"]
    margins = [(0, q, labels[q], "intact", "none", 2.0) for q in (0, 1)]
    margins += [
        (0, q, labels[q], name, part, margin)
        for q in (0, 1)
        for name, least in (*((name, 1.0) for name in names), ("in-context heads", -1.5))
        for part, margin in zip(PARTS, (least, 1.9, least, least, 2.0), strict=True)
    ]
    tables = {
        "roles": pd.DataFrame(list(heads), columns=["head", "role"]),
        "prompts": prompts,
        "tokens": tokens,
        "labels": pd.DataFrame(rows, columns=columns),
        "exchanged": pd.DataFrame(margins, columns=["set", "query", "towards", "head", "part", "margin"]),
    }
    if unknown:
        tables["tokens"][names] = NAN
        tables["labels"][columns[8:]] = NAN
        tables["exchanged"]["margin"] = NAN
    return tables


def many_tables():
    """As `explore_tables`, with a third label, `baz`, to which each prompt can be moved, too, by half as much."""
    tables = explore_tables()
    for name in ("prompts", "labels", "exchanged"):
        table = tables[name]
        moved = {"other": "oak"} if name == "prompts" else {}
        again = table.assign(towards="baz", **moved)
        if name == "exchanged":
            again["margin"] /= 2
        tables[name] = pd.concat([table, again], ignore_index=True)
    tables["prompts"] = tables["prompts"].sort_values(["set", "query"], kind="stable", ignore_index=True)
    return tables
