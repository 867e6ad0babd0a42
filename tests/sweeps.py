"""Every sweep of the package, on a few heads: a name, and what it makes of a model and prompt sets, as one table."""

import numpy as np
import pandas as pd

from twotowers.chapters.imbalance import mitigation
from twotowers.chapters.imbalance.response import imbalance
from twotowers.chapters.knockout import group, scores
from twotowers.chapters.knockout.screen import screen
from twotowers.chapters.locate.locate import locate
from twotowers.chapters.order import order, removal
from twotowers.chapters.shallow.blocking import block
from twotowers.chapters.shallow.probing import demonstration_residuals, probe
from twotowers.chapters.towers.edges import edge_effects
from twotowers.chapters.towers.explore import explore
from twotowers.chapters.towers.reading import read_heads
from twotowers.chapters.towers.transfer import transfer
from twotowers.chapters.values.direct import written_directly
from twotowers.chapters.values.logit_minus import position_logit_minus
from twotowers.chapters.values.top_words import label_in_top
from twotowers.prompts.sets import prompt_set
from twotowers.tracing import exchange
from twotowers.tracing.balancing import balanced
from twotowers.tracing.hand_over import hand_overs
from twotowers.tracing.outcomes import outcomes

HEADS = [(1, 0), (2, 1)]  # every model here has them
EXACT = 3  # heads that are exchanged, so that they are chosen by an estimate


def in_orders(model, sets):
    numbered, places = dict(enumerate(sets, start=3)), tuple(range(len(sets[0].demonstrations)))
    return removal.answers_in(model, numbered, {n: [places, places[::-1]] for n in numbered}, {"own": HEADS})


def in_two_orders(model, sets):
    places = tuple(range(len(sets[0].demonstrations)))
    found = order.in_orders(model, sets, {"own": HEADS}, [places, places[::-1]], strengths=(0.0, 0.5))
    return pd.concat([found.prompts, found.attention])


def located(model, sets):
    found = locate(model, sets)
    arrays = [found.layer_increase, found.head_increase, *found.direct.tensors()]
    return pd.concat([found.sums(), *(flat(array) for array in arrays)])


def residuals(model, sets):
    return pd.concat([flat(x) for x in demonstration_residuals(model, sets, [1, 2])])


def probed(model, sets):
    category = {text: text[0] for s in sets for text, _ in s.demonstrations}
    return probe(model, sets, category, [1, 2])


def calibrated(model, sets):
    free = [prompt_set(model, s.demonstrations, [("N/A", s.labels[0])]) for s in sets]
    intact = mitigation.mitigate(model, {"all": sets}, HEADS, [])
    return mitigation.calibrate(model, intact, {"all": free})


def explored(model, sets):
    tables = explore(model, sets, dict.fromkeys(HEADS, "in-context"), HEADS)
    return pd.concat([table.assign(table=name) for name, table in tables.items()])


def flat(array):
    return pd.DataFrame({"x": np.asarray(array).ravel()})


SWEEPS = {
    "knock-out": lambda model, sets: outcomes(model, sets, [[], [(0, 1)], HEADS]),
    "answers": lambda model, sets: outcomes(model, sets, [[]]),
    "exchange": lambda model, sets: exchange.exchanges(model, sets, [([], "none"), (HEADS, "query-other")]),
    "one exchange": lambda model, sets: exchange.exchange(model, sets, HEADS, "values"),
    "hand over": lambda model, sets: hand_overs(model, sets, {("query", False): [0, 2], ("text", True): [1]}),
    "balance": lambda model, sets: balanced(model, sets, [[], HEADS]),
    "block": lambda model, sets: block(model, sets, ["text_to_label"], [range(1), range(1, 3)]),
    "mean": lambda model, sets: group.at_mean(model, sets, HEADS, group.mean_z(model, sets)),
    "orders": in_orders,
    "order": in_two_orders,
    "locate": located,
    "logit minus": lambda model, sets: position_logit_minus(model, sets, HEADS),
    "top words": lambda model, sets: label_in_top(model, sets, HEADS, k=3),
    "direct margin": lambda model, sets: written_directly(model, sets, HEADS),
    "read heads": lambda model, sets: read_heads(model, sets, HEADS),
    "transfer": lambda model, sets: transfer(model, sets, HEADS),
    "edge effects": edge_effects,
    "head scores": lambda model, sets: scores.head_scores(model, sets, exact=EXACT),
    "screen": screen,
    "imbalance": lambda model, sets: imbalance(model, {0.25: sets, 0.5: sets}, HEADS),
    "mitigation": lambda model, sets: mitigation.mitigate(model, {"all": sets}, {"own": HEADS}, [0.1, 3.0]),
    "calibration": calibrated,
    "residuals": residuals,
    "probe": probed,
    "explore": explored,
}
