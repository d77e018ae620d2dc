"""Private gradients of a network: the only user of Opacus's per-sample gradients."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["PatientGradients"]


class PatientGradients:
    """Gradients of a network's loss, one a patient, by Opacus's hooks.

    Args:
        network: made of layers that Opacus knows (linear, activations) and none that mixes patients.

    The hooks see tensors of shape ``(patients, rows, features)`` and sum over a patient's rows.
    """

    def __init__(self, network: nn.Module) -> None:
        from opacus import GradSampleModule

        # The hooks go on a twin that shares the parameters, so that the network itself stays free of them.
        twin = copy.deepcopy(network, memo={id(p): p for p in network.parameters()})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self._wrapped = GradSampleModule(twin, batch_first=True, loss_reduction="sum", strict=True)
        self.parameters = [p for p in network.parameters() if p.requires_grad]

    def __call__(self, loss: Callable[[nn.Module], Tensor]) -> Tensor:
        """The gradient of each patient's loss, shape ``(patients, parameters)``.

        Args:
            loss: runs the network that it is given once, and returns each patient's loss, shape ``(patients,)``.
        """
        per_patient = loss(self._wrapped)
        with warnings.catch_warnings():
            # Inputs are data and need no gradient; torch warns of that for full backward hooks.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            per_patient.sum().backward()
        rows = [self._rows(p, len(per_patient)) for p in self.parameters]
        self._wrapped.zero_grad(set_to_none=True)
        return torch.cat(rows, dim=1)

    def _rows(self, parameter: nn.Parameter, patients: int) -> Tensor:
        sample = getattr(parameter, "grad_sample", None)
        if sample is None:  # no patient was drawn, or the loss does not depend on this parameter
            return parameter.new_zeros(patients, parameter.numel())
        return torch.as_tensor(sample).reshape(patients, parameter.numel())

    def set_gradient(self, flat: Tensor) -> None:
        """Write a flat gradient, shape ``(parameters,)``, into the network's ``.grad``, adding to what is there."""
        start = 0
        for parameter in self.parameters:
            part = flat[start : start + parameter.numel()].view_as(parameter)
            parameter.grad = part.clone() if parameter.grad is None else parameter.grad + part
            start += parameter.numel()
