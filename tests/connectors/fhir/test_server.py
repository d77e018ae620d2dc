from __future__ import annotations

import base64
import gzip
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from made_records import bundle, condition, encounter, patient, tables_of

from synthehr.cli import main
from synthehr.connectors.fhir.http import Client
from synthehr.connectors.fhir.server import download
from synthehr.connectors.fhir.sources import is_server, server_url
from synthehr.errors import ConfigError, DataError

TOKEN = "SECRET-token-4711"
TYPES = ["Condition", "Consent", "Encounter", "Patient"]
PEOPLE = [patient(f"p{at}") for at in range(5)]
CONDITIONS = [condition(f"c{at}", f"Patient/p{at}") for at in range(5)]

Reply = tuple[int, dict[str, str], bytes]


class Fhir:
    """A FHIR server on this machine that misbehaves as its tests tell it to."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.tokens: list[str | None] = []
        self.replies: dict[str, Callable[[int], Reply | None]] = {}
        self.version = "4.0.1"
        fhir = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                fhir.answer(self)

            def do_POST(self) -> None:
                fhir.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.base = f"http://127.0.0.1:{self._server.server_port}/base"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def uri(self) -> str:
        return f"fhir+{self.base}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        path = parts.path.removeprefix("/base")
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        self.asked[path] += 1
        if path != "/metadata":
            self.tokens.append(request.headers.get("Authorization"))
        self.form = parse_qs(body.decode())
        special = self.replies.get(path)
        reply = special(self.asked[path]) if special is not None else None
        if reply is None:
            reply = self.plainly(path, parse_qs(parts.query))
        status, headers, content = reply
        if status == 0:  # a broken line: less than was promised
            request.send_response(200)
            request.send_header("Content-Length", str(len(content) + 100))
            request.end_headers()
            request.wfile.write(content)
            request.close_connection = True
            return
        request.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)

    def plainly(self, path: str, query: dict[str, list[str]]) -> Reply:
        if path == "/metadata":
            return 200, {}, json.dumps({"resourceType": "CapabilityStatement", "fhirVersion": self.version}).encode()
        kept = {"/Patient": PEOPLE, "/Condition": CONDITIONS, "/Encounter": []}.get(path)
        if kept is None:
            return 404, {}, b"no such type"
        start = int(query.get("from", ["0"])[0])
        page = bundle(*kept[start : start + 2]) | {"type": "searchset"}
        page["link"] = [{"relation": "self", "url": "x"}]
        if start + 2 < len(kept):
            page["link"].append({"relation": "next", "url": f"{self.base}{path}?from={start + 2}"})
        return 200, {"Content-Type": "application/fhir+json"}, json.dumps(page, indent=1).encode()


@pytest.fixture
def fhir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fhir]:
    monkeypatch.setenv("SYNTHEHR_FHIR_TOKEN", TOKEN)
    server = Fhir()
    yield server
    server.close()


class Clock:
    """Time that passes at once and is written down."""

    def __init__(self) -> None:
        self.waited: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.waited.append(seconds)


def fetch(
    fhir: Fhir, folder: Path, *, uri: str | None = None, clock: Clock | None = None, env: Any = None
) -> list[str]:
    environment = {"SYNTHEHR_FHIR_TOKEN": TOKEN} if env is None else env
    listing = download(uri or fhir.uri, into=folder, types=TYPES, environment=environment, sleep=clock or Clock())
    return [file.path.name for file in listing.files]


def test_a_server_is_read_page_by_page(fhir: Fhir, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = tables_of(fhir.uri)
    assert tables["patient"].height == 5
    assert tables["condition"].height == 5
    assert fhir.asked["/Patient"] == 3  # two, two and one
    assert set(fhir.tokens) == {f"Bearer {TOKEN}"}


def test_types_that_the_server_does_not_keep_are_passed_over(fhir: Fhir, tmp_path: Path) -> None:
    names = fetch(fhir, tmp_path)
    assert {name.split(".")[0] for name in names} == {"Patient", "Condition", "Encounter"}


def once(*replies: Reply) -> Callable[[int], Reply | None]:
    """These replies first, and what is right after them."""
    return lambda time: replies[time - 1] if time <= len(replies) else None


def test_a_busy_server_is_asked_again_when_it_says(fhir: Fhir, tmp_path: Path) -> None:
    clock = Clock()
    fhir.replies["/Patient"] = once((429, {"Retry-After": "7"}, b""), (503, {}, TOKEN.encode()))
    fetch(fhir, tmp_path, clock=clock)
    assert clock.waited == [7.0, 1.0]
    assert fhir.asked["/Patient"] == 5


def test_retry_after_may_be_a_date_and_is_never_waited_for_long(fhir: Fhir, tmp_path: Path) -> None:
    clock = Clock()
    fhir.replies["/Patient"] = once(
        (503, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, b""), (503, {"Retry-After": "86400"}, b"")
    )
    fetch(fhir, tmp_path, clock=clock)
    assert clock.waited == [0.0, 300.0]


def test_a_dropped_connection_is_taken_up_again(fhir: Fhir, tmp_path: Path) -> None:
    clock = Clock()
    fhir.replies["/Condition"] = once((0, {}, b'{"resourceType": "Bu'), (0, {}, b""))
    names = fetch(fhir, tmp_path, clock=clock)
    assert clock.waited == [0.5, 1.0]
    assert sum(name.startswith("Condition") for name in names) == 3


def test_a_server_that_stays_busy_or_away_ends_in_one_line(fhir: Fhir, tmp_path: Path) -> None:
    fhir.replies["/Patient"] = lambda _: (503, {}, b"")
    with pytest.raises(DataError, match=r"Patient, page 1: the FHIR server answers 503: try again later"):
        fetch(fhir, tmp_path)
    fhir.close()
    with pytest.raises(DataError, match="the connection to the FHIR server breaks: try again later"):
        fetch(fhir, tmp_path)


def linked(url: str) -> bytes:
    """A page that leads on."""
    return json.dumps({"resourceType": "Bundle", "link": [{"relation": "next", "url": url}]}).encode()


BAD_ANSWERS = {
    "refused": ((401, {}, b""), "answers 401: set SYNTHEHR_FHIR_TOKEN"),
    "forbidden": ((403, {}, b""), "answers 403: the token does not allow this"),
    "no bundle": ((200, {}, b"<html>"), "is no Bundle"),
    "leads to another server": (
        (200, {}, linked("https://evil.example/x")),
        "leads to another server, which gets no token",
    ),
    "redirects to another server": (
        (302, {"Location": "http://localhost:9/x"}, b""),
        "redirects to an address that is not https",
    ),
    "leads in a circle": ((200, {}, linked("Patient?_count=500")), "lead in a circle"),
}


@pytest.mark.parametrize(("reply", "message"), BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_answers_that_cannot_be_used_end_in_one_line_without_the_token(
    reply: Reply, message: str, fhir: Fhir, tmp_path: Path
) -> None:
    fhir.replies["/Patient"] = lambda _: reply
    with pytest.raises(DataError, match=message) as told:
        fetch(fhir, tmp_path)
    assert TOKEN not in str(told.value)


def test_an_older_fhir_is_refused(fhir: Fhir, tmp_path: Path) -> None:
    fhir.version = "3.0.2"
    with pytest.raises(DataError, match=r"speaks FHIR 3\.0\.2: R4, R4B and R5 are read"):
        fetch(fhir, tmp_path)


class Export:
    """A bulk export that is ready at the third look."""

    def __init__(self, fhir: Fhir, *, missing: bool = False, packed: bool = False) -> None:
        people = "".join(json.dumps(one) + "\n" for one in PEOPLE).encode()
        conditions = "".join(json.dumps(one) + "\n" for one in CONDITIONS).encode()
        self.output = [
            {"type": "Patient", "url": f"{fhir.base}/file/1"},
            {"type": "Condition", "url": f"{fhir.base}/file/2"},
            {"type": "Claim", "url": f"{fhir.base}/file/3"},
        ]
        self.more: dict[str, Any] = {}
        content = {"Content-Encoding": "gzip"} if packed else {}
        fhir.replies |= {
            "/$export": lambda _: (202, {"Content-Location": f"{fhir.base}/status"}, b""),
            "/status": lambda time: (202, {"Retry-After": "3"}, b"") if time < 3 else self.manifest(),
            "/file/1": lambda _: (200, content, gzip.compress(people) if packed else people),
            "/file/2": lambda time: (
                (404, {}, b"") if missing else (0, {}, b"{") if time == 1 else (200, {}, conditions)
            ),
        }

    def manifest(self) -> Reply:
        whole = {"transactionTime": "x", "requiresAccessToken": True, "output": self.output, "error": []} | self.more
        return 200, {}, json.dumps(whole).encode()


@pytest.mark.parametrize("packed", [False, True])
def test_an_export_is_polled_and_its_files_are_fetched(packed: bool, fhir: Fhir, tmp_path: Path) -> None:
    Export(fhir, packed=packed)
    clock = Clock()
    names = fetch(fhir, tmp_path, uri=f"{fhir.uri}/$export", clock=clock)
    assert names == ["000001.Patient.ndjson.gz" if packed else "000001.Patient.ndjson", "000002.Condition.ndjson"]
    assert clock.waited == [3.0, 3.0, 0.5]  # two looks too early, one dropped connection
    assert fhir.asked["/file/3"] == 0  # nobody reads claims
    tables = tables_of(tmp_path)
    assert (tables["patient"].height, tables["condition"].height) == (5, 5)


def test_an_export_that_lacks_a_file_ends_in_one_line(fhir: Fhir, tmp_path: Path) -> None:
    Export(fhir, missing=True)
    with pytest.raises(DataError, match=r"the export's file 2 of 3 \(Condition\): the FHIR server no longer has it"):
        fetch(fhir, tmp_path, uri=f"{fhir.uri}/$export")


WRONG_MANIFESTS: dict[str, tuple[dict[str, Any], str]] = {
    "errors": ({"error": [{"type": "OperationOutcome", "url": "x"}]}, "reports errors"),
    "no output": ({"output": None}, "lists no output"),
    "damaged": ({"output": [{"type": "Patient"}]}, "is damaged"),
    "another server": (
        {"output": [{"type": "Patient", "url": "https://storage.example/1"}]},
        "goes to the FHIR server alone",
    ),
    "not https": (
        {"requiresAccessToken": False, "output": [{"type": "Patient", "url": "http://storage.example/1"}]},
        "not https",
    ),
    "nothing of use": ({"output": [{"type": "Claim", "url": "x"}]}, "none of the resources"),
}


@pytest.mark.parametrize(("more", "message"), WRONG_MANIFESTS.values(), ids=WRONG_MANIFESTS)
def test_a_manifest_that_cannot_be_used_is_refused(
    more: dict[str, Any], message: str, fhir: Fhir, tmp_path: Path
) -> None:
    Export(fhir).more = more
    with pytest.raises(DataError, match=message):
        fetch(fhir, tmp_path, uri=f"{fhir.uri}/$export")


def test_a_server_without_export_says_so(fhir: Fhir, tmp_path: Path) -> None:
    fhir.replies["/$export"] = lambda _: (200, {}, b"{}")
    with pytest.raises(DataError, match=r"did not start one: does it support \$export"):
        fetch(fhir, tmp_path, uri=f"{fhir.uri}/$export")


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_a_backend_service_buys_a_token_with_a_signed_assertion(kind: str, fhir: Fhir, tmp_path: Path) -> None:
    crypto = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

    key = crypto.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP384R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    bought: list[dict[str, list[str]]] = []

    def sell(_: int) -> Reply:
        bought.append(fhir.form)
        return 200, {}, json.dumps({"access_token": f"bought-{len(bought)}", "expires_in": 300}).encode()

    fhir.replies["/token"] = sell
    configuration = json.dumps({"token_endpoint": f"{fhir.base}/token"}).encode()
    fhir.replies["/.well-known/smart-configuration"] = lambda _: (200, {}, configuration)
    fhir.replies["/Patient"] = once((401, {}, b""))  # the first token is refused, and another is bought
    environment = {
        "SYNTHEHR_FHIR_CLIENT_ID": "me",
        "SYNTHEHR_FHIR_KEY_FILE": str(tmp_path / "key.pem"),
        "SYNTHEHR_FHIR_KEY_ID": "k1",
    }
    into = tmp_path / "into"
    into.mkdir()
    fetch(fhir, into, env=environment)
    assert fhir.tokens[-1] == "Bearer bought-2"
    form = bought[0]
    assert form["grant_type"] == ["client_credentials"]
    head, claims, signature = form["client_assertion"][0].split(".")

    def decoded(part: str) -> bytes:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))

    assert json.loads(decoded(head)) == {"alg": "RS384" if kind == "rsa" else "ES384", "typ": "JWT", "kid": "k1"}
    told = json.loads(decoded(claims))
    assert (told["iss"], told["sub"], told["aud"]) == ("me", "me", f"{fhir.base}/token")
    assert 0 < told["exp"] - told["iat"] <= 300
    raw, signed = decoded(signature), f"{head}.{claims}".encode()
    if kind == "rsa":
        key.public_key().verify(raw, signed, padding.PKCS1v15(), hashes.SHA384())
    else:
        r, s = int.from_bytes(raw[:48], "big"), int.from_bytes(raw[48:], "big")
        key.public_key().verify(utils.encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA384()))


SERVICE = {"SYNTHEHR_FHIR_CLIENT_ID": "me", "SYNTHEHR_FHIR_KEY_FILE": "/nowhere"}
WRONG_SETTINGS: dict[str, tuple[dict[str, str], str]] = {
    "two ways": ({"SYNTHEHR_FHIR_TOKEN": TOKEN, "SYNTHEHR_FHIR_CLIENT_ID": "me"}, "exclude each other"),
    "half of a service": ({"SYNTHEHR_FHIR_CLIENT_ID": "me"}, "go together"),
    "a token of two lines": ({"SYNTHEHR_FHIR_TOKEN": f"{TOKEN}\r\nX: y"}, "is no bearer token"),
    "no key": (SERVICE | {"SYNTHEHR_FHIR_TOKEN_URL": "https://x"}, "must name a private key"),
    "nobody tells where": (SERVICE, "does not tell its token endpoint"),
}


@pytest.mark.parametrize(("environment", "message"), WRONG_SETTINGS.values(), ids=WRONG_SETTINGS)
def test_settings_that_contradict_each_other_are_refused_without_the_token(
    environment: dict[str, str], message: str, fhir: Fhir, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message) as told:
        fetch(fhir, tmp_path, env=environment)
    assert TOKEN not in str(told.value)


@pytest.mark.parametrize("base", ["http://fhir.example/base", "https://me:secret@fhir.example", "ftp://x", "https://"])
def test_a_server_is_asked_over_https_alone_but_on_this_machine(base: str) -> None:
    with pytest.raises(ConfigError, match="FHIR server") as told:
        Client(base)
    assert "secret" not in str(told.value)


def test_a_uri_survives_being_taken_for_a_path() -> None:
    assert is_server(Path("fhir+https://server/base"))
    assert server_url(Path("fhir+https://server/base/$export")) == "https://server/base/$export"
    assert not is_server("https://server/base")


@pytest.mark.parametrize("status", [200, 403, 500])
def test_the_command_never_prints_the_token(
    status: int, fhir: Fhir, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("synthehr.connectors.fhir.http._TRIES", 2)
    monkeypatch.setenv("SYNTHEHR_TRACEBACK", "1")
    if status != 200:
        fhir.replies["/Patient"] = lambda _: (status, {"X-Echo": TOKEN}, TOKEN.encode())
    code = main(["convert", fhir.uri, "-o", str(tmp_path / "out"), "-v", "--json", "--processes", "1"])
    told = "".join(capfd.readouterr())
    assert code == (0 if status == 200 else 3)
    assert TOKEN not in told
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in data for data in written)
    assert encounter()["id"] == "e"
