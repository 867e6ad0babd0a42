"""Traces that are serialised give what plain ones give; a server without our package can run them; it is told plainly
why it cannot be used."""

import functools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nnsight
import pytest
import torch
from nnsight.intervention.backends.local import LocalSimulationBackend

import twotowers
from conftest import make_sets
from family_configs import CONFIGS, save
from twotowers.chapters.knockout.knockout import sweep
from twotowers.cli import main
from twotowers.errors import ModelError, ServerError
from twotowers.models import model as models_room
from twotowers.models import rehearsal
from twotowers.models import server as remote
from twotowers.models.files import find_source
from twotowers.models.model import open_model
from twotowers.prompts.packing import pack
from twotowers.tracing import capture as trace
from twotowers.tracing.ablation import ablate, attributions, subtract
from twotowers.tracing.capture import answers, capture
from twotowers.tracing.check import check
from twotowers.tracing.cutting import cut
from twotowers.tracing.heads import every_head
from twotowers.tracing.position_free import without_position

# gptj and gpt_neox: attention beside the MLP; opt: no residual of three axes; olmo2: norms behind attention
FAMILIES = ("gpt2", "llama-gqa", "gptj", "gpt_neox", "qwen3", "opt", "phi3", "olmo2")
OPTIONS = ({}, {"pattern": True}, {"logits": True}, {"inputs": True}, {"written": True})


@pytest.fixture(scope="module")
def folders(tiny_folders, tmp_path_factory):
    made = tmp_path_factory.mktemp("remote")
    return {name: tiny_folders.get(name) or save(CONFIGS[name], made / name) for name in FAMILIES}


@pytest.fixture(scope="module")
def server(folders):
    """The port of a server of these models, in which our package cannot be imported."""
    script = Path(__file__).parents[1] / "fake_ndif.py"
    process = subprocess.Popen(
        [sys.executable, str(script), *map(str, folders.values())],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    yield int(process.stdout.readline())
    process.terminate()
    process.wait()


@pytest.fixture
def at_server(server, folders, monkeypatch):
    """nnsight's configuration names the server, and the tiny folders stand for models of the hub."""
    monkeypatch.setattr(nnsight.CONFIG.API, "HOST", f"http://127.0.0.1:{server}")
    monkeypatch.setattr(nnsight.CONFIG.API, "APIKEY", "good")
    monkeypatch.setattr(remote, "TIMEOUT", 600.0)  # a busy machine is not out of reach
    by_repo = {f"tiny/{folder.name}": folder for folder in folders.values()}

    def find(name, revision=None):
        found = find_source(str(by_repo.get(name, name)), revision)
        return replace(found, repo=name, name=name) if name in by_repo else found

    monkeypatch.setattr(models_room, "find_source", find)
    return {family: f"tiny/{folder.name}" for family, folder in folders.items()}


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@functools.cache
def here(folder):
    return twotowers.load(folder)


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * max(1.0, float(theirs.abs().max())))


