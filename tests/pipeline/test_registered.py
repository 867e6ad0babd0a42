"""The registry as the command lists it, in terminals of any width."""

import pytest

from twotowers.models.registry import REGISTRY
from twotowers.pipeline import registered as listing
from twotowers.pipeline.registered import DROPPED, registered

FREE = 8 * 2**30


@pytest.fixture(autouse=True)
def free(monkeypatch):
    monkeypatch.setattr(listing, "free_memory", lambda: FREE)


def test_every_model_is_there_with_all_that_is_known_of_it():
    lines = registered().splitlines()
    assert lines[0].split() == ["key", "family", "weights", "fits", "chapters", "licence", "template", "source"]
    for line, entry in zip(lines[1:], REGISTRY.values(), strict=False):
        cells = [cell.strip() for cell in line.split("  ") if cell.strip()]
        licence = f"{entry.licence}, gated" if entry.gated else entry.licence
        fits = "yes" if entry.memory < FREE else "no"
        assert (cells[:2], cells[3]) == ([entry.key, entry.family], fits)
        assert cells[-3:] == [licence, entry.template, entry.source]
    assert len(lines) == len(REGISTRY) + 2
    assert "Not shown" not in lines[-1]


@pytest.mark.parametrize("width", [26, 40, 60, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_what_is_left_out_is_named(width):
    text = registered(width)
    assert max(map(len, text.splitlines())) <= width
    shown, said = text.split("\n")[0].split(), " ".join(text.split()).partition("Not shown, for want of room: ")[2]
    left_out = said.rstrip(".").split(", ") if said else []
    assert {*shown} | {*left_out} == {"key", "weights", *DROPPED}
    assert not {*shown} & {*left_out}
    assert {*left_out} == {*DROPPED[: len(left_out)]}
    assert all(key in text for key in REGISTRY)


def test_a_terminal_of_usual_width_shows_where_models_come_from():
    assert {"fits", "source"} <= {*registered(80).splitlines()[0].split()}
    assert {"fits"} <= {*registered(40).splitlines()[0].split()}
    assert registered(200).splitlines()[:-1] == registered().splitlines()[:-1]


def test_the_width_is_that_of_a_terminal_or_none(monkeypatch):
    monkeypatch.setenv("COLUMNS", "57")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert listing.columns() == 57
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    assert listing.columns() is None


def test_what_fits_is_smaller_than_what_is_free(monkeypatch):
    monkeypatch.setattr(listing, "free_memory", lambda: REGISTRY["gpt2-large"].memory)
    fits = {line.split("  ")[0]: " yes " in line for line in registered().splitlines()[1:-1]}
    for key, entry in REGISTRY.items():
        assert fits[key] == (entry.memory < REGISTRY["gpt2-large"].memory)
