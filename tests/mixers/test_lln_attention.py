import pytest
import torch

from runnel.ops.concentration import entropy

from .support import close, mixer, normal, run


def weights_of(q, k):
    """(T, T) causal attention weights of exponential features."""
    log = (q[0, :, None, 0] + k[0, None, :, 0]).logsumexp(-1)
    return log.masked_fill(torch.ones(log.shape).triu(1).bool(), -torch.inf).softmax(-1)


def test_equals_the_quadratic_form_whatever_the_size_of_the_logits():
    """Features of exp(+-300) in float32, where plain ones would be infinite or zero."""
    made = mixer("lln_attention")
    with torch.no_grad():
        made.alpha.fill_(100.0)
        made.beta.fill_(100.0)
    x = normal(1, 80, 8)
    q, k, v = made._project(x)
    expected = made.out(weights_of(100 * q, 100 * k) @ v[:, :, 0])
    close(run(made, x), expected)
    close(run(made.float(), x.float()).double(), expected, bound=5e-3)  # float32 holds logits of 300 to 3e-5


def test_moment_matching_concentrates_as_softmax_does():
    """The paper's point: matched features are about as concentrated as softmax, unmatched ones nearly uniform."""
    made = mixer("lln_attention", d_model=32)
    q, k, _ = made._project(normal(1, 300, 32))
    scores = torch.einsum("tk,jk->tj", q[0, :, 0], k[0, :, 0]) / 32**0.5
    softmax = scores.masked_fill(torch.ones(300, 300).triu(1).bool(), -torch.inf).softmax(-1)
    matched, plain = weights_of(made.alpha * q, made.beta * k), weights_of(q, k)
    target = entropy(softmax)
    assert abs(entropy(matched) - target) < 0.5 * abs(entropy(plain) - target)


@pytest.mark.parametrize("options", [{"variance": 0.0}, {"window": 0}])
def test_impossible_options(options):
    with pytest.raises(ValueError, match="variance > 0 and window >= 1"):
        mixer("lln_attention", **options)
