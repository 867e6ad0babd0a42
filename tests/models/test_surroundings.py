"""What a notebook has set around a call changes no result, and stays."""

import inspect
import threading
from contextlib import contextmanager

import pandas as pd
import pytest
import torch

import twotowers
from conftest import make_sets

HEADS = [(1, 0), (2, 3)]
CALLS = {  # forwards, a backward pass, what goes on from a capture, and what is computed from one
    "load": lambda model, sets: twotowers.load(model.folder) and pd.DataFrame(),
    "screen": lambda model, sets: twotowers.screen(model, sets).sort_values(["layer", "head"], ignore_index=True),
    "hand_over": lambda model, sets: twotowers.hand_over(model, sets, "last", [0, 2]),
    "balance_attention": lambda model, sets: twotowers.balance_attention(model, sets, HEADS),
    "locate": lambda model, sets: twotowers.locate(model, sets).heads,
    "towers": lambda model, sets: twotowers.towers(model, sets, HEADS),
}


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(name):
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


SETTINGS = {
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "a device": lambda: torch.device("meta"),
    "a default device": lambda: default_device("meta"),
}


def settings():
    device, dtype = torch.get_default_device(), torch.get_default_dtype()
    return device, dtype, torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_torch_is_set_to_changes_no_result_and_stays(tiny_models, call, setting):
    model = tiny_models["llama-gqa"]
    sets = make_sets(model)
    expected = call(model, sets)
    with setting():
        before = settings()
        found = call(model, sets)
        assert settings() == before
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5, atol=1e-6)


def test_every_public_function_of_a_model_is_undisturbed():
    texts_only = {"prompt_set"}
    for name in {*twotowers.__all__} - texts_only:
        found = getattr(twotowers, name)
        if inspect.isfunction(found) and ("model" in inspect.signature(found).parameters or name == "load"):
            assert hasattr(found, "__wrapped__"), name


def test_threads_take_turns(tiny_models):
    """Also of two models: nnsight runs one trace at a time."""
    of_model = {name: make_sets(tiny_models[name]) for name in ("gpt2", "llama-gqa")}
    expected = {name: twotowers.screen(tiny_models[name], sets) for name, sets in of_model.items()}
    found = {}

    def work(number, name):
        found[number, name] = twotowers.screen(tiny_models[name], of_model[name])

    threads = [threading.Thread(target=work, args=(number, name)) for number in range(3) for name in of_model]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(threads)
    for (_, name), table in found.items():
        pd.testing.assert_frame_equal(table, expected[name])


def test_a_call_in_the_body_of_a_trace_is_refused_and_one_behind_it_is_not(tiny_gpt2):
    sets = make_sets(tiny_gpt2)

    def within():
        with tiny_gpt2.nn.trace("cat : foo"):
            twotowers.knockout(tiny_gpt2, sets, [])

    with pytest.raises(Exception, match="A trace is running, in whose body no other can run"):
        within()
    assert len(twotowers.knockout(tiny_gpt2, sets, [])) == 1
