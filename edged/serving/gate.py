"""What the client at the door may do: the access table and the key's rights, applied to each request.

Owns the table in force, which the owner may replace while the daemon runs.
"""

from __future__ import annotations

from collections.abc import Callable

from edged.errors import Unauthorized
from edged.protocol import messages as public
from edged.serving.access import Access, Right, groups_of, needed_right
from edged.serving.audit import Audit
from edged.serving.door import Client

READING = frozenset({"update.status"})
"""Ops of admins that change nothing."""

KeyRights = Callable[[str], frozenset[Right] | None]


class Gate:
    """`key_rights(name)` gives a key's rights, None for one that was revoked."""

    def __init__(self, access: Access, audit: Audit, key_rights: KeyRights = lambda name: None) -> None:
        self.access = access
        self._audit, self._key_rights = audit, key_rights

    def check(self, client: Client, op: str) -> None:
        """Before anything of the request but its op is looked at. Raises Unauthorized.

        An op that does not exist is left to the parser, which says which there are.
        """
        needed = needed_right(op)
        if op in public.OPS and needed is not None and needed not in self.rights(client):
            whose = f"the key {client.peer.key!r}" if client.peer.key else "this user"
            raise Unauthorized(
                f"{op} needs the right `{needed.value}`, which {whose} does not have; ask the box's admin"
            )

    def note(self, client: Client, request: public.AnyRequest) -> None:
        """Write down what only an admin may do, before it is done."""
        if needed_right(request.op) is Right.ADMIN and request.op not in READING:
            self._audit.write(request.op, client.peer, request.model_dump(exclude={"v", "id", "op"}, exclude_none=True))

    def ops(self, client: Client) -> list[str]:
        """The ops that this client may use, in the order of the protocol."""
        rights = self.rights(client)
        return [op for op in public.OPS if (needed := needed_right(op)) is None or needed in rights]

    def rights(self, client: Client) -> frozenset[Right]:
        """By its key, else by its uid and groups. The groups are looked up once for a connection."""
        if client.peer.key:
            return self._key_rights(client.peer.key) or frozenset()
        if client.groups is None:
            client.groups = groups_of(client.peer.uid, client.peer.gid) if self.access.groups else frozenset()
        return self.access.rights(client.peer.uid, client.groups)
