"""Identifiers of cards that carry their tasks, so that feedback needs no memory.

A card has a UUID of version 8 (RFC 9562, section 5.8). Its 122 free bits are the number of the
group (10), which of its tasks are on the card (16), a random number (56), and a MAC of these (40).
The key depends on the task list of the bundle: an identifier of another task list is unknown.
"""

import hashlib
import hmac
import secrets
import uuid
from collections.abc import Sequence

from service.interop.cds_hooks.governance import CardContent, TaskGroup

_GROUP_BITS, _MEMBER_BITS, _RANDOM_BITS, _MAC_BITS = 10, 16, 56, 40
_LOW_BITS, _MIDDLE_BITS = 62, 12


class CardIds:
    """Makes and reads the identifiers of one task list.

    `secret`: the same for all replicas. An empty secret protects from mistakes, but not from
    forgery.
    """

    def __init__(self, groups: Sequence[TaskGroup], secret: str) -> None:
        self._groups = groups
        names = " ".join(served.task.name for group in groups for served in group.tasks)
        self._key = hashlib.sha256(f"card {secret} {names}".encode()).digest()

    def make(self, content: CardContent) -> str:
        """A new identifier of a card, or of its suggestion."""
        members = [served.task.name for served in content.group.tasks]
        mask = sum(1 << members.index(finding.name) for finding in content.findings)
        head = (content.group.number << _MEMBER_BITS) | mask
        head = (head << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
        return str(_to_uuid((head << _MAC_BITS) | self._mac(head)))

    def tasks(self, identifier: str) -> tuple[str, ...]:
        """The tasks of a card; empty if the identifier is not of this task list."""
        try:
            parsed = uuid.UUID(identifier)
        except ValueError:
            return ()
        if parsed.version != 8 or parsed.variant != uuid.RFC_4122:
            return ()
        bits = _from_uuid(parsed)
        head, mac = bits >> _MAC_BITS, bits & ((1 << _MAC_BITS) - 1)
        if not hmac.compare_digest(_bytes(mac), _bytes(self._mac(head))):
            return ()
        mask = (head >> _RANDOM_BITS) & ((1 << _MEMBER_BITS) - 1)
        number = head >> (_RANDOM_BITS + _MEMBER_BITS)
        if number >= len(self._groups):
            return ()
        members = enumerate(self._groups[number].tasks)
        return tuple(served.task.name for i, served in members if mask >> i & 1)

    def _mac(self, head: int) -> int:
        digest = hmac.digest(self._key, head.to_bytes(16), "sha256")
        return int.from_bytes(digest) >> (256 - _MAC_BITS)


def _bytes(number: int) -> bytes:
    return number.to_bytes(16)


def _to_uuid(bits: int) -> uuid.UUID:
    """Places 122 bits around the version and the variant of a UUID."""
    low = bits & ((1 << _LOW_BITS) - 1)
    middle = bits >> _LOW_BITS & ((1 << _MIDDLE_BITS) - 1)
    high = bits >> (_LOW_BITS + _MIDDLE_BITS)
    return uuid.UUID(int=high << 80 | 8 << 76 | middle << 64 | 0b10 << 62 | low)


def _from_uuid(identifier: uuid.UUID) -> int:
    number = identifier.int
    low = number & ((1 << _LOW_BITS) - 1)
    middle = number >> 64 & ((1 << _MIDDLE_BITS) - 1)
    return (number >> 80 << _MIDDLE_BITS | middle) << _LOW_BITS | low
