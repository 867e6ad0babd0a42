"""How often the book's rule calls *supported* what is true of random heads, or of prompts that teach nothing.

By hand, for it takes long (about 25 forwards of last positions a group and set, and 1 of whole prompts):

    python tests/rates.py --run book/runs/smollm2-135m [--model smollm2-135m] [--groups 200] [--sets 12] [--deals 5]
        [--seed 0] [--keep FOLDER]

N random groups of deep heads, as many heads as are in-context in the run, stand in for these one after the other in
C4, C6, C7 and C9. Controls are random groups, as in the book; those of C6 and C9 are taken from the other groups drawn,
which share no head with the one in question. C4's are measured for those groups alone that need them, since without an
interval above zero there is no support. C5 and C11 are judged for the heads of the run on prompts whose labels are
dealt at random, once for each deal; as a model cannot do these prompts, the gate is left out. Folds are left out, too.
What was measured is kept, set by set, and an interrupted call goes on. The last lines are the shares; groups that hold
an in-context head may be supported by right, and are counted apart.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from twotowers.chapters.imbalance import balance, designs, response
from twotowers.chapters.knockout import group as knocked
from twotowers.chapters.knockout import serving
from twotowers.chapters.towers import edges
from twotowers.paper import CLAIMS
from twotowers.prompts.sets import categories_of
from twotowers.prompts.variants import all_dealt
from twotowers.statistics import SUPPORTED, judge
from twotowers.study import Scale, Study, open_study
from twotowers.tracing.controls import GROUPS, control_groups, minus
from twotowers.tracing.exchange import exchanges
from twotowers.tracing.heads import deep_heads, different, random_groups, random_heads
from twotowers.tracing.outcomes import outcomes

PARTS = ("values", "query-other", "query-same")  # of a group; the last two of all other deep heads as well


def verdict(study, claim, effects, **given):
    """A claim's verdict by itself, without Holm: a single claim is what a rate is of."""
    sets = categories_of(study.evaluation)
    return judge(effects, CLAIMS[claim].smallest, categories=sets, **given).verdict


class Kept:
    """Tables by name in a folder: made once, then read; how long is left is printed."""

    def __init__(self, folder):
        self.folder, self.begun = folder, time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)

    def each(self, name, numbers, measure):
        """`measure(i)` of each number, in one table."""
        tables, made, begun = [], 0, time.monotonic()
        for done, i in enumerate(numbers, 1):
            place = self.folder / f"{name}-{i}.csv"
            if not place.is_file():
                measure(i).to_csv(place.with_suffix(".new"), index=False)
                place.with_suffix(".new").replace(place)
                made += 1
                left = (time.monotonic() - begun) / made * (len(numbers) - done)
                print(f"{name}: {done} of {len(numbers)}, {left / 60:.1f} min left", flush=True)
            tables.append(pd.read_csv(place))
        return pd.concat(tables, ignore_index=True)


def exchanged(study, groups, kept):
    """Margins lost by group and set: `group, set, values, chosen, others`, shares of the intact margin."""
    deep = deep_heads(study.model)
    choices = [([], "none")]
    for own in groups:
        others = [head for head in deep if head not in set(own)]
        choices += [(own, part) for part in PARTS] + [(others, part) for part in PARTS[1:]]

    def measure(i):
        table = exchanges(study.model, [study.evaluation[i]], choices).groupby("group")["margin"].mean()
        by_group = table.to_numpy()[1:].reshape(len(groups), len(PARTS) + 2)
        columns = ["values", "other", "same", "others_other", "others_same"]
        return pd.DataFrame(by_group, columns=columns).assign(group=range(len(groups)), set=i, intact=table[0])

    table = kept.each("exchanged", range(len(study.evaluation)), measure)
    whole = table["intact"].mean()
    return table[["group", "set"]].assign(
        values=(table["intact"] - table["values"]) / whole,
        chosen=(table["same"] - table["other"]) / whole,
        others=(table["others_same"] - table["others_other"]) / whole,
    )


def by_exchange(study, groups, kept, gate, rng):
    """Verdicts on C6 and C9 of every group."""
    table, found = exchanged(study, groups, kept), {"C6": [], "C9": []}
    means = table.groupby("group")[["values", "chosen"]].mean()
    for i, own in enumerate(groups):
        apart = [j for j, other in enumerate(groups) if not set(own) & set(other)]
        drawn = means.loc[rng.choice(apart, size=min(GROUPS, len(apart)), replace=False)]
        mine = table[table["group"] == i]
        for claim, column in (("C6", "values"), ("C9", "chosen")):
            effects, others = (mine[["set", name]].set_axis(["set", "effect"], axis=1) for name in (column, "others"))
            control = minus(effects, others) if claim == "C9" else None
            given = {"random": drawn[column].tolist(), "control": control, "accuracy": gate}
            found[claim].append(verdict(study, claim, effects, **given))
    return found


