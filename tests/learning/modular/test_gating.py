"""The gate's formulas: numbers worked by hand, the noise's meaning by simulation, and a loss that undoes a collapse."""

import math

import pytest
import torch

from learning.modular.gating import LEAST_NOISE, Gate, Selector, divergence, load_balance, top_k, variation


def Φ(x: float) -> float:
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


# ------------------------------------------------------------------ top-k


def test_the_gate_is_the_softmax_over_the_k_largest():
    g = top_k(torch.tensor([[1.0, 3.0, 2.0, 0.0]]), 2)
    e = math.e
    assert g.gate[0].tolist() == pytest.approx([0, e / (1 + e), 1 / (1 + e), 0])
    assert g.load.tolist() == [0, 1, 1, 0]  # counted: there is no noise


def test_among_equals_the_lower_number_wins():
    assert top_k(torch.zeros(1, 32), 4).gate[0].nonzero().flatten().tolist() == [0, 1, 2, 3]
    assert top_k(torch.tensor([[0.0, 1, 1, 0, 1]]), 2).gate[0].nonzero().flatten().tolist() == [1, 2]


def test_absent_modules_have_nothing_and_k_is_at_most_those_that_are_there():
    clean = torch.tensor([[5.0, 0.0, 4.0, 1.0]])
    g = top_k(clean, 3, present=(1, 3))
    assert g.gate[0].tolist() == pytest.approx([0, 1 / (1 + math.e), 0, math.e / (1 + math.e)])
    assert g.load.tolist() == [0, 1, 0, 1]
    assert top_k(clean, 1, present=(1, 3)).gate[0].tolist() == [0, 0, 0, 1]


def test_load_with_noise_by_hand():
    """H = clean + ε·σ = (1, 2, -1); k = 1, so module 1. It is compared with the second largest, the others with the largest."""
    clean, sigma = torch.tensor([[1.0, 0.0, -1.0]]), torch.full((1, 3), 0.5)
    g = top_k(clean, 1, sigma, torch.tensor([[0.0, 4.0, 0.0]]))
    assert g.gate[0].tolist() == [0, 1, 0]
    assert g.load.tolist() == pytest.approx([Φ((1 - 2) / 0.5), Φ((0 - 1) / 0.5), Φ((-1 - 2) / 0.5)], abs=1e-7)


def test_load_is_how_often_a_module_is_chosen_when_its_own_noise_is_drawn_again():
    dice = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(1, 6, generator=dice), torch.randn(1, 6, generator=dice)
    sigma = torch.rand(1, 6, generator=dice) + 0.3
    load = top_k(clean, 3, sigma, noise).load
    for n in range(6):
        again = noise.repeat(20_000, 1)
        again[:, n] = torch.randn(20_000, generator=dice)
        chosen = top_k(clean.expand(20_000, 6), 3, sigma.expand(20_000, 6), again).gate[:, n] > 0
        assert float(chosen.float().mean()) == pytest.approx(float(load[n]), abs=0.015)


def test_with_noise_and_absent_modules_the_load_is_of_those_that_are_there():
    clean, sigma, noise = torch.zeros(2, 5), torch.ones(2, 5), torch.randn(2, 5)
    g = top_k(clean, 2, sigma, noise, present=(0, 2, 4))
    assert g.load[[1, 3]].tolist() == [0, 0]
    assert g.gate[:, [1, 3]].sum() == 0
    whole = top_k(clean, 3, sigma, noise, present=(0, 2, 4))
    assert whole.load.tolist() == [2, 0, 2, 0, 2]  # all that are there are chosen whatever the noise


# ------------------------------------------------------------------ losses


def test_variation_is_the_population_s():
    assert float(variation(torch.tensor([4.0, 2, 1, 1]))) == pytest.approx(0.375)
    assert float(variation(torch.ones(16))) == 0


