"""heddle.hf.Trainer beside transformers.Trainer: the same arguments, the same losses."""

import json
import math

import pytest
import torch
import transformers
from families import FAMILIES
from test_muon import is_matrix, orthogonal

import heddle
import heddle.hf


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Data(torch.utils.data.Dataset):
    """Rows of random tokens, some of whose labels are ignored."""

    def __init__(self, rows=44, length=16):
        self.ids = torch.randint(3, 320, (rows, length), generator=torch.Generator().manual_seed(5))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        labels = self.ids[index].clone()
        labels[: index % 7] = -100
        return {"input_ids": self.ids[index], "labels": labels}


def arguments(folder, **changes):
    settings = dict(output_dir=str(folder), per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=10, learning_rate=1e-3, weight_decay=0.1, max_grad_norm=0.5, lr_scheduler_type="cosine",
                    warmup_steps=3, logging_steps=1, report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True, seed=3, optim="adamw_torch", dataloader_pin_memory=False)
    return transformers.TrainingArguments(**{**settings, **changes})


def trainer(kind, folder, family="llama", more=None, **changes):
    model, _ = FAMILIES[family](2, 16)
    return kind(model=model, args=arguments(folder, **changes), train_dataset=Data(), eval_dataset=Data(rows=7), **(more or {}))


def logged(one, key):
    return [line[key] for line in one.state.log_history if key in line]


# With 44 rows, batches of 2 and 4 micro-batches the last update of an epoch has fewer of them. Without the clipping that max_grad_norm asks for, or with one group for all weights, the
# comparison fails.
@pytest.mark.parametrize("family, changes", [("llama", {}), ("llama_tied", {"gradient_accumulation_steps": 4, "num_train_epochs": 2, "max_steps": -1}), ("llama", {"lr_scheduler_type": "linear", "max_grad_norm": 0.0, "adam_beta2": 0.9})])
def test_losses_are_transformers(family, changes, tmp_path):
    theirs = trainer(transformers.Trainer, tmp_path / "theirs", family, **changes)
    ours = trainer(heddle.hf.Trainer, tmp_path / "ours", family, **changes)
    theirs.train()
    ours.train()
    assert len(logged(ours, "loss")) >= 10
    assert logged(ours, "loss") == pytest.approx(logged(theirs, "loss"), abs=1e-5)
    assert logged(ours, "learning_rate") == logged(theirs, "learning_rate")
    assert logged(ours, "grad_norm") == pytest.approx(logged(theirs, "grad_norm"), rel=1e-4)
    assert ours.evaluate()["eval_loss"] == pytest.approx(theirs.evaluate()["eval_loss"], abs=1e-5)
    for (name, a), (_, b) in zip(ours.model.named_parameters(), theirs.model.named_parameters()):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5), name
    a, b = ours.optimizer.state_dict(), theirs.optimizer.state_dict()
    assert [group["weight_decay"] for group in a["param_groups"]] == [group["weight_decay"] for group in b["param_groups"]]
    assert [group["lr"] for group in a["param_groups"]] == [group["lr"] for group in b["param_groups"]]
    for index, entry in b["state"].items():
        assert float(a["state"][index]["step"]) == float(entry["step"])
        assert torch.allclose(a["state"][index]["exp_avg"], entry["exp_avg"], rtol=1e-2, atol=1e-5)


def test_resume_is_bitwise(tmp_path):
    whole = trainer(heddle.hf.Trainer, tmp_path / "whole")
    whole.train()
    parts = trainer(heddle.hf.Trainer, tmp_path / "parts", save_strategy="steps", save_steps=4)
    parts.train()
    assert logged(parts, "loss") == logged(whole, "loss")
    resumed = trainer(heddle.hf.Trainer, tmp_path / "parts")
    with torch.no_grad():
        for parameter in resumed.model.parameters():
            parameter.zero_()
    resumed.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-4"))
    assert logged(resumed, "loss") == logged(whole, "loss")
    assert all(torch.equal(a, b) for a, b in zip(resumed.model.parameters(), whole.model.parameters()))


