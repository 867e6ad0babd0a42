"""Edges are cut where they are said to be, and the probe reads a word's category, not the word."""

import contextlib

import numpy as np
import pandas as pd
import pytest
import torch

import twotowers
from conftest import DEMONSTRATIONS, QUERIES, make_sets
from twotowers.chapters.shallow import page as figures_shallow
from twotowers.chapters.shallow.blocking import KINDS, LayerError, block, blocked, depth_effect, random_edges, windows
from twotowers.chapters.shallow.probing import categories, demonstration_residuals, gains, held_out, probe
from twotowers.errors import PromptError, UnknownNameError
from twotowers.prompts.packing import pack
from twotowers.prompts.tasks import load_task
from twotowers.prompts.variants import prompt_set_of
from twotowers.tracing.capture import capture
from twotowers.tracing.outcomes import outcomes

EARLY, LATE = range(0, 2), range(2, 4)  # of the tiny models' four layers


@contextlib.contextmanager
def silenced(model, layers):
    """Attention writes nothing in these layers: value-output is zero."""
    modules = [model.arch.out_proj(layer) for layer in layers]
    kept = [{name: p.detach().clone() for name, p in module.named_parameters()} for module in modules]
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter.zero_()
    try:
        yield
    finally:
        with torch.no_grad():
            for module, saved in zip(modules, kept, strict=True):
                for name, parameter in module.named_parameters():
                    parameter.copy_(saved[name])


def margins(table, **where):
    for column, value in where.items():
        table = table[table[column] == value]
    return table.sort_values(["set", "query"])["margin"].to_numpy()


# Windows and edges


