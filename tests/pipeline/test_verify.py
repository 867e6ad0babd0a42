"""The commands `cite` and `verify`: a figure is cited, or run again beside its run and compared."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from clones import go, run_of, tree
from twotowers.cli import main
from twotowers.errors import ChapterError
from twotowers.pipeline import expected, freshness
from twotowers.pipeline import run as pipeline
from twotowers.pipeline.verify import verify
from twotowers.publishing.ledger import by_seed
from twotowers.publishing.run_folder import RunFolder, figure_stem

pytestmark = pytest.mark.usefixtures("one_thread")
FIGURE = "task-made-up"


@pytest.fixture
def command(capfd):
    """Run the command; its exit status, and what it says on standard output and, of a mistake, on standard error."""

    def run(*arguments):
        capfd.readouterr()
        status = main(list(map(str, arguments)))
        out, err = capfd.readouterr()
        return status, out, err

    return run


def file_of(runs, ending, figure=FIGURE):
    return runs / f"{figure_stem(runs.name, figure)}.{ending}"


def keep(runs, file):
    """Take a file that was edited for what the run has made."""
    run = RunFolder(runs)
    name = str(file.relative_to(runs))

    def change(record):
        for entry in record["chapters"].values():
            if name in entry["files"]:
                entry["files"][name] = freshness.digest_of(file)

    run.update(change)


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


# cite


@pytest.mark.parametrize("form", ["bibtex", "ris", "text"])
def test_a_figure_is_cited_by_its_id_its_anchor_or_a_file(runs, command, form):
    said = [
        command("cite", name, "--format", form)
        for name in (FIGURE, f"fig-{runs.name}-{FIGURE}", file_of(runs, "svg").name, file_of(runs, "pdf"))
    ]
    assert said == [said[0]] * 4
    status, out, err = said[0]
    assert (status, err) == (0, "")
    assert f"Figure {FIGURE}, model mine" in out
    assert "None" not in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["task-mad-up"], f"There is no figure 'task-mad-up': did you mean '{FIGURE}'? (of the run "),
        ([FIGURE, "--format", "bib"], "There is no format 'bib': did you mean 'bibtex'?"),
        ([FIGURE, "--model", "min"], "There is no run of a model 'min'"),
    ],
)
def test_what_does_not_exist_is_told_in_one_sentence(runs, command, arguments, said):
    status, out, err = command("cite", *arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_without_a_run_or_with_several_the_command_says_what_to_do(root, model, executed, command):
    assert "There is no run here" in command("cite", FIGURE)[2]
    go(model)
    go(model, task="words:shots=1", replace=True)
    go(shutil.copytree(model, model.with_name("other")))  # the same weights under another name
    status, out, err = command("cite", FIGURE)
    assert (status, out) == (2, "")
    assert "name one with --model: " in err
    assert "model other" in command("cite", FIGURE, "--model", "other", "--format", "text")[1]
    other = next(name.parent for name in (root / "book" / "runs").glob("other*/run.json"))
    assert "model other" in command("cite", file_of(other, "svg").name, "--format", "text")[1]


def test_a_figure_that_belongs_to_no_run_is_cited_too(runs, command):
    assert "Figure toy-training, model toy-gpt2" in command("cite", "fig-toy-training", "--format", "text")[1]
    bench = next((Path("book") / "bench" / "figures").glob("*.json")).stem
    assert f"Figure {bench}" in command("cite", f"fig-performance-{bench}", "--format", "text")[1]


def test_a_record_that_was_edited_is_not_cited(runs, command):
    edit(file_of(runs, "json"), '"seed": 0', '"seed": 1')
    status, out, err = command("cite", FIGURE)
    assert (status, out) == (2, "")
    assert "is not what was made" in err


# verify


def test_a_run_that_comes_out_again_is_the_same_and_is_not_touched(root, runs, executed, command):
    before = tree(root)
    status, out, err = command("verify", "--model", "mine")
    assert status == 0
    assert [line.split(None, 1) for line in out.splitlines()] == [
        [FIGURE, "same within tolerance"], ["handed/accuracy.json", "same within tolerance"]
    ]  # fmt: skip
    assert [call["chapter"] for call in executed] == ["task"]
    assert "run again, to compare" in err
    after = tree(root)
    assert {path for path in after if path not in before} <= {root / "_build"}
    assert {path: after[path] for path in before} == before


def test_only_the_chapters_of_the_named_figures_are_run(root, model, executed, command):
    go(model, "task", "knockout", "locate", "values")
    executed.clear()
    status, out, _ = command("verify", "values-made-up", "task-made-up")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines() if "made-up" in line] == ["task-made-up", "values-made-up"]
    assert [call["chapter"] for call in executed] == ["task", "values"]


def test_another_number_differs_and_is_named(runs, command):
    table = file_of(runs, "csv")
    edit(table, repr(1 / 3), "0.5")
    said = f"{FIGURE:28}  differs: table, row 2, column y: 0.5 was kept, now it is 0.333333333\n"
    assert command("verify", FIGURE)[:2] == (1, said)
    keep(runs, table)  # also if it is what the run says to have made
    assert command("verify", FIGURE)[:2] == (1, said)


def test_last_digits_do_not_differ(runs, command):
    table = file_of(runs, "csv")
    edit(table, repr(1 / 3), repr(1 / 3 + 1e-6))
    keep(runs, table)
    assert command("verify", FIGURE)[:2] == (0, f"{FIGURE:28}  same within tolerance\n")


def test_a_picture_that_was_edited_differs(runs, command):
    edit(file_of(runs, "svg"), "</svg>", "<!-- mine --></svg>")
    assert command("verify", FIGURE)[1].endswith(f"differs: {figure_stem(runs.name, FIGURE)}.svg was changed\n")


@pytest.mark.parametrize("content", ["", "x,y\n1,what\n", "z\n1\n"])
def test_numbers_that_cannot_be_read_differ(runs, command, content):
    file_of(runs, "csv").write_text(content)
    status, out, _ = command("verify", FIGURE)
    assert status == 1
    assert "differs: its numbers cannot be read" in out


def test_what_has_changed_is_said_and_nothing_is_run(runs, executed, command):
    with (freshness.PACKAGE / "tracing" / "capture.py").open("a") as module:
        module.write("\nNEW = 1\n")
    status, out, _ = command("verify")
    assert (status, out) == (1, f"{FIGURE:28}  stale: the code of tracing changed\n")
    assert not executed


def test_a_new_look_is_no_other_result(runs, command):
    with (freshness.PACKAGE / "publishing" / "style.py").open("a") as module:
        module.write("\nNEW = 1\n")
    assert command("verify", FIGURE)[0] == 0


def test_what_is_handed_on_is_compared(runs, command):
    handed = runs / "handed" / "accuracy.json"
    edit(handed, "0.9", "0.8")
    status, out, _ = command("verify")
    assert status == 1
    assert "handed/accuracy.json          differs: what is handed on, effect, 1: 0.8 was kept, now it is 0.9" in out


@pytest.mark.parametrize("gone", [True, False])
def test_without_its_model_a_run_cannot_be_verified(runs, model, command, gone):
    shutil.rmtree(model)
    status, out, err = command("verify", FIGURE)
    assert (status, out) == (2, "")
    assert "is not at hand" in err
    assert command("verify", "task-mad-up")[2].startswith("twotowers: There is no figure 'task-mad-up': did you mean")


def test_a_chapter_that_stops_leaves_nothing(root, runs, monkeypatch):
    def stop(*_, **__):
        raise ChapterError("It stopped.")

    monkeypatch.setattr(pipeline, "execute", stop)
    before = tree(root)
    with pytest.raises(ChapterError):
        list(verify([FIGURE]))
    assert {path for path in tree(root) if path not in before} <= {root / "_build"}


# expected values


@pytest.fixture
def complete(root, model, executed):
    """A run of all chapters."""
    go(model, *pipeline.CHAPTERS)
    return run_of(root)


def test_a_run_gives_what_was_kept_of_it(root, complete, command):
    status, out, _ = command("verify", "--model", "mine", "--write-expected")
    assert status == 0
    folder = root / "book" / "expected" / complete.name
    assert str(folder) in out
    assert {file.name for file in folder.iterdir()} == {"run.json", "ledger.csv", "heads.json"}
    assert pd.read_csv(folder / "ledger.csv")["claim"].tolist() == list(expected.CLAIMS)
    assert json.loads((folder / "heads.json").read_text()) == {"0": {"all": [[0, 1]], "foo": [[0, 1]]}}
    status, out, _ = command("verify", "--expected")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == [*expected.CLAIMS, "heads"]


def test_an_effect_within_a_tenth_of_what_matters_is_the_same_and_beyond_it_differs(root, complete, command):
    command("verify", "--write-expected")
    file = root / "book" / "expected" / complete.name / "ledger.csv"
    table = pd.read_csv(file)
    claim = table["claim"] == "C1"
    smallest = expected.CLAIMS["C1"].smallest
    for change, status in ((0.05 * smallest, 0), (0.2 * smallest + 0.02 * table.loc[claim, "mean"].abs(), 1)):
        table.assign(mean=table["mean"].where(~claim, table["mean"] + change)).to_csv(file, index=False)
        assert command("verify", "--expected")[0] == status


def test_other_heads_and_another_verdict_differ(root, complete, command):
    command("verify", "--write-expected")
    folder = root / "book" / "expected" / complete.name
    (folder / "heads.json").write_text('{"0": {"all": [[0, 2]], "foo": [[0, 1]]}}')
    table = pd.read_csv(folder / "ledger.csv")
    table.assign(verdict="absent").to_csv(folder / "ledger.csv", index=False)
    status, out, _ = command("verify", "--expected")
    assert status == 1
    assert "differs: all, 1, 2: 2 was kept, now it is 1" in out
    assert "differs: verdict: 'absent' was kept, now it is" in out


def test_values_of_each_seed_are_kept_apart(root, complete, model, command):
    command("verify", "--write-expected")
    go(model, *pipeline.CHAPTERS, seed=1, replace=True)
    status, out, _ = command("verify", "--expected")
    assert (status, len(out.splitlines())) == (1, 1)
    assert "stale: nothing is expected of seed 1, only of 0" in out
    command("verify", "--write-expected")
    assert command("verify", "--expected")[0] == 0
    table = pd.read_csv(next((root / "book" / "expected").glob("*/ledger.csv")))
    assert table["seed"].tolist() == [0] * len(expected.CLAIMS) + [1] * len(expected.CLAIMS)
    assert "| claim | seed 0 | seed 1 |" in by_seed(table).splitlines()
    assert by_seed(table[table["seed"] == 0]) == ""


def test_without_expected_values_the_command_says_how_to_keep_them(runs, command):
    status, out, err = command("verify", "--expected")
    assert (status, out) == (2, "")
    assert f"--model {runs.name} --write-expected" in err
    assert "missing" in command("verify", "--write-expected")[2]  # heads, of a chapter that was not run
