"""One HTTP/1.1 connection: uvicorn's httptools protocol with limits of size and of time.

A client that sends too much, too slowly, or does not read its answer costs bounded memory for a
bounded time. A connection has one request at a time: what is pipelined behind it waits unparsed,
and nothing more is read. Checks that need a clock are made by `HttpServer`, which calls `check`.
"""

import asyncio
import math
import urllib.parse
import uuid
from collections.abc import Iterable
from typing import Any, Literal

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from service.http import problems
from service.http.allowed_hosts import AllowedHosts
from service.http.problems import Refused
from service.http.server.refused_connections import Reason, Refusals
from service.settings import Settings

MAX_TARGET_BYTES = 8 * 2**10
MAX_HEADERS = 100
LINGER_SECONDS = 2.0  # in which a client can still read why it was refused
GRACE_SECONDS = 1.0  # in which a new connection is not closed to make room for another one
STEP_BYTES = 64 * 2**10  # of an answer that a client must read in each M3H_WRITE_SECONDS
ALWAYS_ANSWERED = ("/health/live", "/health/ready")  # also beyond M3H_MAX_CONNECTIONS
_END = b"\r\n\r\n"
_UNUSED = (b"upgrade", b"http2-settings")  # of an upgrade that is not taken

# silent: nothing was ever sent. idle: between two requests. unread: answered before its body came.
State = Literal["silent", "idle", "head", "body", "answering", "unread", "closing"]


