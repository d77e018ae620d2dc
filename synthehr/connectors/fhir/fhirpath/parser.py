"""FHIRPath text to tree: precedence climbing over the operators of HL7 FHIRPath 2.0."""

from __future__ import annotations

from synthehr.connectors.fhir.fhirpath.lexer import Token, tokenize
from synthehr.connectors.fhir.fhirpath.syntax import (
    Binary,
    Call,
    Constant,
    Empty,
    Expression,
    Index,
    Literal,
    Member,
    TypeOperation,
    Unary,
    Variable,
)
from synthehr.errors import SchemaError

__all__ = ["CALENDAR_UNITS", "parse"]

MAX_DEPTH = 60
"""Deepest nesting of brackets and operators that is read; the recursion of reader and compiler is bounded by it."""

MAX_STEPS = 400
"""Most steps, calls and operators in one expression, for the same reason."""

CALENDAR_UNITS = {
    plural: unit
    for unit in ("year", "month", "week", "day", "hour", "minute", "second", "millisecond")
    for plural in (unit, unit + "s")
}

_LEVELS = {
    "implies": 1,
    "or": 2,
    "xor": 2,
    "and": 3,
    "in": 4,
    "contains": 4,
    "=": 5,
    "~": 5,
    "!=": 5,
    "!~": 5,
    "<": 6,
    "<=": 6,
    ">": 6,
    ">=": 6,
    "|": 7,
    "is": 8,
    "as": 8,
    "+": 9,
    "-": 9,
    "&": 9,
    "*": 10,
    "/": 10,
    "div": 10,
    "mod": 10,
}

_NAMES_TOO = frozenset({"as", "contains", "in", "is"})
"""Key words that may also name an element (ValueSet.expansion.contains)."""

_RESERVED = frozenset(_LEVELS) - _NAMES_TOO | {"true", "false"}


class _Parser:
    def __init__(self, source: str) -> None:
        self.source = source
        self.tokens = tokenize(source)
        self.position = 0
        self.depth = 0
        self.steps = 0

    @property
    def token(self) -> Token:
        return self.tokens[self.position]

    def fail(self, wanted: str) -> SchemaError:
        token = self.token
        found = "the end" if token.kind == "end" else f"'{token.text}'"
        shown = " ".join(self.source.split())
        return SchemaError(f"FHIRPath '{shown}' has {found} at character {token.at + 1} where {wanted} must be")

    def take(self) -> Token:
        token = self.token
        self.position += 1
        return token

    def at(self, symbol: str) -> bool:
        return self.token.kind == "symbol" and self.token.text == symbol

    def expect(self, symbol: str) -> None:
        if not self.at(symbol):
            raise self.fail(f"'{symbol}'")
        self.position += 1

    def counted(self, expression: Expression) -> Expression:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise SchemaError(f"a FHIRPath expression has more than {MAX_STEPS} steps; split it into several columns")
        return expression

    def expression(self, level: int = 1) -> Expression:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise SchemaError(f"a FHIRPath expression is nested deeper than {MAX_DEPTH} levels")
        left = self.unary()
        while True:
            token = self.token
            operator = token.text if token.kind in ("symbol", "name") else ""
            own = _LEVELS.get(operator, 0)
            if own < level:
                break
            self.position += 1
            if operator in ("is", "as"):
                left = self.counted(TypeOperation(operator, left, self.type_name()))
            else:
                left = self.counted(Binary(operator, left, self.expression(own + 1)))
        self.depth -= 1
        return left

    def unary(self) -> Expression:
        signs: list[str] = []
        while self.at("+") or self.at("-"):
            signs.append(self.take().text)
        operand = self.path()
        for sign in reversed(signs):
            operand = self.counted(Unary(sign, operand))
        return operand

    def path(self) -> Expression:
        base = self.term()
        while True:
            if self.at("."):
                self.position += 1
                base = self.invocation(base)
            elif self.at("["):
                self.position += 1
                index = self.expression()
                self.expect("]")
                base = self.counted(Index(base, index))
            else:
                return base

    def term(self) -> Expression:
        if self.token.kind in ("integer", "decimal"):
            return self.number()
        simple = self.simple_term()
        if simple is not None:
            self.position += 1
            return simple
        if self.at("("):
            self.position += 1
            inner = self.expression()
            self.expect(")")
            return inner
        if self.at("{"):
            self.position += 1
            self.expect("}")
            return Empty()
        if self.at("%"):
            self.position += 1
            name = self.token
            if name.kind not in ("name", "delimited", "string"):
                raise self.fail("the name of a constant")
            self.position += 1
            return Constant(name.text)
        return self.invocation(None)

    def simple_term(self) -> Expression | None:
        """The term that the present token is by itself."""
        token = self.token
        if token.kind in ("string", "date", "datetime", "time"):
            return Literal({"datetime": "DateTime"}.get(token.kind, token.kind.capitalize()), token.text)
        if token.kind == "variable":
            return Variable(token.text[1:])
        if token.kind == "name" and token.text in ("true", "false"):
            return Literal("Boolean", token.text)
        return None

    def number(self) -> Literal:
        token = self.take()
        unit = self.token
        if unit.kind == "string":
            self.position += 1
            return Literal("Quantity", token.text, unit.text)
        if unit.kind == "name" and unit.text in CALENDAR_UNITS:
            self.position += 1
            return Literal("Quantity", token.text, CALENDAR_UNITS[unit.text], calendar=True)
        return Literal(token.kind.capitalize(), token.text)

    def name(self, *, after_dot: bool = False) -> str:
        """The name that stands here; after a dot key words are names too (Narrative.div)."""
        token = self.token
        if token.kind == "delimited" or (token.kind == "name" and (after_dot or token.text not in _RESERVED)):
            self.position += 1
            return token.text
        raise self.fail("a name or value")

    def invocation(self, base: Expression | None) -> Expression:
        name = self.name(after_dot=base is not None)
        if not self.at("("):
            return self.counted(Member(base, name))
        self.position += 1
        arguments: list[Expression] = []
        while not self.at(")"):
            if arguments:
                self.expect(",")
            arguments.append(self.expression())
        self.position += 1
        return self.counted(Call(base, name, tuple(arguments)))

    def type_name(self) -> str:
        parts = [self.name()]
        while self.at("."):
            self.position += 1
            parts.append(self.name())
        return ".".join(parts)


def parse(source: str) -> Expression:
    """The tree of a FHIRPath expression.

    Raises:
        SchemaError: the text is not FHIRPath, or is longer or deeper than what is read.
    """
    if not isinstance(source, str):
        raise SchemaError(f"a FHIRPath expression must be a text, not {type(source).__name__}")
    parser = _Parser(source)
    expression = parser.expression()
    if parser.token.kind != "end":
        raise parser.fail("an operator or the end")
    return expression
