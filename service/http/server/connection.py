"""One HTTP/1.1 connection: uvicorn's httptools protocol with limits of size and time.

A client that sends too much, sends too slowly or does not read its response uses bounded memory
for a bounded time. A connection processes one request at a time: pipelined requests wait unparsed,
and reading is paused meanwhile. `HttpServer` calls `check` at intervals to enforce time limits.
"""

import asyncio
import math
import urllib.parse
from typing import Any, Literal

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from service.http import problems
from service.http.allowed_hosts import AllowedHosts
from service.http.probe_paths import LIVE, READY
from service.http.problems import ProblemError
from service.http.server.cycle import ContinueCycle, Cycle, raw_response
from service.http.server.refused_connections import Reason, RefusedConnections
from service.http.server.request_head import HEAD_END, strip_prefix, without_upgrade
from service.settings import Settings

MAX_TARGET_BYTES = 8 * 2**10
MAX_HEADERS = 100
LINGER_SECONDS = 2.0  # how long a refused client can still read its response
GRACE_SECONDS = 1.0  # how long a new connection is not closed in favour of another one
MIN_READ_BYTES = 64 * 2**10  # that a client must read of a response in each M3H_WRITE_SECONDS
_ALWAYS_ANSWERED = (LIVE, READY)  # even above M3H_MAX_CONNECTIONS

# silent: nothing has been received yet. idle: between two requests. unread: the response has been
# sent before the whole body was received.
State = Literal["silent", "idle", "head", "body", "answering", "unread", "closing"]


