"""SQL-on-FHIR v2 ViewDefinitions compiled to functions that make rows of resources."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from synthehr.connectors.fhir.fhirpath.compiler import Settings
from synthehr.connectors.fhir.fhirpath.navigation import reference_key
from synthehr.connectors.fhir.fhirpath.paths import ReferenceReader
from synthehr.connectors.fhir.view_definition import read_definition
from synthehr.connectors.fhir.view_rows import plan_view
from synthehr.errors import DataError

__all__ = ["CompiledView", "ViewColumn", "compile_view"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewColumn:
    """One column of a view.

    ``type`` is the FHIR type that the definition declares, else the one that R4 tells, else None. ``collection`` says
    that cells are lists.
    """

    name: str
    type: str | None
    collection: bool
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledView:
    """A view ready to run.

    Attributes:
        name: its name, or that of its resource where it has none.
        resource: the type of the resources that it reads.
        columns: its columns, in the order of the cells of a row.
        unknown: elements that its paths name and R4 does not have; they are never there in R4 records.
        needs_exact_decimals: whether it asks for a decimal's digits as they were written. Its resources must then be
            read by :func:`synthehr.connectors.fhir.fhirpath.parse_json`; floats are refused where it matters.
    """

    name: str
    resource: str
    columns: tuple[ViewColumn, ...]
    unknown: tuple[str, ...]
    needs_exact_decimals: bool
    _rows: Callable[[Mapping[str, Any]], Iterable[tuple[Any, ...]]]

    def rows(self, resource: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """The rows that a resource makes: none if it is of another type or ``where`` leaves it out.

        Cells are what the JSON reader made (text, bool, int, float or Decimal), None, a list where the column is a
        collection, and a dict where an object type is declared; dates and times are text as in FHIR, and numbers that
        an expression calculates are Decimals. Rows of nested loops come with the last loop going round slowest.

        Raises:
            DataError: a column that is no collection has several values in a row, an element is not of the JSON type
                that R4 gives it, the resource is otherwise not shaped as the paths need it, or it makes more than
                100,000 rows. Elements that are missing are never an error.
        """
        if not isinstance(resource, dict):
            raise DataError(f"view '{self.name}': a resource must be a JSON object")
        if resource.get("resourceType") != self.resource:
            return iter(())
        return iter(self._rows(resource))


def compile_view(
    definition: Mapping[str, Any], *, strict: bool = False, reference_reader: ReferenceReader = reference_key
) -> CompiledView:
    """The view of a ViewDefinition.

    Args:
        definition: the parsed ViewDefinition.
        strict: refuse elements that R4 does not have, which else are listed in ``unknown`` and never there.
        reference_reader: gives the key behind ``getReferenceKey(type)``, from the Reference and the type (or None);
            an index of all resources can resolve here what an address alone does not tell.

    Raises:
        SchemaError: the definition breaks a rule of SQL on FHIR, or a path uses what is not supported.
    """
    read = read_definition(definition)
    settings = Settings(constants=read.constants, strict=strict, reference_reader=reference_reader)
    planned = plan_view(read, settings)
    columns = tuple(
        ViewColumn(name=column.name, type=kind, collection=column.collection, description=column.description)
        for column, kind in zip(read.select.all_columns(), planned.types, strict=True)
    )
    return CompiledView(
        name=read.name,
        resource=read.resource,
        columns=columns,
        unknown=planned.unknown,
        needs_exact_decimals=planned.needs_exact_decimals,
        _rows=planned.rows,
    )
