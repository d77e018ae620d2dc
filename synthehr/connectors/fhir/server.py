"""A FHIR server as a source: its pages or its bulk export are brought into a private folder and read from there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import orjson

from synthehr.connectors.fhir.authorization import authorization_from
from synthehr.connectors.fhir.http import Client, origin_of
from synthehr.connectors.fhir.resources import is_resource_type
from synthehr.connectors.fhir.sources import InputFile, Listing, server_url
from synthehr.errors import DataError

__all__ = ["download"]

_PAGE = 500
_MOST_PAGES = 1_000_000
_EXPORT = "$export"
_FIRST_POLL = 2.0
_LONGEST_EXPORT = 24 * 3600.0
_NOT_THERE = frozenset({400, 404, 405, 410, 422})  # what servers say of a type that they do not keep


def download(
    source: str | Path,
    *,
    into: Path,
    types: Sequence[str],
    environment: Mapping[str, str] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Listing:
    """Bring the resources of these types from a server into a folder.

    Args:
        source: ``fhir+https://server/base``, read page by page; or with ``/$export``, ``/Patient/$export`` or
            ``/Group/ID/$export`` behind it, as bulk data.
        into: a private folder.
        types: the types of resources to bring.
        environment: where the token, or what buys one, is looked for; the process's own where left out.
        sleep: waits; a test gives its own.

    Raises:
        DataError: the server is not R4, R4B or R5, refuses, or lacks a file of its own export.
        ConfigError: the address or the variables are not as they must be.
    """
    url = server_url(source).rstrip("/")
    bulk = urlsplit(url).path.endswith(f"/{_EXPORT}")
    base = _base(url) if bulk else url
    client = Client(base, sleep=sleep)
    client.authorization = authorization_from(
        os.environ if environment is None else environment,
        find_token_url=lambda: _token_url(client, base),
        post=lambda address, form: client.post(address, form, what="the token endpoint"),
    )
    _check_version(client, base)
    files = _export(client, url, types=types, into=into) if bulk else _search(client, base, types=types, into=into)
    if not files:
        raise DataError("the FHIR server has none of the resources that the views read")
    return Listing(files=tuple(files))


def _base(url: str) -> str:
    """The server's base behind the address of an export."""
    base = url.removesuffix(f"/{_EXPORT}")
    parts = base.split("/")
    if parts[-1] == "Patient":
        return "/".join(parts[:-1])
    return "/".join(parts[:-2]) if len(parts) > 2 and parts[-2] == "Group" else base


def _token_url(client: Client, base: str) -> str | None:
    answer = client.get(
        f"{base}/.well-known/smart-configuration",
        what="the server's SMART configuration",
        headers={"Accept": "application/json"},
        accept=_NOT_THERE,
    )
    found = _object(answer.body).get("token_endpoint")
    return found if isinstance(found, str) else None


def _check_version(client: Client, base: str) -> None:
    refused = _NOT_THERE | {401, 403, 406, 501}
    answer = client.get(f"{base}/metadata", what="the server's capability statement", accept=refused)
    version = _object(answer.body).get("fhirVersion") if answer.status < 300 else None
    if isinstance(version, str) and not version.startswith(("4.", "5.")):
        raise DataError(f"the FHIR server speaks FHIR {version[:8]}: R4, R4B and R5 are read")


def _search(client: Client, base: str, *, types: Sequence[str], into: Path) -> list[InputFile]:
    files = []
    for kind in types:
        url: str | None = f"{base}/{kind}?{urlencode({'_count': _PAGE})}"
        seen: set[str] = set()
        while url is not None:
            number = len(seen) + 1
            what = f"{kind}, page {number}"
            answer = client.get(url, what=what, accept=_NOT_THERE if number == 1 else frozenset())
            if answer.status >= 300:
                break
            page = _object(answer.body)
            if page.get("resourceType") != "Bundle":
                raise DataError(f"{what}: the FHIR server's answer is no Bundle: check the address")
            path = into / f"{kind}.{number:06}.json"
            path.write_bytes(answer.body)
            files.append(InputFile(path=path, form="document"))
            seen.add(url)
            url = _next(page, url)
            if url in seen or number >= _MOST_PAGES:
                raise DataError(f"{what}: the FHIR server's pages lead in a circle: report it to its makers")
    return files


def _next(page: Mapping[str, Any], url: str) -> str | None:
    links = page.get("link")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("relation") == "next" and isinstance(link.get("url"), str):
            return urljoin(url, str(link["url"]))
    return None


def _export(client: Client, url: str, *, types: Sequence[str], into: Path) -> list[InputFile]:
    ask = {"Prefer": "respond-async"}
    query = urlencode({"_type": ",".join(types), "_outputFormat": "application/fhir+ndjson"})
    start = client.get(f"{url}?{query}", what="the export", headers=ask)
    status = start.headers.get("Content-Location")
    if start.status != 202 or not status:
        raise DataError("the export: the FHIR server did not start one: does it support $export?")
    manifest = _poll(client, urljoin(url, status))
    errors = manifest.get("error")
    if isinstance(errors, list) and errors:
        raise DataError("the export: the FHIR server reports errors in it: ask for another, or read page by page")
    output = manifest.get("output")
    if not isinstance(output, list):
        raise DataError("the export: its manifest lists no output: ask for another")
    token_needed = manifest.get("requiresAccessToken") is not False
    files = []
    for number, entry in enumerate(output, start=1):
        kind, address = (entry.get("type"), entry.get("url")) if isinstance(entry, dict) else (None, None)
        if not isinstance(kind, str) or not is_resource_type(kind) or not isinstance(address, str):
            raise DataError("the export: its manifest is damaged: ask for another")
        if kind not in types:
            continue
        what = f"the export's file {number} of {len(output)} ({kind})"
        here = urljoin(url, address)
        if token_needed and origin_of(here) != client.origin:
            raise DataError(f"{what}: lies on another server and needs the token, which goes to the FHIR server alone")
        files.append(_fetch(client, here, path=into / f"{number:06}.{kind}.ndjson", kind=kind, what=what))
    return files


def _poll(client: Client, status: str) -> dict[str, Any]:
    waited, pause = 0.0, _FIRST_POLL
    while waited < _LONGEST_EXPORT:
        answer = client.get(status, what="the export's status", headers={"Accept": "application/json"})
        if answer.status != 202:
            return _object(answer.body)
        seconds = answer.wait(pause)
        client.wait(seconds)
        waited += max(seconds, 0.1)
        pause = min(pause * 1.5, 60.0)
    raise DataError("the export: it is not ready after a day: ask the server's keepers")


def _fetch(client: Client, url: str, *, path: Path, kind: str, what: str) -> InputFile:
    own = origin_of(url) == client.origin
    if not own and not url.startswith("https://"):
        raise DataError(f"{what}: lies at an address that is not https: it is not fetched")
    aside = path.with_suffix(".part")
    answer = client.get(
        url,
        what=what,
        headers={"Accept": "application/fhir+ndjson"},
        into=aside,
        known=own,
        accept=frozenset({404, 410}),
    )
    if answer.status in (404, 410):
        raise DataError(f"{what}: the FHIR server no longer has it: export again")
    packed = (answer.headers.get("Content-Encoding") or "").lower() == "gzip"
    place = path.with_name(f"{path.name}.gz") if packed else path
    aside.rename(place)
    return InputFile(path=place, form="lines", type=kind)


def _object(body: bytes) -> dict[str, Any]:
    """A JSON object, empty where the body is none."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
