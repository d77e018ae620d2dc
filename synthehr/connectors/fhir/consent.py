"""Who may be used: what the Consent resources of a patient say, read so that doubt keeps the patient out.

Sources: FHIR R4 Consent (``scope``, ``policyRule``, ``provision``), R5 Consent (``subject``, ``decision``); the code
systems consentscope, consentcategorycodes, v3-ActCode (OPTIN, OPTOUT) and v3-ActReason (HRESCH) of terminology.hl7.org.
"""

from __future__ import annotations

import calendar
import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from synthehr.errors import ConfigError

__all__ = ["CONSENT_MODES", "ConsentMode", "ConsentPolicy", "ConsentRecord", "Decision", "consent_record"]

ConsentMode: TypeAlias = Literal["ignore", "exclude-opt-out", "require-opt-in"]
CONSENT_MODES: tuple[ConsentMode, ...] = ("ignore", "exclude-opt-out", "require-opt-in")
Decision: TypeAlias = Literal["in", "out"]
Scope: TypeAlias = Literal["research", "privacy", "other", "unknown"]

_RESEARCH = frozenset({"research", "rsdid", "rsreid"})
_RESEARCH_PURPOSES = frozenset(
    {"HRESCH", "BIORCH", "CLINTRCH", "CLINTRCHNPC", "CLINTRCHPC", "PRECLINTRCH", "DSRCH", "POARCH"}
)
_PRIVACY = frozenset(
    {"patient-privacy", "npp", "59284-0", "57016-8", "INFA", "INFAO", "INFASO", "IDSCL", "IRDSCL", "EMRGONLY"}
)
_OTHER = frozenset({"adr", "treatment", "acd", "dnr", "hcd", "polst", "emrgonly", "ICOL"})
_NARROWING = (
    "actor",
    "action",
    "data",
    "class",
    "documentType",
    "resourceType",
    "code",
    "securityLabel",
    "dataPeriod",
    "expression",
)
_TIME = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2})(?:T(\d{2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?(Z|[+-]\d{2}:\d{2})?)?)?)?")
_UNKNOWN_ZONE = dt.timedelta(hours=14)  # the widest offset in use


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentRecord:
    """What one Consent says, before time and settings are asked.

    Attributes:
        patient: the reference to the patient as it stands, or None.
        scope: what the consent is about.
        active: it is in force by its status.
        disputed: its status is ``rejected``, or no status that FHIR knows.
        content: ``in`` or ``out`` where it says so without condition, else ``unclear``.
        made: earliest and latest moment at which it can have been made, in UTC; None where it does not say.
        begins: first moment of its period.
        ends: last moment of its period.
    """

    patient: str | None
    scope: Scope
    active: bool
    disputed: bool
    content: Literal["in", "out", "unclear"]
    made: tuple[dt.datetime, dt.datetime] | None
    begins: dt.datetime | None
    ends: dt.datetime | None

    def says(self, *, at: dt.datetime) -> Decision:
        """What it decides at a moment: ``in`` only where it is clear and in force."""
        if self.disputed or self.content != "in":
            return "out"
        if (self.begins is not None and at < self.begins) or (self.ends is not None and at > self.ends):
            return "out"
        return "in"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentPolicy:
    """Whom to leave out.

    Attributes:
        mode: ``ignore`` reads no Consent; ``exclude-opt-out`` leaves out who opted out; ``require-opt-in`` leaves out
            whoever has not clearly agreed to research.
        privacy_opt_out: a refusal of general scope (patient-privacy) counts too.
        at: the moment at which consents must be in force; now, where left out.
    """

    mode: ConsentMode = "exclude-opt-out"
    privacy_opt_out: bool = True
    at: dt.datetime | None = None

    def __post_init__(self) -> None:
        if self.mode not in CONSENT_MODES:
            raise ConfigError(f"consent must be one of {', '.join(CONSENT_MODES)}, not {self.mode!r}")

    def keeps(self, records: Sequence[ConsentRecord]) -> bool:
        """Whether a patient with these consents stays.

        The latest of each scope wins. Of consents that cannot be put in order, one that says out is enough.
        """
        if self.mode == "ignore":
            return True
        at = self.at or dt.datetime.now(dt.UTC)
        in_force = [record for record in records if record.active or record.disputed]
        research = _decided((r for r in in_force if r.scope == "research"), at=at)
        open_scope = _latest([record for record in in_force if record.scope in ("research", "unknown")])
        if any(record.scope == "unknown" and record.says(at=at) == "out" for record in open_scope):
            return False
        if self.privacy_opt_out and _decided((r for r in in_force if r.scope == "privacy"), at=at) == "out":
            return False
        return research != "out" if self.mode == "exclude-opt-out" else research == "in"


def _decided(records: Iterable[ConsentRecord], *, at: dt.datetime) -> Decision | None:
    latest = _latest(list(records))
    if not latest:
        return None
    return "out" if any(record.says(at=at) == "out" for record in latest) else "in"


def _latest(records: Sequence[ConsentRecord]) -> list[ConsentRecord]:
    """Those that no other was certainly made after."""
    return [
        record
        for record in records
        if record.made is None
        or not any(other.made is not None and other.made[0] > record.made[1] for other in records)
    ]


