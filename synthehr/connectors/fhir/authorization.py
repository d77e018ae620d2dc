"""How a request proves who asks: a bearer token, or SMART backend services, both from the environment.

Nothing here ever puts a token or a key into a message.
"""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson

from synthehr.errors import ConfigError, DataError

__all__ = ["Authorization", "BackendService", "Bearer", "Nobody", "authorization_from"]

TOKEN = "SYNTHEHR_FHIR_TOKEN"  # noqa: S105 - the name of a variable
CLIENT, KEY_FILE, KEY_ID = "SYNTHEHR_FHIR_CLIENT_ID", "SYNTHEHR_FHIR_KEY_FILE", "SYNTHEHR_FHIR_KEY_ID"
TOKEN_URL, SCOPE = "SYNTHEHR_FHIR_TOKEN_URL", "SYNTHEHR_FHIR_SCOPE"
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_EARLY = 30.0  # seconds before its end at which a token is replaced

Post = Callable[[str, bytes], bytes]


@dataclass(frozen=True, slots=True)
class Nobody:
    """No authorization."""

    def header(self) -> str | None:
        """What the Authorization header says: nothing."""
        return None

    def refuse(self) -> bool:
        """Told that the server refused; whether it is worth another try."""
        return False


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token that was handed out before."""

    token: str = field(repr=False)

    def header(self) -> str | None:
        """What the Authorization header says."""
        return f"Bearer {self.token}"

    def refuse(self) -> bool:
        """Told that the server refused; whether it is worth another try."""
        return False


@dataclass(slots=True)
class BackendService:
    """SMART backend services: a token bought with a signed assertion, renewed before it ends.

    Source: HL7 SMART App Launch 2.2, Backend Services; assertions are signed with RS384 or ES384.
    """

    client: str
    key: Any = field(repr=False)
    key_id: str | None
    token_url: str
    scope: str
    post: Post = field(repr=False)
    _token: str | None = field(default=None, repr=False)
    _until: float = 0.0

    def header(self) -> str | None:
        """What the Authorization header says; asks for a token where there is none that holds."""
        if self._token is None or time.monotonic() > self._until:
            self._renew()
        return f"Bearer {self._token}"

    def refuse(self) -> bool:
        """Told that the server refused; whether it is worth another try, with a new token."""
        had = self._token is not None
        self._token = None
        return had

    def _renew(self) -> None:
        form = {
            "grant_type": "client_credentials",
            "scope": self.scope,
            "client_assertion_type": _ASSERTION,
            "client_assertion": self._assertion(),
        }
        try:
            answer = orjson.loads(self.post(self.token_url, urlencode(form).encode()))
            token, lasts = answer["access_token"], float(answer.get("expires_in", 300))
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError):
            raise DataError("the authorization server gave no access token: check client, key and scope") from None
        if not isinstance(token, str) or not token:
            raise DataError("the authorization server gave no access token: check client, key and scope")
        self._token = token
        self._until = time.monotonic() + max(0.0, lasts - _EARLY)

    def _assertion(self) -> str:
        from cryptography.hazmat.primitives.asymmetric import ec

        now = int(time.time())
        elliptic = isinstance(self.key, ec.EllipticCurvePrivateKey)
        header = {"alg": "ES384" if elliptic else "RS384", "typ": "JWT"} | ({"kid": self.key_id} if self.key_id else {})
        claims = {
            "iss": self.client,
            "sub": self.client,
            "aud": self.token_url,
            "exp": now + 240,
            "iat": now,
            "jti": str(uuid.uuid4()),
        }
        signed = f"{_encoded(orjson.dumps(header))}.{_encoded(orjson.dumps(claims))}"
        return f"{signed}.{_encoded(_signature(self.key, signed.encode()))}"


Authorization = Nobody | Bearer | BackendService


def authorization_from(
    environment: Mapping[str, str], *, find_token_url: Callable[[], str | None], post: Post
) -> Authorization:
    """The authorization that the environment asks for.

    ``SYNTHEHR_FHIR_TOKEN`` is a bearer token. ``SYNTHEHR_FHIR_CLIENT_ID`` with ``SYNTHEHR_FHIR_KEY_FILE`` (a private
    key, PEM) is a SMART backend service; ``_KEY_ID``, ``_TOKEN_URL`` and ``_SCOPE`` are optional.

    Args:
        environment: where to look.
        find_token_url: asks the server for its token endpoint.
        post: sends a form and gives the answer.

    Raises:
        ConfigError: the variables contradict each other, the key cannot be read, or nobody knows the token endpoint.
    """
    token, client, key_file = environment.get(TOKEN), environment.get(CLIENT), environment.get(KEY_FILE)
    if token and (client or key_file):
        raise ConfigError(f"{TOKEN} and {CLIENT} exclude each other: unset one")
    if token:
        if not token.isascii() or not token.isprintable() or " " in token:
            raise ConfigError(f"{TOKEN} is no bearer token: it must be printable characters without spaces")
        return Bearer(token)
    if not client and not key_file:
        return Nobody()
    if not client or not key_file:
        raise ConfigError(f"{CLIENT} and {KEY_FILE} go together: set both")
    token_url = environment.get(TOKEN_URL) or find_token_url()
    if token_url is None:
        raise ConfigError(f"the server does not tell its token endpoint: set {TOKEN_URL}")
    return BackendService(
        client=client,
        key=_private_key(Path(key_file)),
        key_id=environment.get(KEY_ID),
        token_url=token_url,
        scope=environment.get(SCOPE) or "system/*.read",
        post=post,
    )


def _private_key(path: Path) -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ec, rsa
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError:
        raise ConfigError(
            "SMART backend services need the package cryptography: pip install 'synthehr[smart]'"
        ) from None
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        raise ConfigError(f"{KEY_FILE} must name a private key in PEM form, without a password") from None
    fits = isinstance(key, rsa.RSAPrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1)
    )
    if not fits:
        raise ConfigError(f"{KEY_FILE} must hold an RSA key or one on the curve P-384")
    return key


def _signature(key: Any, signed: bytes) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA384())))
        return r.to_bytes(48, "big") + s.to_bytes(48, "big")
    signature: bytes = key.sign(signed, padding.PKCS1v15(), hashes.SHA384())
    return signature


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
