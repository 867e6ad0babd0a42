"""Sentence tasks: files as each data set has them, written small by the tests and read by the library, offline."""

import builtins
import dataclasses
import hashlib
import json
import os
import subprocess
import sys

import pytest

from sentence_files import made, parquet, publish, rows
from twotowers import hub
from twotowers.errors import TaskError, UnknownNameError
from twotowers.prompts import sampling
from twotowers.prompts.datasets import SETS
from twotowers.prompts.tasks import BUILT_IN, HALVES, load_task, portable
from twotowers.publishing.provenance import provenance
from twotowers.study import open_study

COMMIT = "c0ffee" * 6 + "beef"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TWOTOWERS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path, monkeypatch, cache):
    """Put small data sets where the hub's would be; a sample has 60 sentences."""
    monkeypatch.setattr(sampling, "SAMPLE", 60)

    def put(key, pairs=None):
        folder, data = tmp_path / "sources" / key, SETS[key]
        folder.mkdir(parents=True)
        publish(folder, data, pairs or rows(data))
        monkeypatch.setitem(SETS, key, dataclasses.replace(data, source=str(folder)))
        monkeypatch.setattr(sampling, "_commit", lambda data: COMMIT)
        return folder

    return put


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(sampling, "_commit", refuse)


# Every data set, as it is read from its files


@pytest.mark.parametrize("key", SETS)
def test_a_data_set_gives_balanced_halves_of_its_own_pair(key, source):
    source(key)
    task = load_task(key)
    assert task.categories == SETS[key].pair
    counts = {len(task.texts[name][half]) for name in task.categories for half in HALVES}
    assert counts == {15}
    for name in task.categories:
        assert set(task.texts[name]["selection"] + task.texts[name]["evaluation"]) <= set(made(name, 50))
    assert task.shots == 4
    assert task.facts["revision"] == COMMIT
    assert task.facts["rows"] == 50 * len(SETS[key].classes)


@pytest.mark.parametrize("labels", ["foo,bar,red,blue", "natural"])
def test_a_data_set_shows_all_its_classes_where_that_is_asked(labels, source):
    source("ag-news")
    study = open_study("smollm2-135m", f"ag-news:classes=all:labels={labels}", "smoke")
    task, classes = study.task, SETS["ag-news"].classes
    assert task.categories == classes
    assert {len(task.texts[name][half]) for name in classes for half in HALVES} == {15}
    assert (
        "leaves 50 'world', 50 'sports', 50 'business' and 50 'sci-tech'. From each of the 4 classes 30" in task.account
    )
    written = {"world", "sports", "business", "technology"} if labels == "natural" else {*labels.split(",")}
    for s in (*study.selection, *study.evaluation):
        assert (set(s.words), set(s.categories)) == (written, {*classes})
        assert (len(s.demonstrations), len(s.queries)) == (8, 4)


def test_the_halves_share_no_sentence(source):
    source("sst2")
    for halves in load_task("sst2").texts.values():
        assert not set(halves["selection"]) & set(halves["evaluation"])


def test_any_two_classes_can_be_named_in_any_order_and_case(source):
    source("ag-news")
    assert load_task("ag-news").name == "ag-news:world,sports"
    task = load_task("ag-news:Sci-Tech,sports")
    assert task.categories == ("sports", "sci-tech")
    assert task.name == "ag-news:sports,sci-tech"
    assert load_task(task.name).digest == task.digest


def test_classes_are_as_many_as_the_smaller_has(source):
    data = SETS["sst2"]
    source("sst2", [(text, 0) for text in made("negative", 40)] + [(text, 1) for text in made("positive", 20)])
    task = load_task("sst2")
    assert {len(halves[half]) for halves in task.texts.values() for half in HALVES} == {10}
    assert task.facts["left"] == {data.classes[0]: 40, data.classes[1]: 20}
    assert task.facts["sentences"] == {"negative": 20, "positive": 20}


def test_too_few_sentences_for_the_shots_are_refused_with_the_class(source):
    source("sst2", [(text, i) for i, name in enumerate(("negative", "positive")) for text in made(name, 7)])
    with pytest.raises(TaskError, match=r"'sst2': category 'negative' has 3 texts in its selection half but 8"):
        load_task("sst2").require(8)


# What is said of a draw


def test_the_account_names_source_numbers_and_reasons(source):
    source("sst2", [*rows(SETS["sst2"]), ("too short", 0)])
    said = load_task("sst2").account
    for part in ("101 rows", "1 shorter than 5 words", "50 'negative' and 50 'positive'", "30 were drawn", COMMIT[:12]):
        assert part in said


def test_a_figure_of_sentences_says_where_they_come_from_and_how_to_ask_for_them(source, tiny_folders):
    source("ag-news", [*rows(SETS["ag-news"]), ("too short", 0)])
    study = open_study(str(tiny_folders["gpt2"]), "ag-news:shots=3", "book")
    facts = json.loads(json.dumps(provenance(study)))
    assert facts["shots"] == study.scale.shots == 3
    assert facts["command"].endswith("--task ag-news:world,sports:shots=3 --scale book")
    assert facts["task_source"]["dropped"]["shorter than 5 words"] == 1
    assert facts["task_source"]["revision"] == COMMIT


# What is kept


def test_a_second_run_needs_neither_network_nor_library(source, monkeypatch, request):
    source("sst2")
    first = load_task("sst2")
    request.getfixturevalue("no_network")
    without_library(monkeypatch)
    second = load_task("sst2")
    assert (second.texts, second.digest, second.facts) == (first.texts, first.digest, first.facts)


def test_every_pair_of_a_data_set_is_of_one_reading(source, request):
    source("ag-news")
    load_task("ag-news:world,sports")
    request.getfixturevalue("no_network")
    assert load_task("ag-news:business,sci-tech").categories == ("business", "sci-tech")