def consent_record(resource: Mapping[str, Any]) -> ConsentRecord:
    """Read an R4, R4B or R5 Consent. Whatever has not the shape that FHIR gives it makes the consent unclear."""
    provision = resource.get("provision")
    rules = provision if isinstance(provision, list) else [provision] if isinstance(provision, dict) else []
    shaped = provision is None or (isinstance(provision, dict | list) and all(isinstance(rule, dict) for rule in rules))
    rules = [rule for rule in rules if isinstance(rule, dict)]
    period = resource.get("period")
    if isinstance(provision, dict) and provision.get("period") is not None:
        period = provision["period"]
    begins, ends, timed = _period(period)
    status = resource.get("status")
    made = resource.get("dateTime", resource.get("date"))
    content = _content(resource, rules) if shaped and timed else "unclear"
    who = resource.get("patient", resource.get("subject"))
    return ConsentRecord(
        patient=_reference(who),
        scope=_scope(resource, rules),
        active=status == "active",
        disputed=status not in ("active", "inactive", "draft", "proposed", "entered-in-error", "not-done"),
        content=content,
        made=_moment(made) if isinstance(made, str) else None,
        begins=begins,
        ends=ends,
    )


def _content(resource: Mapping[str, Any], rules: Sequence[Mapping[str, Any]]) -> Literal["in", "out", "unclear"]:
    policies = set(_codes(resource.get("policyRule"))) | set(_codes(resource.get("policyBasis")))
    said = {resource.get("decision")} if resource.get("decision") is not None else set()
    if not isinstance(
        resource.get("provision"), list
    ):  # R4: the root provision decides; R5's provisions are exceptions
        said |= {rule["type"] for rule in rules if rule.get("type") is not None}
    if "deny" in said or policies & {"OPTOUT", "OPTOUTE"}:
        return "out"
    narrowed = any(rule.get("provision") or any(rule.get(key) for key in _NARROWING) for rule in rules)
    if isinstance(resource.get("provision"), list) and rules:
        narrowed = True
    purposes = {code for rule in rules for code in _codes(rule.get("purpose"))}
    if narrowed or resource.get("modifierExtension") or not purposes <= _RESEARCH_PURPOSES:
        return "unclear"
    if said == {"permit"} or (not said and "OPTIN" in policies and policies <= {"OPTIN"}):
        return "in"
    return "unclear"


def _scope(resource: Mapping[str, Any], rules: Sequence[Mapping[str, Any]]) -> Scope:
    if any(code in _RESEARCH_PURPOSES for rule in rules for code in _codes(rule.get("purpose"))):
        return "research"
    scope = set(_codes(resource.get("scope")))
    category = set(_codes(resource.get("category")))
    for codes in (scope, category):
        if codes & _RESEARCH or "RESEARCH" in codes:
            return "research"
    for codes in (scope, category):
        if codes & _PRIVACY:
            return "privacy"
        if codes & _OTHER:
            return "other"
    return "unknown"


def _codes(concept: Any) -> list[str]:
    """All codes in a CodeableConcept, a Coding, or a list of them."""
    if isinstance(concept, list):
        return [code for one in concept for code in _codes(one)]
    if not isinstance(concept, dict):
        return []
    coding = concept.get("coding")
    found = [code for one in coding for code in _codes(one)] if isinstance(coding, list) else []
    return [*found, concept["code"]] if isinstance(concept.get("code"), str) else found


def _reference(who: Any) -> str | None:
    if not isinstance(who, dict):
        return None
    reference = who.get("reference")
    if isinstance(reference, str):
        return reference
    identifier = who.get("identifier")
    if isinstance(identifier, dict) and isinstance(identifier.get("value"), str):
        return f"Patient?identifier={identifier.get('system') or ''}|{identifier['value']}"
    return None


def _period(period: Any) -> tuple[dt.datetime | None, dt.datetime | None, bool]:
    """First and last moment of a period, and whether it could be read."""
    if period is None:
        return None, None, True
    if not isinstance(period, dict):
        return None, None, False
    start, end = period.get("start"), period.get("end")
    first = _moment(start) if isinstance(start, str) else None
    last = _moment(end) if isinstance(end, str) else None
    readable = (start is None or first is not None) and (end is None or last is not None)
    return first[0] if first else None, last[1] if last else None, readable


def _moment(text: str) -> tuple[dt.datetime, dt.datetime] | None:
    """Earliest and latest moment in UTC that a FHIR date or time can mean, None if it is none."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, zone = match.groups()
    try:
        first = dt.datetime(
            int(year),
            int(month or 1),
            int(day or 1),
            int(hour or 0),
            int(minute or 0),
            min(int(second or 0), 59),
            tzinfo=dt.UTC,
        )
        last = first
        if hour is None:
            last_day = int(day) if day else calendar.monthrange(int(year), int(month or 12))[1]
            last = dt.datetime(int(year), int(month or 12), last_day, 23, 59, 59, tzinfo=dt.UTC)
        if zone is None:
            return first - _UNKNOWN_ZONE, last + _UNKNOWN_ZONE
        offset = dt.timedelta(0) if zone == "Z" else _offset(zone)
        return first - offset, last - offset
    except (ValueError, OverflowError):
        return None


def _offset(zone: str) -> dt.timedelta:
    size = dt.timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6]))
    return -size if zone[0] == "-" else size
