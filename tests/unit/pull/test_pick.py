"""The shipped catalog, and which variant of a model a box gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.errors import OwnerError
from edged.hardware.budget import Reserve
from edged.hardware.memory import MemoryReading
from edged.pull.pick import Pick, pick
from edged.store.catalog import Catalog, read_catalog

GIB = 2**30
RESERVE = Reserve(512 * 2**20, 0.10)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return read_catalog()


def choose(catalog: Catalog, *, total_gib: float = 8, model: str = "phi3.5-mini", gpu: str = "", **wish: str) -> Pick:
    reading = MemoryReading(int(total_gib * GIB), int(total_gib * GIB * 0.8), "given")
    return pick(
        catalog.find(model), {"cpu": "", "cuda": gpu or "not installed"} | _works(gpu), reading, RESERVE, **wish
    )


def _works(gpu: str) -> dict[str, str]:
    return {"cuda": ""} if gpu == "works" else {}


def test_the_model_that_nano_names_is_there_under_all_its_names(catalog: Catalog) -> None:
    assert catalog.find("phi3.5-mini") is catalog.find("Phi-3.5-Mini") is catalog.find("phi3.5")
    with pytest.raises(OwnerError, match=r"knows no model 'gpt9'; it knows phi3.5-mini"):
        catalog.find("gpt9")


def test_the_provider_that_works_decides(catalog: Catalog) -> None:
    plain = choose(catalog)
    assert (plain.variant.name, plain.provider) == ("cpu-int4", "cpu")
    assert plain.passed_over == (("cuda-int4", "cuda: not installed"),)
    fast = choose(catalog, gpu="works")
    assert (fast.variant.name, fast.provider) == ("cuda-int4", "cuda")
    assert fast.passed_over == (("cpu-int4", "cpu comes after cuda"),)


def test_the_owners_wish_goes_first(catalog: Catalog) -> None:
    assert choose(catalog, provider="openvino-cpu").variant.name == "cpu-int4"
    assert choose(catalog, variant="cuda-int4").provider == "cuda"
    with pytest.raises(OwnerError, match=r"no variant of phi3.5-mini runs here.*not for webgpu"):
        choose(catalog, provider="webgpu")
    with pytest.raises(OwnerError, match=r"has no variant 'fp16'; it has cpu-int4, cuda-int4"):
        choose(catalog, variant="fp16")
    with pytest.raises(OwnerError, match=r"cannot be pulled: no public int4 ONNX build is known"):
        choose(catalog, model="phi3.5-moe")


@pytest.mark.parametrize(
    ("model", "total_gib", "fits"),
    [("phi3.5-mini", 8, True), ("phi3.5-mini", 4, False), ("phi4", 24, True), ("phi4", 8, False)],
)
def test_memory_is_judged_by_weights_kv_and_reserve(catalog: Catalog, model: str, total_gib: float, fits: bool) -> None:
    fit = choose(catalog, model=model, total_gib=total_gib).fit
    variant = catalog.find(model).variant[0]
    assert fit.need_bytes == int(variant.about_bytes * 1.25) + fit.tokens * variant.kv_bytes_per_token + RESERVE.of(
        int(total_gib * GIB)
    )
    assert fit.fits is fits


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('licence = "MIT"', "licence = 5"), "licence"),
        (('"cpu-int4"', '"cpu/../int4"'), "pattern"),
        (("17edb15f4132f4b7e85b1cfe2570ee00b0cc4de7", "17edb15"), "revision"),
        (("microsoft/Phi-3.5-mini-instruct-onnx", "https://example.org/x"), "repo"),
        (('folder = "cuda/', 'folder = "../'), "folder"),
        (('aliases = ["phi-4"]', 'aliases = ["phi4-mini"]'), "given twice"),
        (("schema = 1", "schema = 2"), "schema"),
        (("[[model]]", "[[model]"), "not valid TOML"),
        (("about_mb = 2785", 'about_mb = 2785\nsha1 = "x"'), "sha1"),
    ],
)
def test_a_catalog_of_another_shape_is_refused(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    text = (Path(__file__).parents[3] / "models" / "catalog.toml").read_text()
    assert change[0] in text
    spoiled = tmp_path / "catalog.toml"
    spoiled.write_text(text.replace(*change, 1))
    with pytest.raises(OwnerError, match=said):
        read_catalog(spoiled)
