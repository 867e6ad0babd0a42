"""Lines of arguments made by chance: the command does what it is told, or says in one sentence why not."""

import contextlib
import io
from types import SimpleNamespace

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from twotowers.cli import main
from twotowers.pipeline import run as pipeline_run

COMMANDS = ["run", "status", "build", "export", "import", "cite", "verify", "check", "bench", "models", "tasks"]
OPTIONS = [
    "--model", "--chapter", "--task", "--labels", "--scale", "--seed", "--seeds", "--force", "--replace", "--jobs",
    "--submit", "--dtype", "--device-map", "--quantise", "--remote", "--slurm", "--stale", "--format", "--expected",
    "--write-expected", "--shape", "--device", "--repeats", "--by", "--output", "--guess", "--tensor-parallel",
    "--version", "--help", "--",
]  # fmt: skip
VALUES = [
    "toy-gpt2", "toy_gpt2", "words", "words:shots=2", "words:shots=0", "smoke", "book", "0", "-1", "1", "1e3", "slurm",
    "partition=gpu", "=", "towers", "knockout", "nf4", "float32", "float64", "auto", "bibtex", "yes,no", "natural", "",
    " ", "nowhere/at/all", "a/b", "/dev/null", "\0", "\ud800", "é", "..", "~", "x" * 300,
]  # fmt: skip
LINES = st.builds(
    lambda first, rest: [*first, *rest],
    st.lists(st.sampled_from(COMMANDS), min_size=1, max_size=1) | st.just([]),
    st.lists(st.sampled_from(OPTIONS) | st.sampled_from(VALUES) | st.text(max_size=4), max_size=7),
)


@pytest.fixture(scope="module", autouse=True)
def nothing_runs():
    """Everything that a command would do for long is left out; what it checks before is not."""

    def only_prepared(model, number, *, task, scale, seed, loading, **_):
        pipeline_run.prepare(model, task, scale, seed, loading)
        return [SimpleNamespace(run="a", chapter="b", state="done", seconds=0.0, figures=0)]

    patch = pytest.MonkeyPatch()
    patch.setattr("twotowers.pipeline.seeds.run_seeds", only_prepared)
    patch.setattr("twotowers.pipeline.submit.submit", lambda *_, **__: ([], []))
    patch.setattr("twotowers.pipeline.site.build", lambda **_: "nowhere")
    patch.setattr("twotowers.pipeline.status.status", lambda root: [])
    patch.setattr("twotowers.pipeline.verify.verify", lambda *_, **__: [])
    patch.setattr("twotowers.pipeline.expected.write_expected", lambda *_: "nowhere")
    patch.setattr("twotowers.pipeline.expected.compare_expected", lambda *_: [])
    patch.setattr("twotowers.bench.run.run", lambda *_: "")
    patch.setattr("twotowers.pipeline.crate.export", lambda *_, **__: "nowhere")
    yield
    patch.undo()


@given(line=LINES)
@example(line=["status", "\r", "--model"])
def test_any_line_of_arguments_is_done_or_refused_in_one_sentence(line):
    said, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
        try:
            status = main(line)
        except SystemExit as stopped:  # argparse: help, or its own sentence below the usage
            status = stopped.code
    event(f"status {status}")
    assert status in (0, 2) or (status == 1 and line[0] in ("verify", "check")), told.getvalue()
    assert "Traceback" not in told.getvalue()
    if status == 2:
        assert told.getvalue().strip().splitlines()[-1].startswith("twotowers")
