"""Bytes from a hub over real sockets: gone on after a cut, never taken when wrong, refused early, and a full disk."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.errors import ModelError, OwnerError, TryLater
from edged.pull.fetch import fetch, parts_of
from edged.pull.hub import Hub, Listing
from edged.store.digests import hash_file
from edged.store.durable import StoreError
from edged.update.download import Downloader
from tests.unit.pull.conftest import FOLDER, REPO, World

DATA = f"{FOLDER}/model.onnx.data"


def listing(world: World) -> tuple[Hub, Listing]:
    hub = Hub(world.hub.url)
    return hub, hub.listing(REPO, "main", FOLDER)


def ranges(world: World) -> list[str]:
    return [asked for _, path, asked in world.hub.asked if path.endswith("model.onnx.data") and asked]


def test_every_byte_arrives_and_what_is_no_model_does_not(world: World, tmp_path: Path) -> None:
    hub, listed = listing(world)
    assert parts_of(listed).left_out == ("configuration_phi3.py",)
    digests = fetch(hub, listed, tmp_path / "aside")
    expected = {path.name: hash_file(path) for path in world.source.iterdir() if path.suffix != ".py"}
    assert digests == expected
    assert {path.name: hash_file(path) for path in (tmp_path / "aside").iterdir()} == expected
    assert not any("configuration_phi3" in path for _, path, _ in world.hub.asked)


def test_a_cut_line_goes_on_where_it_was(world: World, tmp_path: Path) -> None:
    world.hub.cut_after, world.hub.cuts_left = {DATA: 1_000_000}, 2
    hub, listed = listing(world)
    fetch(hub, listed, tmp_path / "aside", downloader=lambda source, rates: Downloader(source, rates, sleep=_no_wait))
    assert ranges(world) == ["bytes=1000000-", "bytes=1000000-", "bytes=2000000-", "bytes=2000000-"]  # hub, then CDN
    assert hash_file(tmp_path / "aside" / "model.onnx.data") == hash_file(world.source / "model.onnx.data")


def test_a_run_that_broke_off_is_gone_on_with_by_the_next(world: World, tmp_path: Path) -> None:
    world.hub.cut_after, world.hub.cuts_left = {DATA: 1_000_000}, 1
    hub, listed = listing(world)
    with pytest.raises(TryLater, match=r"goes on from there"):
        fetch(hub, listed, tmp_path / "aside", downloader=lambda source, rates: Downloader(source, rates, attempts=1))
    sent = world.hub.sent_bytes
    fetch(hub, listed, tmp_path / "aside")
    assert ranges(world) == ["bytes=1000000-"] * 2
    rest = (world.source / "model.onnx.data").stat().st_size - 1_000_000
    assert world.hub.sent_bytes - sent == rest  # and nothing else a second time


@pytest.mark.parametrize("name", ["model.onnx.data", "tokenizer.json"])
def test_wrong_bytes_are_refused_and_not_kept(world: World, tmp_path: Path, name: str) -> None:
    world.hub.spoiled = {f"{FOLDER}/{name}"}
    hub, listed = listing(world)
    with pytest.raises(OwnerError, match=f"{name}: the bytes that .* sends are not those it lists"):
        fetch(hub, listed, tmp_path / "aside")
    assert not (tmp_path / "aside" / name).exists()
    world.hub.spoiled = set()
    fetch(hub, listed, tmp_path / "aside")
    assert hash_file(tmp_path / "aside" / name) == hash_file(world.source / name)


def test_a_configuration_that_loads_code_is_refused_before_the_weights_are_fetched(
    world: World, tmp_path: Path
) -> None:
    path = world.source / "genai_config.json"
    config = json.loads(path.read_text())
    config["model"]["decoder"]["session_options"]["custom_ops_library"] = "model.onnx.data"
    path.write_text(json.dumps(config))
    hub, listed = listing(world)
    with pytest.raises(ModelError, match=r"custom_ops_library"):
        fetch(hub, listed, tmp_path / "aside")
    assert [path for _, path, _ in world.hub.asked if "resolve" in path] == [
        f"/{REPO}/resolve/{world.hub.commit}/{FOLDER}/genai_config.json"
    ]


def test_what_the_hub_says_is_told_in_plain_words(world: World) -> None:
    hub = Hub(world.hub.url)
    with pytest.raises(OwnerError, match=r"no such repository"):
        hub.listing("nobody/nothing", "main", "")
    with pytest.raises(OwnerError, match=r"has no revision dev"):
        hub.listing(REPO, "dev", FOLDER)
    with pytest.raises(OwnerError, match=r"has no folder 'nowhere'"):
        hub.listing(REPO, "main", "nowhere")
    with pytest.raises(OwnerError, match=r"no genai_config"):
        parts_of(hub.listing(REPO, "main", ""))


def test_no_answer_is_try_later_with_what_to_look_at(world: World, tmp_path: Path) -> None:
    with pytest.raises(TryLater, match=r"Is there a network.*HTTPS_PROXY.*HF_ENDPOINT.*edged import"):
        Hub("http://127.0.0.1:1").listing(REPO, "main", FOLDER)
    hub, listed = listing(world)
    world.hub.status = {"/cdn/": 503}
    with pytest.raises(TryLater, match=r"the hub says 503.*goes on from there"):
        fetch(hub, listed, tmp_path / "aside", downloader=lambda source, rates: Downloader(source, rates, attempts=1))


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(OwnerError, match=r"pip install 'edged\[pull\]'"):
        Hub("http://127.0.0.1:1")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_said_and_gone_on_with(world: World, small_disk: Path) -> None:
    hub, listed = listing(world)
    with pytest.raises(StoreError, match=r"the disk is full: free some space and run the same command again"):
        fetch(hub, listed, small_disk / "aside")
    assert not (small_disk / "aside" / "model.onnx.data").exists()
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    fetch(hub, listed, small_disk / "aside")
    assert ranges(world)[0] != "bytes=0-"
    assert hash_file(small_disk / "aside" / "model.onnx.data") == hash_file(world.source / "model.onnx.data")


def _no_wait(seconds: float) -> None:
    assert seconds > 0
