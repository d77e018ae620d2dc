"""Gradients, one a patient: those of a loop over patients for every network in use, and what is refused."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from torch import Tensor, nn

from synthehr.errors import InternalError
from synthehr.models import ctgan, tvae
from synthehr.models.dpsgd import PrivateNetwork
from synthehr.models.hooks import FactorHooks
from synthehr.models.networks import Critic
from synthehr.privacy.accountant import PoissonSampledGaussian
from synthehr.privacy.gradients import Outer
from synthehr.privacy.rows import GradientMechanism, PrivateCodes
from synthehr.randomness import InsecureNoise

sys.path.insert(0, str(Path(__file__).parent.parent / "privacy"))

from defects import StillDraws, open_account, small_variational

SIZES = (3, 4, 2)
Loss = Callable[[nn.Module, np.ndarray, np.ndarray], Tensor]


def critic_and_loss() -> tuple[nn.Module, Loss]:
    critic = Critic(sizes=SIZES, hidden=16)

    def loss(network: nn.Module, codes: np.ndarray, mask: np.ndarray) -> Tensor:
        device = torch.device("cpu")
        return ctgan._real_loss(network, codes, mask, sizes=SIZES, draws=StillDraws(), device=device)

    return critic, loss


def variational_and_loss() -> tuple[nn.Module, Loss]:
    network, generator = small_variational(SIZES)

    def loss(network: nn.Module, codes: np.ndarray, mask: np.ndarray) -> Tensor:
        return tvae._real_loss(network, codes, mask, decoder=generator, draws=StillDraws())

    return network, loss


NETWORKS = {"critic": critic_and_loss, "encoder and refiner": variational_and_loss}


def patients(most: int, number: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, mask and the numbers of rows, none among them; padding holds codes as well, that must not be felt."""
    draws = np.random.default_rng(0)
    counts = draws.integers(0, most + 1, number)
    counts[:2] = (0, most)
    codes = np.stack([draws.integers(0, size, (number, most)) for size in SIZES], axis=2)
    return codes, (np.arange(most) < counts[:, None]).astype(float), counts


