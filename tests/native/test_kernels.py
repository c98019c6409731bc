"""The kernels one by one, on every instruction set of this machine."""

import pytest
import torch

from runnel import native
from runnel.ops import sampling

pytestmark = pytest.mark.skipif(not native.available(), reason="the extension was not built")


@pytest.fixture(params=native.instruction_sets())
def instruction_set(request):
    native.use(request.param)
    yield request.param
    native.use(native.instruction_sets()[0])


@pytest.mark.parametrize("stream", [0, 1, 2**64 - 1, (7 << 64) + 3, 2**128 - 1])
@pytest.mark.parametrize("outcomes", [0, 1, 4, 257])
def test_noise_is_that_of_numpys_generator(stream, outcomes):
    seeds, positions = [0, 1, 2**63 - 1], [5, 0, 2**62]
    expected = sampling._uniform(seeds, positions, outcomes, stream)
    assert torch.equal(native.uniform(seeds, positions, outcomes, stream), expected)


@pytest.mark.parametrize("count", [0, 1, 3, 17, 4097, 1 << 17])
def test_rounding_to_bf16(instruction_set, count):
    x = torch.randn(count, generator=torch.Generator().manual_seed(count))
    x[::7] = torch.inf
    assert torch.equal(native.to_bf16(x), x.bfloat16())
    assert torch.equal(native.to_bf16(x[1:]), x[1:].bfloat16()), "unaligned"
    assert torch.equal(native.to_bf16(x[::2]), x[::2].bfloat16()), "strided"
