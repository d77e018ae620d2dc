"""Make r4.json, the table of R4's types, from fhir.resources: ``python -m synthehr.connectors.fhir.fhirpath.derive``.

Run at development time alone; nothing at run time needs fhir.resources. It has no R4, so the table is R4B's
(4.3.0): the types that R4 and R4B share are the same in both, and R4's few others are read without types.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import types
import typing
from pathlib import Path
from typing import Any

__all__ = ["derive"]

TARGET = Path(__file__).with_name("r4.json")

_PYTHON_TYPES = {bool: "boolean"}

_RENAMED = {"encodedBytes": "base64Binary", "uuidVersion": "uuid"}
"""Names of fhir_core's own for types of FHIR."""

_ROOTS = ("FHIRAbstractModel", "FHIRResourceModel", "FHIRPrimitiveExtension")


def _fhir_type(annotation: Any) -> tuple[str, bool]:
    """The FHIR type in a field's annotation, and whether the field is a list."""
    many = False
    while True:
        origin = typing.get_origin(annotation)
        if origin in (typing.Union, types.UnionType):
            annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
        elif origin is list:
            many = True
            annotation = typing.get_args(annotation)[0]
        elif origin is typing.Annotated:
            name = type(typing.get_args(annotation)[1]).__name__
            name = name[0].lower() + name[1:]
            return _RENAMED.get(name, name), many
        else:
            break
    if annotation in _PYTHON_TYPES:
        return _PYTHON_TYPES[annotation], many
    return annotation.__name__.removesuffix("Type"), many


def _own_fields(model: Any) -> dict[str, str]:
    inherited = {name for base in model.__mro__[1:] for name in getattr(base, "model_fields", {})}
    fields: dict[str, str] = {}
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra or {}
        if name in inherited or not extra.get("element_property"):
            continue
        fhir_type, many = _fhir_type(field.annotation)
        choice = extra.get("one_of_many")
        if choice:
            fields[choice] = "|".join(filter(None, [fields.get(choice), fhir_type]))
        else:
            fields[field.alias or name] = fhir_type + "*" * many
    return dict(sorted(fields.items()))


def derive() -> dict[str, list[Any]]:
    """Every type as ``name: [base, {element: type}]``; ``*`` marks a list, ``|`` the types of a choice."""
    package = importlib.import_module("fhir.resources.R4B")
    table: dict[str, list[Any]] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
        members = vars(importlib.import_module(f"fhir.resources.R4B.{module}"))
        for name, model in sorted(members.items()):
            if not isinstance(model, type) or "model_fields" not in dir(model) or name in _ROOTS:
                continue
            if not model.__module__.startswith("fhir.resources.R4B.") or name.startswith("_"):
                continue
            base = model.__mro__[1].__name__
            table[model.__name__] = ["" if base in _ROOTS else base, _own_fields(model)]
    table["Resource"][1]["id"] = "id"  # fhir.resources declares it above Resource
    return dict(sorted(table.items()))


def main() -> None:
    """Write the table beside this module, one type a line."""
    lines = [f"{json.dumps(name)}: {json.dumps(entry, separators=(',', ':'))}" for name, entry in derive().items()]
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
