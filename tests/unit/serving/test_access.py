"""Every op against every role, and the ways a table can be wrong."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import ConfigError, Unauthorized
from edged.protocol.messages import OPS
from edged.serving.access import OPEN_OPS, Right, groups_of, make_access, needed_right

DAEMON, ADA, CAM, OPS_USER, GUEST = 900, 1000, 1001, 1002, 1003
CAMERAS, OPERATORS = 50, 60
NAMES = {"ada": ADA, "ops": OPS_USER}
GROUPS = {"cameras": CAMERAS, "operators": OPERATORS}
TABLE = {
    "*": ["chat"],
    "ada": ["chat", "infer"],
    "@cameras": ["infer"],
    "@operators": ["chat", "admin"],
}
ACCESS = make_access(TABLE, own_uid=DAEMON, uid_of=NAMES.__getitem__, gid_of=GROUPS.__getitem__)

ROLES = {
    "root": (0, [0], set(Right)),
    "daemon": (DAEMON, [900], set(Right)),
    "ada": (ADA, [1000], {Right.CHAT, Right.INFER}),
    "camera": (CAM, [1001, CAMERAS], {Right.INFER}),
    "operator": (OPS_USER, [1002, OPERATORS], {Right.CHAT, Right.ADMIN}),
    "camera and operator": (OPS_USER, [CAMERAS, OPERATORS], {Right.CHAT, Right.INFER, Right.ADMIN}),
    "guest": (GUEST, [1003], {Right.CHAT}),
    "unknown": (-1, [OPERATORS], {Right.CHAT}),
}
ALL_OPS = sorted({*OPS, "infer", "embed", "load", "unload", "update.check", "update.apply", "update.status"})


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("op", ALL_OPS)
def test_every_op_against_every_role(op: str, role: str) -> None:
    uid, gids, rights = ROLES[role]
    assert ACCESS.rights(uid, gids) == rights
    needed = needed_right(op)
    if needed is None or needed in rights:
        ACCESS.check(op, uid, gids)
    else:
        with pytest.raises(Unauthorized, match=needed.value):
            ACCESS.check(op, uid, gids)


def test_model_and_update_ops_are_for_admins_and_so_is_an_op_nobody_thought_of() -> None:
    for op in ("load", "unload", "update.check", "update.apply", "format.disk"):
        assert needed_right(op) is Right.ADMIN
    assert {"ping", "hello"} <= OPEN_OPS


@given(uid=st.integers(max_value=-1), gids=st.lists(st.integers(0, 100)))
def test_a_client_that_the_kernel_does_not_name_is_never_admin(uid: int, gids: list[int]) -> None:
    assert Right.ADMIN not in ACCESS.rights(uid, gids)


@given(uid=st.integers(1, 2000).filter(lambda uid: uid != DAEMON), gids=st.lists(st.integers(0, 100)))
def test_nobody_is_admin_whom_no_line_names(uid: int, gids: list[int]) -> None:
    if Right.ADMIN in ACCESS.rights(uid, gids):
        assert OPERATORS in gids


def test_without_a_table_all_may_ask_and_only_root_and_the_daemon_rule() -> None:
    access = make_access({}, own_uid=DAEMON)
    assert access.rights(GUEST, []) == {Right.CHAT, Right.INFER}
    assert access.rights(0, []) == access.rights(DAEMON, []) == set(Right)


def test_everybody_can_be_shut_out() -> None:
    access = make_access({"*": [], "1000": ["chat"]}, own_uid=DAEMON)
    assert access.rights(GUEST, []) == set()
    assert access.rights(ADA, []) == {Right.CHAT}


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"nobody-of-that-name": ["chat"]}, "nobody-of-that-name: no such user"),
        ({"@nogroup-of-that-name": ["chat"]}, "no such group"),
        ({"*": ["admin"]}, "cannot be admin"),
        ({"root": ["fly"]}, "no right 'fly'; there are: chat, infer, admin"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(table: dict[str, list[str]], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        make_access(table, own_uid=DAEMON)


def test_groups_of_a_real_user_hold_its_own_and_of_a_nameless_one_only_the_connections() -> None:
    assert os.getgid() in groups_of(os.getuid(), os.getgid())
    assert groups_of(4_000_000_000, 7) == {7}
