import pytest
import torch

from .support import close, mixer, normal, run


@pytest.mark.parametrize("width", [None, 5])
def test_equals_the_cell_of_torch(width):
    made = mixer("elman", width=width)
    cell = torch.nn.RNNCell(8, made.width).double()
    with torch.no_grad():
        cell.weight_ih.copy_(made.input.weight)
        cell.weight_hh.copy_(made.recurrent)
        cell.bias_ih.copy_(made.input.bias)
        cell.bias_hh.zero_()
    x, state, outputs = normal(2, 40, 8), None, []
    for t in range(40):
        state = cell(x[:, t], state)
        outputs.append(made.out(state))
    close(run(made, x), torch.stack(outputs, dim=1))


def test_recurrent_matrices_begin_orthogonal():
    made = mixer("elman")
    for matrix in made.recurrent.split(8):
        close(matrix @ matrix.T, torch.eye(8, dtype=torch.float64), bound=1e-5)


def test_an_empty_cell_is_refused():
    with pytest.raises(ValueError, match="elman needs width >= 1; got 0"):
        mixer("elman", width=0)
