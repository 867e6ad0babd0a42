"""Tables of attention to demonstrations by construction, for claims that are true or false in them."""

import numpy as np
import pandas as pd


def synthetic(score, *, sets=6, seed=0):
    """A table like `read_heads` of one head: 8 demonstrations, scores from a function of (same, random numbers)."""
    rng, rows = np.random.default_rng(seed), []
    for number in range(sets):
        for query in range(4):
            labels = rng.permutation(["foo", "bar"] * 4)
            gold = ("foo", "bar")[query % 2]
            scores = score(labels == gold, rng.normal(size=8))
            weights = np.exp(scores) / np.exp(scores).sum()
            for i, label in enumerate(labels):
                rows.append((3, 1, number, query, gold, i, label, label == gold, weights[i], scores[i]))
    names = ["layer", "head", "set", "query", "gold", "demonstration", "label", "same", "weight", "score"]
    table = pd.DataFrame(rows, columns=names)
    return table.assign(score_unrotated=table["score"], cosine=rng.normal(size=len(table)))


def only_same(same, noise):
    return np.where(same, noise, noise - 40)


def ignores_class(same, noise):
    return 0 * noise


def prefers_other(same, noise):
    return noise - 4 * same
