"""The server: a campaign's asks and tells as JSON over HTTP.

    GET  /status                 what the campaign is, and how far
    GET  /trials                 all trials
    POST /ask      {"n": 2, "request": "...", "worker": "..."}
    POST /tell     {"trial": 3, "result": {"yield": 0.71}, "seconds": 12.5}
    POST /abandon  {"trial": 3, "reason": "no power"}
    POST /alive    {"trials": [3, 4]}

A value may be a pair [value, standard error]. A mistake is answered by 400 and what could not be
done by 409, with {"error": text}. When a tell has been answered, it is on disk.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import secrets
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bo_surrogates import __version__
from bo_surrogates.campaign.serving.dispatcher import Dispatcher, ServerStoppingError
from bo_surrogates.errors import InputError, RunError

if TYPE_CHECKING:
    from bo_surrogates.campaign.campaign import Campaign

MAX_BODY = 4 * 2**20  # bytes
PATIENCE = 120.0  # seconds of silence after which a connection is closed


class CampaignServer:
    """Serves a campaign until it is stopped. A context manager.

        with Campaign.open("my.db") as campaign, CampaignServer(campaign) as server:
            server.serve()

    Args:
        campaign: Open for writing.
        host: Address to listen at; the default can be reached from this machine only.
        port: Port to listen at; 0: any that is free.
        token: What clients must know; None: nothing on this machine's own address, and a new
            random one elsewhere.
        ahead: See `Dispatcher`.
        silence: See `Dispatcher`.

    Attributes:
        url: Where clients find it.
        token: What they must know; None: nothing.

    Raises:
        InputError: A bad argument.
        RunError: The address cannot be listened at.
    """

    def __init__(
        self,
        campaign: Campaign,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        ahead: int = 0,
        silence: float | None = None,
    ) -> None:
        if token is not None and (not token.isascii() or len(token) < 8):
            raise InputError("a token must have at least 8 characters, all of them ASCII")
        local = _is_local(host)
        self.token = secrets.token_urlsafe(24) if token is None and not local else token
        self.dispatcher = Dispatcher(campaign, ahead=ahead, silence=silence)
        try:
            self._http = _Server((host, port), self)
        except (OSError, OverflowError) as error:
            raise RunError(
                f"cannot listen at {host}:{port}: {error}; choose another --port or --host"
            ) from error
        shown = f"[{host}]" if ":" in host else host
        if host in ("0.0.0.0", "::", ""):
            shown = socket.gethostname()
        self.url = f"http://{shown}:{self._http.server_address[1]}"

    def serve(self) -> None:
        """Answer requests until `stop` is called from another thread, or Ctrl-C is pressed."""
        self._http.serve_forever(poll_interval=0.1)

    def start(self) -> None:
        """Answer requests in a thread of its own."""
        threading.Thread(target=self.serve, name="campaign server", daemon=True).start()

    def stop(self) -> None:
        """Take no more requests, finish those under way, and stop listening."""
        self.dispatcher.close()
        self._http.shutdown()
        self._http.server_close()

    def __enter__(self) -> CampaignServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.dispatcher.close()
        self._http.server_close()


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256  # many workers may begin at once

    def __init__(self, address: tuple[str, int], server: CampaignServer) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)
        self.campaign_server = server

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nobody's mistake."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = f"bo-surrogates/{__version__}"
    timeout = PATIENCE
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not news."""

    def do_GET(self) -> None:
        """Answer a look."""
        self._answer("GET")

    def do_POST(self) -> None:
        """Answer an ask or a tell."""
        self._answer("POST")

    def _answer(self, method: str) -> None:
        try:
            body = self._body() if method == "POST" else {}
            self._check_client()
            status, answer = 200, self._route(method, urlsplit(self.path).path, body)
        except _RefusedError as refused:
            status, answer = refused.status, {"error": str(refused)}
        except InputError as error:
            status, answer = 400, {"error": str(error)}
        except ServerStoppingError as error:
            status, answer = 503, {"error": str(error)}
        except RunError as error:
            status, answer = 409, {"error": str(error)}
        except Exception as error:  # noqa: BLE001 - told to the client; the server goes on
            status, answer = 500, {"error": f"internal error: {type(error).__name__}: {error}"}
        data = json.dumps(answer, allow_nan=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _check_client(self) -> None:
        token = self.server.campaign_server.token
        if token is not None:
            given = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), token.encode()):
                raise _RefusedError(401, "the server wants its token; give it with --token")
            return
        # Without a token only this machine's own programs may come; a web page that a browser here
        # shows can send requests too, but neither under our name nor with our type of content.
        name = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        if not _is_local(name):
            raise _RefusedError(403, f"this server is known as localhost, not as {name!r}")

    def _body(self) -> dict[str, Any]:
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if not 0 <= length <= MAX_BODY:
            self.close_connection = True
            raise _RefusedError(
                413, f"a request holds a Content-Length of at most {MAX_BODY} bytes"
            )
        data = self.rfile.read(length)
        if self.headers.get_content_type() != "application/json":
            raise _RefusedError(415, "a request's Content-Type is application/json")
        try:
            body = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise InputError(f"not valid JSON: {error}") from None
        if not isinstance(body, dict):
            raise InputError("a request is a JSON object")
        return body

    def _route(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        dispatcher = self.server.campaign_server.dispatcher
        campaign = dispatcher.campaign
        if (method, path) == ("GET", "/status"):
            trials = campaign.trials
            counts = dict.fromkeys(("running", "completed", "abandoned"), 0)
            for t in trials:
                counts[t.status] = counts.get(t.status, 0) + 1
            return {
                "name": campaign.spec.name,
                "spec": campaign.spec.to_dict(),
                "spent": campaign.spent,
                "silence": dispatcher.silence,
                **counts,
            }
        if (method, path) == ("GET", "/trials"):
            return {"trials": [t.to_dict() for t in campaign.trials]}
        if (method, path) == ("POST", "/ask"):
            keys = _take(body, {"n": 1, "request": secrets.token_hex(8), "worker": "unnamed"})
            asked = dispatcher.ask(keys["n"], keys["request"], keys["worker"])
            return {"trials": [t.to_dict() for t in asked], "more": dispatcher.more}
        if (method, path) == ("POST", "/tell"):
            keys = _take(body, {"trial": ..., "result": ..., "seconds": None})
            told = dispatcher.tell(keys["trial"], keys["result"], _seconds(keys["seconds"]))
            return {"trial": told.to_dict()}
        if (method, path) == ("POST", "/abandon"):
            keys = _take(body, {"trial": ..., "reason": ..., "seconds": None})
            if not isinstance(keys["reason"], str) or not keys["reason"].strip():
                raise InputError("a reason is a text that is not empty")
            told = dispatcher.abandon(keys["trial"], keys["reason"], _seconds(keys["seconds"]))
            return {"trial": told.to_dict()}
        if (method, path) == ("POST", "/alive"):
            keys = _take(body, {"trials": ...})
            if not isinstance(keys["trials"], list):
                raise InputError("trials is a list of trials' numbers")
            dispatcher.alive(keys["trials"])
            return {}
        raise _RefusedError(
            404, f"there is no {method} {path}; see the documentation of the server"
        )


class _RefusedError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _take(body: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    """The values of a request; `...` marks those that must be there."""
    for key in body:
        if key not in keys:
            raise InputError(f"unknown key {key!r}; expected {', '.join(keys)}")
    missing = [k for k, default in keys.items() if default is ... and k not in body]
    if missing:
        raise InputError(f"key {missing[0]!r} is missing; expected {', '.join(keys)}")
    return keys | body


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise InputError(f"seconds is a number >= 0, got {value!r}")
    return float(value)
