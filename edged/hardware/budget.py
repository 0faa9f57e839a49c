"""What is left for KV cache, as a sum whose every term has a name. Arithmetic only: readings come in as numbers."""

from __future__ import annotations

from dataclasses import dataclass

from edged.hardware.memory import MemoryReading

MIB = 1 << 20
LEAST_CONTEXT_TOKENS = 256  # a model that cannot even have this much KV is not worth loading


@dataclass(frozen=True)
class Reserve:
    """Memory left to the rest of the box: at least `min_bytes`, at least `share` (0-1) of what could ever be used."""

    min_bytes: int = 512 * MIB
    share: float = 0.10

    def of(self, total_bytes: int) -> int:
        return max(self.min_bytes, int(total_bytes * self.share))


@dataclass(frozen=True)
class Weights:
    """A loaded model's weights: `mapped_bytes` of file mapping, `heap_bytes` of prepacked copies."""

    mapped_bytes: int
    heap_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return self.mapped_bytes + self.heap_bytes


HEAP_PER_PACKED = 1.25
"""Heap that the CPU provider takes for each byte of packed int4 weights. Measured on x86-64 with onnxruntime 1.31: 1.23
(block size 32) and 1.10 (128) on a full-size Phi-3.5-mini; the larger, rounded up, as it is used before a load only."""


def weights_before_load(weights_bytes: int, packed_bytes: int) -> Weights:
    """What a model's weights will take on CPU: int4 ones are copied to the heap, the rest stays a file mapping."""
    return Weights(mapped_bytes=weights_bytes - packed_bytes, heap_bytes=int(packed_bytes * HEAP_PER_PACKED))


@dataclass(frozen=True)
class DevicePool:
    """Memory of a GPU. `unified` (Jetson, integrated GPUs): the machine's own memory seen twice, so not added."""

    name: str
    total_bytes: int
    free_bytes: int
    unified: bool = False


@dataclass(frozen=True)
class Term:
    """One signed term of the sum (bytes)."""

    name: str
    signed_bytes: int


@dataclass(frozen=True)
class MemoryBudget:
    """The KV budget and how it came about. `terms` add up to `kv_bytes - missing_bytes`, one of which is zero."""

    pool: str
    binding: str
    terms: tuple[Term, ...]
    kv_bytes: int
    missing_bytes: int

    @property
    def fits(self) -> bool:
        """Whether weights, activations and reserve fit at all."""
        return self.missing_bytes == 0


def kv_budget(
    reading: MemoryReading,
    *,
    weights: Weights,
    held_bytes: int = 0,
    activation_bytes: int = 0,
    others_bytes: int = 0,
    reserve: Reserve = Reserve(),
    total_ceiling_bytes: int | None = None,
    kv_ceiling_bytes: int | None = None,
    device: DevicePool | None = None,
) -> MemoryBudget:
    """How many bytes of KV cache may exist in all, in use and idle together.

    headroom + held − weights − activations − reserve − others, then lowered to the ceilings.

    `held_bytes` is what the engine has taken from the headroom already (its anonymous memory; on a GPU what it holds
    there): it is put back first, so that the sum reads the same before and after a load. Mapped weights are not part
    of it: the kernel counts them as available, and they are booked here as spent.
    `others_bytes` is what other engines on this memory have promised and not taken from the headroom yet.
    `total_ceiling_bytes` bounds weights, activations and KV together; `kv_ceiling_bytes` bounds KV alone.
    A device with memory of its own holds all of it; a unified one is the machine's pool and is not added.
    """
    own_pool = device if device and not device.unified else None
    headroom_bytes = own_pool.free_bytes if own_pool else reading.headroom_bytes
    reserve_bytes = reserve.of(own_pool.total_bytes if own_pool else reading.usable_total_bytes)
    terms = [
        Term("headroom", headroom_bytes),
        Term("held", held_bytes),
        Term("weights_mapped", -weights.mapped_bytes),
        Term("weights_heap", -weights.heap_bytes),
        Term("activations", -activation_bytes),
        Term("reserve", -reserve_bytes),
    ]
    if others_bytes:
        terms.append(Term("other_models", -others_bytes))
    binding = own_pool.name if own_pool else reading.binding
    left_bytes = sum(term.signed_bytes for term in terms)
    ceilings = [
        (
            "total_ceiling",
            None if total_ceiling_bytes is None else total_ceiling_bytes - weights.total_bytes - activation_bytes,
        ),
        ("kv_ceiling", kv_ceiling_bytes),
    ]
    for name, ceiling_bytes in ceilings:
        if ceiling_bytes is not None and ceiling_bytes < left_bytes:
            terms.append(Term(name, ceiling_bytes - left_bytes))
            left_bytes, binding = ceiling_bytes, name
    return MemoryBudget(
        pool=own_pool.name if own_pool else "host",
        binding=binding,
        terms=tuple(terms),
        kv_bytes=max(0, left_bytes),
        missing_bytes=max(0, -left_bytes),
    )