class Connection(HttpToolsProtocol):
    """`over_limit`: only health probes are answered."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        settings: Settings,
        hosts: AllowedHosts,
        refusals: Refusals,
        over_limit: bool = False,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._settings, self._hosts, self._refusals = settings, hosts, refusals
        self._over_limit = over_limit
        self._max_head_bytes = settings.max_header_bytes
        self.state: State = "silent"
        self._until = self.loop.time() + settings.head_seconds
        self._waiting = b""  # bytes of the next requests
        self._host: bytes | None = None
        self._head_bytes = 0
        self._body_left = 0  # by Content-Length
        self._drained = 0  # bytes of a body that nobody wants any more
        # Bytes received since a message began or a byte of a body came: of a head that goes on and
        # on, of chunk extensions, of trailers, of empty lines.
        self._without_progress = 0
        self._progress = False
        self._fault: tuple[Reason, Refused] | None = None
        self._unsent, self._unsent_until = 0, math.inf

    # ---- what the server asks ------------------------------------------------------------------

    def is_replaceable(self, now: float) -> bool:
        """No request is lost if the connection is closed, or none has come for a while."""
        if self.state in ("silent", "head"):
            return now - (self._until - self._settings.head_seconds) > GRACE_SECONDS
        return self.state in ("idle", "unread", "closing")

    @property
    def ends_at(self) -> float:
        """When its time is over, by the clock of the event loop."""
        return self._until

    def drop(self) -> None:
        """Makes room for another connection."""
        self.connections.discard(self)
        self.transport.abort()

    def check(self, now: float) -> None:
        """Ends what has taken too long. To be called several times a second."""
        if self._answer_not_read(now):
            self._refusals.add("answer_not_read")
            self.transport.abort()
        elif now >= self._until:
            self._time_is_over()

    def _answer_not_read(self, now: float) -> bool:
        unsent = self.transport.get_write_buffer_size()
        if not unsent:
            self._unsent_until = math.inf
        elif self._unsent_until == math.inf or self._unsent - unsent >= STEP_BYTES:
            self._unsent, self._unsent_until = unsent, now + self._settings.write_seconds
        return now >= self._unsent_until

    def _time_is_over(self) -> None:
        match self.state:
            case "head":
                self._refuse("head_too_slow", problems.too_slow("head", "M3H_HEAD_SECONDS"))
            case "body":
                self._refuse("body_too_slow", problems.too_slow("body", "M3H_BODY_SECONDS"))
            case "silent":
                self._refusals.add("head_too_slow")
                self.transport.abort()
            case "unread":
                self._refusals.add("body_too_slow")
                self.transport.abort()
            case _:
                self.transport.abort()

    # ---- bytes come ----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.state == "closing":
            return
        if self._waiting or self._is_answering():
            self._wait(self._waiting + data)
        else:
            self._parse(data)

    def _is_answering(self) -> bool:
        """A request has come in full and is not answered yet."""
        cycle = self.cycle
        return cycle is not None and not (cycle.more_body or cycle.response_complete)

    def _wait(self, data: bytes) -> None:
        self._waiting = data
        self.flow.pause_reading()

    def _parse(self, data: bytes) -> None:
        """Parses up to the end of the next message, and goes on while nothing is to be answered."""
        start, end = 0, len(data)
        while start < end:
            if self._is_answering():
                self._wait(data[start:])
                return
            stop = self._message_end(data, start)
            part = data if stop - start == end else data[start:stop]
            start = stop
            self._progress = False
            try:
                self.parser.feed_data(part)
            except httptools.HttpParserUpgrade as upgrade:
                # Only a head without its body was parsed, and what follows is the body.
                start -= len(part) - upgrade.args[0]
                self._ignore_upgrade()
            except httptools.HttpParserError as error:
                self._not_parsed(error)
            if self.state == "closing" or self.transport.is_closing():
                return
            self._without_progress = 0 if self._progress else self._without_progress + len(part)
            if self._without_progress > self._settings.max_header_bytes:
                self._refuse("headers_too_large", problems.headers_too_large(self._max_head_bytes))
                return

    def _message_end(self, data: bytes, start: int) -> int:
        """Where a message may end, so that no two are parsed at once: at most at the data's end."""
        if self._body_left:
            return min(start + self._body_left, len(data))
        found = data.find(_END, start)
        return len(data) if found < 0 else found + len(_END)

    def _ignore_upgrade(self) -> None:
        """Reads the head once more, without the upgrade (RFC 9110, section 7.8).

        The parser takes what follows an upgrade for another protocol; here none is ever taken.
        """
        lines = [b"%b %b HTTP/%b" % (self._method(), self.url, self._version())]
        for name, value in self.headers:
            if name == b"connection":
                options = [option.strip() for option in value.split(b",")]
                kept = b", ".join(option for option in options if option.lower() not in _UNUSED)
                lines.append(b"connection: " + kept)
            elif name not in _UNUSED:
                lines.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        try:
            self.parser.feed_data(b"\r\n".join(lines) + _END)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._not_parsed(error)

    def _not_parsed(self, error: Exception) -> None:
        if self._fault is None and isinstance(error, httptools.HttpParserCallbackError):
            self.logger.error("error while a request is parsed", exc_info=error.__context__)
        self._refuse(*(self._fault or ("malformed", problems.malformed())))

    def _method(self) -> bytes:
        method: bytes = self.parser.get_method()
        return method

    def _version(self) -> bytes:
        version: str = self.parser.get_http_version()
        return version.encode()

    # ---- the parser calls ----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._progress = True
        self._host, self._head_bytes, self._body_left = None, 0, 0
        if self.state != "silent":  # the first head has its time since the connection was made
            self._until = self.loop.time() + self._settings.head_seconds
        self.state = "head"

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > MAX_TARGET_BYTES:
            raise self._faulty("target_too_long", problems.target_too_long(MAX_TARGET_BYTES))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.state != "head":  # a trailer, which nobody reads
            return
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._max_head_bytes or len(self.headers) == MAX_HEADERS:
            problem = problems.headers_too_large(self._max_head_bytes)
            raise self._faulty("headers_too_large", problem)
        name = name.lower()
        if name == b"host":
            if self._host is not None:
                raise self._faulty("host", problems.invalid_host("has more than one value"))
            self._host = value
        elif name == b"content-length":
            self._body_left = int(value)
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            raise self._faulty("malformed", problems.transfer_coding())
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            if self._method() == b"CONNECT":
                raise self._faulty("malformed", problems.no_tunnel())
            return  # it is read once more, without
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise self._faulty("malformed", problems.http_version())
        try:
            target = httptools.parse_url(self.url)
            path = (target.path or b"/").decode("ascii")
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
            raise self._faulty("malformed", problems.malformed()) from None
        self._check_host(target.host, version)
        self.scope["method"] = self._method().decode("ascii")
        self.scope["http_version"] = version
        path = _without(self._settings.root_path, path)
        self.scope["path"] = urllib.parse.unquote(path) if "%" in path else path
        self.scope["raw_path"] = path.encode("ascii")
        self.scope["query_string"] = target.query or b""
        if self._over_limit and self.scope["path"] not in ALWAYS_ANSWERED:
            raise self._faulty("too_many_connections", problems.too_many_connections())
        self.state = "body"
        self._until = self.loop.time() + self._settings.body_seconds
        self._drained = 0
        self._begin(keep_alive=version != "1.0" and self.parser.should_keep_alive())

    def _check_host(self, target: bytes | None, version: str) -> None:
        """An absolute target goes before the Host header (RFC 9112, section 3.2.2)."""
        host = self._host
        if host is None and version != "1.0":
            raise self._faulty("host", problems.invalid_host("is missing"))
        if target:
            host = b"[%b]" % target if b":" in target else target
        if host is None:
            return
        try:
            allowed = self._hosts.allows(host)
        except ValueError:
            raise self._faulty("host", problems.invalid_host("is not a host name")) from None
        if not allowed:
            raise self._faulty("host", problems.host_not_allowed())

    def _begin(self, *, keep_alive: bool) -> None:
        last = self.cycle
        kind = _ExpectingCycle if self.expect_100_continue else _Cycle
        self.cycle = kind(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        if last is None or last.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:  # the end of its head and the whole of this one came at once
            self.pipeline.appendleft((self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        self._progress = True
        if self._body_left:
            self._body_left -= len(body)
        cycle = self.cycle
        if cycle.response_complete:
            self._drained += len(body)
            if self._drained > self._settings.max_body_bytes:
                self._refusals.add("body_not_read")
                self.state = "closing"
                self.transport.abort()
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        cycle = self.cycle
        cycle.more_body = False
        self._until = math.inf
        if cycle.response_complete:
            self._is_idle()
        else:
            self.state = "answering"
            cycle.message_event.set()

    # ---- an answer goes --------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        if self.cycle.more_body:
            self.state = "unread"
        else:
            self._is_idle()
        self.flow.resume_reading()
        if self._waiting:
            data, self._waiting = self._waiting, b""
            self._parse(data)

    def _is_idle(self) -> None:
        self.state = "idle"
        self._until = self.loop.time() + self.timeout_keep_alive

    def _faulty(self, reason: Reason, refused: Refused) -> Refused:
        """What is wrong with a head, to be raised through the parser."""
        self._fault = (reason, refused)
        return refused

    def _refuse(self, reason: Reason, refused: Refused) -> None:
        """Answers by a problem document in place of the app, and closes the connection."""
        self._refusals.add(reason)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:  # an earlier request, whose answer is still to come
                cycle.keep_alive = False
                self.state, self._until = "closing", math.inf
                return
            if cycle.response_started:
                self.transport.abort()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        self.state = "closing"
        self._until = self.loop.time() + LINGER_SECONDS
        self.transport.write(refusal(refused, self.server_state.default_headers, self._method()))
        # A client that is still sending would lose the answer if the connection were closed now.
        self.flow.resume_reading()
        self.transport.write_eof()


def refusal(refused: Refused, headers: Iterable[tuple[bytes, bytes]], method: bytes) -> bytes:
    """The whole answer to a request that the app never sees. `headers`: the server's own."""
    answer = problems.response(refused.problem, refused.headers)
    answer.headers["x-request-id"] = str(uuid.uuid4())
    answer.headers["connection"] = "close"
    lines = b"".join(b"%b: %b\r\n" % pair for pair in (*headers, *answer.raw_headers))
    content = b"" if method == b"HEAD" else bytes(answer.body)
    return STATUS_LINE[answer.status_code] + lines + b"\r\n" + content


class _Cycle(RequestResponseCycle):
    """A request and its answer."""

    async def send_500_response(self) -> None:
        """A problem document, as of every other error."""
        answer = problems.response(problems.unexpected(), {"Connection": "close"})
        await answer(self.scope, self.receive, self.send)  # type: ignore[arg-type]  # ASGI's types


class _ExpectingCycle(_Cycle):
    """Of a client that sends its body only when it is asked to (RFC 9110, section 10.1.1)."""

    async def send(self, message: Any) -> None:
        if self.waiting_for_100_continue:
            # It was not asked. Whether the body comes nevertheless, nobody knows.
            self.keep_alive = False
        await super().send(message)


def _without(prefix: str | None, path: str) -> str:
    """The path as if the service were at the root; one that does not begin so is left as it is."""
    if not prefix or not f"{path}/".startswith(f"{prefix}/"):
        return path
    return path[len(prefix) :] or "/"
