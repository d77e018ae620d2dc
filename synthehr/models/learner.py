"""A network under Adam that can be put aside and taken up again."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["Learner"]


class Learner:
    """Steps of Adam, with a rate that falls as half a cosine over ``steps``, or stays where ``steps`` is None.

    Attributes:
        done: steps taken.
    """

    def __init__(self, network: nn.Module, *, rate: float, steps: int | None, betas: tuple[float, float]) -> None:
        self.network = network
        self.done = 0
        self._rate, self._steps = rate, steps
        self._adam = torch.optim.Adam(network.parameters(), lr=rate, betas=betas)

    def clear(self) -> None:
        """Forget gradients."""
        self._adam.zero_grad(set_to_none=True)

    def follow(self, loss: Tensor) -> None:
        """One step down the gradient of a loss."""
        self.clear()
        loss.backward()
        self.step()

    def step(self) -> None:
        """One step along the gradients that the parameters hold."""
        if self._steps is not None:
            part = min(self.done / self._steps, 1.0)
            for group in self._adam.param_groups:
                group["lr"] = self._rate * 0.5 * (1.0 + math.cos(math.pi * part))
        self._adam.step()
        self.done += 1

    def tensors(self) -> dict[str, Tensor]:
        """Weights, Adam's moments and the number of steps, by name."""
        held = {f"weight.{name}": value for name, value in self.network.state_dict().items()}
        for at, state in self._adam.state_dict()["state"].items():
            held |= {f"adam.{at}.{name}": value for name, value in state.items()}
        return {**held, "done": torch.tensor(self.done)}

    def restore(self, held: Mapping[str, Tensor]) -> None:
        """Take up from what :meth:`tensors` gave."""
        self.network.load_state_dict(
            {name.removeprefix("weight."): value for name, value in held.items() if name.startswith("weight.")}
        )
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in held.items():
            if name.startswith("adam."):
                _, at, moment = name.split(".")
                state.setdefault(int(at), {})[moment] = value
        self._adam.load_state_dict({**self._adam.state_dict(), "state": state})
        self.done = int(held["done"])