def test_a_checkpoint_of_transformers_goes_on_in_heddle(tmp_path):
    theirs = trainer(transformers.Trainer, tmp_path, save_strategy="steps", save_steps=5)
    theirs.train()
    ours = trainer(heddle.hf.Trainer, tmp_path)
    ours.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert logged(ours, "loss") == pytest.approx(logged(theirs, "loss"), abs=1e-5)


def test_evaluation_saving_and_callbacks(tmp_path):
    seen = []

    class Watch(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append((state.global_step, kwargs["optimizer"].param_groups[0]["lr"]))

        def on_evaluate(self, args, state, control, metrics, **kwargs):
            seen.append(metrics["eval_loss"])

    ours = trainer(heddle.hf.Trainer, tmp_path, more={"callbacks": [Watch()]}, eval_strategy="steps", eval_steps=5, save_strategy="steps", save_steps=5, load_best_model_at_end=True, metric_for_best_model="loss")
    before = ours.evaluate()["eval_loss"]
    ours.train()
    assert [item[0] for item in seen if isinstance(item, tuple)] == list(range(1, 11))
    losses = [item for item in seen if isinstance(item, float)][1:]
    assert len(losses) == 2 and losses[-1] < before
    assert ours.evaluate()["eval_loss"] == pytest.approx(min(losses), abs=1e-7)
    ours.save_model(tmp_path / "saved")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), ours.model.parameters()))
    assert all(math.isfinite(rate) and rate > 0 for rate in logged(ours, "tokens_per_second"))


def test_training_again_goes_on_from_the_model(tmp_path):
    ours, theirs = (trainer(kind, tmp_path, max_steps=3) for kind in (heddle.hf.Trainer, transformers.Trainer))
    ours.train()
    ours.train()
    again = trainer(heddle.hf.Trainer, tmp_path, max_steps=3)
    again.model.load_state_dict(theirs.model.state_dict())
    assert ours.evaluate()["eval_loss"] < again.evaluate()["eval_loss"]


def test_bf16_keeps_masters_over_a_resume(tmp_path):
    whole = trainer(heddle.hf.Trainer, tmp_path, bf16=True, save_strategy="steps", save_steps=4, max_steps=6)
    whole.train()
    assert whole.compiled.plan.precision == "bf16"
    resumed = trainer(heddle.hf.Trainer, tmp_path, bf16=True, max_steps=6)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert logged(resumed, "loss") == logged(whole, "loss")


def test_fp16_keeps_its_scale_over_a_resume(tmp_path):
    """The first updates overflow and are skipped; the learning rate waits for them, and a run that is resumed goes on with masters, scale and counters."""
    arguments = dict(fp16=True, save_strategy="steps", save_steps=6, max_steps=9)
    plan = heddle.Plan(precision="fp16", clip=0.5, seed=3, loss_scale={"initial_scale_power": 22, "hysteresis": 1, "loss_scale_window": 2})
    whole = trainer(heddle.hf.Trainer, tmp_path, more={"plan": plan}, **arguments)
    whole.train()
    skipped, rates = 9 - whole.compiled.global_step, logged(whole, "learning_rate")
    assert 1 <= skipped <= 6 and sum(a == b for a, b in zip(rates, rates[1:])) == skipped
    resumed = trainer(heddle.hf.Trainer, tmp_path, more={"plan": plan}, **arguments)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert logged(resumed, "loss") == logged(whole, "loss") and list(map(str, logged(resumed, "grad_norm"))) == list(map(str, logged(whole, "grad_norm")))
    scale = lambda one: float(one.compiled._executable.get_state("scaler", "loss_scale"))  # noqa: E731
    assert scale(resumed) == scale(whole)
    by_default = trainer(heddle.hf.Trainer, tmp_path, fp16=True, max_steps=1)
    by_default.train()
    assert by_default.compiled.plan.precision == "fp16" and by_default.compiled.plan.loss_scale is None