def by_attention(study, groups, gate):
    """Verdicts on C7 of every group, all from one reading."""
    read = edges.edge_effects(study.model, study.evaluation)
    made = [edges.contrast(read, "attention", own, seed=i) for i, own in enumerate(groups)]
    return [verdict(study, "C7", c.effects, control=c.beside, random=c.random, accuracy=gate) for c in made]


def by_zeroing(study, groups, kept, gate, rng):
    """Verdicts on C4 of every group; random groups of the same layers where they can matter."""
    model, found = study.model, []
    choices = [[], *groups]
    table = kept.each("zeroed", range(len(study.evaluation)),
                      lambda i: outcomes(model, [study.evaluation[i]], choices).assign(set=i))  # fmt: skip
    means = table.groupby(["group", "set"])["accuracy_two_way"].mean().unstack("group")
    for i, own in enumerate(groups, 1):
        effects = (means[0] - means[i]).rename("effect").reset_index()
        said = verdict(study, "C4", effects, accuracy=gate)
        if said.startswith(SUPPORTED):
            drawn = different(lambda own=own: random_heads(own, model.arch.n_heads, rng), GROUPS)
            control = outcomes(model, study.evaluation, drawn).groupby("group")["accuracy_two_way"].mean()
            said = verdict(study, "C4", effects, random=(means[0].mean() - control).tolist(), accuracy=gate)
        found.append(said)
    return found


def by_dealing(study, heads, deals):
    """Verdicts on C5 and C11 of each deal, the control of C5 being another deal.

    There is nothing to learn, so the model cannot do the task, and the rule does not ask further. `ungated` is what its
    effects, controls and intervals would say alone.
    """
    model, found = study.model, {"C5": [], "C11": [], "C5 ungated": [], "C11 ungated": []}
    own = {name: chosen for name, chosen in heads.items() if name != "all"}
    names = {"none": [], **{f"{name}-heads": chosen for name, chosen in own.items()}}
    groups, uneven = control_groups(model, heads["all"], seed=study.seed), designs.uneven_sets(study)
    for deal in range(deals):
        dealt, again = (all_dealt(model, study.evaluation, seed) for seed in (2 * deal, 2 * deal + 1))
        effects, other = (knocked.own_label_effect(serving.named_groups(model, sets, names)) for sets in (dealt, again))
        gate = outcomes(model, dealt, [[]]).rename(columns={"accuracy_two_way": "effect"})
        evidence = {"C5": {"effects": effects, "control": minus(effects, other), "accuracy": gate}}
        answers = balance.balanced_answers(model, designs.dealt_sets(replace(study, seed=deal), uneven), groups)
        evidence["C11"] = designs.renumbered(balance.evidence(answers, response.accuracy(answers)), study)
        for claim, made in evidence.items():
            found[claim].append(verdict(study, claim, **made))
            found[f"{claim} ungated"].append(verdict(study, claim, **{**made, "accuracy": None}))
        print(f"deals: {deal + 1} of {deals}", flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="a run of the model, which says its heads")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--groups", type=int, default=200)
    parser.add_argument("--sets", type=int, default=12)
    parser.add_argument("--deals", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for what was measured")
    options = parser.parse_args()
    begun, opened = time.monotonic(), open_study(options.model)
    scale = Scale("rates", 2, options.sets, opened.scale.shots, queries=4, draws=1)
    study, rng = Study(opened.model, opened.task, scale, options.seed), np.random.default_rng(options.seed)
    handed = json.loads((options.run / "handed" / "heads.json").read_text())["value"]
    heads = {name: [tuple(head) for head in own] for name, own in handed.items()}
    size = len(heads["all"])
    groups = random_groups(deep_heads(study.model), size, options.groups, seed=options.seed)
    key = "-".join(map(str, (study.model.identity[:12], size, options.groups, options.sets, options.seed)))
    kept = Kept((options.keep or Path(tempfile.mkdtemp(prefix="rates-"))) / key)
    gate = outcomes(study.model, study.evaluation, [[]]).rename(columns={"accuracy_two_way": "effect"})
    found = {"C7": by_attention(study, groups, gate), **by_exchange(study, groups, kept, gate, rng)}
    found["C4"] = by_zeroing(study, groups, kept, gate, rng)
    touched = [bool(set(own) & set(heads["all"])) for own in groups]
    for said, wanted in (("without an", False), ("with an", True)):
        part = {claim: [v for v, t in zip(own, touched, strict=True) if t == wanted] for claim, own in found.items()}
        report(part, f"random groups of {size} deep heads {said} in-context one, {options.sets} sets")
    report(by_dealing(study, heads, options.deals), f"deals of labels, {options.sets} sets")
    print(f"{(time.monotonic() - begun) / 60:.1f} minutes")


def report(found, of):
    """A line for each claim: what share is supported, of how many, and how all verdicts fell."""
    for claim, verdicts in sorted(found.items()):
        share = np.mean([said == SUPPORTED for said in verdicts]) if verdicts else float("nan")
        print(f"{claim}: supported {share:.1%} of {len(verdicts)} {of}: {dict(Counter(verdicts))}", flush=True)


if __name__ == "__main__":
    main()
