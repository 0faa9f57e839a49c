"""The commands around an installation, by what they would do."""

from __future__ import annotations

from edged.service.commands import after_install, after_removal, before_removal


def test_users_exist_before_anything_of_theirs_and_units_are_read_before_they_start() -> None:
    names = [" ".join(command) for command in after_install(packaged=False, changed=True, start=True)]
    assert names == [
        "systemd-sysusers edged.conf",
        "systemd-tmpfiles --create edged.conf",
        "systemctl daemon-reload",
        "systemctl enable edged.service edged-update.path edged-update.timer",
        "systemctl restart edged.service",
        "systemctl start edged-update.path edged-update.timer",
    ]


def test_an_unchanged_service_is_not_interrupted() -> None:
    assert ("systemctl", "restart", "edged.service") not in after_install(packaged=False, changed=False, start=True)


def test_the_service_starts_after_the_socket_that_is_handed_to_it() -> None:
    names = [" ".join(command) for command in after_install(packaged=True, changed=True, start=True, tcp=True)]
    order = ["systemctl stop edged.service", "systemctl restart edged-tcp.socket", "systemctl restart edged.service"]
    assert [name for name in names if name in order] == order
    unchanged = after_install(packaged=True, changed=False, start=True, tcp=True)
    assert not any(word in ("stop", "restart") for command in unchanged for word in command)
    assert before_removal(packaged=True, tcp=True) == [("systemctl", "disable", "--now", "edged-tcp.socket")]


def test_nothing_is_started_when_not_wanted() -> None:
    commands = after_install(packaged=False, changed=True, start=False)
    assert not any(word in ("enable", "start", "restart") for command in commands for word in command)


def test_the_package_keeps_its_own_units_and_users() -> None:
    assert before_removal(packaged=True) == []
    assert all("userdel" not in command for command in after_removal(packaged=True, purge=True))


def test_only_purge_takes_the_user() -> None:
    assert all("userdel" not in command for command in after_removal(packaged=False, purge=False))
    assert ("userdel", "edged") in after_removal(packaged=False, purge=True)
