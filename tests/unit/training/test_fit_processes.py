"""Training in separate processes: one that is killed, and two that train one model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import torch
from safetensors.torch import load_file

from streamer.model.repository import write
from streamer.training import checkpoint
from streamer.training.fit import Where, fit
from streamer.training.processes import joined
from tests.toy import FEW, QUIET, SPEC, TRAINING, VALIDATION, fitted


def main(folder: Path, task: str) -> None:
    """The program of the processes below."""
    with joined() as processes:
        if task == "dies":
            checkpoint_of, saved = checkpoint.save, 0

            def save_then_die(path: Path, checkpoint: checkpoint.Checkpoint) -> None:
                nonlocal saved
                checkpoint_of(path, checkpoint)
                saved += 1
                if saved == 1:
                    os.kill(os.getpid(), signal.SIGKILL)

            checkpoint.save = save_then_die
        where = Where(folder, task == "resumes", torch.device("cpu"), processes)
        done = fit(folder, SPEC, TRAINING, VALIDATION, FEW, QUIET, where)
        if processes.first:
            write(folder, done.module, done.tokenizer, {})
        state = {name: value.double().sum().item() for name, value in done.module.state_dict().items()}
        (folder / f"rank-{processes.rank}.json").write_text(json.dumps([state, msgspec.to_builtins(done.epochs)]))


def run(folder: Path, task: str, *before: str) -> int:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, *before, __file__, str(folder), task]
    return subprocess.run(command, env=environment, timeout=120, check=False, capture_output=True).returncode


def test_a_run_that_was_killed_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    assert run(tmp_path, "dies") == -signal.SIGKILL
    assert not (tmp_path / "weights.safetensors").exists()
    resumed = fitted(tmp_path, run_dir=tmp_path, resume=True)
    for name, weight in fitted(tmp_path).module.state_dict().items():
        assert torch.equal(resumed.module.state_dict()[name], weight), name


def test_two_processes_train_one_model_on_halves_of_the_data(tmp_path: Path) -> None:
    assert run(tmp_path, "trains", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2") == 0
    one, two = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2))
    assert one == two
    assert one[1][-1]["validation_loss"] < one[1][0]["validation_loss"]
    assert load_file(tmp_path / "weights.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
