"""Python source for compiled expressions: lines, fresh names, and objects bound by name.

No text of an expression ever enters the source: names, keys and constants are bound as arguments of the function
that the source defines, so the source is made of this package's own words alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from synthehr.errors import SchemaError

__all__ = ["Writer"]


class Writer:
    """Lines of one function's body, and the objects that they name."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bound: dict[str, Any] = {}
        self.present: set[str] = set()
        self.again = False
        self._pure: list[dict[str, str]] = [{}]
        self._names: dict[tuple[type, Any], str] = {}
        self._indent = 0
        self._fresh = 0

    def line(self, text: str) -> None:
        """Add one line at the present depth."""
        self.lines.append("    " * self._indent + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Lines written inside belong to the statement ``head``; one without lines gets ``pass``."""
        self.line(head)
        self._indent += 1
        self._pure.append({})
        before = len(self.lines)
        yield
        self._pure.pop()
        if len(self.lines) == before:
            self.line("pass")
        self._indent -= 1

    def name(self, prefix: str = "v") -> str:
        """A name used nowhere else."""
        self._fresh += 1
        return f"{prefix}{self._fresh}"

    def assign(self, expression: str, *, present: bool = False) -> str:
        """A fresh variable holding ``expression``; ``present`` says that it is never None."""
        name = self.name()
        self.line(f"{name} = {expression}")
        if present:
            self.present.add(name)
        return name

    def pure(self, expression: str) -> tuple[str, bool]:
        """The variable holding an expression that always gives the same here, and whether it is new.

        One that an enclosing block holds already is not written again.
        """
        for known in self._pure:
            if expression in known:
                return known[expression], False
        name = self._pure[-1][expression] = self.assign(expression)
        return name, True

    def bind(self, value: Any) -> str:
        """The name by which the source reaches ``value``."""
        key: tuple[type, Any] = (type(value), value if isinstance(value, str | int) else id(value))
        if key not in self._names:
            self._names[key] = f"k{len(self._names)}"
            self.bound[self._names[key]] = value
        return self._names[key]

    def function(self, parameter: str) -> Callable[..., Any]:
        """The function of one ``parameter`` whose body is the lines.

        Raises:
            SchemaError: the expression nests more loops than Python has room for.
        """
        body = "\n".join("        " + line for line in self.lines)
        source = f"def make({', '.join(self.bound)}):\n    def run({parameter}):\n{body}\n    return run\n"
        space: dict[str, Any] = {}
        try:
            exec(compile(source, "<compiled FHIRPath>", "exec"), space)  # noqa: S102
        except (SyntaxError, RecursionError, MemoryError) as error:
            raise SchemaError("a FHIRPath expression nests too many loops: split it into several columns") from error
        made: Callable[..., Any] = space["make"](**self.bound)
        return made
