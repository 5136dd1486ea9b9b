"""One process of tests/e2e/test_trainer_processes.py: `trainer_worker.py theirs|ours|resumed FOLDER`, with torchrun's variables set."""

import json
import os
import pathlib
import sys

import torch
import transformers
from test_trainer import Data, arguments, logged

import heddle
import heddle.hf
from families import FAMILIES


def main(what, folder):
    torch.set_num_threads(1)
    settings = dict(max_steps=6, save_strategy="steps", save_steps=3, ddp_backend="gloo", eval_strategy="steps", eval_steps=3, per_device_eval_batch_size=2)
    kind = transformers.Trainer if what == "theirs" else heddle.hf.Trainer
    model, _ = FAMILIES["llama"](2, 16)
    more = {} if what == "theirs" else {"plan": heddle.Plan(zero=3, clip=0.5, seed=3)}
    one = kind(model=model, args=arguments(folder / what, **settings), train_dataset=Data(), eval_dataset=Data(rows=7), **more)
    one.train(resume_from_checkpoint=str(folder / "ours" / "checkpoint-3") if what == "resumed" else None)
    found = {key: logged(one, key) for key in ("loss", "grad_norm", "eval_loss", "learning_rate")}
    found["weights"] = {name: tensor.double().abs().sum().item() for name, tensor in model.state_dict().items()}
    (folder / f"{what}-{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
