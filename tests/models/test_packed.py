"""Packed products: a packed layer multiplies as a plain one, and a model is packed if there is memory for it."""

import pytest
import torch
from torch import nn

import twotowers
from twotowers.models import packed as linear
from twotowers.models.packed import PackedLinear, packed, plain_linears


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_layer_multiplies_as_a_plain_one_also_after_an_edit(dtype):
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no bfloat16 products")
    layer, x = PackedLinear(48, 96, dtype=dtype), torch.randn(5, 7, 48).to(dtype)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
            layer.weight[3:20].zero_()
            layer.weight.mul_(2)
        assert "_packed" in layer.__dict__
        layer.weight.data = torch.randn(96, 48).to(dtype)
        torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
        torch.testing.assert_close(packed(layer.weight)(x), x @ layer.weight.T)
        with plain_linears():
            assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


def test_gradients_and_other_dtypes_go_the_plain_way():
    layer, x = PackedLinear(48, 96), torch.randn(5, 48)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad():
        double = layer.to(torch.float64)
        assert torch.equal(double(x.double()), nn.functional.linear(x.double(), double.weight, double.bias))


def test_a_loaded_model_is_packed_if_that_takes_little_of_the_memory(tiny_folders, monkeypatch):
    def kinds():
        return {type(module) for module in twotowers.load(tiny_folders["llama-gqa"]).arch.model.modules()}

    assert PackedLinear in kinds()
    assert nn.Linear not in kinds()
    monkeypatch.setattr(linear, "MEMORY_SHARE", 0.0)
    assert PackedLinear not in kinds()
    assert nn.Linear in kinds()
