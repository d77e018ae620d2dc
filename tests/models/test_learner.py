"""A learner steps as torch's Adam does, without loading torch's compiler."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from synthehr.models.learner import Learner


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1))


@pytest.mark.parametrize("steps", [None, 20])
def test_steps_are_those_of_torchs_adam(steps: int | None) -> None:
    mine, theirs = _network(), _network()
    learner = Learner(mine, rate=0.1, steps=steps, betas=(0.5, 0.9))
    adam = torch.optim.Adam(theirs.parameters(), lr=0.1, betas=(0.5, 0.9))
    rows = torch.randn(30, 5, generator=torch.Generator().manual_seed(1))
    for step in range(20):
        learner.follow((mine(rows) - rows[:, :1]).square().mean())
        if steps is not None:
            adam.param_groups[0]["lr"] = 0.1 * 0.5 * (1.0 + math.cos(math.pi * step / steps))
        adam.zero_grad()
        (theirs(rows) - rows[:, :1]).square().mean().backward()
        adam.step()
    for weight, wanted in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(weight, wanted)


def test_a_learner_taken_up_again_goes_on_as_if_it_had_not_stopped() -> None:
    rows = torch.randn(30, 5, generator=torch.Generator().manual_seed(1))
    whole, first, second = _network(), _network(), _network()
    learners = [Learner(network, rate=0.1, steps=8, betas=(0.5, 0.9)) for network in (whole, first, second)]

    def follow(learner: Learner, times: int) -> None:
        for _ in range(times):
            learner.follow((learner.network(rows) - rows[:, :1]).square().mean())

    follow(learners[0], 8)
    follow(learners[1], 3)
    learners[2].restore({name: value.clone() for name, value in learners[1].tensors().items()})
    follow(learners[2], 5)
    assert learners[2].done == 8
    for weight, wanted in zip(second.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(weight, wanted, rtol=0.0, atol=0.0)


def test_learning_loads_no_compiler() -> None:
    script = (
        "import sys, torch\n"
        "from synthehr.models.learner import Learner\n"
        "network = torch.nn.Linear(2, 1)\n"
        "learner = Learner(network, rate=0.1, steps=2, betas=(0.5, 0.9))\n"
        "learner.follow(network(torch.ones(3, 2)).square().mean())\n"
        "sys.exit('torch._dynamo' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
