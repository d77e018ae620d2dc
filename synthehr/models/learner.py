"""A network under Adam that can be put aside and taken up again."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["Learner"]


_SMALL = 1e-8


class Learner:
    """Steps of Adam (Kingma and Ba 2015), the rate falling as half a cosine over ``steps`` or staying where it is None.

    torch's own optimisers load its compiler, which takes longer than a small table's fit.

    Attributes:
        done: steps taken.
    """

    def __init__(self, network: nn.Module, *, rate: float, steps: int | None, betas: tuple[float, float]) -> None:
        self.network = network
        self.done = 0
        self._rate, self._steps = rate, steps
        self._betas, self._parameters = betas, list(network.parameters())
        self._mean = [torch.zeros_like(weight) for weight in self._parameters]
        self._square = [torch.zeros_like(weight) for weight in self._parameters]

    def clear(self) -> None:
        """Forget gradients."""
        for weight in self._parameters:
            weight.grad = None

    def follow(self, loss: Tensor) -> None:
        """One step down the gradient of a loss."""
        self.clear()
        loss.backward()
        self.step()

    def step(self) -> None:
        """One step along the gradients that the parameters hold."""
        rate = self._rate
        if self._steps is not None:
            rate *= 0.5 * (1.0 + math.cos(math.pi * min(self.done / self._steps, 1.0)))
        self.done += 1
        keep, keep_square = self._betas
        scale = math.sqrt(1.0 - keep_square**self.done)
        with torch.no_grad():
            for weight, first, second in zip(self._parameters, self._mean, self._square, strict=True):
                if weight.grad is None:
                    continue
                first.lerp_(weight.grad, 1.0 - keep)
                second.mul_(keep_square).addcmul_(weight.grad, weight.grad, value=1.0 - keep_square)
                size = (second.sqrt() / scale).add_(_SMALL)
                weight.addcdiv_(first, size, value=-rate / (1.0 - keep**self.done))

    def tensors(self) -> dict[str, Tensor]:
        """Weights, Adam's moments and the number of steps, by name."""
        held = {f"weight.{name}": value for name, value in self.network.state_dict().items()}
        for at, (first, second) in enumerate(zip(self._mean, self._square, strict=True)):
            held |= {f"adam.{at}.exp_avg": first, f"adam.{at}.exp_avg_sq": second}
        return {**held, "done": torch.tensor(self.done)}

    def restore(self, held: Mapping[str, Tensor]) -> None:
        """Take up from what :meth:`tensors` gave."""
        self.network.load_state_dict(
            {name.removeprefix("weight."): value for name, value in held.items() if name.startswith("weight.")}
        )
        for at, (first, second) in enumerate(zip(self._mean, self._square, strict=True)):
            first.copy_(held[f"adam.{at}.exp_avg"])
            second.copy_(held[f"adam.{at}.exp_avg_sq"])
        self.done = int(held["done"])
