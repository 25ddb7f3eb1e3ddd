"""What stands before every call: who asks, from where, and how much. Plain ASGI, so that streams stay streams.

A page of somebody else can have a browser call this machine. So a host must be one of ours (a name that is rebound to
127.0.0.1 is not), an origin must be our own, and on any other address than loopback a token is asked for.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from secrets import compare_digest
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from longtake.web.refusal import Refusal
from longtake.web.settings import LOOPBACK, Settings

__all__ = ["COOKIE", "Guard", "knows"]

LOG = logging.getLogger("longtake.web")
COOKIE = "longtake_session"
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
OPEN = ("/health", "/v1/session")  # without a token; the page is, too: it asks for it
PROTECTED = ("/v1/", "/openapi.json")
UNSAFE = {"cross-site", "same-site"}  # Sec-Fetch-Site of foreign pages


class _TooLargeError(Exception):
    """More came in than was announced or is allowed."""


class Guard:
    """An application behind the checks."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers itself, or lets the application answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, begun = Headers(scope=scope), False
        origin = headers.get("origin")
        shared = origin if origin in self.settings.origins else None

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                out = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    out.setdefault(name, value)
                if shared:
                    out["access-control-allow-origin"], out["vary"] = shared, "Origin"
                    out["access-control-allow-credentials"] = "true"
                    out["cross-origin-resource-policy"] = "cross-origin"
            await send(message)

        refusal = self._refused(scope, headers)
        if refusal is None and shared and scope["method"] == "OPTIONS":
            await _reply(answer, 204, b"", {
                "access-control-allow-methods": "GET, POST, PATCH, PUT, DELETE",
                "access-control-allow-headers": "authorization, content-type, last-event-id, range",
                "access-control-max-age": "600",
            })  # fmt: skip
            return
        if refusal is None:
            refusal = self._unauthorized(scope["path"], headers)
        most = self._most(scope["path"], headers)
        if refusal is None and int(_digits(headers.get("content-length"))) > most:
            refusal = _large(most)
        if refusal:
            await _refuse(answer, refusal)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise _TooLargeError
            return message

        try:
            await self.app(scope, counted, answer)
        except _TooLargeError:
            if not begun:
                await _refuse(answer, _large(most))
        except Exception:  # whatever it is, it is answered in our shape, and stands in the log
            LOG.exception("%s %s failed", scope["method"], scope["path"])
            if begun:
                raise
            await _refuse(answer, Refusal("server_error", "the server failed at this; its log says how"))

    def _refused(self, scope: Scope, headers: Headers) -> Refusal | None:
        """Why a call from there is not served, whatever it is."""
        host = headers.get("host", "")
        if self.settings.local and _name(host) not in LOOPBACK:
            return Refusal(
                "forbidden", f"this server is http://127.0.0.1:{self.settings.port}; no other name of it is served"
            )
        origin, own = headers.get("origin"), f"{scope.get('scheme', 'http')}://{host}"
        if origin is not None:
            if origin not in (own, *self.settings.origins):
                return Refusal(
                    "forbidden", "pages of another origin are not served; longtake serve --allow-origin names one"
                )
            return None
        navigates = headers.get("sec-fetch-mode") == "navigate" and not scope["path"].startswith(PROTECTED)
        if headers.get("sec-fetch-site") in UNSAFE and not navigates:
            return Refusal("forbidden", "pages of another site are not served; longtake serve --allow-origin names one")
        return None

    def _unauthorized(self, path: str, headers: Headers) -> Refusal | None:
        token = self.settings.token
        if token is None or path in OPEN or not path.startswith(PROTECTED):
            return None
        if knows(headers, token):
            return None
        if compare_digest(_cookie(headers).encode(), self.settings.pass_cookie.encode()):
            return None
        return Refusal("unauthorized", "a token is needed: Authorization: Bearer TOKEN, as longtake serve printed it")

    def _most(self, path: str, headers: Headers) -> int:
        limits = self.settings.limits
        if path.startswith("/v1/worker/") and "/files/" in path:
            return limits.file_bytes
        if headers.get("content-type", "").startswith("multipart/form-data"):
            return max(limits.video_bytes, limits.image_bytes) + limits.body_bytes
        if path.startswith("/v1/worker/"):
            return 16 * limits.body_bytes  # plans of long videos
        return limits.body_bytes


def knows(headers: Headers, token: str) -> bool:
    """True if a call brings the token."""
    kind, _, given = headers.get("authorization", "").partition(" ")
    return kind.lower() == "bearer" and compare_digest(given.strip().encode(), token.encode())


def _large(most: int) -> Refusal:
    return Refusal("too_large", f"the body is larger than {most >> 20} MiB; files go to /v1/uploads")


def _digits(text: str | None) -> str:
    return text if text and text.isascii() and text.isdigit() else "0"


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


async def _refuse(send: Send, refusal: Refusal) -> None:
    extra = {"www-authenticate": "Bearer"} if refusal.code == "unauthorized" else {}
    await _reply(send, refusal.status, json.dumps(refusal.data).encode(), {"content-type": "application/json", **extra})


async def _reply(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    pairs.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
