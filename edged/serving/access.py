"""Who may do what: a table of users and groups against rights, and the right each op needs. Pure; owns nothing.

The kernel says who a client is (uid and gid of the connection); names are resolved once, when the table is made.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from edged.errors import ConfigError, Unauthorized

ROOT_UID = 0
EVERYBODY = "*"


class Right(StrEnum):
    """What can be granted. Ops that need none (ping, hello, status, models, cancel) are for all."""

    CHAT = "chat"
    INFER = "infer"
    ADMIN = "admin"


OPEN_OPS = frozenset({"hello", "ping", "status", "models", "cancel"})
_NEEDS = {
    "chat": Right.CHAT,
    "generate": Right.CHAT,
    "tokenize": Right.CHAT,
    "session.close": Right.CHAT,
    "embed": Right.INFER,
    "infer": Right.INFER,
    "load": Right.ADMIN,
    "unload": Right.ADMIN,
}


def needed_right(op: str) -> Right | None:
    """The right that `op` needs, None for one that is open. An op this table does not know is for admins."""
    if op in OPEN_OPS:
        return None
    return _NEEDS.get(op, Right.ADMIN)


@dataclass(frozen=True, slots=True)
class Access:
    """Rights by uid, by gid, and for everybody else. Whoever a line of his own names gets that line's rights, not the
    sum with the others: so a user can be given less than everybody."""

    users: Mapping[int, frozenset[Right]]
    groups: Mapping[int, frozenset[Right]]
    everybody: frozenset[Right]
    admins: frozenset[int]

    def rights(self, uid: int, gids: Iterable[int]) -> frozenset[Right]:
        """The rights of a client: its uid's line, else the sum of its groups' lines, else everybody's.

        `uid` below 0: the kernel did not say; such a client never gets more than everybody, and never admin.
        """
        if uid < 0:
            return self.everybody - {Right.ADMIN}
        if uid in self.admins:
            return frozenset(Right)
        if uid in self.users:
            return self.users[uid]
        lines = [self.groups[gid] for gid in gids if gid in self.groups]
        return frozenset().union(*lines) if lines else self.everybody

    def check(self, op: str, uid: int, gids: Iterable[int]) -> None:
        """Raises Unauthorized, saying which right is missing and who can grant it."""
        needed = needed_right(op)
        if needed is not None and needed not in self.rights(uid, gids):
            raise Unauthorized(
                f"{op} needs the right `{needed.value}`, which this user does not have; ask the box's admin"
            )


def make_access(
    table: Mapping[str, Iterable[str]],
    *,
    own_uid: int,
    uid_of: Callable[[str], int] | None = None,
    gid_of: Callable[[str], int] | None = None,
) -> Access:
    """The table from its settings: `{"ada": ["chat"], "@cameras": ["infer"], "*": []}`; `@` is a group, `*` all.

    Root and the daemon's own uid are always admins. Without a line for everybody, all who reach the socket may chat and
    infer. Raises ConfigError for a user, group or right that does not exist.
    """
    find_uid, find_gid = uid_of or _uid_of, gid_of or _gid_of
    users: dict[int, frozenset[Right]] = {}
    groups: dict[int, frozenset[Right]] = {}
    everybody = frozenset({Right.CHAT, Right.INFER})
    for who, names in table.items():
        rights = frozenset(_right(who, name) for name in names)
        try:
            if who == EVERYBODY:
                if Right.ADMIN in rights:
                    raise ConfigError("access: * cannot be admin: name the users or groups")
                everybody = rights
            elif who.startswith("@"):
                groups[find_gid(who[1:])] = rights
            else:
                users[find_uid(who)] = rights
        except KeyError:
            raise ConfigError(
                f"access: {who}: no such {'group' if who.startswith('@') else 'user'} on this box"
            ) from None
    return Access(users, groups, everybody, frozenset({ROOT_UID, own_uid}))


def groups_of(uid: int, gid: int) -> frozenset[int]:
    """Every group of a user, by the box's own files; the connection's gid alone for a uid without a name."""
    try:
        return frozenset(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
    except (KeyError, OSError):
        return frozenset({gid})


def _right(who: str, name: str) -> Right:
    try:
        return Right(name)
    except ValueError:
        known = ", ".join(right.value for right in Right)
        raise ConfigError(f"access: {who}: no right {name!r}; there are: {known}") from None


def _uid_of(name: str) -> int:
    return int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid


def _gid_of(name: str) -> int:
    return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
