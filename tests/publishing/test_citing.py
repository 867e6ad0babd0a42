"""A figure's citation is ready: whatever the model is called, readers of BibTeX and RIS understand it."""

import re

import pytest
from pybtex.database import parse_string

from twotowers.publishing import citing
from twotowers.publishing.citing import FORMATS, Citation, bibtex, project, ris, text
from twotowers.publishing.record import FIELDS, Place, figure_record

AWKWARD = ["100%_of{everything", "a\\b~c^d $x$ & #1", 'Modèle "é"', "two}} ends{{", "plain-model", "one, two and three"]


@pytest.fixture
def table(tmp_path):
    file = tmp_path / "numbers.csv"
    file.write_text("x\n1\n")
    return file


def record(table, **facts):
    usual = {"model": "some-model", "revision": "abc", "weights_sha256": "0" * 64, "task": "words", "seed": 3}
    usual |= {"scale": "book", "git_commit": "c0ffee", "date": "2025-01-02T03:04:05+00:00"}
    usual |= {"packages": {"twotowers": "9.8.7"}, "command": "twotowers run"}
    place = Place("runs/some-run/task.html", "some-run-task-shots", "some-run")
    return figure_record("task-shots", place, usual | facts, {"numbers.csv": table}, {})


def printed(words):
    """What TeX prints of a field in which no command stands but for single characters."""
    words = re.sub(r"\\([%&#$_])", r"\1", words)
    names = {"textbackslash": "\\", "textbraceleft": "{", "textbraceright": "}", "textasciitilde": "~"}
    names["textasciicircum"] = "^"
    pieces = re.split(r"\\(text\w+)\{\}", words)
    plain = [names[piece] if number % 2 else re.sub("[{}]", "", piece) for number, piece in enumerate(pieces)]
    return "".join(plain)


def read(entry):
    """The only entry of BibTeX, and its fields as they are printed."""
    ((key, found),) = parse_string(entry, "bibtex").entries.items()
    return key, found, {name: printed(value) for name, value in found.fields.items()}


@pytest.mark.parametrize("model", AWKWARD)
def test_bibtex_says_the_same_after_it_was_read(table, model):
    made = record(table, model=model)
    key, found, fields = read(bibtex(made))
    assert key == Citation(made).key
    assert re.fullmatch(r"[a-z0-9-]+:[0-9a-f]{8}", key)
    assert fields["title"] == f"Figure task-shots, model {model}, task words"
    assert [str(person) for person in found.persons["author"]] == [f"{{{project().authors[0]}}}"]
    assert (fields["year"], fields["version"]) == ("2025", "9.8.7")
    for part in ("c0ffee", "revision abc", "Task words, seed 3, scale book", "2025-01-02", "0" * citing.LONG):
        assert part in fields["note"]


@pytest.mark.parametrize("model", AWKWARD)
def test_braces_of_bibtex_balance_and_no_character_of_tex_stays(table, model):
    entry = bibtex(record(table, model=model))
    assert entry.count("{") == entry.count("}")
    assert not re.search(r"(?<!\\)[%&#$~^_]", entry)


@pytest.mark.parametrize("model", AWKWARD)
def test_ris_has_a_tag_on_every_line(table, model):
    lines = ris(record(table, model=model)).splitlines()
    assert all(re.fullmatch(r"[A-Z][A-Z0-9]  - .*", line) for line in lines)
    assert (lines[0], lines[-1]) == ("TY  - FIGURE", "ER  - ")
    fields = dict(line.split("  - ", 1) for line in lines)
    assert fields["TI"] == f"Figure task-shots, model {model}, task words"
    assert (fields["PY"], fields["DA"]) == ("2025", "2025/01/02")


def test_the_words_are_one_line_with_all_that_is_known(table):
    said = text(record(table))
    assert "\n" not in said
    assert said.startswith(
        f"{project().authors[0]} (2025). Figure task-shots, model some-model, task words. In: {project().title}."
    )


def test_what_is_not_known_is_not_said(table):
    made = record(table, **dict.fromkeys(FIELDS)) | {"model": "m"}
    for _, write in FORMATS.values():
        assert "None" not in write(made)
    assert read(bibtex(made))[2]["year"] == project().year
    assert "url" not in read(bibtex(made))[2]


def test_a_digest_as_revision_is_said_once(table):
    made = record(table, revision=f"sha256:{'1' * 64}", weights_sha256="1" * 64)
    assert text(made).count("1" * citing.LONG) == 1


def test_the_address_of_the_project_stands_in_one_file(table, tmp_path, monkeypatch):
    (tmp_path / "book" / "chapters").mkdir(parents=True)
    (tmp_path / "_config.yml").touch()
    said = (citing.project_root() / citing.SOURCE).read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / citing.SOURCE).write_text(f'{said}\nrepository-code: "https://example.org/a_b%20c"\n')
    assert read(bibtex(record(table)))[1].fields["url"] == "https://example.org/a_b%20c"
    (tmp_path / citing.SOURCE).write_text(
        f'{said}\nrepository-code: "https://example.org"\nurl: "https://book.example/"\n'
    )
    page = "https://book.example/runs/some-run/task.html#fig-some-run-task-shots"
    assert Citation(record(table)).url == page
    assert text(record(table)).endswith(f" {page}")
    assert f"UR  - {page}" in ris(record(table))


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_that_a_terminal_obeys_is_in_a_citation(table, form):
    odd = "m\x1b[31m\x07\u202e"
    said = FORMATS[form][1](record(table, **dict.fromkeys(("model", "task", "revision", "git_commit"), odd)))
    assert all(line.isprintable() for line in said.split("\n"))
    assert "m[U+001B]" in said
