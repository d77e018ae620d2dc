"""One gradient a patient, clipped and summed without ever being written out: what the door does to gradients.

A linear layer's gradient is a sum over a patient's rows of outer products. Its length follows from products of rows
(the Gram matrix), and the clipped sum over patients is one matrix product (book-keeping: Bu et al. 2023). Length and
sum are made of the same factors, so that a patient adds at most the clip whatever the factors are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Outer", "PatientGradients", "clipped_sum"]

# Kept back of the clip for what rounding in float64 may add to a sum over patients.
_MARGIN = 1e-6
# Rows that cancel leave of their squared length what rounding makes of it: at most (out + in + rows ** 2) * 2 ** -53 of
# the square of their summed lengths, and this part of that square is counted on top.
_CANCELLED = 1e-8


@dataclass(frozen=True, slots=True)
class Outer:
    """A part of each patient's gradient: the sum over its rows of ``left`` times ``right`` transposed.

    Shape: ``left (patients, rows, out)``, ``right (patients, rows, in)``, for ``out * in`` parameters.
    """

    left: Tensor
    right: Tensor


@dataclass(frozen=True, slots=True)
class PatientGradients:
    """One gradient a patient.

    Attributes:
        parts: the parameters in order, as factors or written out, shape ``(patients, parameters of the part)``.
    """

    parts: Sequence[Outer | Tensor]

    def matrix(self) -> Tensor:
        """Written out, shape ``(patients, parameters)``."""
        import torch

        written = [
            part if isinstance(part, torch.Tensor) else torch.einsum("pro,pri->poi", part.left, part.right).flatten(1)
            for part in self.parts
        ]
        return torch.cat(written, dim=1)


def clipped_sum(gradients: PatientGradients, *, norm: float) -> Tensor:
    """The sum of the patients' gradients, each scaled to L2 norm at most ``norm``; one that is not finite counts as 0.

    Shape: ``(parameters,)``, float64. Its sensitivity to one patient is ``norm`` (Abadi et al. 2016, Algorithm 1).
    Lengths and sums are taken in float64, where patients do not disturb each other's rounding.
    """
    import torch

    parts = [_exact(part) for part in gradients.parts]
    squares = torch.stack([_squares(part) for part in parts]).sum(dim=0)
    finite = squares.isfinite()
    weight = torch.where(finite, norm * (1.0 - _MARGIN) / squares.clamp(min=norm**2).sqrt(), squares.new_zeros(()))
    return torch.cat([_weighted(part, weight, finite) for part in parts])


def _exact(part: Outer | Tensor) -> Outer | Tensor:
    return Outer(part.left.double(), part.right.double()) if isinstance(part, Outer) else part.double()


def _squares(part: Outer | Tensor) -> Tensor:
    """The squared length of each patient's part, or a little more, shape ``(patients,)``."""
    if not isinstance(part, Outer):
        return part.square().sum(dim=1)
    if part.left.shape[1] == 1:
        return part.left.square().sum(dim=(1, 2)) * part.right.square().sum(dim=(1, 2))
    gram = (part.left @ part.left.transpose(1, 2)) * (part.right @ part.right.transpose(1, 2))
    lengths = gram.diagonal(dim1=1, dim2=2).sqrt().sum(dim=1)
    return gram.sum(dim=(1, 2)).clamp(min=0.0) + _CANCELLED * lengths.square()


def _weighted(part: Outer | Tensor, weight: Tensor, finite: Tensor) -> Tensor:
    """The sum of the patients' parts times their weights, shape ``(parameters of the part,)``."""
    import torch

    if not isinstance(part, Outer):
        return weight @ torch.where(finite.unsqueeze(1), part, part.new_zeros(()))
    kept = finite.view(-1, 1, 1)
    left = torch.where(kept, part.left, part.left.new_zeros(())) * weight.view(-1, 1, 1)
    right = torch.where(kept, part.right, part.right.new_zeros(()))
    return (left.flatten(0, 1).T @ right.flatten(0, 1)).flatten()
