"""Packed matrices: what the products compute, and that a row's bits do not depend on its company."""

import multiprocessing

import pytest
import torch

from runnel import native

pytestmark = pytest.mark.skipif(not native.available(), reason="the extension was not built")
if native.available():
    from runnel.native.packed import KINDS, PackedMatrix, together
else:
    KINDS = ()

SIZES = [(1, 1), (3, 17), (17, 3), (33, 130), (96, 257), (5, 4097), (4097, 5)]
COARSENESS = {"f32": 0.0, "bf16": 2**-8, "int8": 1 / 127, "int4": 1 / 7}
"""Largest rounding of a weight, as a share of the largest in its group."""


@pytest.fixture(params=native.instruction_sets())
def instruction_set(request):
    native.use(request.param)
    yield request.param
    native.use(native.instruction_sets()[0])


def matrix(outputs, inputs, seed=0):
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_what_is_packed_is_the_rounded_matrix(kind, size):
    weight = matrix(*size)
    kept = PackedMatrix.pack(weight, kind).unpack()
    assert (kept - weight).abs().max() <= COARSENESS[kind] * weight.abs().max()
    if kind == "bf16":
        assert torch.equal(kept, weight.bfloat16().float())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_products(instruction_set, kind, size):
    weight, bias = matrix(*size), matrix(1, size[0])[0]
    packed = PackedMatrix.pack(weight, kind)
    for rows in (0, 1, 2, 5, 16, 40):
        x = matrix(rows, size[1], seed=rows)
        seen = x.bfloat16() if kind == "bf16" else x
        expected = seen.double() @ packed.unpack().double().T
        # bytes: each number of x is rounded by up to 1/254 of the largest of its group
        slack = (weight.abs().sum(1) * x.abs().max() / 200).max() if kind.startswith("int") and rows else 1e-5
        y = packed.multiply(x)
        assert y.shape == expected.shape
        assert torch.allclose(y.double(), expected, rtol=1e-5, atol=float(slack) + 1e-4 * size[1] ** 0.5 * 0.1)
        assert torch.equal(packed.multiply(x, bias), y + bias)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_need_no_rounding(instruction_set, kind):
    """Whole numbers within the range of a byte, the largest of each group being 127."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-127, 128, (9, 256), generator=generator).float()
    x[:, ::64] = 127
    packed = PackedMatrix.pack(matrix(40, 256), kind)
    expected = (x.double() @ packed.unpack().double().T).float()
    assert torch.allclose(packed.multiply(x), expected, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_a_row_has_the_same_bits_in_any_company(instruction_set, kind, size):
    packed = PackedMatrix.pack(matrix(*size), kind)
    x = matrix(45, size[1], seed=1)
    alone = torch.cat([packed.multiply(row[None]) for row in x])
    for rows in [*range(2, 18), 45]:
        assert torch.equal(packed.multiply(x[:rows]), alone[:rows]), f"{rows} rows"
    assert torch.equal(packed.multiply(x[3:20]), alone[3:20])


@pytest.mark.parametrize("kind", KINDS)
def test_threads_and_strides_change_no_bit(instruction_set, kind):
    packed = PackedMatrix.pack(matrix(700, 300), kind)
    x = matrix(20, 301, seed=1)[:, 1:]
    expected = packed.multiply(x.contiguous())
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 8, 64):
            torch.set_num_threads(threads)
            assert torch.equal(packed.multiply(x), expected)
            assert torch.equal(packed.multiply(x.T.contiguous().T), expected)
    finally:
        torch.set_num_threads(before)


def test_after_a_fork():
    """A child process makes its own threads."""
    packed, x = PackedMatrix.pack(matrix(2000, 300), "f32"), matrix(1, 300, seed=1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = packed.multiply(x).numpy().tobytes()
        receiver, sender = multiprocessing.Pipe(duplex=False)
        work = lambda: sender.send_bytes(packed.multiply(x).numpy().tobytes())  # noqa: E731
        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
        answered = receiver.poll(20)
        found = receiver.recv_bytes() if answered else b""
        child.kill()
        child.join()
    finally:
        torch.set_num_threads(before)
    assert answered, "the child hangs"
    assert found == expected


@pytest.mark.parametrize("kind", KINDS)
def test_instruction_sets_agree(kind):
    """To the bit where they have a fused multiply-add."""
    fused = [name for name in native.instruction_sets() if name != "portable"]
    packed, x = PackedMatrix.pack(matrix(70, 300), kind), matrix(20, 300, seed=1)
    results = []
    for name in fused:
        native.use(name)
        results.append(packed.multiply(x))
    native.use(native.instruction_sets()[0])
    assert all(torch.equal(y, results[0]) for y in results[1:])


def test_weights_that_are_not_aligned():
    packed = PackedMatrix.pack(matrix(50, 70), "bf16")
    shifted = torch.empty(packed.data.numel() + 1, dtype=torch.uint8)[1:]
    shifted.copy_(packed.data)
    x = matrix(3, 70)
    assert torch.equal(PackedMatrix("bf16", 50, 70, shifted).multiply(x), packed.multiply(x))


@pytest.mark.parametrize("kind", KINDS)
def test_matrices_in_large_pages(kind):
    weights = [matrix(outputs, 2053) for outputs in (4097, 1200, 2000, 3)]
    apart = [PackedMatrix.pack(weight, kind) for weight in weights]
    for a, b in zip(apart, together(apart), strict=True):
        x = matrix(2, 2053)
        assert b.data.data_ptr() % 64 == 0 or a.data is b.data
        assert torch.equal(a.multiply(x), b.multiply(x))


def test_unknown_weights_are_refused():
    with pytest.raises(ValueError, match="weights must be one of f32, bf16, int8, int4; got 'f16'"):
        PackedMatrix.pack(matrix(2, 2), "f16")
