"""Opacus's hooks, which keep the factors of a linear layer's gradients where Opacus would write them out."""

from __future__ import annotations

from typing import Any

import torch
from opacus import GradSampleModule
from torch import Tensor, nn

from synthehr.errors import InternalError
from synthehr.privacy.gradients import Outer

__all__ = ["FactorHooks"]


class FactorHooks(GradSampleModule):  # type: ignore[misc] # Opacus carries no types
    """A module whose backward pass leaves each patient's gradients behind; Opacus's own samplers serve other layers.

    Inputs have shape ``(patients, rows, features)``; no layer is used twice in a pass.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module, batch_first=True, loss_reduction="sum", strict=True)
        self.left_behind: dict[nn.Parameter, Outer | Tensor] = {}

    def capture_backprops_hook(
        self,
        module: nn.Module,
        _forward_input: Tensor,
        forward_output: Tensor,
        loss_reduction: str,
        batch_first: bool,
    ) -> None:
        """What Opacus calls with the gradient of a layer's output."""
        if not isinstance(module, nn.Linear):
            super().capture_backprops_hook(module, _forward_input, forward_output, loss_reduction, batch_first)
            return
        activations, backprops = self.rearrange_grad_samples(
            module=module,
            backprops=forward_output[0].detach(),
            loss_reduction=loss_reduction,
            batch_first=batch_first,
        )
        del module.max_batch_len
        parts = (module.weight, Outer(backprops, activations[0])), (module.bias, backprops.sum(dim=1))
        for parameter, gradients in parts:
            if isinstance(parameter, nn.Parameter):
                self._leave(parameter, gradients)

    def _leave(self, parameter: nn.Parameter, gradients: Outer | Tensor) -> None:
        if parameter in self.left_behind:
            raise InternalError("a layer was used twice in a pass: its gradients would be taken for those of one use")
        self.left_behind[parameter] = gradients

    def taken(self, parameter: nn.Parameter, *, patients: int) -> Outer | Tensor:
        """What the last backward pass left behind of a parameter; zeros where the loss does not depend on it."""
        left = self.left_behind.pop(parameter, None)
        if left is not None:
            return left
        sample: Any = getattr(parameter, "grad_sample", None)
        if sample is None:
            return parameter.new_zeros(patients, parameter.numel())
        return torch.as_tensor(sample).reshape(patients, parameter.numel())
