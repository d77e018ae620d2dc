"""Read and write ``schema.yaml``."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from synthehr._files import shipped
from synthehr.errors import SchemaError
from synthehr.schema.model import Schema

__all__ = ["dump_schema", "editor_schema", "first_problem", "layouts", "load_schema", "load_yaml"]

_WORDS = {  # by the beginning of pydantic's code; the first that fits
    "extra_forbidden": "unknown key",
    "missing": "is required",
    "union_tag_not_found": "needs a 'kind'",
    "datetime_": "must be a time such as 2021-05-31T18:30:00",
    "date_": "must be a date such as 2021-05-31",
    "timezone_": "must carry no time zone",
    "int_": "must be a whole number",
    "float_": "must be a number",
    "finite_number": "must be a finite number",
    "bool_": "must be true or false",
    "string_type": "must be text: put it in quotes",
    "dict_type": "must be a mapping of names",
    "model_": "must be a mapping of keys",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
}
_COMPARED = {  # with the part of pydantic's context that belongs in the words
    "greater_than": ("must be above {}", "gt"),
    "greater_than_equal": ("must be at least {}", "ge"),
    "less_than": ("must be below {}", "lt"),
    "less_than_equal": ("must be at most {}", "le"),
    "too_short": ("must have at least {} entries", "min_length"),
    "too_long": ("must have at most {} entries", "max_length"),
    "literal_error": ("must be {}", "expected"),
    "union_tag_invalid": ("unknown kind; kinds are {}", "expected_tags"),
}


class _Loader(yaml.SafeLoader):
    """YAML 1.1, but a key that stands twice is an error."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[Hashable] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_yaml(path: Path, *, what: str) -> object:
    """The contents of a YAML file.

    Raises:
        SchemaError: the file is missing, not UTF-8 or not YAML; ``what`` names it in the message.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else "cannot be read"
        raise SchemaError(f"{what} {str(path)!r} {reason}: give the path of a YAML file") from error
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "a key or value cannot be read"
        raise SchemaError(f"{what} {str(path)!r} is not valid YAML{where}: {problem}") from error


def first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """One line for the first problem pydantic found: the path of the key, what is wrong, how many more."""
    problems = error.errors(include_url=False, include_input=False)
    first = problems[0]
    where = ".".join(_path(first["loc"])) or model.__name__.lower()
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return " ".join(f"{where}: {_plain(first)}{more}".split())


def _path(location: tuple[int | str, ...]) -> list[str]:
    """The keys that lead to a problem, without the kinds that pydantic puts after a column's name and its bounds."""
    parts = list(location)
    for at in range(len(parts) - 4):
        if parts[at] == "tables" and parts[at + 2] == "columns":
            del parts[at + 4]
            if parts[at + 4 : at + 6] in (["bounds", "all"], ["bounds", "per_code"]):
                del parts[at + 5]
            break
    return [str(part) for part in parts if part != "[key]"]


def _plain(problem: ErrorDetails) -> str:
    """What is wrong with one key, in the words of the schema language instead of pydantic's."""
    code, context = problem["type"], problem.get("ctx", {})
    if code == "string_type" and problem["loc"][-1:] == ("[key]",):
        return "a name must be text: put it in quotes"
    if code in _COMPARED:
        words, key = _COMPARED[code]
        return words.format(context.get(key))
    return next(
        (words for beginning, words in _WORDS.items() if code.startswith(beginning)),
        problem["msg"].removeprefix("Value error, "),
    )


def layouts() -> dict[str, Path]:
    """The known layouts of records by name, each a schema file that is shipped."""
    return {path.stem: path for path in sorted(shipped("schemas/layouts").glob("*.yaml"))}


def load_schema(source: str | Path | dict[str, Any] | Schema) -> Schema:
    """The schema in a YAML file, in a mapping of the same form, or of a known layout such as ``synthea-csv``.

    Raises:
        SchemaError: names the path of the offending key, for example ``tables.patient.columns.age.bounds``.
    """
    if isinstance(source, Schema):
        return source
    where = "schema"
    contents: object = source
    if not isinstance(source, dict):
        where = f"schema {str(source)!r}"
        path = layouts().get(str(source), Path(source))
        if not path.suffix and not path.exists():
            known = ", ".join(layouts())
            raise SchemaError(f"{where} is neither a file nor one of the known layouts {known}")
        contents = load_yaml(path, what="schema")
    if not isinstance(contents, dict):
        raise SchemaError(f"{where} must be a mapping with the keys synthehr, subject and tables")
    try:
        return Schema.model_validate(contents)
    except ValidationError as error:
        raise SchemaError(f"{where}: {first_problem(error, Schema)}") from error


def editor_schema() -> str:
    """Where editors find the JSON Schema of a schema file on this machine."""
    return shipped("schemas/config/schema.schema.json").as_uri()


def dump_schema(schema: Schema) -> dict[str, Any]:
    """The schema as a mapping of JSON values, without entries left at their default."""
    return schema.model_dump(mode="json", exclude_defaults=True)
