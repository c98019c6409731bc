import numpy as np

from runnel.ops.repeats import followers, reference


def test_followers_by_hand():
    assert followers([1, 2, 3, 1, 2], 5) == {3: 2}
    assert followers([1, 2, 3, 1, 2], 1) == {3: 1}
    assert followers([0, 0, 0], 5) == {0: 2}
    assert followers([1, 2], 5) == followers([1], 5) == followers([], 5) == {}


def test_followers_are_those_of_every_suffix_at_every_place():
    rng = np.random.default_rng(0)
    for length in range(1, 40):
        text = rng.integers(0, 3, length).tolist()
        for longest in (1, 3, 50):
            assert followers(text, longest) == reference(text, longest)