def test_load_balance_is_of_importance_and_load_the_mean_over_layers():
    uneven = Gate(
        torch.tensor([[0.75, 0.25, 0, 0], [0.25, 0, 0.75, 0]]), torch.zeros(2, 4), torch.tensor([4.0, 2, 1, 1])
    )
    even = Gate(torch.full((2, 4), 0.25), torch.zeros(2, 4), torch.ones(4))
    importance = float(variation(torch.tensor([1.0, 0.25, 0.75, 0])))
    assert float(load_balance([uneven, even])) == pytest.approx((importance + 0.375) / 2)


def test_divergence_by_hand():
    """KL of (3/4, 1/4) from the even (1/2, 1/2), and of the same from itself; added over two layers."""
    label = torch.tensor([[0.75, 0.25]])
    even, same = torch.zeros(1, 2), torch.log(label)
    kl = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    gates = [Gate(label, even, label[0]), Gate(label, same, label[0])]
    assert float(divergence(gates, [label, label])) == pytest.approx(kl, rel=1e-6)


# ------------------------------------------------------------------ the selector


def test_one_embedding_decides_for_all_layers_and_all_begin_even():
    selector = Selector((3, 8, 8), [16, 5], k=4)
    gates = selector(torch.rand(7, 3 * 8 * 8))  # flat samples are given their shape
    assert [g.gate.shape for g in gates] == [(7, 16), (7, 5)]
    for g in gates:
        assert torch.equal(g.gate[:, :4], torch.full((7, 4), 0.25))
    for p in selector.probabilities(torch.rand(7, 3, 8, 8)):
        assert torch.allclose(p, torch.full_like(p, 1 / p.shape[1]))


def test_a_sample_s_gate_is_the_same_whatever_stands_beside_it():
    torch.manual_seed(0)
    selector, x = Selector((3, 8, 8), [16], k=4), torch.rand(5, 3, 8, 8)
    torch.nn.init.normal_(selector.gates[0].weight)
    selector.train()
    assert torch.allclose(selector(x)[0].clean[2], selector(x[2:3])[0].clean[0], atol=1e-6)


def test_noise_is_asked_for_and_needs_its_weights():
    torch.manual_seed(0)
    x = torch.rand(50, 20)
    with_noise, without = Selector((20,), [8], 2), Selector((20,), [8], 2, noise=False)
    assert torch.equal(with_noise(x)[0].gate, with_noise(x)[0].gate)
    assert not torch.equal(with_noise(x, noisy=True)[0].gate, with_noise(x, noisy=True)[0].gate)
    assert torch.equal(without(x, noisy=True)[0].gate, without(x, noisy=True)[0].gate)
    assert sum(p.numel() for p in without.parameters()) == sum(p.numel() for p in with_noise.parameters()) - 32 * 8


def test_noise_is_softplus_and_never_less_than_its_least():
    """W_noise is 0 at first, so σ is log 2 and a hundredth: the load of module 0 by its threshold says so."""
    torch.manual_seed(1)
    selector, x = Selector((4,), [3], 1), torch.rand(1, 4)
    torch.manual_seed(5)
    gate = selector(x, noisy=True)[0]
    torch.manual_seed(5)
    sigma = math.log(2) + LEAST_NOISE
    noisy = torch.randn(1, 3)[0] * sigma
    best = noisy.sort(descending=True).values
    expected = [Φ(-float(best[1] if n == noisy.argmax() else best[0]) / sigma) for n in range(3)]
    assert gate.load.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("weight", "less"), [(1.0, True), (0.0, False)])
def test_the_loss_undoes_a_collapse(weight, less):
    """All samples go to two of eight modules. Descending the loss spreads them; control: of weight 0 it does nothing."""
    torch.manual_seed(0)
    selector, x = Selector((20,), [8], 2), torch.rand(64, 20)
    with torch.no_grad():
        selector.gates[0].weight[:2] = 0.2
    optimiser = torch.optim.Adam(selector.parameters(), lr=0.01)
    began = float(load_balance(selector(x, noisy=True)).detach())
    for _ in range(60):
        optimiser.zero_grad()
        (weight * load_balance(selector(x, noisy=True))).backward()
        optimiser.step()
    ended = float(load_balance(selector(x, noisy=True)).detach())
    assert (ended < began / 4) == less
