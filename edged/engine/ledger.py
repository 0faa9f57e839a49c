"""The one book of KV memory: who holds how much, running or idle. Arithmetic and names only; allocates nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Entry:
    """One reservation. `owner` names it in status (`request 7`, `session chat-1`); `running` or idle."""

    owner: str
    uid: int
    tokens: int
    kv_bytes: int
    running: bool


class Ledger:
    """Owned by the scheduler. Keys are slot numbers."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self.running_bytes = 0
        self.idle_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def total_bytes(self) -> int:
        return self.running_bytes + self.idle_bytes

    def entries(self) -> list[Entry]:
        return list(self._entries.values())

    def book(self, number: int, entry: Entry) -> None:
        """Add a reservation. A number may be booked once."""
        assert number not in self._entries, f"slot {number} is booked twice"
        self._entries[number] = entry
        self._add(entry, 1)

    def change(self, number: int, *, owner: str, running: bool, uid: int | None = None) -> None:
        """The same memory changes hands: a request ends and its slot idles, or an idle slot is taken up.

        `uid` is the new holder's, when that is another.
        """
        entry = self._entries[number]
        self._add(entry, -1)
        uid = entry.uid if uid is None else uid
        self._entries[number] = entry = replace(entry, owner=owner, uid=uid, running=running)
        self._add(entry, 1)

    def release(self, number: int) -> None:
        """The memory is given back."""
        self._add(self._entries.pop(number), -1)

    def held_by(self, uid: int) -> tuple[int, int]:
        """KV bytes of one uid, running and idle."""
        mine = [entry for entry in self._entries.values() if entry.uid == uid]
        running_bytes = sum(entry.kv_bytes for entry in mine if entry.running)
        return running_bytes, sum(entry.kv_bytes for entry in mine) - running_bytes

    def _add(self, entry: Entry, sign: int) -> None:
        if entry.running:
            self.running_bytes += sign * entry.kv_bytes
        else:
            self.idle_bytes += sign * entry.kv_bytes

    def mismatch(self, live: dict[int, bool]) -> str | None:
        """Compare the book with the slots there really are (number → running). None when it balances."""
        booked = {number: entry.running for number, entry in self._entries.items()}
        if booked != live:
            return f"booked {booked}, live {live}"
        running = sum(entry.kv_bytes for entry in self._entries.values() if entry.running)
        idle = sum(entry.kv_bytes for entry in self._entries.values() if not entry.running)
        if (running, idle) != (self.running_bytes, self.idle_bytes):
            return f"sums {self.running_bytes}+{self.idle_bytes}, entries {running}+{idle}"
        return None
