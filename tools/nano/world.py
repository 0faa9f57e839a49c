"""The small world the nano model talks about: places, devices, what each device can do, and in which units."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "eval"]

PLACES: tuple[str, ...] = (
    "kitchen", "bedroom", "bathroom", "lab", "attic", "cellar", "garage", "hall", "office", "workshop", "garden",
    "greenhouse", "barn", "stable", "library", "studio", "pantry", "laundry", "lobby", "corridor", "balcony",
    "terrace", "porch", "nursery", "classroom", "warehouse", "canteen", "basement", "hangar", "depot", "shed",
    "cabin", "tower", "tunnel", "vault", "archive", "clinic", "gym", "shop", "bakery", "living room", "server room",
    "meeting room", "engine room", "control room", "cold store", "guest room",
)  # fmt: skip

# Places that have sensors: those of one word.
SENSOR_PLACES: tuple[str, ...] = tuple(place for place in PLACES if " " not in place)

# Values that make sense for each unit: the first, the last and the step between two of them.
UNIT_VALUES: dict[str, tuple[int, int, int]] = {
    "percent": (1, 100, 1),
    "degrees": (5, 95, 1),
    "rpm": (100, 3000, 50),
    "bar": (1, 16, 1),
    "watts": (50, 2500, 50),
    "minutes": (1, 90, 1),
    "seconds": (5, 90, 1),
    "hours": (1, 24, 1),
}
TIME_UNITS: tuple[str, ...] = ("minutes", "seconds", "hours")


@dataclass(frozen=True)
class Device:
    """A thing that takes commands: `verbs` are the actions without a value, `units` those its level is given in."""

    name: str
    verbs: tuple[str, ...]
    units: tuple[str, ...] = ()
    dims: bool = False


def _devices(names: str, verbs: str, units: str = "", *, dims: bool = False) -> tuple[Device, ...]:
    return tuple(
        Device(name.replace("_", " "), tuple(verbs.split()), tuple(units.split()), dims) for name in names.split()
    )


DEVICES: tuple[Device, ...] = (
    *_devices("lamp light display", "on off", "percent", dims=True),
    *_devices("fan", "on off", "percent rpm"),
    *_devices("heater", "on off", "degrees percent watts"),
    *_devices("radiator thermostat oven fridge boiler freezer air_conditioner", "on off", "degrees"),
    *_devices("humidifier dehumidifier speaker radio", "on off", "percent"),
    *_devices("charger", "on off", "watts"),
    *_devices("camera alarm siren projector printer router sprinkler", "on off"),
    *_devices("pump motor mixer conveyor", "on off start stop", "percent rpm"),
    *_devices("compressor", "on off start stop", "bar"),
    *_devices("valve vent blinds shutter curtain", "open close", "percent"),
    *_devices("door gate", "open close lock unlock"),
    *_devices("window hatch", "open close"),
    *_devices("cabinet", "lock unlock"),
)

_HELD_OUT_ONE_IN = 8


def held_out(*parts: object) -> bool:
    """True for the one combination in eight that training must never see.

    The choice depends on the parts alone (CRC-32 of their text), so that it is the same on every machine and run.
    """
    text = "|".join(str(part) for part in parts)
    return zlib.crc32(text.encode()) * 2654435761 % 2**32 >> 16 < 65536 // _HELD_OUT_ONE_IN


def belongs(split: Split, *parts: object) -> bool:
    """Whether a combination may be drawn for this split."""
    return held_out(*parts) == (split == "eval")
