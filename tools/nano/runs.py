"""A training run in a folder, taken up again where it was left; and the command line that both trainings share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from nano.optim import make_optimizers
from nano.plan import Schedule, Shape

Model = TypeVar("Model", bound=nn.Module)
Plan = TypeVar("Plan", bound=Schedule)


class Checkpointed(Generic[Model, Plan]):
    """Owns model, optimizers and the step counter of a run."""

    def __init__(self, folder: Path, seed: int, shape: Shape, schedule: Plan, model: Model) -> None:
        self.folder, self.seed, self.shape, self.schedule, self.model = folder, seed, shape, schedule, model
        self.optimizers = make_optimizers(model, schedule.matrix_lr, schedule.embedding_lr, schedule.other_lr)
        self._peaks = [[float(group["lr"]) for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.step = 0
        self.seconds = 0.0

    @property
    def checkpoint(self) -> Path:
        """Where the run is kept."""
        return self.folder / "checkpoint.pt"

    def resume(self) -> None:
        """Take up the run where its last checkpoint left it."""
        saved = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(saved["model"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step, self.seconds = saved["step"], saved["seconds"]

    def save(self) -> None:
        """Write the checkpoint, aside first."""
        states = [optimizer.state_dict() for optimizer in self.optimizers]
        content = {"model": self.model.state_dict(), "optimizers": states, "step": self.step, "seconds": self.seconds}
        aside = self.checkpoint.with_suffix(".new")
        torch.save(content | {"shape": asdict(self.shape), "seed": self.seed}, aside)
        os.replace(aside, self.checkpoint)

    def set_rates(self) -> None:
        """The learning rates of this step."""
        factor = self.schedule.factor(self.step)
        for optimizer, peaks in zip(self.optimizers, self._peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor

    def follow_gradients(self) -> None:
        """One update; the step is over."""
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1


def run_arguments(description: str) -> argparse.ArgumentParser:
    """What a training can be told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--minutes", type=float, default=30.0, help="train at most so long in this call (default 30)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--steps", type=int, help="length of the whole schedule in steps (default: that of plan.py)")
    parser.add_argument("--decay-steps", type=int, help="length of the decay at its end, trained with int4 rounding")
    parser.add_argument("--seed", type=int, default=7, help="seed of data and weights (default 7)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--no-compile", action="store_true", help="do without torch.compile (no C++ compiler needed)")
    parser.add_argument("--export", type=Path, metavar="DIR", help="do not train: write the checkpoint as ONNX to DIR")
    parser.add_argument("--precision", choices=("int4", "fp32"), default="int4", help="of the export (default int4)")
    return parser


def check_folder(arguments: argparse.Namespace) -> None:
    """Ends the program with 2 when --resume and what lies in the folder do not fit."""
    has_checkpoint = (arguments.out / "checkpoint.pt").exists()
    if arguments.resume and not has_checkpoint:
        problem = f"no checkpoint in {arguments.out}: start without --resume"
    elif arguments.export is not None and not has_checkpoint:
        problem = f"no checkpoint in {arguments.out}: train first"
    elif has_checkpoint and not arguments.resume and arguments.export is None:
        problem = f"{arguments.out} holds a run already: add --resume or choose another folder"
    else:
        return
    print(problem, file=sys.stderr)
    sys.exit(2)


def told(schedule: Plan, arguments: argparse.Namespace) -> Plan:
    """The schedule with the lengths of the command line."""
    lengths = {"steps": arguments.steps, "decay_steps": arguments.decay_steps}
    return replace(schedule, **{name: steps for name, steps in lengths.items() if steps is not None})


def carry_out(
    run: Checkpointed[Any, Any],
    arguments: argparse.Namespace,
    *,
    train: Callable[[Callable[[str], None]], bool],
    export: Callable[[Path, str], None],
) -> None:
    """Train or export as the arguments say."""
    if arguments.resume or arguments.export is not None:
        run.resume()
    if arguments.export is not None:
        export(arguments.export, arguments.precision)
        print(f"step {run.step} written to {arguments.export}")
    elif train(lambda line: print(line, flush=True)):
        print("schedule done")
    else:
        print(f"stopped at step {run.step}: go on with --resume")
