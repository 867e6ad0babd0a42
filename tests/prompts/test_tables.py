"""A user's own folders and Parquet files: read whole, by the rules of a CSV file."""

import builtins
import json

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from twotowers.errors import TaskError
from twotowers.prompts.tasks import HALVES, load_task

FRUIT, TOOLS = ("apple", "pear", "plum", "fig"), ("saw", "hammer", "drill", "file")
TEXTS, LABELS = [*FRUIT, *TOOLS], ["fruit"] * 4 + ["tool"] * 4


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "mine"
    place.mkdir()
    return place


def write_csv(file, texts, labels):
    file.write_text("text,label\n" + "".join(f"{t},{n}\n" for t, n in zip(texts, labels, strict=True)))


@pytest.fixture
def expected(tmp_path):
    write_csv(tmp_path / "expected.csv", TEXTS, LABELS)
    return load_task(str(tmp_path / "expected.csv"))


def numbered():
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["fruit", "tool"])}
    )
    return datasets.Dataset.from_dict({"text": TEXTS, "label": [0] * 4 + [1] * 4}, features=features)


def refused(path, *parts):
    with pytest.raises(TaskError) as caught:
        load_task(str(path))
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def test_a_folder_of_csv_files_is_read_together(folder, expected):
    write_csv(folder / "a.csv", FRUIT, LABELS[:4])
    write_csv(folder / "b.csv", TOOLS, LABELS[4:])
    task = load_task(str(folder))
    assert task.name == "mine"
    assert task.digest == expected.digest


def test_a_parquet_file_with_names_as_labels(folder, expected):
    datasets.Dataset.from_dict({"text": TEXTS, "label": LABELS}).to_parquet(folder / "some.parquet")
    assert load_task(str(folder / "some.parquet")).digest == expected.digest
    assert load_task(str(folder)).digest == expected.digest


def test_numbered_labels_get_their_names(folder, expected):
    numbered().to_parquet(folder / "some.parquet")
    assert load_task(str(folder)).digest == expected.digest


def test_numbers_without_names_are_names(folder):
    datasets.Dataset.from_dict({"text": TEXTS, "label": [0] * 4 + [1] * 4}).to_parquet(folder / "some.parquet")
    assert load_task(str(folder)).categories == ("0", "1")


def test_a_folder_saved_by_the_library(folder, expected):
    numbered().save_to_disk(str(folder / "one"))
    datasets.DatasetDict(train=numbered()).save_to_disk(str(folder / "only"))
    assert load_task(str(folder / "one")).digest == load_task(str(folder / "only")).digest == expected.digest


def test_two_saved_splits_with_the_names_of_the_halves_are_the_halves(folder):
    parts = {half: numbered().select(range(i, 8, 2)) for i, half in enumerate(HALVES)}
    datasets.DatasetDict(parts).save_to_disk(str(folder / "both"))
    assert load_task(str(folder / "both")).texts["fruit"] == {
        "selection": ("apple", "plum"),
        "evaluation": ("fig", "pear"),
    }


@pytest.mark.parametrize("ending", ["csv", "CSV", "jsonl", "parquet"])
@pytest.mark.parametrize("named", ["{}", "{}-00000-of-00001"])
def test_two_files_with_the_names_of_the_halves_are_the_halves(folder, ending, named):
    """They were read together and split at random: heads were judged on texts that were meant to choose them."""
    for i, half in enumerate(HALVES):
        own, file = numbered().select(range(i, 8, 2)), folder / f"{named.format(half).capitalize()}.{ending}"
        if ending.lower() == "csv":
            write_csv(file, TEXTS[i::2], LABELS[i::2])
        elif ending == "jsonl":
            pairs = zip(TEXTS[i::2], LABELS[i::2], strict=True)
            file.write_text("\n".join(json.dumps({"text": text, "label": label}) for text, label in pairs))
        else:
            own.to_parquet(file)
    assert load_task(str(folder)).texts["fruit"] == {"selection": ("apple", "plum"), "evaluation": ("fig", "pear")}


def test_a_file_beside_those_of_the_halves_is_named(folder):
    for name in (*HALVES, "more"):
        write_csv(folder / f"{name}.csv", TEXTS, LABELS)
    refused(folder, "named for a half, as evaluation.csv, and others, as more.csv; name all of them so, or none")


def test_a_split_column_must_say_what_its_place_is_named(folder):
    """The place was preferred, and nobody told."""
    own = numbered().add_column("split", ["evaluation"] * 8)
    datasets.DatasetDict(selection=own.select(range(0, 8, 2)), evaluation=own.select(range(1, 8, 2))).save_to_disk(
        str(folder / "both")
    )
    refused(folder / "both", "selection, row 1, column 'split' is 'evaluation', but what it is in is named selection")
    for half in HALVES:
        (folder / f"{half}.csv").write_text("text,label,split\napple,fruit,\nsaw,tool,selection\n")
    refused(folder, "evaluation.csv, row 3, column 'split' is 'selection', but what it is in is named evaluation")


def test_a_saved_split_that_is_one_half_is_not_split_again(folder):
    datasets.DatasetDict(selection=numbered()).save_to_disk(str(folder / "one"))
    assert load_task(str(folder / "one")).texts["fruit"]["evaluation"] == ()