def test_windows_are_a_third_wide_and_reach_both_ends():
    assert windows(30, 10) == [range(0, 10), range(10, 20), range(20, 30)]
    assert [w.start for w in windows(30, 4)] == [0, 4, 8, 12, 16, 20]
    assert [w.start for w in windows(10, 4)] == [0, 4, 7]
    assert windows(1) == [range(0, 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_edges_are_those_of_each_prompt(tiny, two_sets, kind):
    batch, edges, expected = pack(two_sets), blocked(pack(two_sets), two_sets, kind), set()
    for n, prompt in enumerate(p for s in two_sets for p in s.prompts):
        row, index = int(batch.row[n]), batch.index[n].tolist()
        if kind == "query_to_last":
            pairs = [(prompt.last, q) for q in range(prompt.query[0], prompt.last)]
        else:
            spans = zip(prompt.demonstrations, prompt.label_positions, strict=True)
            pairs = [(label, p) for (first, _), label in spans for p in range(first, label)]
        expected |= {(row, index[a], index[b]) for a, b in pairs}
    assert {tuple(edge) for edge in edges.nonzero().tolist()} == expected


@pytest.mark.parametrize("kind", KINDS)
def test_random_edges_are_as_many_others_of_the_same_positions(tiny, two_sets, kind):
    batch = pack(two_sets)
    edges = blocked(batch, two_sets, kind)
    control = random_edges(batch, edges, [0, 0, 0])
    own = torch.eye(edges.shape[1], dtype=torch.bool)
    for cut in (edges, control):
        assert not (cut & ~batch.allowed).any()  # never to the future, never to another branch
        assert not (cut & own).any()
    assert not (control & edges).any()
    assert (control.sum(dim=(1, 2)) == edges.sum(dim=(1, 2))).all()
    assert not (control.any(dim=2) & ~edges.any(dim=2)).any()
    if kind == "query_to_last":  # every position has enough others
        assert (control.sum(dim=2) == edges.sum(dim=2)).all()


def test_random_edges_follow_from_the_seed_and_not_from_the_batch(tiny, two_sets):
    batch, second = pack(two_sets), pack(two_sets[1:])
    control = random_edges(batch, blocked(batch, two_sets, KINDS[0]), [5, 0, 0])
    alone = random_edges(second, blocked(second, two_sets[1:], KINDS[0]), [5, 0, 1])
    length = alone.shape[1]
    assert (control[1, :length, :length] == alone[0]).all()
    assert (control != random_edges(batch, blocked(batch, two_sets, KINDS[0]), [6, 0, 0])).any()


# Blocking


def test_cutting_in_no_layer_changes_nothing(tiny, two_sets):
    intact = outcomes(tiny, two_sets, [[]])
    table = block(tiny, two_sets, KINDS, range(0))
    assert len(table) == 2 * 3 * len(intact)  # two kinds: intact, the empty cut, its control
    for _, part in table.groupby(["kind", "control"]):
        np.testing.assert_allclose(part["margin"], np.tile(intact["margin"], len(part) // len(intact)), atol=1e-4)
    assert (table["accuracy"] == np.tile(intact["accuracy"], 6)).all()


def test_cutting_changes_answers_and_so_does_the_control(tiny, two_sets):
    table = block(tiny, two_sets, KINDS, EARLY)
    for kind in KINDS:
        intact = margins(table, kind=kind, stop=0)
        for control in (False, True):
            assert np.abs(margins(table, kind=kind, stop=2, control=control) - intact).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_packed_prompts_are_cut_as_each_by_itself(tiny, two_sets, kind):
    packed = block(tiny, two_sets, kind, LATE)
    alone = [block(tiny, prompt_set_of(s, i), kind, LATE) for s in two_sets for i in range(len(s.queries))]
    expected = np.concatenate([margins(table, stop=4, control=False) for table in alone])
    np.testing.assert_allclose(margins(packed, stop=4, control=False), expected, rtol=1e-3, atol=1e-4)


def test_cut_off_from_the_query_in_every_layer_the_answer_ignores_it(tiny):
    """Queries of as many tokens, all cut off from the last position, give one answer; uncut they do not."""
    length = {}
    for word in categories(load_task("words")):
        s = twotowers.prompt_set(tiny, DEMONSTRATIONS, [(word, "foo")])
        length.setdefault(len(s.prompts[0].ids), []).append(word)
    words = max(length.values(), key=len)[:3]
    s = twotowers.prompt_set(tiny, DEMONSTRATIONS, [(word, "foo") for word in words])
    table = block(tiny, s, "query_to_last", range(0, tiny.arch.n_layers))
    assert np.ptp(margins(table, stop=tiny.arch.n_layers, control=False)) < 1e-4
    assert np.ptp(margins(table, stop=0)) > 1e-3


def test_block_on_the_real_model_starts_where_a_full_run_would(real):
    """A window's first layer starts from the stored residual; an equal cut split in two windows runs every layer."""
    from twotowers.tracing.cutting import cut

    s = make_sets(real)[0]
    table = block(real, s, "text_to_label", range(12, 14))
    batch = pack([s])
    rows = cut(real, batch, blocked(batch, [s], "text_to_label"), range(12, 14))
    gold = torch.tensor(s.gold)[:, None]
    expected = (rows.labels.gather(1, gold) - rows.labels.gather(1, 1 - gold)).ravel()
    np.testing.assert_allclose(margins(table, stop=14, control=False), expected, rtol=1e-3, atol=1e-3)


def test_what_does_not_exist_is_refused(tiny_gpt2):
    sets = make_sets(tiny_gpt2)
    with pytest.raises(UnknownNameError, match="did you mean 'text_to_label'"):
        block(tiny_gpt2, sets, "text_to_labels", EARLY)
    with pytest.raises(LayerError, match="no layers 3 to 4: its layers are 0 to 3"):
        block(tiny_gpt2, sets, KINDS, range(3, 5))


# Claims C1 and C2, with planted truth


def planted(model, kind, silent):
    """Sets for which attention in the `silent` layers writes nothing and the cut elsewhere costs margin.

    Which label a query counts as is set after a first run, so that the cut does cost, by construction.
    """
    alive = LATE if silent == EARLY else EARLY
    sets = [
        twotowers.prompt_set(model, demonstrations, QUERIES)
        for demonstrations in (DEMONSTRATIONS, DEMONSTRATIONS[::-1])
    ]
    table = block(model, sets, kind, alive)
    change = margins(table, stop=alive.stop, control=False) - margins(table, stop=0)
    relabelled = iter([{True: b, False: {"foo": "bar", "bar": "foo"}[b]}[bool(c < 0)]
                       for c, b in zip(change, [b for _, b in QUERIES] * 2, strict=True)])  # fmt: skip
    return [
        twotowers.prompt_set(model, s.demonstrations, [(text, next(relabelled)) for text, _ in s.queries]) for s in sets
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_whose_late_attention_is_dead_supports_the_claim(tiny, kind):
    with silenced(tiny, LATE):
        table = block(tiny, planted(tiny, kind, LATE), kind, [EARLY, LATE])
    effects = depth_effect(table, kind, "margin")
    assert effects["last"].abs().max() < 1e-4
    assert effects["first"].min() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_whose_early_attention_is_dead_contradicts_the_claim(tiny, kind):
    with silenced(tiny, EARLY):
        table = block(tiny, planted(tiny, kind, EARLY), kind, [EARLY, LATE])
    effects = depth_effect(table, kind, "margin")
    assert effects["first"].abs().max() < 1e-4
    assert effects["last"].min() > 0
    assert (depth_effect(table, kind)["effect"] <= 0).all()


def accuracies(cells, kind="text_to_label"):
    """A table of `block` from the accuracy of each window: (start, stop, control) -> one number a set."""
    rows = [
        (kind, start, stop, control, i, query, "foo", accuracy)
        for (start, stop, control), values in cells.items()
        for i, accuracy in enumerate(values)
        for query in range(2)
    ]
    return pd.DataFrame(rows, columns=["kind", "start", "stop", "control", "set", "query", "label", "accuracy"])


def test_the_effect_is_what_the_first_window_costs_minus_what_the_last_costs():
    cells = {(0, 0, False): [1, 1, 0, 1], (0, 2, False): [0, 0, 0, 1], (1, 3, False): [1, 0, 1, 0],
             (4, 6, False): [1, 1, 0, 0], (0, 2, True): [1, 1, 0, 1], (4, 6, True): [1, 0, 0, 1]}  # fmt: skip
    effects = depth_effect(accuracies(cells), "text_to_label")
    assert effects.groupby("set")["effect"].mean().tolist() == [1, 1, 0, -1]
    assert effects.groupby("set")["first"].mean().tolist() == [1, 1, 0, 0]
    control = depth_effect(accuracies(cells), "text_to_label", control=True)
    assert control.groupby("set")["effect"].mean().tolist() == [0, -1, 0, 0]


# The probe

N_SETS, PER_SET, KNOWN = 24, 12, 4


def synthetic(rng, *, width=24):
    """Words of four categories, two categories a set; a word belongs to one category and returns in many sets."""
    words, sets, truth = [], [], []
    for i in range(N_SETS):
        pair = rng.choice(KNOWN, size=2, replace=False)
        for category in np.repeat(pair, PER_SET // 2):
            words.append(f"{category}-{rng.integers(10)}")
            sets.append(i)
            truth.append(str(category))
    return words, np.array(sets), np.array(truth), rng.normal(size=(len(words), width))


def embed(keys, rng, width=24, scale=4.0):
    """A random vector for each distinct key."""
    vectors = {key: scale * rng.normal(size=width) for key in sorted(set(keys))}
    return np.array([vectors[key] for key in keys])


def test_a_category_that_is_there_is_read():
    rng = np.random.default_rng(0)
    words, sets, truth, noise = synthetic(rng)
    assert held_out(embed(truth, rng) + noise, truth, words, sets).mean() > 0.97


def test_a_category_that_is_not_there_is_read_at_chance():
    words, sets, truth, noise = synthetic(np.random.default_rng(1))
    assert held_out(noise, truth, words, sets).mean() == pytest.approx(1 / KNOWN, abs=0.1)


def test_a_probe_cannot_memorise_words():
    """Each word has its own vector, without any category: known words would give it away, held-out ones do not."""
    rng = np.random.default_rng(2)
    words, sets, truth, noise = synthetic(rng)
    x = embed(words, rng) + noise
    assert held_out(x, truth, words, sets).mean() < 1 / KNOWN + 0.15
    each_alone = [f"{word}-{i}" for i, word in enumerate(words)]
    assert held_out(x, truth, each_alone, sets).mean() > 0.6  # what memorising would have given


def test_a_probe_cannot_memorise_sets():
    """Set and label name the category of any word; a probe that knows the set would not need to read the word."""
    rng = np.random.default_rng(3)
    words, sets, truth, noise = synthetic(rng)
    x = embed(list(zip(sets, truth, strict=True)), rng) + noise
    assert held_out(x, truth, words, sets).mean() < 1 / KNOWN + 0.15
    assert held_out(x, truth, words, np.arange(len(sets))).mean() > 0.5


def test_a_probe_needs_two_words_and_two_sets():
    x, truth = np.zeros((4, 3)), np.array(["a", "b", "a", "b"])
    with pytest.raises(PromptError, match="two prompt sets"):
        held_out(x, truth, ["p", "q", "r", "s"], [0, 0, 0, 0])
    with pytest.raises(PromptError, match="two words"):
        held_out(x, truth, ["p", "p", "p", "p"], [0, 0, 1, 1])


def test_examples_of_one_category_teach_that_category():
    x, sets = np.random.default_rng(4).normal(size=(8, 3)), [0, 0, 0, 0, 1, 1, 1, 1]
    assert held_out(x, np.array(["a"] * 8), list("pqrstuvw"), sets).all()
    truth = np.array(["a"] * 4 + ["b"] * 4)  # a set has one category: the other set teaches the wrong one
    assert not held_out(x, truth, list("pqrstuvw"), sets).any()


def category_sets(model, n=6):
    """Sets of three categories, two a set, in changing order."""
    words = {"animals": ["cat", "dog", "elephant", "horse"], "numbers": ["seven", "two", "nine", "eleven"],
             "family": ["mother", "uncle", "grandmother", "son"]}  # fmt: skip
    pairs = [("animals", "numbers"), ("numbers", "family"), ("family", "animals")]
    sets = []
    for i in range(n):
        demonstrations = [(words[c][(i + j) % 4], label)
                          for j in range(3) for c, label in zip(pairs[i % 3], ("foo", "bar"), strict=True)]  # fmt: skip
        sets.append(twotowers.prompt_set(model, demonstrations[i % 2 :], QUERIES[:2]))
    return sets, {word: c for c, members in words.items() for word in members}


def test_residuals_are_read_at_the_texts_last_token_and_at_the_label(tiny):
    sets, _ = category_sets(tiny, 3)
    texts, labels = demonstration_residuals(tiny, sets, [1, 3])
    n = 0
    for s in sets:
        prompt, alone = s.prompts[1], capture(tiny, pack([prompt_set_of(s, 1)]), inputs=True).inputs
        for (_, end), label in zip(prompt.demonstrations, prompt.label_positions, strict=True):
            for k, layer in enumerate((1, 3)):
                torch.testing.assert_close(texts[k, n], alone[layer, 0, end - 1], rtol=1e-3, atol=1e-4)
                torch.testing.assert_close(labels[k, n], alone[layer, 0, label], rtol=1e-3, atol=1e-4)
            n += 1
    assert texts.shape[1] == labels.shape[1] == n


def test_probe_has_a_row_for_each_layer_place_and_demonstration(tiny):
    sets, category = category_sets(tiny)
    table = probe(tiny, sets, category, [0, 3])
    n = sum(len(s.demonstrations) for s in sets)
    assert len(table) == 2 * 3 * n
    assert table.groupby(["layer", "where"]).size().eq(n).all()
    assert set(table["accuracy"]) <= {0.0, 1.0}
    firsts = table[table["first"]].groupby(["layer", "where", "set"])["demonstration"].apply(list)
    assert all(found == [0, 1] for found in firsts)
    gain = gains(table)
    means = table.groupby(["layer", "where"])["accuracy"].mean().unstack()
    np.testing.assert_allclose(gain.groupby("layer")["gain"].mean(), means["label"] - means["shuffled"])


def test_without_attention_labels_hold_nothing_of_their_texts(tiny_gpt2):
    """Without attention a label position never meets its text: its residual is the same whatever the texts are."""
    sets, _ = category_sets(tiny_gpt2)
    others = [twotowers.prompt_set(tiny_gpt2, [(QUERIES[0][0], label) for _, label in s.demonstrations], QUERIES)
              for s in sets]  # fmt: skip
    same_length = [i for i, (s, o) in enumerate(zip(sets, others, strict=True))
                   if s.prompts[0].label_positions[0] == o.prompts[0].label_positions[0]]  # fmt: skip
    assert same_length
    firsts = np.cumsum([0, *(len(s.demonstrations) for s in sets)])[same_length]
    with silenced(tiny_gpt2, range(4)):
        (texts, labels), (other_texts, other_labels) = (
            demonstration_residuals(tiny_gpt2, x, [3]) for x in (sets, others)
        )
    torch.testing.assert_close(labels[:, firsts], other_labels[:, firsts], rtol=1e-4, atol=1e-4)
    assert (texts[:, firsts] - other_texts[:, firsts]).abs().max() > 1e-2


def test_categories_are_those_of_the_half():
    task = load_task("words")
    evaluation = categories(task)
    assert not set(evaluation) & set(categories(task, "selection"))
    assert evaluation[task.texts["animals"]["evaluation"][0]] == "animals"


# Figures


def lines(ax):
    return {line.get_label(): list(line.get_ydata()) for line in ax.get_lines()}


def test_blocking_draws_a_panel_a_kind_with_control_and_intact_level():
    cells = {(0, 0, False): 0.9, (0, 2, False): 0.3, (0, 2, True): 0.8, (2, 4, False): 0.5, (2, 4, True): 0.7}
    rows = [(kind, *key, mean, mean - 0.1, mean + 0.1) for kind in KINDS for key, mean in cells.items()]
    table = pd.DataFrame(rows, columns=["kind", "start", "stop", "control", "mean", "low", "high"])
    figure = figures_shallow.blocking_figure(table)
    assert [ax.get_title() for ax in figure.axes] == ["text to label", "query to last position"]
    for ax in figure.axes:
        drawn = lines(ax)
        assert drawn["these edges cut"] == [0.3, 0.5]
        assert drawn["random edges cut"] == [0.8, 0.7]
        assert drawn["nothing cut"] == [0.9, 0.9]


def test_probing_draws_three_places_and_chance():
    rows = [(layer, where, 0.5 + layer / 10) for where in ("text", "label", "shuffled") for layer in (2, 0)]
    table = pd.DataFrame(rows, columns=["layer", "where", "mean"]).assign(low=0.4, high=0.9)
    (ax,) = figures_shallow.probe_figure(table, categories=12).axes
    drawn = lines(ax)
    assert drawn["at its label"] == pytest.approx([0.5, 0.7])
    assert drawn["one of 12 categories"][0] == pytest.approx(1 / 12)