def same_numbers(model, plain):
    """Every function that opens a trace, on two prompt sets or one, with a model and with the plain one."""
    batch, single = pack(make_sets(plain)), pack(make_sets(plain)[:1])
    zero = torch.zeros(3, plain.arch.n_layers, plain.arch.n_heads, dtype=torch.bool)
    zero[0, 0, 1] = zero[1, 1, 2] = zero[1, 2, 0] = True
    edges = torch.rand(batch.allowed.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    for options in OPTIONS:
        ours, expected = capture(model, batch, **options), capture(plain, batch, **options)
        for name in ("resid_pre", "attn_out", "mlp_out", "z", *options):
            close(getattr(ours, name), getattr(expected, name))
        assert ours.cache is None
    pairs = {
        "answers": [answers(m, batch) for m in (model, plain)],
        "ablate": [ablate(m, single, zero) for m in (model, plain)],
        "cut": [cut(m, batch, edges, range(1, 3)) for m in (model, plain)],
        "subtract": [subtract(model, single, 1, 2), ablate(plain, single, zero[:1].roll(1, 1).roll(1, 2))],
    }
    heads = [(0, 1), (2, 3), (2, 0)]
    flat, expected = (without_position(m, batch, heads) for m in (model, plain))
    close(flat[1], expected[1])
    for ours, plainly in [*pairs.values(), (flat[0], expected[0])]:
        close(ours.labels, plainly.labels)
        close(ours.log_norm, plainly.log_norm)
        assert torch.equal(ours.best, plainly.best)
    close(attributions(model, batch), attributions(plain, batch))


def same_weights(arch, plain):
    residual = torch.randn(2, 5, plain.d_model)
    for name in ("w_o", "b_o"):
        close(getattr(arch, name)(1), getattr(plain, name)(1))
    for name in ("w_q", "w_k", "w_v"):
        for ours, theirs in zip(getattr(arch, name)(1), getattr(plain, name)(1), strict=True):
            close(ours, theirs)
    for name in ("norm_in", "queries", "keys"):
        close(getattr(arch, name)(1, residual), getattr(plain, name)(1, residual))
    x, positions = torch.randn(2, 4, 5, plain.d_head), torch.arange(5).expand(2, 4, -1)
    close(arch.rotate(1, x, positions), plain.rotate(1, x, positions))
    close(arch.w_u(), plain.w_u())
    close(arch.logit_bias(), plain.logit_bias())
    close(arch.norm_shape(residual), plain.norm_shape(residual))
    assert arch.score_scale(1) == plain.score_scale(1)


# Serialised as for a server


def test_a_rehearsal_gives_the_same_numbers(family, folders):
    same_numbers(twotowers.load(folders[family], remote="local"), here(folders[family]))


def test_a_rehearsal_reads_the_same_weights_once(family, folders):
    model, plain = twotowers.load(folders[family], remote="local"), here(folders[family])
    same_weights(model.arch, plain.arch)
    requests = model.traffic.requests
    same_weights(model.arch, plain.arch)
    assert model.traffic.requests == requests


def test_nnsights_own_rehearsal_gives_the_same_numbers(folders, monkeypatch):
    model = twotowers.load(folders["gpt2"], remote="local")
    monkeypatch.setattr(
        models_room.Model, "backend", lambda self: LocalSimulationBackend(self.nn) if self.remote else None
    )
    same_numbers(model, here(folders["gpt2"]))


def test_a_body_that_needs_our_package_is_refused(folders):
    """What the rehearsal is for: a function of ours in the body of a trace passes here and fails on a server."""
    model = twotowers.load(folders["gpt2"], remote="local")
    needs_our_function(model, ModuleNotFoundError, r"needs twotowers\.tracing\.capture, which a server does not have")
    model.remote = False
    with pytest.raises(pytest.fail.Exception):
        needs_our_function(model, ModuleNotFoundError, "twotowers")


def needs_our_function(model, kind, message):
    inputs, function = trace.inputs_of(model, pack(make_sets(model))), trace.require_weights
    with pytest.raises(kind, match=message), model.nn.trace(inputs, backend=model.backend()):
        nnsight.save([function([])])


def test_traffic_is_counted(folders):
    model = twotowers.load(folders["gpt2"], remote="local")
    batch = pack(make_sets(model))
    answers(model, batch)
    few = replace(model.traffic)
    assert few.requests == 1
    assert 500 < few.received < few.sent < 10_000
    capture(model, batch, inputs=True)
    sizes = capture(model, batch, inputs=True).inputs.numel() * 4
    assert model.traffic.requests == 3
    assert model.traffic.received - few.received > 2 * 0.8 * sizes  # noise cannot be compressed
    assert str(remote.Traffic(3 * 2**20, 100, 1)) == "sent 3.0 MiB, received 0.1 KiB in 1 request"


def test_answers_alone_carry_no_row_over_the_vocabulary(folders):
    model = twotowers.load(folders["gpt2"], remote="local")
    answers(model, pack(make_sets(model)))
    assert model.traffic.received < model.arch.d_vocab * 4


def test_the_check_and_the_knock_out_pass_in_a_rehearsal(folders):
    model = twotowers.load(folders["llama-gqa"], remote="local")
    table = check(model)
    assert table["holds"].all(), table
    assert "knock-out equals taking away what a head writes" in set(table["identity"])
    sets = make_sets(model)[:1]
    heads = every_head(model)[::3]
    ours, plainly = (sweep(m, sets, heads) for m in (model, here(folders["llama-gqa"])))
    torch.testing.assert_close(torch.tensor(ours["margin"]), torch.tensor(plainly["margin"]), rtol=1e-4, atol=1e-4)


# On a server


def test_a_server_without_our_package_gives_the_same_numbers(family, folders, at_server):
    model, plain = open_model(at_server[family], remote=True), here(folders[family])
    same_numbers(model, plain)
    same_weights(model.arch, plain.arch)
    assert model.traffic.requests > 10
    assert {p.device.type for p in model.nn._module.parameters()} == {"meta"}


def test_a_body_that_needs_our_package_fails_on_the_server(at_server):
    model = open_model(at_server["gpt2"], remote=True)
    needs_our_function(model, ServerError, r"ModuleNotFoundError: No module named 'twotowers")


def test_a_request_names_no_folder_of_ours(folders, at_server, monkeypatch):
    blobs = []
    true = rehearsal.RequestModel.serialize.__func__
    monkeypatch.setattr(
        rehearsal.RequestModel,
        "serialize",
        classmethod(lambda cls, t, c=False: blobs.append(true(cls, t)) or true(cls, t, c)),
    )
    answers(open_model(at_server["gpt2"], remote=True), pack(make_sets(here(folders["gpt2"]))))
    assert str(folders["gpt2"]).encode() not in blobs[0]


def test_provenance_says_what_is_not_known_of_a_server(at_server):
    facts = open_model(at_server["gpt2"], remote=True).provenance()
    assert facts["weights_sha256"] is None
    assert facts["dtype"] == "as served"
    assert facts["device"].startswith("server 127.0.0.1:")


def test_the_command_checks_a_model_on_a_server(at_server, capsys):
    assert main(["check", at_server["llama-gqa"], "--remote"]) == 0
    told = capsys.readouterr()
    assert "FAILS" not in told.out
    assert told.err.strip().splitlines()[-1].startswith("sent ")
    assert " requests" in told.err


def test_the_traffic_of_another_process_is_noted_where_it_was_told_to(tmp_path):
    log = tmp_path / "traffic"
    assert remote.Traffic.noted(log) == remote.Traffic()
    for sent in (2048, 1024):
        remote.Traffic(log=log).count(sent, 1024)
    remote.Traffic().count(1, 1)
    assert str(remote.Traffic.noted(log)) == "sent 3.0 KiB, received 2.0 KiB in 2 requests"
    assert remote.Traffic(1, 2, 3) + remote.Traffic(1, 1, 1) == remote.Traffic(2, 3, 4)


# What is refused


def refused(action):
    with pytest.raises(ServerError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_without_a_key_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(nnsight.CONFIG.API, "HOST", remote.NDIF)
    monkeypatch.setattr(nnsight.CONFIG.API, "APIKEY", None)
    monkeypatch.setattr(remote, "_ask", lambda path: pytest.fail("asked"))
    assert "set NDIF_API_KEY" in refused(lambda: open_model("gpt2-large", remote=True))


def test_a_model_that_is_not_served_is_refused_with_those_that_are(at_server, folders, monkeypatch):
    monkeypatch.setattr(
        models_room, "find_source", lambda *a: replace(find_source(str(folders["gpt2"])), repo="tiny/cold")
    )
    text = refused(lambda: open_model("tiny/cold", remote=True))
    assert "does not serve tiny/cold now; it serves: tiny/" in text
    assert "tiny/cold," not in text


def test_a_revision_that_is_not_served_is_refused(at_server):
    assert "at revision abc" in refused(lambda: open_model(at_server["gpt2"], revision="abc", remote=True))


def test_a_server_of_another_version_is_refused(at_server, monkeypatch):
    monkeypatch.setattr(nnsight.CONFIG.API, "APIKEY", "other-nnsight")
    text = refused(lambda: open_model(at_server["gpt2"], remote=True))
    assert "runs nnsight 0.5.3, and here is 0.8" in text
    assert "install nnsight==0.5.3 here" in text


@pytest.mark.parametrize(
    ("key", "part"), [("wrong", "refuses the key (Invalid API key)"), ("gated", "another version")]
)
def test_a_request_that_is_turned_away_is_one_sentence(at_server, folders, monkeypatch, key, part):
    monkeypatch.setattr(nnsight.CONFIG.API, "APIKEY", key)
    model = open_model(at_server["gpt2"], remote=True)
    assert part in refused(lambda: answers(model, pack(make_sets(model))))


def test_a_server_out_of_reach_is_refused_at_once(at_server, monkeypatch):
    model = open_model(at_server["gpt2"], remote=True)
    monkeypatch.setattr(nnsight.CONFIG.API, "HOST", "http://127.0.0.1:9")
    assert "127.0.0.1:9 cannot be reached" in refused(lambda: open_model(at_server["gpt2"], remote=True))
    assert "127.0.0.1:9 cannot be reached" in refused(lambda: answers(model, pack(make_sets(model))))


def test_what_fails_on_the_server_is_one_sentence(at_server):
    model = open_model(at_server["gpt2"], remote=True)
    batch = pack(make_sets(model))
    wrong = replace(batch, input_ids=batch.input_ids + 10_000)
    assert "stopped a request: IndexError" in refused(lambda: answers(model, wrong))


def test_lack_of_memory_on_the_server_is_lack_of_memory():
    assert isinstance(remote._stopped("Traceback\ntorch.OutOfMemoryError: CUDA out of memory."), torch.OutOfMemoryError)


def test_a_folder_is_on_no_server(folders, at_server):
    with pytest.raises(ModelError, match="not from the hub"):
        open_model(folders["gpt2"], remote=True)


def test_a_run_that_a_server_refuses_writes_nothing(at_server, monkeypatch, tmp_path, capsys):
    (tmp_path / "book" / "chapters").mkdir(parents=True)
    (tmp_path / "_config.yml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nnsight.CONFIG.API, "APIKEY", "other-nnsight")
    assert main(["run", "--model", at_server["gpt2"], "--remote", "--scale", "smoke"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "book" / "runs").exists()


def test_weights_of_another_shape_are_refused_as_quantised(folders):
    model = twotowers.load(folders["gpt2"], remote="local")
    model.arch._fetch = lambda path, names: [torch.zeros(3, 1, dtype=torch.uint8) for _ in names]
    with pytest.raises(twotowers.errors.FamilyError, match="quantised"):
        model.arch.w_v(0)