def test_another_process_draws_the_same(source, cache, tmp_path):
    folder = source("sst2")
    here = load_task("sst2")
    script = (
        "import dataclasses, sys\nfrom twotowers.prompts import datasets, sampling, tasks\nsampling.SAMPLE = 60\n"
        "sampling._commit = lambda data: None\n"
        "datasets.SETS['sst2'] = dataclasses.replace(datasets.SETS['sst2'], source=sys.argv[1])\n"
        "print(tasks.load_task('sst2').digest)"
    )
    environment = os.environ | {"TWOTOWERS_CACHE": str(tmp_path / "other"), "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", script, str(folder)]
    there = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here.digest


@pytest.mark.parametrize("damage", ["", "{}", "[]", "half", "changed"])
def test_a_damaged_sample_is_read_anew(source, cache, damage):
    source("sst2")
    before = load_task("sst2")
    (file,) = (cache / "tasks").iterdir()
    content = file.read_text()
    file.write_text(
        {"half": content[: len(content) // 2], "changed": content.replace("boat", "goat")}.get(damage, damage)
    )
    assert load_task("sst2").digest == before.digest
    assert file.read_text() == content


def test_nothing_else_is_left_in_the_cache(source, cache):
    source("sst2")
    load_task("sst2")
    assert [file.suffix for file in cache.rglob("*") if file.is_file()] == [".json"]


# What can go wrong


def without_library(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "datasets":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)


def refused(name, *parts):
    with pytest.raises(TaskError) as caught:
        load_task(name)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def test_without_the_network_one_sentence_soon_and_nothing_written(cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: pytest.fail("the network was tried"))
    monkeypatch.setattr(sampling, "_rows", lambda *a: pytest.fail("the data set was read"))
    refused("sst2", "stanfordnlp/sst2", "connect to the network once", "text,label")
    assert not cache.exists()


def test_a_hub_that_does_not_answer_is_not_waited_for(cache, monkeypatch):
    asked = []

    class Silent:
        def dataset_info(self, source, revision, timeout):
            asked.append(timeout)
            raise TimeoutError("timed out")

    monkeypatch.setattr(sampling, "HfApi", Silent)
    refused("amazon", "fancyzhx/amazon_polarity", "timed out")
    assert asked == [hub.HUB_TIMEOUT]  # once
    assert hub.HUB_TIMEOUT <= 5


def test_without_the_library_the_command_to_install_it(cache, monkeypatch):
    without_library(monkeypatch)
    refused("sst2", "needs the package datasets", "pip install", "[sentences]")
    assert not cache.exists()


def test_a_data_set_that_has_changed_its_columns_is_refused(source, cache):
    folder = source("ag-news")
    data = dataclasses.replace(SETS["ag-news"], text="body")
    parquet(folder / "data" / "train-00000-of-00001.parquet", {"body": ["a"], "label": [0]}, data)
    refused("ag-news", "has no column 'text'", "body, label")
    assert not [file for file in cache.rglob("*") if file.is_file()]


def test_a_broken_download_is_refused_and_nothing_is_kept(source, cache):
    folder = source("sst2")
    (folder / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 and no more")
    refused("sst2", "cannot be read", "run it again")
    assert not [file for file in cache.rglob("*") if file.is_file()]


def test_a_cache_that_cannot_be_written_is_told_before_reading(source, cache, monkeypatch):
    source("sst2")
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file where the folder should be")
    monkeypatch.setattr(sampling, "_rows", lambda *args: pytest.fail("the data set was read"))
    refused("sst2", "cannot be kept", "TWOTOWERS_CACHE")


CLASSES = {
    "ag-news:wrold,sports": ["no class 'wrold'", "did you mean 'world'", "world, sports, business, sci-tech"],
    "ag-news:foo,sports": ["no class 'foo';", "world, sports, business, sci-tech"],
    "ag-news:world": ["two different classes", "ag-news:world,sports"],
    "ag-news:world,world": ["two different classes"],
    "ag-news:world,sports,business": ["two different classes"],
    "sst2:shots=0": ["'0' demonstrations", "whole number from 1"],
    "sst2:shots=many": ["'many' demonstrations"],
}


@pytest.mark.parametrize(("name", "parts"), CLASSES.items(), ids=CLASSES)
def test_classes_and_shots_that_do_not_fit_are_refused_before_the_hub_is_asked(name, parts, no_network):
    refused(name, *parts)


def test_an_unknown_task_has_a_nearest_name():
    with pytest.raises(UnknownNameError, match="no task 'amazn': did you mean 'amazon'"):
        load_task("amazn")


# Names


def test_shots_belong_to_the_name_of_any_task(source):
    source("sst2")
    assert load_task("words:shots=3").shots == 3
    task = load_task("sst2:shots=2")
    assert (task.name, task.shots) == ("sst2:shots=2", 2)
    assert task.digest == load_task("sst2").digest


def test_a_path_holds_from_any_folder_and_a_name_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text("text,label\n")
    (tmp_path / "sst2").mkdir()
    assert portable("mine.csv:shots=2") == f"{tmp_path / 'mine.csv'}:shots=2"
    for name in (*BUILT_IN, "ag-news:world,sports:shots=2", "absent.csv"):
        assert portable(name) == name


def test_the_recipe_names_the_file_that_is_kept(cache):
    data = SETS["sst2"]
    other = dataclasses.replace(data, splits=("validation",))
    assert sampling.kept_at(data) != sampling.kept_at(other)
    assert (
        hashlib.sha256(repr((data, 1000, (5, 40), 240202872)).encode()).hexdigest()[:16] in sampling.kept_at(data).name
    )
