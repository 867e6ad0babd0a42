"""What the page of values says of exchanged values and of what is written directly: exact words, cases at the edge."""

import re

import pandas as pd
import pytest

from facts import make_facts
from twotowers.chapters.values import page
from twotowers.publishing.publish import call

NAN = float("nan")


def text_of(text, facts=None, **inputs):
    said = call(text.write, facts or make_facts(), inputs)
    assert not re.search(r"\bnan\b|\binf\b|-0(\.0+)?(?![\d.])", said), said
    return said


def exchanged_of(**changes):
    usual = {"intact": 2.5, "exchanged": -0.625, "mean": 1.25, "low": 1.0, "high": 1.5}
    return {**usual, "random": [-0.001, 0.125, 0.0625], **changes}


def written_of(own=1.0, deep=2.0, share=0.5, half=0.25):
    rows = [(what, x, x - half, x + half) for what, x in (("own", own), ("deep", deep), ("share", share))]
    return pd.DataFrame(rows, columns=["what", "mean", "low", "high"])


BEGIN = "With the values of the 2 in-context heads exchanged between *foo* and *bar* positions, the mean margin "


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {},
            "goes from 2.50 to -0.62 logits: a loss of **125%** of it. In 3 random groups of as many "
            "other deep heads the loss is between 0% and 12%.",
        ),
        ({"mean": -0.001, "low": -0.5, "high": 0.5}, "logits: a loss of **0%** of it."),
        ({"random": [0.5]}, "In one random group of as many other deep heads the loss is 50%."),
        ({"random": [0.1, 0.1]}, "In 2 random groups of as many other deep heads the loss is 10%."),
        ({"random": []}, "There are not as many other deep heads, so there is no random group to compare with."),
        (
            {"intact": -0.001, "exchanged": 0.5, "mean": NAN, "low": NAN, "high": NAN, "random": [NAN]},
            "goes from 0.00 to 0.50 logits; the intact margin is not above zero, so there is nothing of which a share "
            "could be lost.",
        ),
        ({"intact": NAN}, "is not measured."),
    ],
)
def test_what_is_lost_stands_beside_random_groups(changes, text):
    said = text_of(page.EXCHANGED, exchanged=exchanged_of(**changes), heads=[[2, 0], [3, 1]])
    assert said.startswith(BEGIN)
    assert text in said


def test_one_head_is_named_in_the_singular_and_labels_as_the_task_has_them():
    facts = make_facts(labels=("negative", "positive"))
    said = text_of(page.EXCHANGED, facts, exchanged=exchanged_of(), heads=[[2, 0]])
    assert said.startswith("With the values of the in-context head exchanged between *positive* and *negative* ")


@pytest.mark.parametrize(
    ("direct", "text"),
    [
        (
            written_of(),
            "Straight into the margin these heads, 3.0% of the deep half's, write +1.00 (+0.75 to +1.25) logits and "
            "all attention of the deep half +2.00 (+1.75 to +2.25): a share of 50% (25% to 75%).",
        ),
        (written_of(half=NAN), "write +1.00 logits and all attention of the deep half +2.00: a share of 50%."),
        (written_of(own=-0.001, share=-0.001, half=0.0), "write +0.00 (+0.00 to +0.00) logits"),
        (written_of(deep=-1.0, share=NAN), "; as that is not above zero, there is nothing of which to be a share."),
        (written_of(own=NAN, share=NAN), "What these heads write straight into the margin is not measured."),
    ],
)
def test_what_is_written_directly_is_a_share_of_deep_attention(direct, text):
    said = text_of(page.WRITTEN, direct=direct, share_of_heads=0.03)
    assert text in said