def gradient_alone(network: nn.Module, loss: Loss, codes: np.ndarray, mask: np.ndarray) -> Tensor:
    network.zero_grad()
    loss(network, codes, mask).sum().backward()
    return torch.cat(
        [(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in network.parameters()]
    ).clone()


@pytest.fixture(params=list(NETWORKS))
def made(request) -> tuple[nn.Module, Loss]:
    torch.manual_seed(0)
    return NETWORKS[request.param]()


@pytest.mark.parametrize("most", [1, 8])
def test_patient_gradients_equal_a_loop_over_patients(made, most: int) -> None:
    network, loss = made
    codes, mask, counts = patients(most)
    ours = PrivateNetwork(network)(lambda twin: loss(twin, codes, mask)).matrix()
    lengths = ours.norm(dim=1)
    for at, count in enumerate(counts):
        keep = slice(0, max(int(count), 1))  # a loop that never sees the padding
        alone = gradient_alone(network, loss, codes[at : at + 1, keep], mask[at : at + 1, keep])
        torch.testing.assert_close(ours[at], alone, rtol=1e-5, atol=1e-6)
        assert (float(lengths[at]) > 0.01) == (count > 0)


@pytest.mark.parametrize("most", [1, 8])
def test_patient_gradients_equal_those_that_opacus_writes_out(made, most: int) -> None:
    network, loss = made
    codes, mask, _ = patients(most)
    ours = PrivateNetwork(network)(lambda twin: loss(twin, codes, mask))
    assert any(isinstance(part, Outer) for part in ours.parts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = GradSampleModule(network, batch_first=True, loss_reduction="sum")
        loss(plain, codes, mask).sum().backward()
    theirs = torch.cat([p.grad_sample.flatten(1) for p in network.parameters()], dim=1)
    torch.testing.assert_close(ours.matrix(), theirs, rtol=1e-5, atol=1e-6)


def test_taking_gradients_leaves_nothing_on_the_network_and_is_the_same_again(made) -> None:
    network, loss = made
    codes, mask, _ = patients(3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    private = PrivateNetwork(network)
    first, second = (private(lambda twin: loss(twin, codes, mask)).matrix() for _ in range(2))
    assert torch.equal(first, second)
    assert all(p.grad is None and getattr(p, "grad_sample", None) is None for p in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())


def test_a_gradient_is_written_where_it_belongs_and_added_to_what_is_there(made) -> None:
    network, _ = made
    private = PrivateNetwork(network)
    flat = torch.arange(sum(p.numel() for p in network.parameters()), dtype=torch.float32)
    network.zero_grad()
    private.set_gradient(flat)
    private.set_gradient(flat)
    assert torch.equal(torch.cat([p.grad.flatten() for p in network.parameters()]), 2 * flat)


def test_no_patient_drawn_is_a_step_of_noise_alone_for_every_network(made) -> None:
    network, loss = made
    private = PrivateNetwork(network)
    codes = PrivateCodes(
        np.zeros((4, 3), dtype=np.int64), sizes=SIZES, owners=np.arange(4), patients=4, noise=InsecureNoise(0)
    )
    step = PoissonSampledGaussian(stage="g", sampling_probability=1e-12, noise_multiplier=2.0)
    mechanism = GradientMechanism(event=step, clip_norm=0.5, expected_batch=10.0)
    seen = []

    def gradients(batch: np.ndarray, mask: np.ndarray):
        seen.append(len(batch))
        return private(lambda twin: loss(twin, batch, mask))

    gradient = codes.noisy_gradient(open_account(step), gradients, mechanism=mechanism)
    assert seen == [0]
    assert gradient.shape == (sum(p.numel() for p in network.parameters()),)
    # Noise of 2.0 * 0.5 over the expected batch of 10; of some hundred weights within a fifth.
    assert float(gradient.std()) == pytest.approx(0.1, rel=0.2)


class Twice(nn.Module):
    """A layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, rows: Tensor) -> Tensor:
        return torch.as_tensor(self.layer(self.layer(rows).relu()).sum(dim=-1))


def test_a_layer_used_twice_in_a_pass_is_refused() -> None:
    torch.manual_seed(0)
    with pytest.raises(InternalError, match="used twice"):
        PrivateNetwork(Twice())(lambda network: network(torch.randn(4, 2, 3)).sum(dim=1))


def test_two_layers_of_one_weight_are_refused() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    with pytest.raises(InternalError, match="used twice"):
        PrivateNetwork(nn.Sequential(first, nn.ReLU(), second))(
            lambda network: network(torch.randn(4, 2, 3)).sum(dim=(1, 2))
        )


@pytest.mark.parametrize(
    "mixing",
    [
        nn.BatchNorm1d(3),
        nn.BatchNorm1d(3, affine=False),
        nn.BatchNorm1d(3, track_running_stats=False),
        nn.InstanceNorm1d(3),
        nn.Dropout(0.5),
    ],
    ids=["batch norm", "without weights", "without buffers", "instance norm", "dropout"],
)
def test_a_module_that_may_mix_patients_is_refused(mixing: nn.Module) -> None:
    with pytest.raises(InternalError, match="keep patients apart"):
        PrivateNetwork(nn.Sequential(nn.Linear(3, 3), nn.Sequential(mixing)))


class HalfUsed(nn.Module):
    """A layer and a norm that the output depends on, and others that it does not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 2)
        self.idle_norm = nn.LayerNorm(2)
        self.idle = nn.Linear(2, 2)

    def forward(self, rows: Tensor) -> Tensor:
        return torch.as_tensor(self.first(rows).sum(dim=(1, 2)))


def test_a_parameter_that_the_loss_does_not_depend_on_has_a_gradient_of_zeros() -> None:
    private = PrivateNetwork(HalfUsed())
    matrix = private(lambda twin: twin(torch.ones(4, 1, 3))).matrix()
    assert matrix.shape == (4, 6 + 2 + 2 + 2 + 4 + 2)
    assert torch.equal(matrix[:, :8], torch.ones(4, 8))
    assert not matrix[:, 8:].any()


def test_hooks_keep_a_linear_layer_as_factors() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    hooks = FactorHooks(layer)
    rows = torch.randn(4, 5, 3).requires_grad_()
    hooks(rows).sum().backward()
    found = hooks.taken(layer.weight, patients=4)
    assert isinstance(found, Outer)
    assert torch.equal(found.right, rows)
    assert torch.equal(found.left, torch.ones(4, 5, 2))
    assert torch.equal(hooks.taken(layer.bias, patients=4), torch.full((4, 2), 5.0))
    assert torch.equal(hooks.taken(layer.bias, patients=4), torch.zeros(4, 2))  # taken once, then gone