@pytest.mark.parametrize("form", ["numpy", "pandas", "arrow", "torch"])
@pytest.mark.parametrize("columns", [None, ["text"]])
def test_the_form_in_which_a_saved_folder_gives_its_rows_changes_nothing(folder, expected, form, columns):
    """A data frame's text was its print, a tensor's label `tensor(0)`, and a hidden column a KeyError."""
    numbered().with_format(form, columns=columns).save_to_disk(str(folder / "one"))
    assert load_task(str(folder / "one")).digest == expected.digest
    plain = datasets.Dataset.from_dict({"text": TEXTS, "label": [0] * 4 + [1] * 4})
    plain.with_format(form, columns=columns).save_to_disk(str(folder / "two"))
    assert load_task(str(folder / "two")).categories == ("0", "1")


def test_a_number_behind_the_last_name_is_refused(folder):
    table = numbered().data.table
    table = table.set_column(1, "label", pyarrow.array([0] * 4 + [1] * 3 + [7])).replace_schema_metadata(
        numbered().features.arrow_schema.metadata
    )
    pyarrow.parquet.write_table(table, folder / "some.parquet")
    refused(folder, "row 8, column 'label' is 7, but the file has names for 2 labels only")


def test_columns_that_play_no_part_may_be_of_any_kind(folder, expected):
    """Kinds that datasets lacks were refused, to be written again."""
    maps = pyarrow.array([[("a", 1)]] * 8, pyarrow.map_(pyarrow.string(), pyarrow.int64()))
    table = pyarrow.table({"where": maps, "text": TEXTS, "id": pyarrow.array([b"0" * 16] * 8, pyarrow.uuid()),
                           "label": LABELS})  # fmt: skip
    pyarrow.parquet.write_table(table, folder / "some.parquet")
    task = load_task(str(folder))
    assert task.digest == expected.digest
    assert task.facts["unused"] == ["where", "id"]


def test_other_saved_splits_are_refused_with_what_to_give(folder):
    datasets.DatasetDict(train=numbered(), test=numbered()).save_to_disk(str(folder / "both"))
    refused(folder / "both", "splits train, test", str(folder / "both" / "train"), "selection and evaluation")
    assert load_task(str(folder / "both" / "train")).categories == ("fruit", "tool")


def test_a_split_column_is_read_everywhere(folder):
    columns = {"text": TEXTS, "label": LABELS, "split": list(HALVES) * 4}
    datasets.Dataset.from_dict(columns).to_parquet(folder / "some.parquet")
    assert load_task(str(folder)).texts["tool"] == {"selection": ("drill", "saw"), "evaluation": ("file", "hammer")}


def test_a_message_about_two_files_names_both(folder):
    write_csv(folder / "a.csv", TEXTS, LABELS)
    write_csv(folder / "b.csv", ["apple"], ["tool"])
    refused(folder, "b.csv, row 2, column 'text': 'apple'", "'fruit' in ", "a.csv, row 2")


def test_repeated_rows_are_counted_and_told(folder):
    write_csv(folder / "a.csv", [*TEXTS, "fig"], [*LABELS, "fruit"])
    task = load_task(str(folder))
    assert task.facts == {"source": "mine", "rows": 9, "dropped": {"repeated": 1}, "texts": {"fruit": 4, "tool": 4}}
    assert "9 rows; 1 that say" in task.account


def test_an_empty_folder_is_no_task(folder):
    refused(folder, "no *.csv, *.jsonl or *.parquet", "saved by datasets", "text,label")


def test_a_parquet_file_without_the_columns(folder):
    datasets.Dataset.from_dict({"sentence": ["a"], "label": [0]}).to_parquet(folder / "some.parquet")
    refused(folder, "some.parquet has no column 'text'", "rename")


def test_a_row_without_a_label_is_left_out_and_told(folder):
    datasets.Dataset.from_dict({"text": TEXTS, "label": [*LABELS[:-1], None]}).to_parquet(folder / "some.parquet")
    task = load_task(str(folder))
    assert task.facts["dropped"] == {"repeated": 0, "without a label": 1}
    assert "Left out were 1 without a label." in task.account


def test_broken_files_are_refused(folder):
    (folder / "some.parquet").write_bytes(b"PAR1 and no more")
    refused(folder, "some.parquet cannot be read")
    refused(folder / "absent.parquet", "cannot be read")
    numbered().save_to_disk(str(folder / "saved"))
    (folder / "saved" / "state.json").write_text("{")
    refused(folder / "saved", "saved/state.json cannot be read")


def test_only_csv_files_need_no_library(folder, monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "datasets":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    numbered().to_parquet(folder / "some.parquet")
    write_csv(folder / "a.csv", TEXTS, LABELS)
    monkeypatch.setattr(builtins, "__import__", missing)
    assert load_task(str(folder / "a.csv")).categories == ("fruit", "tool")
    refused(folder, "some.parquet needs the package datasets", "pip install")


def test_a_saved_folder_that_names_a_file_elsewhere_is_refused(folder):
    numbered().save_to_disk(str(folder / "other"))
    numbered().save_to_disk(str(folder / "saved"))
    (arrow,) = (folder / "other").glob("*.arrow")
    state = json.loads((folder / "saved" / "state.json").read_text())
    for name in (f"../other/{arrow.name}", str(arrow)):
        state["_data_files"] = [{"filename": name}]
        (folder / "saved" / "state.json").write_text(json.dumps(state))
        refused(folder / "saved", "leads out of its folder")
    datasets.DatasetDict(train=numbered()).save_to_disk(str(folder / "both"))
    (folder / "both" / "dataset_dict.json").write_text('{"splits": ["../other"]}')
    refused(folder / "both", "leads out of its folder")
