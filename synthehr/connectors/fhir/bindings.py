"""Checks of written resources that a library's validation leaves out: bindings, targets, ids, dates, invariants."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

import yaml

from synthehr._files import shipped
from synthehr.errors import ConfigError, InternalError

__all__ = ["check_resource", "problems_of", "validate_r4b"]

TypeOf = Callable[[str], str | None]
Rule = Callable[[Mapping[str, Any]], str | None]

_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_DATE = re.compile(
    r"[1-9]\d{3}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])(T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(Z|[+-]\d{2}:\d{2}))?"
)
_ENDED = frozenset({"inactive", "resolved", "remission"})


def check_resource(resource: Mapping[str, Any], *, type_of: TypeOf | None = None) -> None:
    """Refuse a resource that breaks a rule of ``schemas/fhir/r4/bindings.yaml``.

    Raises:
        InternalError: it does; the message names the rule, not the value.
    """
    found = problems_of(resource, type_of=type_of)
    if found:
        raise InternalError(f"a {resource.get('resourceType')} is about to be written that breaks R4: {found[0]}")


def problems_of(resource: Mapping[str, Any], *, type_of: TypeOf | None = None) -> list[str]:
    """Each rule that a resource breaks; empty where it breaks none.

    Args:
        resource: as it will be written.
        type_of: gives the type of the resource that a reference leads to, None where it leads nowhere; without it,
            the type is what stands before the slash.
    """
    kind = resource.get("resourceType")
    if not isinstance(kind, str) or kind not in _contents():
        return ["resourceType is none that is written"]
    found = [problem for rule in _rules(kind) if (problem := rule(resource)) is not None]
    for path, targets in _targets(kind):
        if path[0] not in resource:
            continue
        for each in [resource[path[0]]] if len(path) == 1 else _at(resource, path):
            literal = each.get("reference") if type(each) is dict else None
            target = None
            if type(literal) is str:
                target = literal.partition("/")[0] if type_of is None else type_of(literal)
            if target not in targets:
                found.append(f"{'.'.join(path)} must lead to one of {', '.join(sorted(targets))}")
    return found


def validate_r4b(resources: Iterable[Mapping[str, Any]]) -> int:
    """Validate parsed resources by fhir.resources' R4B models; slow, about a millisecond each.

    Returns:
        how many were validated.

    Raises:
        InternalError: one does not validate.
        ConfigError: the library is not installed.
    """
    try:
        from fhir.resources.R4B import get_fhir_model_class
    except ImportError:
        raise ConfigError("validation needs the package fhir.resources: pip install 'fhir.resources>=8.3'") from None
    count = 0
    for resource in resources:
        kind = str(resource["resourceType"])
        try:
            get_fhir_model_class(kind).model_validate(resource)
        except ValueError as error:
            rules = sorted({_words(each) for each in getattr(error, "errors", list)()})
            raise InternalError(f"a {kind} that was written is no valid R4B: {'; '.join(rules) or 'unknown'}") from None
        count += 1
    return count


def _words(error: Mapping[str, Any]) -> str:
    return f"{'.'.join(str(part) for part in error['loc'])}: {error['type']}"


@cache
def _contents() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(shipped("schemas/fhir/r4/bindings.yaml").read_text(encoding="utf-8"))
    return read


@cache
def _targets(kind: str) -> list[tuple[tuple[str, ...], frozenset[str]]]:
    of = _contents()[kind].get("references", {})
    return [(tuple(path.split(".")), frozenset(targets)) for path, targets in of.items()]


@cache
def _rules(kind: str) -> list[Rule]:
    of = _contents()[kind]
    codes = {tuple(path.split(".")): frozenset(codes) for path, codes in of.get("codes", {}).items()}
    dates = [tuple(path.split(".")) for path in of.get("dates", ())]
    rules: list[Rule] = [
        _well_named,
        _forbids(frozenset((*_contents()["forbidden"], *of.get("forbidden", ())))),
        _requires([(name, f"_{name}") for name in of.get("required", ())]),
        _bound({path[0]: of_path for path, of_path in codes.items() if len(path) == 1}),
        _dated(tuple(path[0] for path in dates if len(path) == 1)),
    ]
    if "one_of" in of:
        rules.append(_requires([(of["one_of"][0], of["one_of"][1])]))
    rules += [_bound_inside(path, of_path) for path, of_path in codes.items() if len(path) > 1]
    rules += [_dated_inside(path) for path in dates if len(path) > 1]
    for element, systems in of.get("concepts", {}).items():
        rules.append(
            _bound_concept(element, frozenset((each, code) for each, of_it in systems.items() for code in of_it))
        )
    return [*rules, *_INVARIANTS.get(kind, ())]


def _at(value: Any, path: tuple[str, ...]) -> list[Any]:
    """The values at a path, those of every item where a list is on the way."""
    found = [value]
    for name in path:
        found = [each[name] for each in _flat(found) if type(each) is dict and name in each]
    return _flat(found)


def _flat(values: list[Any]) -> list[Any]:
    if any(type(value) is list for value in values):
        return [item for value in values for item in (value if type(value) is list else [value])]
    return values


def _well_named(resource: Mapping[str, Any]) -> str | None:
    key = resource.get("id")
    return None if isinstance(key, str) and _ID.fullmatch(key) else "id must be 1 to 64 letters, digits, - or ."


def _forbids(names: frozenset[str]) -> Rule:
    def rule(resource: Mapping[str, Any]) -> str | None:
        if names.isdisjoint(resource):
            return None
        return f"{min(names.intersection(resource))} is not written of anyone"

    return rule


def _requires(alternatives: list[tuple[str, str]]) -> Rule:
    def rule(resource: Mapping[str, Any]) -> str | None:
        for name, other in alternatives:
            if not resource.get(name) and not resource.get(other):
                return f"{name} or {other} is required"
        return None

    return rule


def _bound(codes: Mapping[str, frozenset[str]]) -> Rule:
    def rule(resource: Mapping[str, Any]) -> str | None:
        for name, allowed in codes.items():
            if name in resource:
                value = resource[name]
                if not (allowed.issuperset(value) if type(value) is list else value in allowed):
                    return f"{name} must be a code of its required value set"
        return None

    return rule


def _bound_inside(path: tuple[str, ...], codes: frozenset[str]) -> Rule:
    def rule(resource: Mapping[str, Any]) -> str | None:
        if path[0] not in resource or codes.issuperset(_at(resource, path)):
            return None
        return f"{'.'.join(path)} must be a code of its required value set"

    return rule


def _dated(names: tuple[str, ...]) -> Rule:
    def rule(resource: Mapping[str, Any]) -> str | None:
        for name in names:
            if name in resource and not (isinstance(resource[name], str) and _DATE.fullmatch(resource[name])):
                return f"{name} must be a day, or a time with seconds and offset"
        return None

    return rule


def _dated_inside(path: tuple[str, ...]) -> Rule:
    def rule(resource: Mapping[str, Any]) -> str | None:
        if path[0] not in resource:
            return None
        if all(isinstance(text, str) and _DATE.fullmatch(text) for text in _at(resource, path)):
            return None
        return f"{'.'.join(path)} must be a day, or a time with seconds and offset"

    return rule


def _bound_concept(element: str, pairs: frozenset[tuple[str, str]]) -> Rule:
    def rule(resource: Mapping[str, Any]) -> str | None:
        for coding in _at(resource, (element, "coding")) if element in resource else ():
            if (coding.get("system"), coding.get("code")) not in pairs:
                return f"{element} must be a code of its required value set"
        return None

    return rule


def _codes(resource: Mapping[str, Any], element: str) -> set[str]:
    return {coding.get("code") for coding in _at(resource, (element, "coding"))}


def _con_4(resource: Mapping[str, Any]) -> str | None:
    abated = "abatementDateTime" in resource
    return (
        "con-4: what abated is inactive, resolved or in remission"
        if abated and not (_codes(resource, "clinicalStatus") & _ENDED)
        else None
    )


def _entered_in_error(resource: Mapping[str, Any]) -> str | None:
    wrong = "entered-in-error" in _codes(resource, "verificationStatus")
    return (
        "con-5, ait-2: what was entered in error has no clinicalStatus"
        if wrong and "clinicalStatus" in resource
        else None
    )


def _ait_1(resource: Mapping[str, Any]) -> str | None:
    wrong = "entered-in-error" in _codes(resource, "verificationStatus")
    return None if wrong or "clinicalStatus" in resource else "ait-1: clinicalStatus is required"


def _obs_6(resource: Mapping[str, Any]) -> str | None:
    for part in (resource, *resource.get("component", ())):
        if "dataAbsentReason" in part and any(name.startswith("value") for name in part):
            return "obs-6: dataAbsentReason stands beside a value"
    return None


_INVARIANTS: dict[str, tuple[Rule, ...]] = {
    "Condition": (_con_4, _entered_in_error),
    "AllergyIntolerance": (_ait_1, _entered_in_error),
    "Observation": (_obs_6,),
}
