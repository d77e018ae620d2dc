"""What a FHIRPath expression is, once read: frozen trees, without types."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "Binary",
    "Call",
    "Constant",
    "Empty",
    "Expression",
    "Index",
    "Literal",
    "Member",
    "TypeOperation",
    "Unary",
    "Variable",
]


@dataclass(frozen=True, slots=True)
class Literal:
    """A value written in the expression. ``type`` is its System type; ``unit`` is set for a Quantity alone."""

    type: str
    text: str
    unit: str | None = None
    calendar: bool = False


@dataclass(frozen=True, slots=True)
class Empty:
    """``{}``."""


@dataclass(frozen=True, slots=True)
class Variable:
    """``$this``, ``$index`` or ``$total``; ``name`` is without the dollar."""

    name: str


@dataclass(frozen=True, slots=True)
class Constant:
    """``%name``, bound from outside."""

    name: str


@dataclass(frozen=True, slots=True)
class Member:
    """``base.name``; ``base`` is None at the head of a path."""

    base: Expression | None
    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """``base.name(arguments)``; ``base`` is None at the head of a path."""

    base: Expression | None
    name: str
    arguments: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """``base[index]``."""

    base: Expression
    index: Expression


@dataclass(frozen=True, slots=True)
class Unary:
    """``+operand`` or ``-operand``."""

    operator: str
    operand: Expression


@dataclass(frozen=True, slots=True)
class Binary:
    """``left operator right``."""

    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class TypeOperation:
    """``operand is type`` or ``operand as type``; ``type`` may be qualified (``FHIR.Patient``)."""

    operator: str
    operand: Expression
    type: str


Expression = Literal | Empty | Variable | Constant | Member | Call | Index | Unary | Binary | TypeOperation
