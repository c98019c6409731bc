import torch

from runnel.norms.rms import RMS, Config


def test_equals_the_formula_vector_by_vector():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    for offset in (0.0, 1.0):
        norm = RMS(6, Config(eps=1e-3, offset=offset)).double()
        torch.nn.init.normal_(norm.weight)
        torch.testing.assert_close(norm(x), norm.reference(x), rtol=1e-12, atol=1e-12)


def test_a_fresh_norm_does_not_depend_on_where_its_scale_is_counted_from():
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(RMS(8, Config(offset=1.0))(x), RMS(8, Config())(x))
