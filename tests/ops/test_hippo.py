"""HiPPO's bases are orthonormal under their measures, and its matrices are those of what the bases say."""

import pytest
import torch

from runnel.ops.hippo import basis, bilinear, normal_part, transition

from .support import close

SPANS = {"legt": 1.0, "legs": 1.0, "fout": 1.0, "lagt": 120.0}


@pytest.mark.parametrize("measure", SPANS)
def test_bases_are_orthonormal(measure):
    """By the midpoint rule over their window."""
    count = 200_000
    s = (torch.arange(count, dtype=torch.float64) + 0.5) / count * SPANS[measure]
    phi = basis(measure, 9, s)
    close(phi.T @ phi * SPANS[measure] / count, torch.eye(9, dtype=torch.float64), bound=1e-5)


@pytest.mark.parametrize("measure", ["legt", "fout", "lagt"])
def test_a_newborn_impulse_has_the_bases_values_at_age_zero(measure):
    """The response to an impulse follows the basis while the window holds it; fout counts its two ends as one."""
    _, b = transition(measure, 9)
    close(b / (2 if measure == "fout" else 1), basis(measure, 9, torch.zeros(1, dtype=torch.float64))[0])


def test_bases_of_fading_memories_are_impulse_responses():
    """exp(A s) B = phi(s) where nothing is cut off: lagt, and legs with time warped by exp."""
    s = torch.tensor([0.3, 1.7], dtype=torch.float64)
    for measure, warped in (("lagt", s), ("legs", 1 - (-s).exp())):
        a, b = transition(measure, 7)
        responses = torch.linalg.matrix_exp(a * s[:, None, None]) @ b
        weight = (-s).exp()[:, None] if measure == "legs" else 1
        close(responses, basis(measure, 7, warped) * weight)


@pytest.mark.parametrize(("measure", "size"), [("legs", 12), ("fout", 11)])
def test_the_normal_part_and_its_correction_have_the_poles_of_the_matrix(measure, size):
    poles, p = [torch.cat([z, z.conj()]) for z in normal_part(measure, 6)]
    found = torch.linalg.eigvals(torch.diag(poles) - torch.outer(p, p.conj()))
    expected = torch.linalg.eigvals(transition(measure, size)[0])
    distance = (found[:, None] - expected).abs()
    assert distance.min(0).values.max() < 1e-4  # legs is far from normal: its poles are ill-conditioned


def test_the_bilinear_rule_is_of_second_order():
    a, b = transition("legt", 6)
    exact = torch.linalg.matrix_exp(a * 0.1)
    errors = []
    for parts in (10, 20):
        step, _ = bilinear(a, b, torch.tensor(0.1 / parts, dtype=torch.float64))
        errors.append((torch.linalg.matrix_power(step, parts) - exact).abs().max())
    assert 3.5 < errors[0] / errors[1] < 4.5


def test_unknown_measures_are_refused():
    with pytest.raises(ValueError, match="legs, legt, fout, lagt; got 'legz'"):
        transition("legz", 4)
