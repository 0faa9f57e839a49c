"""The publisher's desk: key files, and the `edged-fleet` commands typed there."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from edged.fleet.commands import app


class Desk:
    """The publisher's desk: key files, and the commands typed there."""

    def __init__(self, base: Path) -> None:
        self.base, self.repo = base, base / "fleet"
        for name in ("root1", "root2", "root3", "ada", "bob", "online"):
            self.type("key", f"{name}.pem")
        self.type(
            "create", "fleet", "--root", "root1.pub.json", "--root", "root2.pub.json", "--root", "root3.pub.json",
            "--targets", "ada.pub.json", "--targets", "bob.pub.json", "--online", "online.pub.json",
            "--key", "root1.pem", "--key", "root2.pem", "--key", "ada.pem",
        )  # fmt: skip

    def type(self, command: str, *words: str, ok: bool = True) -> str:
        files = {".pem", ".json", ".txt"}
        args = [str(self.base / word) if Path(word).suffix in files or word == "fleet" else word for word in words]
        done = CliRunner().invoke(app, [command, *args])
        assert (done.exit_code == 0) is ok, done.output
        return done.output if ok else str(done.exception)

    def publish(self) -> None:
        self.type("publish", "fleet", "--online", "online.pem")