class Connection(HttpToolsProtocol):
    """One connection. `over_limit`: only health probes are answered."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        settings: Settings,
        hosts: AllowedHosts,
        refused: RefusedConnections,
        over_limit: bool = False,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._settings, self._hosts, self._refused = settings, hosts, refused
        self._over_limit = over_limit
        self._max_head_bytes = settings.max_header_bytes
        self.state: State = "silent"
        self._deadline = self.loop.time() + settings.head_seconds
        self._pipelined = b""  # unparsed bytes of the next requests
        self._host: bytes | None = None
        self._head_bytes = 0
        self._body_left = 0  # bytes, by Content-Length
        self._discarded = 0  # bytes of a body received after the response
        # Bytes received since the start of a message or the last byte of a body: long heads, chunk
        # extensions, trailers, empty lines.
        self._without_progress = 0
        self._progress = False
        self._error: tuple[Reason, ProblemError] | None = None
        self._unsent, self._write_deadline = 0, math.inf

    # ---- called by the server --------------------------------------------------------------------

    def is_replaceable(self, now: float) -> bool:
        """Whether closing the connection loses no request, or none has arrived for a while."""
        if self.state in ("silent", "head"):
            return now - (self._deadline - self._settings.head_seconds) > GRACE_SECONDS
        return self.state in ("idle", "unread", "closing")

    @property
    def deadline(self) -> float:
        """The end of its time limit, by the clock of the event loop."""
        return self._deadline

    def drop(self) -> None:
        """Closes the connection to make room for another one."""
        self.connections.discard(self)
        self.transport.abort()

    def check(self, now: float) -> None:
        """Enforces the time limits. Call it several times a second."""
        if self._is_read_too_slowly(now):
            self._refused.add("answer_not_read")
            self.transport.abort()
        elif now >= self._deadline:
            self._time_out()

    def _is_read_too_slowly(self, now: float) -> bool:
        unsent = self.transport.get_write_buffer_size()
        if not unsent:
            self._write_deadline = math.inf
        elif self._write_deadline == math.inf or self._unsent - unsent >= MIN_READ_BYTES:
            self._unsent, self._write_deadline = unsent, now + self._settings.write_seconds
        return now >= self._write_deadline

    def _time_out(self) -> None:
        match self.state:
            case "head":
                self._refuse("head_too_slow", problems.too_slow("head", "M3H_HEAD_SECONDS"))
            case "body":
                self._refuse("body_too_slow", problems.too_slow("body", "M3H_BODY_SECONDS"))
            case "silent":
                self._refused.add("head_too_slow")
                self.transport.abort()
            case "unread":
                self._refused.add("body_too_slow")
                self.transport.abort()
            case _:
                self.transport.abort()

    # ---- receiving -------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.state == "closing":
            return
        if self._pipelined or self._is_answering():
            self._pause(self._pipelined + data)
        else:
            self._parse(data)

    def _is_answering(self) -> bool:
        """Whether a request has been received in full and has no complete response yet."""
        cycle = self.cycle
        return cycle is not None and not (cycle.more_body or cycle.response_complete)

    def _pause(self, data: bytes) -> None:
        self._pipelined = data
        self.flow.pause_reading()

    def _parse(self, data: bytes) -> None:
        """Parses messages until one is complete and needs a response."""
        start, end = 0, len(data)
        while start < end:
            if self._is_answering():
                self._pause(data[start:])
                return
            stop = self._message_end(data, start)
            part = data if stop - start == end else data[start:stop]
            start = stop
            self._progress = False
            try:
                self.parser.feed_data(part)
            except httptools.HttpParserUpgrade as upgrade:
                # The parser stopped after the head. The body follows.
                start -= len(part) - upgrade.args[0]
                self._ignore_upgrade()
            except httptools.HttpParserError as error:
                self._refuse_unparsable(error)
            if self.state == "closing" or self.transport.is_closing():
                return
            self._without_progress = 0 if self._progress else self._without_progress + len(part)
            if self._without_progress > self._settings.max_header_bytes:
                self._refuse("headers_too_large", problems.headers_too_large(self._max_head_bytes))
                return

    def _message_end(self, data: bytes, start: int) -> int:
        """The earliest possible end of a message, so that no two are parsed at once."""
        if self._body_left:
            return min(start + self._body_left, len(data))
        end = data.find(HEAD_END, start)
        return len(data) if end < 0 else end + len(HEAD_END)

    def _ignore_upgrade(self) -> None:
        """Parses the head again without the upgrade.

        After an upgrade, the parser treats the body as another protocol. No upgrade is supported.
        """
        version = self.parser.get_http_version()
        head = without_upgrade(self._method(), self.url, version, self.headers)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        try:
            self.parser.feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._refuse_unparsable(error)

    def _refuse_unparsable(self, error: Exception) -> None:
        if self._error is None and isinstance(error, httptools.HttpParserCallbackError):
            self.logger.error("a request parser callback failed", exc_info=error.__context__)
        self._refuse(*(self._error or ("malformed", problems.malformed())))

    def _method(self) -> bytes:
        method: bytes = self.parser.get_method()
        return method

    # ---- parser callbacks ------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._progress = True
        self._host, self._head_bytes, self._body_left = None, 0, 0
        if self.state != "silent":  # the time limit of the first head starts with the connection
            self._deadline = self.loop.time() + self._settings.head_seconds
        self.state = "head"

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > MAX_TARGET_BYTES:
            raise self._set_error("target_too_long", problems.target_too_long(MAX_TARGET_BYTES))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.state != "head":  # trailers are ignored
            return
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._max_head_bytes or len(self.headers) == MAX_HEADERS:
            problem = problems.headers_too_large(self._max_head_bytes)
            raise self._set_error("headers_too_large", problem)
        name = name.lower()
        if name == b"host":
            if self._host is not None:
                raise self._set_error("host", problems.invalid_host("has more than one value"))
            self._host = value
        elif name == b"content-length":
            self._body_left = int(value)
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            raise self._set_error("malformed", problems.transfer_coding())
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            if self._method() == b"CONNECT":
                raise self._set_error("malformed", problems.no_tunnel())
            return  # the head is parsed again without the upgrade
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise self._set_error("malformed", problems.http_version())
        try:
            target = httptools.parse_url(self.url)
            path = (target.path or b"/").decode("ascii")
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
            raise self._set_error("malformed", problems.malformed()) from None
        self._check_host(target.host, version)
        self.scope["method"] = self._method().decode("ascii")
        self.scope["http_version"] = version
        path = strip_prefix(self._settings.root_path, path)
        self.scope["path"] = urllib.parse.unquote(path) if "%" in path else path
        self.scope["raw_path"] = path.encode("ascii")
        self.scope["query_string"] = target.query or b""
        if self._over_limit and self.scope["path"] not in _ALWAYS_ANSWERED:
            raise self._set_error("too_many_connections", problems.too_many_connections())
        self.state = "body"
        self._deadline = self.loop.time() + self._settings.body_seconds
        self._discarded = 0
        self._start_cycle(keep_alive=version != "1.0" and self.parser.should_keep_alive())

    def _check_host(self, target: bytes | None, version: str) -> None:
        """The host of an absolute target replaces the Host header (RFC 9112, section 3.2.2)."""
        host = self._host
        if host is None and version != "1.0":
            raise self._set_error("host", problems.invalid_host("is missing"))
        if target:
            host = b"[%b]" % target if b":" in target else target
        if host is None:
            return
        try:
            allowed = self._hosts.allows(host)
        except ValueError:
            raise self._set_error("host", problems.invalid_host("is not a host name")) from None
        if not allowed:
            raise self._set_error("host", problems.host_not_allowed())

    def _start_cycle(self, *, keep_alive: bool) -> None:
        previous = self.cycle
        cycle_class = ContinueCycle if self.expect_100_continue else Cycle
        self.cycle = cycle_class(
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
        if previous is None or previous.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:  # its end and all of this request arrived together
            self.pipeline.appendleft((self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        self._progress = True
        if self._body_left:
            self._body_left -= len(body)
        cycle = self.cycle
        if cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > self._settings.max_body_bytes:
                self._refused.add("body_not_read")
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
        self._deadline = math.inf
        if cycle.response_complete:
            self._set_idle()
        else:
            self.state = "answering"
            cycle.message_event.set()

    # ---- sending ---------------------------------------------------------------------------------

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
            self._set_idle()
        self.flow.resume_reading()
        if self._pipelined:
            data, self._pipelined = self._pipelined, b""
            self._parse(data)

    def _set_idle(self) -> None:
        self.state = "idle"
        self._deadline = self.loop.time() + self.timeout_keep_alive

    def _set_error(self, reason: Reason, error: ProblemError) -> ProblemError:
        """Records an error in a head. The callback raises it through the parser."""
        self._error = (reason, error)
        return error

    def _refuse(self, reason: Reason, error: ProblemError) -> None:
        """Answers with a problem document instead of the app, and closes the connection."""
        self._refused.add(reason)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:  # an earlier request has no complete response yet
                cycle.keep_alive = False
                self.state, self._deadline = "closing", math.inf
                return
            if cycle.response_started:
                self.transport.abort()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        self.state = "closing"
        self._deadline = self.loop.time() + LINGER_SECONDS
        headers = self.server_state.default_headers
        self.transport.write(raw_response(error, headers, self._method()))
        # Closing now would make a client that still sends lose the response.
        self.flow.resume_reading()
        self.transport.write_eof()
