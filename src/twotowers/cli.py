"""The command `twotowers`: argument parsing and exit statuses only.

Exit status 0: done; 2: a user's mistake, 1: a failure of ours, in one sentence; 130, 143: stopped; 141: nobody reads.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__
from .errors import ChapterError, SiteError, UserError, unforeseen
from .options import NamedValues, Parser, count, named_value, seed
from .process import as_process, require_place, require_room, settle_environment, silence
from .publishing.markdown import seen  # what comes from outside may hold signs that a terminal obeys

AGAIN = "Stopped; what is finished is kept, run the same command to go on (without --force)."
DEVICE_MAPS = ("auto", "balanced", "sequential", "cpu", "cuda")  # those of transformers that are words


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; without arguments those of this process, which then ends with it."""
    if arguments is None:
        settle_environment()
        as_process(_do, _told)
    try:
        return _do(arguments)
    except (Exception, KeyboardInterrupt) as error:
        return _told(error)


def _do(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    require_place()
    require_room()
    return int(options.action(options) or 0)


def _told(error: BaseException) -> int:
    """Say in one sentence what went wrong, and give the exit status."""
    if isinstance(error, UserError):
        return _fail(str(error), 2)
    if isinstance(error, ChapterError | SiteError):
        return _fail(str(error), 1)
    if isinstance(error, KeyboardInterrupt):
        return _fail(AGAIN, getattr(error, "status", 130))
    if os.environ.get("TWOTOWERS_DEBUG"):
        raise error
    return _fail(*unforeseen(error))


def _fail(message: str, status: int) -> int:
    try:
        print("twotowers:", seen(" ".join(message.splitlines())), file=sys.stderr)
    except BrokenPipeError:
        raise
    except OSError:  # a full disk behind standard error: the status alone says it
        silence(sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="twotowers", description="Re-run a paper on in-context learning, on any model.")
    parser.add_argument("--version", action="version", version=f"twotowers {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run the chapters for a model (what is up to date is kept)")
    run.add_argument(
        "--model",
        required=True,
        nargs="+",
        action="extend",
        metavar="KEY",
        help="registry keys, local folders, or hub ids owner/name",
    )
    run.add_argument("--chapter", nargs="+", action="extend", metavar="NAME", help="only these chapters (default: all)")
    run.add_argument("--task", default="words", metavar="T", help="a task of the list, or a file or folder of yours")
    run.add_argument(
        "--labels", metavar="L", help="words, one a class, as foo,bar (default); or natural, flipped: classes' names"
    )
    run.add_argument("--scale", default="book", help="smoke, book (default) or paper")
    run.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of the prompts (default 0)")
    run.add_argument(
        "--seeds", type=count, default=1, metavar="N", help="so many seeds in all: the others only for their verdicts"
    )
    run.add_argument("--force", action="store_true", help="run also what is up to date")
    run.add_argument(
        "--replace", action="store_true", help="let a run of another scale or seed make way for this one, as a whole"
    )
    run.add_argument(
        "--jobs", type=count, metavar="N", help="chapters side by side (default: what cores and memory allow)"
    )
    run.add_argument(
        "--submit", metavar="WHERE", help="a job for each chapter of each model, on slurm (or local, to try it)"
    )
    _add_loading(run)
    run.add_argument("--remote", action="store_true", help="on a server that has the model (NDIF), by its hub id")
    run.add_argument(
        "--slurm",
        nargs="+",
        action=NamedValues,
        default={},
        type=named_value,
        metavar="NAME=VALUE",
        help="options of sbatch, as partition=gpu",
    )
    run.set_defaults(action=_run)

    status = commands.add_parser("status", help="say which chapters of which runs are up to date, and if not, why")
    status.set_defaults(action=_status)

    build = commands.add_parser("build", help="build the site from the runs that exist")
    build.add_argument("--stale", action="store_true", help="publish also what is stale or damaged, marked as such")
    build.set_defaults(action=_build)

    export = commands.add_parser("export", help="write a finished run as one archive, to be handed in")
    export.add_argument("run", metavar="RUN", help="its name, or its model")
    export.add_argument("--by", metavar="NAME", help="who ran it: pages and citations will say so")
    export.add_argument("--output", type=Path, metavar="FILE", help="or a folder for it (default: RUN.zip here)")
    export.set_defaults(action=_export)

    taken = commands.add_parser("import", help="take in a run that somebody else has exported, marked as contributed")
    taken.add_argument("file", type=Path, metavar="FILE", help="the archive")
    taken.set_defaults(action=_import)

    cite = commands.add_parser("cite", help="print how a figure is cited")
    cite.add_argument("figure", metavar="FIGURE", help="its id, as under the figure; its anchor or a file will do, too")
    _add_run_of(cite)
    cite.add_argument("--format", default="bibtex", metavar="F", help="bibtex (default), ris or text")
    cite.set_defaults(action=_cite)

    verify = commands.add_parser("verify", help="run again what made figures, beside the run, and compare")
    verify.add_argument("figure", nargs="*", metavar="FIGURE", help="ids as for cite (default: all that the run made)")
    _add_run_of(verify)
    kept = verify.add_mutually_exclusive_group()
    kept.add_argument("--expected", action="store_true", help="compare the run with its expected values; runs nothing")
    kept.add_argument("--write-expected", action="store_true", help="take the run's values for the expected ones")
    verify.set_defaults(action=_verify)

    check = commands.add_parser("check", help="measure the identities that must hold on a model")
    check.add_argument("model", metavar="MODEL", help="registry key, local folder, or hub id owner/name")
    _add_loading(check)
    check.add_argument(
        "--tensor-parallel", action="store_true", help="split over the processes that torchrun has started"
    )
    check.add_argument("--remote", action="store_true", help="on a server that has the model (NDIF), by its hub id")
    check.add_argument(
        "--guess", action="store_true", help="guess the entry of an unknown family, and try the identities with it"
    )
    check.set_defaults(action=_check)

    bench = commands.add_parser("bench", help="time the knock-out of every head beside other ways to do it")
    subject = bench.add_mutually_exclusive_group()
    subject.add_argument("--model", default="smollm2-135m", metavar="KEY", help="as for run (default smollm2-135m)")
    subject.add_argument("--shape", metavar="NAME", help="random weights of this size instead: speed and memory only")
    bench.add_argument("--device", metavar="D", help="cpu or cuda (default: the GPU if there is one)")
    bench.add_argument("--dtype", default="float32", help="float32 (default), bfloat16 or float16")
    bench.add_argument("--quantise", metavar="WAY", help="with --shape: nf4 or int8, how the weights are stored")
    bench.add_argument("--repeats", type=count, default=5, metavar="N", help="rounds of timing (default 5)")
    bench.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of sampled heads (default 0)")
    bench.set_defaults(action=_bench)

    models = commands.add_parser("models", help="list the models of the registry")
    models.set_defaults(action=_models)

    tasks = commands.add_parser("tasks", help="list the tasks")
    tasks.set_defaults(action=_tasks)
    return parser


def _add_run_of(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model", metavar="KEY", help="the model of a run, or the run's name (default: the default model's, if any)"
    )


