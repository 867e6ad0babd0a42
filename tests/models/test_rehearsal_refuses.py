"""The rehearsal of a server refuses what is ours in every wing: a server has none of it."""

import importlib

import nnsight
import pytest

import twotowers
from conftest import make_sets
from twotowers.models import rehearsal
from twotowers.prompts.packing import pack
from twotowers.tracing.capture import inputs_of

OURS = (
    "twotowers.errors",
    "twotowers.statistics",
    "twotowers.models.architecture",
    "twotowers.prompts.packing",
    "twotowers.tracing.ablation",
    "twotowers.tracing.capture",
    "twotowers.publishing.markdown",
    "twotowers.chapters.towers.metric",
    "twotowers.bench.measure",
    "twotowers.toy.data",
    "twotowers.pipeline.schedule",
)


def one_of(module):
    """A function of a module, as a trace may use by mistake."""
    found = vars(importlib.import_module(module)).values()
    return next(f for f in found if getattr(f, "__module__", "") == module and callable(f))


@pytest.mark.parametrize("module", OURS)
def test_a_body_that_uses_a_function_of_ours_is_refused(tiny_folders, module):
    model = twotowers.load(tiny_folders["gpt2"], remote="local")
    inputs, function = inputs_of(model, pack(make_sets(model))), one_of(module)
    needs = pytest.raises(ModuleNotFoundError, match=f"needs {module}, which a server does not have")
    with needs, model.nn.trace(inputs, backend=model.backend()):
        nnsight.save([function])


@pytest.mark.parametrize("module", ["twotowers", *OURS, "twotowers.a.wing.that.is.new"])
def test_a_module_of_ours_is_refused_wherever_it_stands(module):
    with pytest.raises(ModuleNotFoundError, match=f"needs {module}, which"):
        rehearsal._refuse_ours(module)
    with pytest.raises(ModuleNotFoundError, match=f"needs {module}, which"):
        rehearsal._import_others(module)


def test_what_is_not_ours_is_not_refused():
    rehearsal._refuse_ours("twotowersome.module")
    rehearsal._refuse_ours("torch.nn")
