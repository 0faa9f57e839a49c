"""Skill (a), commands to devices, and its second turns: each answer is exactly one JSON object.

Keys come in the order device, place, action, value, unit; those that do not apply are left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from random import Random

from nano.chat import Exchange, sentence_case
from nano.world import DEVICES, PLACES, TIME_UNITS, UNIT_VALUES, Device, Split, belongs


@dataclass(frozen=True)
class Command:
    """What a user wants done. `value` has the unit `unit`; with a time unit it is how long the action lasts."""

    device: Device
    place: str
    action: str
    value: int | None = None
    unit: str | None = None

    def to_json(self) -> str:
        """The compact JSON object that the model answers with."""
        fields: dict[str, str | int] = {"device": self.device.name, "place": self.place, "action": self.action}
        if self.value is not None and self.unit is not None:
            fields |= {"value": self.value, "unit": self.unit}
        return json.dumps(fields, separators=(",", ":"))


_VERB_PHRASES: dict[str, tuple[str, ...]] = {
    "on": ("turn on {n}", "turn {n} on", "switch on {n}", "switch {n} on", "{n} on"),
    "off": ("turn off {n}", "turn {n} off", "switch off {n}", "switch {n} off", "{n} off"),
    "start": ("start {n}", "start up {n}", "get {n} running"),
    "stop": ("stop {n}", "halt {n}", "bring {n} to a stop"),
    "open": ("open {n}", "open up {n}"),
    "close": ("close {n}", "shut {n}"),
    "lock": ("lock {n}", "lock up {n}"),
    "unlock": ("unlock {n}",),
    "set": ("set {n} to {v}", "put {n} at {v}", "change {n} to {v}", "{n} to {v}", "adjust {n} to {v}"),
    "dim": ("dim {n} to {v}",),
    "raise": ("raise {n} by {v}", "increase {n} by {v}", "turn up {n} by {v}", "turn {n} up by {v}"),
    "lower": ("lower {n} by {v}", "decrease {n} by {v}", "turn down {n} by {v}", "turn {n} down by {v}"),
}
_BEFORE = ("", "", "", "please ", "can you ", "could you ", "could you please ", "i want you to ", "hey, ")
_AFTER = ("", "", "", ".", " please", ", please", " now", "!")


def some_value(rng: Random, unit: str) -> int:
    """A value that makes sense for the unit."""
    first, last, step = UNIT_VALUES[unit]
    return rng.randrange(first, last + 1, step)


def amount_text(rng: Random, value: int, unit: str) -> str:
    """A value as people type it: "40 percent" or "40%", "1 minute" or "5 minutes"."""
    if unit == "percent" and rng.random() < 0.4:
        return f"{value}%"
    if value == 1 and unit in ("degrees", *TIME_UNITS):
        return f"1 {unit[:-1]}"
    return f"{value} {unit}"


def some_place(rng: Random, device: Device, split: Split) -> str:
    """A place whose combination with the device belongs to the split."""
    while True:
        place = rng.choice(PLACES)
        if belongs(split, device.name, place):
            return place


def some_command(rng: Random, split: Split) -> Command:
    """A command that makes sense for its device."""
    device = rng.choice(DEVICES)
    place = some_place(rng, device, split)
    if device.units and rng.random() < 0.55:
        unit = rng.choice(device.units)
        actions = ["set", "set", "set", "raise", "lower"]
        if device.dims:
            actions += ["dim", "dim"]
        return Command(device, place, rng.choice(actions), some_value(rng, unit), unit)
    verb = rng.choice(device.verbs)
    if verb in ("on", "off", "open", "close") and rng.random() < 0.3:
        unit = rng.choice(TIME_UNITS)
        return Command(device, place, verb, some_value(rng, unit), unit)
    return Command(device, place, verb)


def phrase(rng: Random, command: Command) -> str:
    """One of the many ways to say a command."""
    device, place = command.device.name, command.place
    noun = f"the {place} {device}" if rng.random() < 0.5 else f"the {device} in the {place}"
    amount = "" if command.value is None or command.unit is None else amount_text(rng, command.value, command.unit)
    text = rng.choice(_VERB_PHRASES[command.action]).format(n=noun, v=amount)
    if command.unit in TIME_UNITS:
        text += f" for {amount}"
    before, after = rng.choice(_BEFORE), rng.choice(_AFTER)
    if before.startswith(("can", "could")) and rng.random() < 0.5:
        after = "?"
    return sentence_case(rng, before + text + after)


def command_exchange(rng: Random, command: Command) -> Exchange:
    """A command and its JSON object."""
    return Exchange(phrase(rng, command), command.to_json(), f"command.{command.action}")


_OTHER_PLACE = (
    "and in the {p}?", "and in the {p}", "and the {p}?", "same for the {p}", "the same for the {p}",
    "do the same in the {p}", "also in the {p}", "same in the {p} please", "now in the {p}", "what about the {p}?",
)  # fmt: skip
_OTHER_DEVICE = ("and the {d}?", "same for the {d}", "the {d} too", "also the {d}", "now the {d}")
_REVERSE = {
    "on": "off", "off": "on", "open": "close", "close": "open",
    "lock": "unlock", "unlock": "lock", "start": "stop", "stop": "start",
}  # fmt: skip
_VERB_AGAIN: dict[str, tuple[str, ...]] = {
    "on": ("turn it on{a}", "switch it on{a}", "turn it back on"),
    "off": ("turn it off{a}", "switch it off{a}", "turn it back off"),
    "start": ("start it{a}",),
    "stop": ("stop it{a}",),
    "open": ("open it{a}",),
    "close": ("close it{a}", "shut it{a}"),
    "lock": ("lock it{a}",),
    "unlock": ("unlock it{a}",),
}
_MORE = ("make it {v} more", "{v} more", "raise it by {v}", "turn it up by {v}", "another {v} more")
_LESS = ("make it {v} less", "{v} less", "lower it by {v}", "turn it down by {v}")
_CHANGE = ("make it {v}", "make that {v}", "no, {v}", "change it to {v}", "set it to {v}", "sorry, {v}")


def _other_place(rng: Random, command: Command, split: Split) -> tuple[str, Command, str]:
    place = command.place
    while place == command.place:
        place = some_place(rng, command.device, split)
    return rng.choice(_OTHER_PLACE).format(p=place), replace(command, place=place), "place"


def _other_device(rng: Random, command: Command, split: Split) -> tuple[str, Command, str]:
    def fits(device: Device) -> bool:
        verb_fits = command.action in device.verbs or command.action not in _REVERSE
        unit_fits = command.unit is None or command.unit in TIME_UNITS or command.unit in device.units
        dims_fits = command.action != "dim" or device.dims
        return verb_fits and unit_fits and dims_fits and device != command.device

    others = [device for device in DEVICES if fits(device) and belongs(split, device.name, command.place)]
    if not others:
        return _other_place(rng, command, split)
    device = rng.choice(others)
    return rng.choice(_OTHER_DEVICE).format(d=device.name), replace(command, device=device), "device"


def _verb_again(rng: Random, command: Command) -> tuple[str, Command, str]:
    action = _REVERSE.get(command.action) or rng.choice(command.device.verbs)
    again = rng.choice(("", "", " again"))
    text = rng.choice(_VERB_AGAIN[action]).format(a=again)
    return text, Command(command.device, command.place, action), "verb"


def _level_again(rng: Random, command: Command) -> tuple[str, Command, str]:
    unit = command.unit or "percent"
    value = some_value(rng, unit)
    action, texts = rng.choice((("raise", _MORE), ("lower", _LESS), ("set", _CHANGE)))
    if action == "set" and command.action == "dim":
        action = "dim"
    amount = str(value) if rng.random() < 0.6 else amount_text(rng, value, unit)
    return rng.choice(texts).format(v=amount), replace(command, action=action, value=value, unit=unit), "level"


def follow_up(rng: Random, command: Command, split: Split) -> tuple[Exchange, Command]:
    """A second turn that leans on a command, and the command it comes to."""
    draw = rng.random()
    if draw < 0.4:
        text, after, kind = _other_place(rng, command, split)
    elif draw < 0.55:
        text, after, kind = _other_device(rng, command, split)
    elif command.unit is not None and command.unit not in TIME_UNITS:
        text, after, kind = _level_again(rng, command) if draw < 0.9 else _verb_again(rng, command)
    else:
        text, after, kind = _verb_again(rng, command)
    if not text.endswith("?"):
        text += rng.choice(("", "", ".", " please", "!"))
    return Exchange(sentence_case(rng, text), after.to_json(), f"follow_up.command.{kind}"), after
