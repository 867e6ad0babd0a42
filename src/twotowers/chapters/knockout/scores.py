"""Scores of every head, and the in-context heads: those whose queries decide which label arrives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from ...arguments import as_numbers, require_between, require_columns, require_places, require_seed, require_whole
from ...errors import HeadError
from ...models.model import Model
from ...models.surroundings import undisturbed
from ...prompts.packing import Batch, pack
from ...prompts.sets import PromptSet, as_sets
from ...tracing.capture import capture
from ...tracing.contrasts import one_other, targets
from ...tracing.exchange import exchanged_margins, exchanged_z
from ...tracing.heads import HEAD, Head, as_heads, every_head, is_deep, pairs
from ...tracing.label_edges import label_edges, margin_gradients
from ...tracing.sweep import sweep

SHARE = 0.015  # of all heads that are called in-context
EXACT = 400  # heads that are exchanged one by one; of larger models those with the highest first-order estimates
SCORES = ("exchange", "values", "label_edge", "direct_margin", "induction", "previous_token")
REPEATED = 50  # random tokens that stand there twice, for the rival explanation


@undisturbed
def head_scores(
    model: Model,
    prompt_sets: PromptSet | Sequence[PromptSet],
    *,
    exact: int = EXACT,
    seed: int = 0,
    by_set: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """What every head does, each by itself; means over all gold labels alike, so that a label's bias cancels.

    Margins are against the other label; of more than two labels that is the next, as in `exchange`.

    Args:
        exact: how many heads are exchanged at most; in a model with more those are whose exchange moves the margin
            most to first order, and the first two scores of the others are nan.
        seed: of the repeated random tokens.
        by_set: `exchange_by_set` of the same sets, if it is at hand.

    Returns:
        a row per head: `layer, head`; `exchange`, margin lost with the query of another class minus that with another
        query of the same class (logits); `values`, margin lost with the labels' values exchanged; `label_edge`, the
        first-order share in the margin of what arrives from label positions; `direct_margin`, the same as written
        straight into the logits; `induction` and `previous_token`, mean attention on repeated random tokens to the
        token behind the earlier copy, and to the token before.
    """
    sets = as_sets(model, prompt_sets)
    require_seed(seed)
    require_whole("exact", exact)
    if by_set is not None:
        require_columns("by_set", by_set, ("set", *HEAD, "exchange", "values"))
        require_places("by_set", by_set, HEAD)
        as_heads(model, pairs(by_set))
        measured = {name: as_numbers(f"The column {name} of by_set", by_set[name]) for name in ("exchange", "values")}
        by_set = by_set.assign(**measured)
    exchanged = exchange_by_set(model, sets, exact=exact) if by_set is None else by_set
    table = _edge_scores(model, sets).merge(_means(exchanged), on=HEAD, how="left")
    return table.merge(repetition_scores(model, seed), on=HEAD)[[*HEAD, *SCORES]]


def in_context_heads(scores: pd.DataFrame, n_layers: int, share: float = SHARE) -> list[Head]:
    """The deep heads with the highest exchange scores, highest first: a share of all heads, at least one."""
    require_columns("scores", scores, (*HEAD, "exchange"))
    require_places("scores", scores, HEAD)
    if scores.duplicated(HEAD).any():
        raise HeadError("The table of scores has a head in more than one row; give one row a head.")
    scores = scores.assign(exchange=as_numbers("The column exchange of scores", scores["exchange"]))
    require_whole("n_layers", n_layers, least=int(scores["layer"].max()) + 1 if len(scores) else 1)
    require_between("share", share, 0, 1, open_below=True)
    number = max(1, round(share * len(scores)))
    deep = scores[[is_deep(int(layer), n_layers) for layer in scores["layer"]]].dropna(subset="exchange")
    if deep.empty:
        raise HeadError("No deep head has an exchange score; give the table of head_scores, with its finite scores.")
    return pairs(deep.sort_values("exchange", ascending=False, kind="stable"), number)


def fold_heads(scores: pd.DataFrame, by_set: pd.DataFrame, n_layers: int, folds: int = 2) -> list[list[Head]]:
    """The in-context heads as each part of the selection sets would choose them: what depends on the choice shows.

    Args:
        scores: of every head, as `head_scores`.
        by_set: the same sets one by one, as `exchange_by_set`.
    """
    parts = [by_set[by_set["set"] % folds == fold] for fold in range(folds)]
    tables = [scores[HEAD].merge(_means(part), on=HEAD, how="left") for part in parts if len(part)]
    return [in_context_heads(table, n_layers) for table in tables]


def exchange_by_set(
    model: Model, sets: Sequence[PromptSet], *, exact: int = EXACT, shallow: int | None = None
) -> pd.DataFrame:
    """The first two of `head_scores` in each set: `set, layer, head, exchange, values`, in logits.

    Args:
        shallow: the first sets, on which alone heads of the shallow half are exchanged. They are never chosen, and
            cost most, as all layers above run on from them. Without it: on all sets, as the others.
    """
    heads = every_head(model)
    if len(heads) > exact:
        screened = exchange_estimates(model, sets)
        heads = sorted(pairs(screened.reindex(screened["estimate"].abs().sort_values(ascending=False).index), exact))
    first = sets if shallow is None else sets[:shallow]
    deep = [head for head in heads if is_deep(head[0], model.arch.n_layers)]
    tables = _exchanged(model, first, heads, 0) + _exchanged(model, sets[len(first) :], deep, len(first))
    return pd.concat(tables, ignore_index=True)


def _exchanged(model: Model, sets: Sequence[PromptSet], heads: Sequence[Head], start: int) -> list[pd.DataFrame]:
    """The tables of `exchange_by_set` of some sets, numbered from `start`."""
    parts, tables = ("query-other", "query-same", "values"), []
    choices = [([], "none"), *(([head], part) for head in heads for part in parts)]
    for number, (s, found) in enumerate(zip(sets, exchanged_margins(model, sets, choices), strict=True), start):
        gold = torch.tensor(s.gold)
        margins = torch.stack([found[:, gold == label].double().mean(1) for label in gold.unique()]).mean(0).numpy()
        other, same, values = margins[1:].reshape(len(heads), len(parts)).T
        table = pd.DataFrame(heads, columns=HEAD).assign(exchange=same - other, values=margins[0] - values)
        tables.append(table.assign(set=number))
    return tables


def _means(by_set: pd.DataFrame) -> pd.DataFrame:
    return by_set.groupby(HEAD, as_index=False)[["exchange", "values"]].mean()


def exchange_estimates(model: Model, sets: Sequence[PromptSet]) -> pd.DataFrame:
    """First-order estimate of every head's exchange score: one forward and one backward pass a set.

    Label edges are no screen for it: they say what is lost without an edge, which others may stand in for.

    Returns:
        a row per head: `layer, head, estimate` (logits).
    """
    heads = every_head(model)

    def of_set(number: int, s: PromptSet) -> pd.DataFrame:
        batch = pack([s], model.pad_id)
        intact = capture(model, batch, inputs=True)
        gradients = margin_gradients(model, batch, intact, one_other(batch.gold, targets(s), len(s.labels)))
        other, same = (exchanged_z(model, s, batch, intact, heads, part) for part in ("query-other", "query-same"))
        lost = [((same[head] - other[head]) * gradients[head[0]][:, head[1]]).sum(-1).numpy() for head in heads]
        labels = range(len(s.labels))
        of_label = [np.compress(np.equal(s.gold, g), lost, axis=1).mean(1) for g in labels]
        return pd.DataFrame({"estimate": np.mean(of_label, axis=0)})

    found = [table["estimate"] for table in sweep(model, sets, "exchange estimates", heads, of_set)]
    return pd.DataFrame(heads, columns=HEAD).assign(estimate=np.mean(found, axis=0))


def _edge_scores(model: Model, sets: Sequence[PromptSet]) -> pd.DataFrame:
    def of_set(number: int, s: PromptSet) -> pd.DataFrame:
        edges, found = label_edges(model, s, number), {}
        for name, of_edges in (("moved", edges.moved), ("written", edges.written)):
            whole = of_edges.permute(1, 0, 2).flatten(1)  # [R, L * H]
            by_prompt = pd.DataFrame(whole.numpy()).groupby(edges.frame["prompt"].to_numpy()).sum()
            by_gold = by_prompt.groupby(edges.frame.groupby("prompt")["gold"].first().to_numpy()).mean()
            found[name] = by_gold.mean()
        return pd.DataFrame(found)

    tables = sweep(model, sets, "edge scores", None, of_set)
    moved, written = (np.mean([table[name] for table in tables], axis=0) for name in ("moved", "written"))
    table = pd.DataFrame(every_head(model), columns=HEAD)
    return table.assign(label_edge=moved, direct_margin=written)


def repetition_scores(model: Model, seed: int = 0) -> pd.DataFrame:
    """Attention on random tokens that stand there twice, averaged over the second copy.

    Returns:
        a row per head: `layer, head, induction, previous_token`.
    """
    n = min(REPEATED, model.context_length // 2)
    drawn = np.random.default_rng([seed, 13]).integers(model.config.vocab_size, size=n)
    ids = torch.tensor([*drawn, *drawn])
    pattern = capture(model, _every_end(ids, n), pattern=True).pattern
    assert pattern is not None
    ends = torch.arange(n, 2 * n)
    induction, previous = (pattern[:, torch.arange(n), :, to].mean(0) for to in (ends - n + 1, ends - 1))  # [L, H]
    table = pd.DataFrame(every_head(model), columns=HEAD)
    return table.assign(induction=induction.flatten().numpy(), previous_token=previous.flatten().numpy())


def _every_end(ids: torch.Tensor, first: int) -> Batch:
    """A sequence as one row, read at every position from the first on, each as if it were the last."""
    length, ends = len(ids), torch.arange(first, len(ids))
    places = torch.arange(length).expand(len(ends), -1)
    return Batch(
        input_ids=ids[None],
        position_ids=torch.arange(length)[None],
        allowed=torch.ones(1, length, length, dtype=torch.bool).tril(),
        row=torch.zeros(len(ends), dtype=torch.long),
        last=ends,
        label_ids=torch.zeros(len(ends), 2, dtype=torch.long),
        gold=torch.zeros(len(ends), dtype=torch.long),
        index=torch.where(places <= ends[:, None], places, -1),
    )
