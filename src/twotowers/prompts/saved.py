"""Rows of Parquet files, and of folders that the library `datasets` has saved."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import TaskError
from ..hub import datasets_library, first_line, quiet
from .rows import NAMES_OF_HALVES, Table, as_named, places_of, row_of, together, unused_of
from .written import WANTED, require_inside


def parquet(path: Path) -> Table:
    """Rows of a Parquet file.

    Raises:
        TaskError: the library is not there, the file cannot be read, or it lacks a column.
    """
    datasets = datasets_library(f"The file {path}")
    import pyarrow.parquet  # comes with datasets

    try:
        names = pyarrow.parquet.read_schema(path).names
        places = places_of(path, names, "rename its columns")
        used = [names[place] for place in places.values()]  # others may be of kinds that datasets does not know
        table = datasets.Dataset(datasets.table.InMemoryTable(pyarrow.parquet.read_table(path, columns=used)))
    except TaskError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise TaskError(f"{path} cannot be read ({first_line(error)}); write it again, or give {WANTED}.") from None
    return replace(_of_dataset(path, table), unused=unused_of(names, places))


def saved_folder(path: Path) -> Table:
    """Rows of a folder that `save_to_disk` has written, with one split or with the two halves of a task.

    Raises:
        TaskError: as for `parquet`; it has other splits, or leads to files elsewhere.
    """
    datasets = datasets_library(f"The folder {path}")
    _require_own_files(path)
    try:
        with quiet(datasets):
            saved = datasets.load_from_disk(str(path))
    except Exception as error:  # as above
        raise TaskError(f"{path} cannot be read ({first_line(error)}); save it again, or give {WANTED}.") from None
    if isinstance(saved, datasets.Dataset):
        return _of_dataset(path, saved)
    if len(saved) > 1 and set(saved) != NAMES_OF_HALVES:
        raise TaskError(
            f"{path} has the splits {', '.join(saved)}; give the folder of one of them, as {path / next(iter(saved))}, "
            f"or save two under the names selection and evaluation."
        )
    return together([as_named(_of_dataset(path / split, table), split) for split, table in saved.items()])


def _require_own_files(path: Path) -> None:
    """Refuse a saved folder whose description or links lead to files elsewhere: it may be a stranger's."""
    for said in (*path.glob("state.json"), *path.glob("dataset_dict.json"), *path.glob("*/state.json")):
        try:
            found = json.loads(said.read_text(encoding="utf-8"))
            names = [*(part["filename"] for part in found.get("_data_files", ())), *found.get("splits", ())]
            require_inside(path, said)
            for name in names:
                require_inside(path, said.parent / name)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise TaskError(f"{said} cannot be read; save the folder again, or give {WANTED}.") from None


def _of_dataset(path: Path, table: Any) -> Table:
    """Rows of a `datasets.Dataset`; numbered labels get their names, if it knows them."""
    names = list(table.column_names)
    places = places_of(path, names, "rename its columns")
    used = [names[place] for place in places.values()]
    feature = table.features[names[places["label"]]]
    numbered = feature.num_classes if hasattr(feature, "int2str") else None
    rows = []
    for number, row in enumerate(table.with_format(None).select_columns(used), start=1):  # no tensors, no data frames
        cells = dict(zip(places, (row[name] for name in used), strict=True))
        if numbered is not None and cells["label"] is not None:
            if cells["label"] >= numbered:
                raise TaskError(
                    f"{path}, row {number}, column 'label' is {cells['label']}, but the file has names for "
                    f"{numbered} labels only, numbered from 0; write the number of one of them, or nothing."
                )
            cells["label"] = feature.int2str(cells["label"]) if cells["label"] >= 0 else ""
        rows.append(row_of(path, number, {name: i for i, name in enumerate(cells)}, list(cells.values())))
    return Table(rows, unused_of(names, places))
