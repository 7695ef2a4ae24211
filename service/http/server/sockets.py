"""Opens the sockets that the service listens on."""

import errno
import os
import socket

from structlog.typing import FilteringBoundLogger

from service.http.server.mllp import tls_context
from service.settings import Settings

_BACKLOG = 2048


class ListenError(Exception):
    """The service cannot listen on an address or port. The text names the setting to change."""


class PortInUseError(ListenError):
    """Another process uses the port."""


def listen(settings: Settings) -> socket.socket:
    """Opens the socket of the service. Raises ListenError."""
    return _listen(settings.host, settings.port, "M3H_HOST", "M3H_PORT")


def listen_for_admin(settings: Settings, log: FilteringBoundLogger) -> socket.socket:
    """Opens the socket of /admin. Raises ListenError.

    If the default port is in use, a free port replaces it, so that a second service on the same
    machine needs only another `M3H_PORT`. A port that was set is never replaced.
    """
    names = "M3H_ADMIN_HOST", "M3H_ADMIN_PORT"
    try:
        return _listen(settings.admin_host, settings.admin_port, *names)
    except PortInUseError as error:
        if "admin_port" in settings.model_fields_set:
            raise
        log.warning("admin port replaced by a free one", reason=str(error))
    return _listen(settings.admin_host, 0, *names)


def listen_for_mllp(settings: Settings) -> socket.socket | None:
    """Opens the socket of MLLP; None without M3H_MLLP_PORT. Raises ListenError."""
    if settings.mllp_port is None:
        return None
    if settings.mllp_client_ca is not None and settings.mllp_certificate is None:
        raise ListenError("M3H_MLLP_CLIENT_CA needs M3H_MLLP_CERTIFICATE")
    try:
        tls_context(settings)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        names = "M3H_MLLP_CERTIFICATE, M3H_MLLP_CLIENT_CA"
        raise ListenError(f"a file of {names} cannot be read: {reason}") from None
    return _listen(settings.mllp_host, settings.mllp_port, "M3H_MLLP_HOST", "M3H_MLLP_PORT")


def _listen(host: str, port: int, host_name: str, port_name: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        number = error.errno or 0 if isinstance(error, OSError) else -1
        if number < 0:  # an error of the resolver
            raise ListenError(f"{host_name} cannot be resolved to an address") from None
        if number == errno.EADDRINUSE:
            raise PortInUseError(f"port {port} is in use; set {port_name}") from None
        if number == errno.EACCES:
            raise ListenError(
                f"this process may not listen on port {port}; set {port_name} to 1024 or above"
            ) from None
        if number == errno.EADDRNOTAVAIL:
            raise ListenError(f"{host_name} is not an address of this machine") from None
        reason = os.strerror(number)
        raise ListenError(f"cannot listen: {reason}; see {host_name} and {port_name}") from None