def test_fp16_ends_where_the_scale_would_fall_below_its_least(tmp_path):
    """As with DeepSpeed: an overflow at the least scale ends the training, and says what to do. Without the question in `Step.__call__` it would skip for ever."""
    plan = heddle.Plan(precision="fp16", clip=0.5, loss_scale={"initial_scale_power": 22, "hysteresis": 1, "min_loss_scale": 2.0**22})
    one = trainer(heddle.hf.Trainer, tmp_path, more={"plan": plan}, fp16=True, max_steps=9)
    with pytest.raises(heddle.HeddleError, match=r"update 1: gradients are not finite and the loss scale is 4.1943e\+06 already, the least .* go on from a checkpoint with a smaller lr"):
        one.train()
    assert one.compiled.global_step == 0 and one.state.global_step == 0


def test_a_deepspeed_configuration_with_auto(tmp_path):
    config = {"train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto", "gradient_clipping": "auto", "zero_optimization": {"stage": 0},
              "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}}}
    (tmp_path / "ds.json").write_text(json.dumps(config))
    ours = trainer(heddle.hf.Trainer, tmp_path, more={"plan": str(tmp_path / "ds.json")}, max_steps=2)
    ours.train()
    assert ours.compiled.plan.clip == 0.5 and ours.compiled.plan.loss_average == "batches"
    with pytest.raises(heddle.HeddleError, match="gradient_accumulation_steps is 7, and the TrainingArguments say 2"):
        trainer(heddle.hf.Trainer, tmp_path, more={"plan": {**config, "gradient_accumulation_steps": 7}}, max_steps=2).train()


class Muon(torch.optim.Optimizer):
    """For transformers.Trainer: matrices by test_muon.py's Newton-Schulz, the rest by AdamW at the tenth part of their rate."""

    def __init__(self, model, lr):
        named = list(model.named_parameters())
        super().__init__([{"params": [p for name, p in named if is_matrix(name, p)]}, {"params": [p for name, p in named if not is_matrix(name, p)]}], {"lr": lr})
        self.adamw = torch.optim.AdamW(self.param_groups[1]["params"], betas=(0.9, 0.95), weight_decay=0.1, foreach=False)

    @torch.no_grad()
    def step(self, closure=None):
        lr = self.param_groups[0]["lr"]
        for p in self.param_groups[0]["params"]:
            momentum = self.state[p].setdefault("momentum", torch.zeros_like(p)).mul_(0.95).add_(p.grad)
            p.mul_(1 - lr * 0.1).sub_(orthogonal((p.grad + 0.95 * momentum).double()).float() * lr * 0.2 * max(p.shape) ** 0.5)
        self.adamw.param_groups[0]["lr"] = lr / 10
        self.adamw.step()


@pytest.mark.parametrize("ranks", [1, 2])
def test_muon_and_stages_train_as_transformers_with_muon(ranks, tmp_path):
    """An optimizer given in code, on ranks that are threads: transformers' losses with Muon written out, under its scheduler; and a resume, bit for bit. At 1.1 times the rate a loss
    is more than 1e-3 off."""
    changes = {"max_grad_norm": 0.0, "lr_scheduler_type": "cosine"}
    optimizer = heddle.Muon(lr=1e-2, adamw=heddle.AdamW(lr=1e-3), ns="standard")
    plan = heddle.Plan(zero=3 if ranks > 1 else 0, dp=ranks, seed=3)
    model, _ = FAMILIES["llama"](2, 16)
    theirs = transformers.Trainer(model=model, args=arguments(tmp_path / "theirs", learning_rate=1e-2, **changes), train_dataset=Data(), optimizers=(Muon(model, 1e-2), None))
    theirs.train()
    ours = trainer(heddle.hf.Trainer, tmp_path / "ours", more={"plan": plan, "optimizer": optimizer}, save_strategy="steps", save_steps=4, **changes)
    ours.train()
    assert (ours.compiled.plan.zero, ours.compiled.explain()["newton_schulz"]["matrices"]) == (plan.zero, 14)
    assert logged(ours, "loss") == pytest.approx(logged(theirs, "loss"), abs=2e-5)
    assert logged(ours, "learning_rate") == logged(theirs, "learning_rate") and ours.args.learning_rate != 1e-2
    resumed = trainer(heddle.hf.Trainer, tmp_path / "ours", more={"plan": plan, "optimizer": optimizer}, **changes)
    resumed.train(resume_from_checkpoint=str(tmp_path / "ours" / "checkpoint-4"))
    assert logged(resumed, "loss") == logged(ours, "loss")
    assert all(torch.equal(a, b) for a, b in zip(resumed.model.parameters(), ours.model.parameters()))
    faster = trainer(heddle.hf.Trainer, tmp_path / "faster", more={"plan": plan, "optimizer": heddle.Muon(lr=1.1e-2, adamw=heddle.AdamW(lr=1.1e-3), ns="standard")}, **changes)
    faster.train()
    assert max(abs(a - b) for a, b in zip(logged(faster, "loss"), logged(theirs, "loss"))) > 1e-3
    if ranks == 1:
        other = trainer(heddle.hf.Trainer, tmp_path / "other", **changes)
        with pytest.raises(heddle.HeddleError, match="the optimizer state has .* groups|has momentum of .* which is updated with exp_avg, exp_avg_sq"):
            other.train(resume_from_checkpoint=str(tmp_path / "ours" / "checkpoint-4"))


def test_a_deepspeed_configuration_with_muon(tmp_path):
    config = {"train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto", "zero_optimization": {"stage": 2}, "data_parallel_size": 2,
              "optimizer": {"type": "Muon", "params": {"lr": "auto", "weight_decay": "auto", "momentum": 0.9}}}
    ours = trainer(heddle.hf.Trainer, tmp_path, more={"plan": config}, max_steps=3)
    ours.train()
    assert ours.compiled.explain()["newton_schulz"] == {"matrices": 14, "by_rank": [7, 7]} and ours.compiled.optimizer.momentum == 0.9
    with pytest.raises(heddle.HeddleError, match="optimizer has lr=0.5, and the TrainingArguments say 0.001; write \"auto\" there"):
        trainer(heddle.hf.Trainer, tmp_path, more={"plan": {**config, "optimizer": {"type": "Muon", "params": {"lr": 0.5}}}}, max_steps=3).train()
    with pytest.raises(heddle.HeddleError, match="neither a heddle.AdamW nor a heddle.Muon"):
        trainer(heddle.hf.Trainer, tmp_path, more={"optimizer": torch.optim.SGD})
    given = trainer(heddle.hf.Trainer, tmp_path, more={"plan": config, "optimizer": heddle.AdamW(lr=3e-3)}, max_steps=1)
    with pytest.warns(heddle.HeddleWarning, match="optimizer= given in code"):
        given.train()
    assert given.compiled.optimizer.lr == 3e-3


@pytest.mark.parametrize("changes, message", [({"optim": "adafactor"}, "optim='adafactor'"), ({"label_smoothing_factor": 0.1}, "label_smoothing_factor=0.1"), ({"neftune_noise_alpha": 5.0}, "neftune_noise_alpha=5.0")])
def test_arguments_that_cannot_be_honoured_are_named(changes, message, tmp_path):
    with pytest.raises(heddle.HeddleError, match=message):
        trainer(heddle.hf.Trainer, tmp_path, **changes)


def test_what_a_compiled_step_would_not_call_is_refused(tmp_path):
    class Own(heddle.hf.Trainer):
        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs)

    with pytest.raises(heddle.HeddleError, match="Own.compute_loss is overridden"):
        trainer(Own, tmp_path)
    with pytest.raises(heddle.HeddleError, match="compute_loss_func"):
        trainer(heddle.hf.Trainer, tmp_path, more={"compute_loss_func": lambda *_, **__: None})
    model, _ = FAMILIES["llama"](2, 16)
    with pytest.raises(heddle.HeddleError, match="the optimizer is Heddle's"):
        heddle.hf.Trainer(model=model, args=arguments(tmp_path), optimizers=(torch.optim.SGD(model.parameters()), None))
