"""Checks of written resources that a library's validation leaves out: bindings, targets, ids, dates, invariants."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import polars as pl
import yaml

from synthehr._files import shipped
from synthehr.connectors.fhir.write_cells import ABSENT, values_at
from synthehr.errors import ConfigError, InternalError

__all__ = [
    "STATUSES",
    "TypeOf",
    "are_ids",
    "check_resource",
    "problems_between",
    "problems_of",
    "problems_of_element",
    "problems_of_links",
    "targets_of",
    "validate_r4b",
]

TypeOf = Callable[[str], str | None]
Rule = Callable[[Mapping[str, Any]], str | None]


@dataclass(frozen=True, slots=True)
class _ElementRule:
    """What the values at a path inside an element must keep to, whatever else there is."""

    path: tuple[str, ...]
    holds: Callable[[list[Any]], bool]
    what: str


_ID = r"^[A-Za-z0-9\-.]{1,64}$"
_DATES = re.compile(
    r"(?:[1-9]\d{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
    r"(?:T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:Z|[+-]\d{2}:\d{2}))?\n)*"
)
STATUSES = ("clinicalStatus", "verificationStatus")  # whose codes decide which other elements there may be
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
    found = problems_between(resource, kind=kind)
    for element, value in resource.items():
        found += problems_of_element(kind, element, partial(values_at, [value]))
        found += problems_of_links(kind, element, value, type_of=type_of)
    return found


def problems_between(resource: Mapping[str, Any], *, kind: str) -> list[str]:
    """Each rule on which elements there are that a resource breaks; of ``STATUSES`` it counts what they say, too."""
    return [problem for rule in _whole_rules(kind) if (problem := rule(resource)) is not None]


def are_ids(texts: pl.Series) -> bool:
    """Whether each of these may be the id of a resource."""
    return texts.dtype == pl.String and bool(
        pl.select(pl.lit(texts).str.contains(_ID).fill_null(value=False).all()).item()
    )


def problems_of_element(kind: str, element: str, at: Callable[[Sequence[str]], list[Any]]) -> list[str]:
    """Each rule that one of the values of an element breaks by itself, whatever other elements there are.

    References are left aside: see :func:`problems_of_links`.

    Args:
        kind: the type of the resources.
        element: its name.
        at: gives the values at a path inside the element.
    """
    rules = _element_rules(kind).get(element, ())
    return [rule.what for rule in rules if (values := at(rule.path)) and not rule.holds(values)]


def problems_of_links(kind: str, element: str, value: Any, *, type_of: TypeOf | None = None) -> list[str]:
    """Each reference in one element of a resource that leads to nothing, or to what it must not lead to."""
    found = []
    for path, targets in _targets(kind).get(element, ()):
        for each in values_at([value], path[1:]):
            literal = each.get("reference") if type(each) is dict else None
            target = None
            if type(literal) is str:
                target = literal.partition("/")[0] if type_of is None else type_of(literal)
            if target not in targets:
                found.append(f"{'.'.join(path)} must lead to one of {', '.join(sorted(targets))}")
    return found


def targets_of(kind: str, element: str) -> frozenset[str]:
    """The types of resources that the reference in an element may lead to; of one that is not bound, none."""
    bound = _targets(kind).get(element, [])
    return frozenset(target for path, targets in bound if path == (element,) for target in targets)


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
def _targets(kind: str) -> dict[str, list[tuple[tuple[str, ...], frozenset[str]]]]:
    """Where references stand and what they may lead to, by the element that they are in."""
    found: dict[str, list[tuple[tuple[str, ...], frozenset[str]]]] = defaultdict(list)
    for path, targets in _contents()[kind].get("references", {}).items():
        steps = tuple(path.split("."))
        found[steps[0]].append((steps, frozenset(targets)))
    return dict(found)


@cache
def _whole_rules(kind: str) -> list[Rule]:
    """The rules that look at which elements there are and, of `STATUSES`, at what they say."""
    of = _contents()[kind]
    rules: list[Rule] = [_well_named, _requires([(name, f"_{name}") for name in of.get("required", ())])]
    if "one_of" in of:
        rules.append(_requires([(of["one_of"][0], of["one_of"][1])]))
    return [*rules, *_INVARIANTS.get(kind, ())]


@cache
def _element_rules(kind: str) -> dict[str, list[_ElementRule]]:
    """The rules that look at one element alone, at all of its values at once, by its name."""
    of = _contents()[kind]
    rules: dict[str, list[_ElementRule]] = defaultdict(list)
    for name in (*_contents()["forbidden"], *of.get("forbidden", ())):
        rules[name].append(_ElementRule((), lambda _: False, f"{name} is not written of anyone"))
    for path, codes in of.get("codes", {}).items():
        element, *inner = path.split(".")
        what = f"{path} must be a code of its required value set"
        rules[element].append(_ElementRule(tuple(inner), frozenset(codes).issuperset, what))
    for path in of.get("dates", ()):
        element, *inner = path.split(".")
        what = f"{path} must be a day, or a time with seconds and offset"
        rules[element].append(_ElementRule(tuple(inner), _are_dates, what))
    for element, what in of.get("made_up", {}).items():
        rules[element].append(_ElementRule((), _MADE_UP[what], f"{element} is written of nobody but made up"))
    for element, systems in of.get("concepts", {}).items():
        pairs = frozenset((each, code) for each, of_it in systems.items() for code in of_it)
        what = f"{element} must be a code of its required value set"
        rules[element].append(_ElementRule(("coding",), partial(_coded_in, pairs), what))
    return dict(rules)


def _are_own_ids(identifiers: list[Any]) -> bool:
    """Whether each identifier is no more than an id that was made here."""
    return all(
        set(each) == {"system", "value"}
        and each["system"] == "urn:ietf:rfc:3986"
        and bool(_MADE_ID.fullmatch(each["value"]))
        for each in identifiers
    )


def _are_no_names(names: list[Any]) -> bool:
    """Whether each name is no more than the note that it is absent."""
    return all(each in (ABSENT, {"_family": ABSENT}) for each in names)


_MADE_ID = re.compile(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_MADE_UP: dict[str, Callable[[list[Any]], bool]] = {"own id": _are_own_ids, "absent": _are_no_names}


def _coded_in(pairs: frozenset[tuple[str, str]], codings: list[Any]) -> bool:
    return all((coding.get("system"), coding.get("code")) in pairs for coding in codings)


def _are_dates(texts: Sequence[object]) -> bool:
    """Whether each text is a day, or a time with seconds and offset."""
    try:
        whole = "\n".join([*texts, ""])  # type: ignore[list-item]
    except TypeError:  # one is no text
        return False
    return whole.count("\n") == len(texts) and _DATES.fullmatch(whole) is not None


def _well_named(resource: Mapping[str, Any]) -> str | None:
    named = resource.get("id")
    return None if isinstance(named, str) and re.fullmatch(_ID, named) else "id must be 1 to 64 letters, digits, - or ."


def _requires(alternatives: list[tuple[str, str]]) -> Rule:
    def rule(resource: Mapping[str, Any]) -> str | None:
        for name, other in alternatives:
            if not resource.get(name) and not resource.get(other):
                return f"{name} or {other} is required"
        return None

    return rule


def _codes(resource: Mapping[str, Any], element: str) -> set[str]:
    return {coding.get("code") for coding in values_at([resource], (element, "coding"))}


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
