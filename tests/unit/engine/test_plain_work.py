"""Plain models run for real, in this process: what goes in and what comes out is what the manifest says."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edged.engine.backends.ort import OrtBackend
from edged.engine.options import EngineOptions
from edged.engine.plain.batches import Batches, Limits
from edged.engine.plain.load import LoadedPlain, load_plain
from edged.errors import ModelError
from edged.protocol import engine as wire
from edged.protocol import pulse
from tests.unit.engine import plain_models
from tests.unit.engine.hostile_images import encoded

OPTIONS: dict[str, Any] = {
    "name": "test", "state_dir": "", "provider": "cpu", "strict_provider": False, "threads": 1, "max_context": 0,
    "default_max_tokens": 1, "max_queue": 100, "max_queue_per_client": 50, "max_running": 1,
    "tokens_per_minute_per_uid": 0, "kv_share_per_uid": 1.0, "max_priority": 9, "max_sessions": 1,
    "session_idle_s": 1.0, "session_reread": False, "prefix_idle_s": 1.0, "prefill_slice_ms": 350,
    "prefill_alone_ms": 350, "stream_interval_ms": 10, "kv_memory_bytes": 0, "memory_reserve_bytes": 0,
    "memory_reserve_fraction": 0.0, "load_timeout_s": 60.0, "ignore_eos": False, "log_level": "error",
    "log_format": "text",
}  # fmt: skip


class Engine:
    """A loaded model with its batches; what it says is kept by request."""

    def __init__(
        self, folder: Path, *, budget_bytes: int = 10**9, max_image_pixels: int = 10**7, **limits: Any
    ) -> None:
        options = EngineOptions(**OPTIONS, folder=str(folder), max_image_pixels=max_image_pixels)
        self.loaded: LoadedPlain = load_plain(options, pulse.PulseWriter(pulse.create()), lambda phase, **more: None)
        self.said: dict[int, wire.Result | wire.Failed] = {}
        self.batches = Batches(
            self.loaded.runner,
            self.loaded.tasks,
            Limits(**({"max_queue": 100, "max_queue_per_client": 50} | limits)),
            send=self._hear,
            budget_bytes=lambda: budget_bytes,
        )
        self._rids = itertools.count(1)

    def _hear(self, message: Any) -> None:
        assert message.rid not in self.said, "a request ends once"
        self.said[message.rid] = message

    def submit(
        self, op: str, *frames: bytes, client: bytes = b"c", deadline_s: float | None = None, **body: Any
    ) -> int:
        whole = {"image": None, "inputs": None, "top_k": None, "threshold": None, "normalize": None} | body
        rid = next(self._rids)
        self.batches.submit(wire.Start(rid, 1000, client, op, whole, time.monotonic(), deadline_s, False, frames))
        return rid

    def run(self) -> None:
        while self.batches.busy:
            self.batches.turn()
        assert self.batches.live == 0
        assert len(self.batches.ledger) == 0

    def ask(self, op: str, *frames: bytes, **body: Any) -> wire.Result:
        rid = self.submit(op, *frames, **body)
        self.run()
        said = self.said[rid]
        assert isinstance(said, wire.Result), said
        return said

    def refusal(self, op: str, *frames: bytes, **body: Any) -> wire.Failed:
        rid = self.submit(op, *frames, **body)
        self.run()
        said = self.said[rid]
        assert isinstance(said, wire.Failed), said
        return said


def tensor(array: np.ndarray, frame: int = 0) -> dict[str, Any]:
    return {"dtype": array.dtype.name, "shape": list(array.shape), "frame": frame}


def outputs_of(result: wire.Result) -> dict[str, np.ndarray]:
    return {
        name: np.frombuffer(result.frames[each["frame"]], each["dtype"]).reshape(each["shape"])
        for name, each in result.fields["outputs"].items()
    }


def test_tensors_in_and_out(tmp_path: Path) -> None:
    engine = Engine(plain_models.doubler(tmp_path))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    answer = outputs_of(engine.ask("infer", x.tobytes(), inputs={"x": tensor(x)}))
    assert np.array_equal(answer["y"], 2 * x)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, "inputs.x: missing; the model wants float32 [batch, 3]"),
        ({"x": {"dtype": "int8", "shape": [2, 3], "frame": 0}}, "dtype int8"),
        ({"x": {"dtype": "float32", "shape": [2, 4], "frame": 0}}, "shape [2, 4]"),
        ({"x": {"dtype": "float32", "shape": [3, 3], "frame": 0}}, "has 24 bytes; 36 belong"),
        ({"x": {"dtype": "float32", "shape": [2, 3], "frame": 0}, "z": {}}, "inputs.z: the model has no such input"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(tmp_path: Path, inputs: dict[str, Any], says: str) -> None:
    engine = Engine(plain_models.doubler(tmp_path))
    failed = engine.refusal("infer", bytes(24), inputs=inputs or {"": {}})
    assert failed.code == "invalid_request"
    assert says in failed.message or not inputs


def test_an_image_becomes_labels(tmp_path: Path) -> None:
    engine = Engine(plain_models.mean_colour(tmp_path))
    image = encoded(Image.new("RGB", (40, 30), (10, 250, 60)), "PNG")
    fields = engine.ask("infer", image, image=0).fields
    assert [each["label"] for each in fields["labels"]] == ["green", "blue", "red"]
    assert fields["labels"][0]["score"] == pytest.approx(250 / 255, abs=1e-6)
    assert fields["image"] == {"width": 40, "height": 30}
    some = engine.ask("infer", image, image=0, top_k=2, threshold=0.5).fields
    assert [each["index"] for each in some["labels"]] == [1]


def test_colours_normalisation_and_order(tmp_path: Path) -> None:
    red = encoded(Image.new("RGB", (8, 8), (255, 0, 0)), "PNG")
    folder = plain_models.mean_colour(tmp_path)
    text = '[image]\nsize = [4, 4]\ncolour = "bgr"\nscale = 1.0\nmean = [1, 2, 3]\nstd = [2, 2, 4]\n'
    (folder / "edged.toml").write_text(text)
    scores = outputs_of(Engine(folder).ask("infer", red, image=0))["scores"]
    assert scores.tolist() == [[-0.5, -1.0, 63.0]]
    (folder / "edged.toml").write_text('[image]\nsize = [4, 4]\ninvert = "if_background_is_light"\n')
    bright = encoded(Image.new("RGB", (8, 8), (255, 255, 200)), "PNG")
    scores = outputs_of(Engine(folder).ask("infer", bright, image=0))["scores"][0]
    assert scores == pytest.approx([0, 0, 55 / 255], abs=1e-6)


def test_crop_takes_the_middle_and_pad_keeps_all(tmp_path: Path) -> None:
    image = Image.new("RGB", (120, 40), "blue")
    image.paste("red", (40, 0, 80, 40))
    wide = encoded(image, "PNG")
    folder = plain_models.mean_colour(tmp_path)
    for fit, wanted in (("crop", [1.0, 0.0, 0.0]), ("stretch", [0.33, 0.0, 0.67])):
        (folder / "edged.toml").write_text(f'[image]\nsize = [4, 4]\nfit = "{fit}"\nresample = "box"\n')
        scores = outputs_of(Engine(folder).ask("infer", wide, image=0))["scores"][0]
        assert scores == pytest.approx(wanted, abs=0.01)
    (folder / "edged.toml").write_text('[image]\nsize = [4, 4]\nfit = "pad"\npad_value = 255\nresample = "box"\n')
    scores = outputs_of(Engine(folder).ask("infer", wide, image=0))["scores"][0]
    assert scores == pytest.approx([0.75 + 0.25 / 3, 0.75, 0.75 + 0.5 / 3], abs=0.03)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_boxes_in_pixels_of_the_image_as_it_was_sent(tmp_path: Path, form: str) -> None:
    engine = Engine(plain_models.four_boxes(tmp_path))
    image = encoded(Image.new("RGB", (1000, 500)), form)  # in the model's 100 x 100: 100 x 50, 25 from the top
    boxes = engine.ask("infer", image, image=0).fields["boxes"]
    assert [(box["label"], box["score"]) for box in boxes] == [("a", 0.9), ("b", 0.7)]  # one of the two that overlap
    assert boxes[0]["box"] == pytest.approx([200, 0, 400, 150], abs=1)  # y 20..40 → -5..15 → cut at the edge
    assert boxes[1]["box"] == pytest.approx([500, 250, 900, 450], abs=1)
    assert len(engine.ask("infer", image, image=0, threshold=0.05).fields["boxes"]) == 3


def test_what_arrives_together_runs_together_and_each_gets_its_own(tmp_path: Path) -> None:
    engine = Engine(plain_models.mean_colour(tmp_path, more="\n"))
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)] * 4
    images = [encoded(Image.new("RGB", (8, 8), colour), "PNG") for colour in colours]
    rids = [engine.submit("infer", data, image=0, client=b"%d" % (at % 3)) for at, data in enumerate(images)]
    engine.run()
    for at, rid in enumerate(rids):
        fields = engine.said[rid].fields  # type: ignore[union-attr]
        assert fields["labels"][0]["index"] == at % 3
        assert fields["batch"] == 12
    assert engine.loaded.runner.runs == 1


def test_one_bad_image_among_good_ones_fails_alone(tmp_path: Path) -> None:
    engine = Engine(plain_models.mean_colour(tmp_path))
    good = encoded(Image.new("RGB", (8, 8), "red"), "PNG")
    cut = encoded(Image.new("RGB", (64, 64), "red"), "JPEG")[:-30]
    rids = [engine.submit("infer", data, image=0) for data in (good, cut, b"no image", good)]
    engine.run()
    assert [type(engine.said[rid]).__name__ for rid in rids] == ["Result", "Failed", "Failed", "Result"]


def test_a_graph_for_exactly_one_row_or_four_is_served(tmp_path: Path) -> None:
    red = encoded(Image.new("RGB", (8, 8), "red"), "PNG")
    for rows in (1, 4):
        engine = Engine(plain_models.mean_colour(tmp_path / str(rows), batch=rows))
        rids = [engine.submit("infer", red, image=0) for _ in range(6)]
        engine.run()
        assert all(engine.said[rid].fields["labels"][0]["label"] == "red" for rid in rids)  # type: ignore[union-attr]
        assert engine.loaded.runner.runs == (6 if rows == 1 else 2)


def test_tensors_run_together_only_where_the_manifest_says_so(tmp_path: Path) -> None:
    x = np.ones((2, 3), np.float32)
    for more, runs in (("", 3), ("batch_tensors = true\n", 1)):
        engine = Engine(plain_models.doubler(tmp_path / str(runs), more))
        rids = [engine.submit("infer", (x * at).tobytes(), inputs={"x": tensor(x)}) for at in range(3)]
        engine.run()
        for at, rid in enumerate(rids):
            said = engine.said[rid]
            assert isinstance(said, wire.Result)
            assert np.array_equal(outputs_of(said)["y"], 2 * at * x)
        assert engine.loaded.runner.runs == runs


def test_clients_take_turns(tmp_path: Path) -> None:
    engine = Engine(plain_models.mean_colour(tmp_path, batch=1))
    red = encoded(Image.new("RGB", (8, 8), "red"), "PNG")
    many = [engine.submit("infer", red, image=0, client=b"greedy") for _ in range(5)]
    late = engine.submit("infer", red, image=0, client=b"modest")
    engine.run()
    order = list(engine.said)
    assert order.index(late) == 1
    assert [rid for rid in order if rid != late] == many


def test_queue_memory_and_deadline_are_limits(tmp_path: Path) -> None:
    folder = plain_models.mean_colour(tmp_path)
    photo = encoded(Image.effect_noise((900, 900), 90).convert("RGB"), "PNG")
    engine = Engine(folder, max_queue=3, max_queue_per_client=2)
    engine.submit("infer", photo, image=0), engine.submit("infer", photo, image=0)
    assert engine.said == {}
    third = engine.submit("infer", photo, image=0)
    assert engine.said[third].code == "busy"  # type: ignore[union-attr]
    engine.submit("infer", photo, image=0, client=b"other")
    assert engine.said[engine.submit("infer", photo, image=0, client=b"third")].code == "busy"  # type: ignore[union-attr]
    engine.run()
    small = Engine(folder, budget_bytes=4_000_000)  # holds the file, not the decoded picture
    assert small.refusal("infer", photo, image=0).code == "busy"
    tiny = Engine(folder, max_image_pixels=1000)
    assert tiny.refusal("infer", photo, image=0).code == "too_large"
    late = small.submit("infer", photo, image=0, deadline_s=time.monotonic() - 1)
    small.run()
    assert small.said[late].code == "deadline_exceeded"  # type: ignore[union-attr]


def test_cancelled_and_gone(tmp_path: Path) -> None:
    engine = Engine(plain_models.doubler(tmp_path))
    x = np.ones((1, 3), np.float32)
    cancelled, gone = (engine.submit("infer", x.tobytes(), inputs={"x": tensor(x)}) for _ in range(2))
    engine.batches.stop(cancelled, "cancelled")
    engine.batches.stop(gone, "gone")
    engine.run()
    assert engine.said[cancelled].code == "cancelled"  # type: ignore[union-attr]
    assert gone not in engine.said


def test_after_a_crash_each_runs_alone_for_a_while(tmp_path: Path) -> None:
    engine = Engine(plain_models.mean_colour(tmp_path), careful=True)
    red = encoded(Image.new("RGB", (8, 8), "red"), "PNG")
    for _ in range(3):
        engine.submit("infer", red, image=0)
    engine.run()
    assert engine.loaded.runner.runs == 3


def test_labels_that_are_not_as_many_as_the_scores(tmp_path: Path) -> None:
    folder = plain_models.mean_colour(tmp_path)
    (folder / "edged.toml").write_text('[image]\nsize = [4, 4]\n[classify]\nlabels = ["a", "b"]\n')
    with pytest.raises(ModelError, match="2 of them, but the model gives 3"):
        Engine(folder)


def test_a_run_is_ended_at_its_limit(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    from edged.errors import DeadlineExceeded
    from edged.hardware.trial_messages import CPU
    from edged.hardware.tune import Setting

    nodes = [helper.make_node("MatMul", ["x", "x"], ["y0"])]
    nodes += [helper.make_node("MatMul", [f"y{at}", "x"], [f"y{at + 1}"]) for at in range(400)]
    shape = [1200, 1200]
    folder = plain_models.write(
        tmp_path, nodes, [("x", TensorProto.FLOAT, shape)], [("y400", TensorProto.FLOAT, shape)], ""
    )
    backend = OrtBackend(folder, "model.onnx", CPU, Setting("cpu", threads=1), strict=False)
    with pytest.raises(DeadlineExceeded):
        backend.run({"x": np.zeros(shape, np.float32)}, limit_s=0.05)


# ---- texts


def vector_of(result: wire.Result) -> np.ndarray:
    return np.frombuffer(result.frames[0], np.float32).reshape(result.fields["shape"])


def test_texts_become_the_mean_of_their_words(tmp_path: Path) -> None:
    table = plain_models.word_vectors()
    engine = Engine(plain_models.embedder(tmp_path))
    answer = engine.ask("embed", input=["the pump is hot", "Fan", "the unheard word"], normalize=False)
    assert answer.fields["tokens"] == 8
    expected = [table[[7, 2, 4, 5]].mean(axis=0), table[3], table[[7, 1, 1]].mean(axis=0)]
    assert vector_of(answer) == pytest.approx(np.array(expected), abs=1e-6)
    one = vector_of(engine.ask("embed", input="the pump is hot"))
    assert np.linalg.norm(one) == pytest.approx(1.0, abs=1e-6)
    assert one[0] == pytest.approx(expected[0] / np.linalg.norm(expected[0]), abs=1e-6)


def test_the_same_vector_alone_and_in_company(tmp_path: Path) -> None:
    engine = Engine(plain_models.embedder(tmp_path, "max_tokens = 5\n"))
    alone = vector_of(engine.ask("embed", input="the pump is hot"))
    rids = [engine.submit("embed", input=text, client=b"%d" % len(text)) for text in ("the pump is hot", "cold " * 50)]
    engine.run()
    said = engine.said[rids[0]]
    assert isinstance(said, wire.Result)
    assert np.array_equal(vector_of(said), alone)
    assert engine.said[rids[1]].fields["tokens"] == 5  # type: ignore[union-attr]  # cut at max_tokens


def test_many_texts_in_one_request_come_back_in_order(tmp_path: Path) -> None:
    table = plain_models.word_vectors()
    engine = Engine(plain_models.embedder(tmp_path, 'pooling = "cls"\nnormalize = false\n'))
    words = [plain_models.WORDS[2 + at % 6] for at in range(100)]
    vectors = vector_of(engine.ask("embed", input=words))
    assert vectors == pytest.approx(table[[plain_models.WORDS.index(word) for word in words]], abs=1e-6)


def test_other_ops_are_told_what_this_model_takes(tmp_path: Path) -> None:
    engine = Engine(plain_models.embedder(tmp_path))
    assert "takes embed or infer with inputs" in engine.refusal("infer", b"", image=0).message
    assert "takes embed" in engine.refusal("chat", messages=[]).message