def _add_loading(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dtype", help="float32, bfloat16 or float16 (default: the registry's, else float32)")
    command.add_argument(
        "--device-map", choices=DEVICE_MAPS, help="spread a model over devices (default: the GPU if there is one)"
    )
    command.add_argument("--quantise", metavar="WAY", help="nf4 or int8: weights stored in 4 or 8 bits (bitsandbytes)")


def _run(options: argparse.Namespace) -> None:
    from .chapters.registry import CHAPTERS
    from .models.loading import Loading
    from .models.server import Traffic
    from .pipeline.run import prepare
    from .pipeline.seeds import run_seeds
    from .pipeline.submit import listed, submit

    models = list(dict.fromkeys(options.model))
    loading = Loading(options.dtype, options.device_map, options.quantise, options.remote)
    task = f"{options.task}:labels={options.labels}" if options.labels is not None else options.task
    arguments = {
        "chapters": options.chapter or CHAPTERS,
        "task": task,
        "scale": options.scale,
        "seed": options.seed,
        "loading": loading,
        "force": options.force,
        "replace": options.replace,
        "jobs": options.jobs,
    }
    if options.submit and options.seeds > 1:
        raise UserError("Other seeds are run here, after the first; leave out --submit, or --seeds.")
    if options.slurm and options.submit != "slurm":
        raise UserError("The options of --slurm are for --submit slurm; add that, or leave them out.")
    if options.submit:
        jobs, done = submit(models, options.submit, options.slurm, **arguments)
        print(f"{listed(jobs)}\n{len(jobs)} jobs; their logs are in book/runs/.jobs")
        if not done:
            return
    else:
        for model in models[1:]:  # a mistake in a later name is told before the first model has run for hours
            prepare(model, task, options.scale, options.seed, loading)
        done = [outcome for model in models for outcome in run_seeds(model, options.seeds, **arguments)]
    width = max(len(outcome.run) for outcome in done)
    print(f"\n{'run':{width}}  {'chapter':10} {'state':11} {'seconds':>8} {'figures':>8}")
    for o in done:
        print(f"{o.run:{width}}  {o.chapter:10} {o.state:11} {o.seconds:8.1f} {o.figures:8d}")
    if options.remote and (traffic := sum((o.traffic for o in done), Traffic())).requests:
        print(traffic, file=sys.stderr)


def _status(options: argparse.Namespace) -> None:
    from .pipeline.status import status
    from .publishing.run_folder import project_root

    lines = list(status(project_root()))
    if not lines:
        print("There is no run yet; run a model with: twotowers run")
        return
    width = max(len(seen(line.run)) for line in lines)
    for line in lines:
        print(f"{seen(line.run):{width}}  {line.chapter:10} {seen(line.state)}")
    if elsewhere := sorted({line.run for line in lines if not line.model_here}):
        print(f"Without the model's own files, which are not at hand: {seen(', '.join(elsewhere))}")


def _build(options: argparse.Namespace) -> None:
    from .pipeline.site import build

    print(f"The site is at {build(stale=options.stale)}")


def _export(options: argparse.Namespace) -> None:
    from .pipeline.crate import export

    print(f"The archive is {seen(export(options.run, by=options.by, output=options.output))}")


def _import(options: argparse.Namespace) -> None:
    from .pipeline.handed_in import import_run

    run = import_run(options.file)
    print(f"The run {run.name} is in {seen(run.path)}, marked as contributed; it was not run here.")


def _cite(options: argparse.Namespace) -> None:
    from .pipeline.figures import cite

    print(cite(options.figure, model=options.model, form=options.format))


def _verify(options: argparse.Namespace) -> int:
    from .pipeline.expected import compare_expected, write_expected
    from .pipeline.verify import SAME, verify

    if options.write_expected:
        print(f"The expected values are in {write_expected(options.model)}")
        return 0
    found = compare_expected(options.model) if options.expected else verify(options.figure, model=options.model)
    verdicts = set[str]()
    for verified in found:
        print(f"{seen(verified.name):28}  {seen(verified)}", flush=True)
        verdicts.add(verified.verdict)
    return int(verdicts != {SAME})


def _check(options: argparse.Namespace) -> int:
    if options.guess:
        return _guess(options)
    from .models.model import load
    from .models.parallel import first
    from .tracing.check import check, lines, refusal

    model = load(
        options.model,
        dtype=options.dtype,
        device_map=options.device_map,
        remote=options.remote,
        quantise=options.quantise,
        tensor_parallel=options.tensor_parallel,
    )
    table = check(model)
    if options.tensor_parallel and not first():
        return 0
    if model.remote:
        print(model.traffic, file=sys.stderr)
    print(lines(table))
    said = refusal(model, table)
    return _fail(said, 1) if said else 0


def _guess(options: argparse.Namespace) -> int:
    from .tracing.guessing import guess

    found = guess(options.model, options.dtype)
    print(found)
    return 0 if found.holds else _fail(found.failure, 1)


def _bench(options: argparse.Namespace) -> None:
    from .bench.run import run

    o = options
    print(run(o.model, o.shape, o.device, o.dtype, o.repeats, o.seed, o.quantise))


def _models(options: argparse.Namespace) -> None:
    from .pipeline.registered import columns, registered

    print(registered(columns()))


def _tasks(options: argparse.Namespace) -> None:
    from .prompts.datasets import SETS
    from .prompts.sampling import kept_at
    from .prompts.tasks import load_task

    print(f"{'task':21} {'classes':38} {'kept':4}  source")
    categories = f"{len(load_task('words').categories)} categories of words"
    print(f"{'words':21} {categories:38} {'yes':4}  this package")
    for data in SETS.values():
        kept = "yes" if kept_at(data).is_file() else "no"
        print(f"{data.key:21} {', '.join(data.classes):38} {kept:4}  {data.source}")
    print("Two classes make a task, as in ag-news:world,sports, or more at a time, as in ag-news:classes=all;")
    print("what is not kept here is read from the hub, once.")


if __name__ == "__main__":  # as it was called before `python -m twotowers` was there
    main()
