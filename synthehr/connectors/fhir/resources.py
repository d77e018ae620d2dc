"""What a resource is before any view sees it: its type, its version, and whether its elements have FHIR's shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from types import NoneType
from typing import Any, NamedTuple, TypeAlias

from synthehr.connectors.fhir.cells import WRONG_SHAPE
from synthehr.connectors.fhir.fhirpath.model import BOOLEANS, INTEGERS, NUMBERS, choice_of_key, element, is_a, is_type

__all__ = ["TOO_OLD", "is_resource_type", "made_r4"]

TOO_OLD = "is FHIR DSTU2 or STU3: R4, R4B and R5 are read"

_NOT_IN_R4B = frozenset(  # types that R4 or R5 has and R4B has not
    """ActorDefinition ArtifactAssessment BiologicallyDerivedProductDispense ChargeItemDefinition ConditionDefinition
    CoverageEligibilityRequest DeviceAssociation DeviceDispense DeviceUsage EffectEvidenceSynthesis EncounterHistory
    FormularyItem GenomicStudy ImagingSelection InventoryItem InventoryReport MedicinalProduct
    MedicinalProductAuthorization MedicinalProductContraindication MedicinalProductIndication
    MedicinalProductIngredient MedicinalProductInteraction MedicinalProductManufactured MedicinalProductPackaged
    MedicinalProductPharmaceutical MedicinalProductUndesirableEffect NutritionIntake Permission RequestOrchestration
    Requirements RiskEvidenceSynthesis SubstanceNucleicAcid SubstancePolymer SubstanceProtein
    SubstanceReferenceInformation SubstanceSourceMaterial SubstanceSpecification TestPlan Transport""".split()  # noqa: SIM905 - read as words
)
_NONE: frozenset[str] = frozenset()
_ABSTRACT = frozenset({"Resource", "DomainResource"})
_NOT_SINCE_R4: dict[str, frozenset[str]] = {  # elements of DSTU2 and STU3 that R4 took away
    "AllergyIntolerance": frozenset({"assertedDate", "substance"}),
    "Condition": frozenset({"assertedDate", "context", "dateRecorded", "patient"}),
    "Encounter": frozenset({"incomingReferral", "patient", "indication"}),
    "Immunization": frozenset({"notGiven", "wasNotGiven", "date"}),
    "MedicationRequest": frozenset({"context", "definition"}),
    "Observation": frozenset({"context", "comments", "related"}),
    "Patient": frozenset({"animal"}),
    "Procedure": frozenset({"context", "notDone", "notPerformed"}),
}
_BARE_CODES_THEN = {"AllergyIntolerance": "clinicalStatus", "Condition": "clinicalStatus", "Encounter": "class"}


@cache
def is_resource_type(name: str) -> bool:
    """Whether R4, R4B or R5 has a type of resource with this name."""
    return name in _NOT_IN_R4B or (name not in _ABSTRACT and is_type(name) and is_a(name, "Resource"))


def made_r4(resource: dict[str, Any], kind: str) -> str | None:
    """Rename, in place, what R5 calls otherwise than R4, so that one view holds for both; or say what is wrong.

    Top-level elements must have the JSON types that R4 gives them. Those that are null count as absent and are taken
    out; those that R4 does not know are not judged.
    """
    shape = _shape(kind, tuple(resource), tuple(map(type, resource.values())))
    if shape.too_old:
        return TOO_OLD
    if shape.of_r5:
        _FROM_R5[kind](resource)
        shape = _shape(kind, tuple(resource), tuple(map(type, resource.values())))
    if shape.wrong:
        return WRONG_SHAPE
    for key, allowed in shape.lists:
        for one in resource[key]:
            if type(one) not in allowed:
                return WRONG_SHAPE
    for key in shape.nulls:
        del resource[key]
    return None


_Types: TypeAlias = frozenset[type]
_LIST: _Types = frozenset({list})
_OBJECT: _Types = frozenset({dict})


class _Shape(NamedTuple):
    """What holds of all resources of one type that have the same keys with values of the same JSON types.

    Attributes:
        too_old: they have what only FHIR DSTU2 or STU3 had: releases that are not read.
        of_r5: they may have what R5 calls otherwise than R4.
        wrong: an element has not the type that R4 gives it.
        nulls: the elements that are null.
        lists: the elements that are lists, with the types that their entries may have.
    """

    too_old: bool
    of_r5: bool
    wrong: bool
    nulls: tuple[str, ...]
    lists: tuple[tuple[str, _Types], ...]


@lru_cache(maxsize=1 << 12)  # records of one source have a few dozen shapes
def _shape(kind: str, keys: tuple[str, ...], types: tuple[type, ...]) -> _Shape:
    given = dict(zip(keys, types, strict=True))
    known = [(key, found, *_types_of(kind, key)) for key, found in given.items()]
    judged = [(key, found, allowed, inner) for key, found, allowed, inner in known if allowed is not None]
    marks = _MARKS_OF_R5.get(kind)
    return _Shape(
        too_old=given.get(_BARE_CODES_THEN.get(kind, "")) is str or not _NOT_SINCE_R4.get(kind, _NONE).isdisjoint(keys),
        of_r5=marks is not None and marks(given),
        wrong=any(found not in allowed and found is not NoneType for _, found, allowed, _ in judged)
        or given.get("id", str) not in (str, NoneType),
        nulls=tuple(key for key, found, _, _ in judged if found is NoneType),
        lists=tuple((key, inner) for key, found, _, inner in judged if inner is not None and found is list),
    )


@lru_cache(maxsize=1 << 14)
def _types_of(kind: str, key: str) -> tuple[_Types | None, _Types | None]:
    """The Python types that an element may have, and those of its entries where it is a list."""
    found = element(kind, key)
    if found is not None and not found.choice:
        types = found.types
        many = found.many
    else:
        choice = choice_of_key(kind, key)
        if choice is None:
            return None, None
        types, many = (choice[1],), False
    single = _python_types(types[0])
    return (_LIST, single) if many else (single, None)


def _python_types(name: str) -> _Types:
    if name in BOOLEANS:
        return frozenset({bool})
    if name in INTEGERS:
        return frozenset({int})
    if name in NUMBERS:
        return frozenset({int, float})
    return _OBJECT if name[:1].isupper() and not name.startswith("System.") else frozenset({str})


def _encounter(resource: dict[str, Any]) -> None:
    _rename(resource, "actualPeriod", "period")
    _rename(resource, "admission", "hospitalization")
    classes = resource.get("class")
    if type(classes) is list:
        first = classes[0] if classes else None
        codings = first.get("coding") if type(first) is dict else None
        if type(codings) is list and codings:
            resource["class"] = codings[0]
    reasons = resource.pop("reason", None)
    if type(reasons) is list:
        values = [value for reason in reasons if type(reason) is dict for value in reason.get("value") or ()]
        _set_reasons(resource, values)


def _medication_request(resource: dict[str, Any]) -> None:
    medication = resource.get("medication")
    if type(medication) is dict:
        del resource["medication"]
        for part, name in (("concept", "medicationCodeableConcept"), ("reference", "medicationReference")):
            if part in medication:
                resource[name] = medication[part]
    _reason(resource)


def _procedure(resource: dict[str, Any]) -> None:
    for name in [name for name in resource if name.startswith("occurrence")]:
        _rename(resource, name, "performed" + name[len("occurrence") :])
    category = resource.get("category")
    if type(category) is list and category:
        resource["category"] = category[0]
    _reason(resource)


def _allergy_intolerance(resource: dict[str, Any]) -> None:
    kind = resource.get("type")
    codings = kind.get("coding") if type(kind) is dict else None
    if type(codings) is list and codings and type(codings[0]) is dict:
        resource["type"] = codings[0].get("code")


def _reason(resource: dict[str, Any]) -> None:
    reasons = resource.pop("reason", None)
    if type(reasons) is list:
        _set_reasons(resource, reasons)


def _set_reasons(resource: dict[str, Any], references: list[Any]) -> None:
    concepts = [one["concept"] for one in references if type(one) is dict and "concept" in one]
    if concepts:
        resource["reasonCode"] = concepts


def _rename(resource: dict[str, Any], old: str, new: str) -> None:
    if old in resource:
        resource[new] = resource.pop(old)


_FROM_R5: dict[str, Callable[[dict[str, Any]], None]] = {
    "Encounter": _encounter,
    "MedicationRequest": _medication_request,
    "Procedure": _procedure,
    "AllergyIntolerance": _allergy_intolerance,
}
_MARKS_OF_R5: dict[str, Callable[[Mapping[str, type]], bool]] = {
    "Encounter": lambda given: (
        given.get("class") is list or not {"actualPeriod", "admission", "reason"}.isdisjoint(given)
    ),
    "MedicationRequest": lambda given: not {"medication", "reason"}.isdisjoint(given),
    "Procedure": lambda given: (
        given.get("category") is list or "reason" in given or any(key.startswith("occurrence") for key in given)
    ),
    "AllergyIntolerance": lambda given: given.get("type") is dict,
}
