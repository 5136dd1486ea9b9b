"""AdamW in a plan is torch.optim.AdamW(foreach=False), bit for bit, when it is fed the same gradients."""

import pytest
import torch
from families import FAMILIES

import heddle

STEPS = 10


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors of these sizes gain nothing from a second thread, and lose much where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def eager(model, batches, groups, lr, clip, schedule):
    """Losses, norms and final weights of the same steps in eager PyTorch."""
    optimizer = torch.optim.AdamW(groups, lr=lr, foreach=False)
    losses, norms = [], []
    for number, batch in enumerate(batches, 1):
        for group in optimizer.param_groups:
            group["lr"] = lr * schedule(number)
        optimizer.zero_grad()
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), clip or float("inf"), foreach=False).item())
        optimizer.step()
        losses.append(loss.item())
    return losses, norms


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("family", ["llama", "llama_tied", "mixtral"])
def test_ten_steps_are_bitwise_torch(family, clip):
    model, batch = FAMILIES[family](2, 16)
    batches = [{**batch, "input_ids": ids, "labels": ids} for ids in torch.randint(3, 320, (STEPS, 2, 16), generator=torch.Generator().manual_seed(1))]
    schedule = heddle.schedules.cosine(warmup=3, total=STEPS + 1)
    optimizer = heddle.AdamW(lr=1e-3, betas=(0.9, 0.98), eps=1e-7, weight_decay=0.1, params=[{"params": ["*norm*"], "weight_decay": 0.0}, {"params": ["*"]}])
    step = heddle.compile(model, batch, optimizer=optimizer, schedule=schedule, plan=heddle.Plan(clip=clip, loss_average="batches"))
    ours = [step(b) for b in batches]

    norms = [p for n, p in model.named_parameters() if "norm" in n]
    others = [p for n, p in model.named_parameters() if "norm" not in n]
    common = {"betas": (0.9, 0.98), "eps": 1e-7}
    losses, grad_norms = eager(model, batches, [{"params": norms, "weight_decay": 0.0, **common}, {"params": others, "weight_decay": 0.1, **common}], 1e-3, clip, schedule)

    assert [out.loss for out in ours] == losses
    assert not any(out.skipped for out in ours)
    if clip:
        assert max(grad_norms) > clip, "nothing was clipped, so clipping was not tested"
    state = step.state_dict()
    assert {name: float((state[name] - p).abs().max()) for name, p in model.named_parameters() if not torch.equal(state[name], p)} == {}
    assert step.global_step == STEPS


def test_moments_are_torchs():
    model, batch = FAMILIES["llama"](2, 16)
    step = heddle.compile(model, batch, optimizer=heddle.AdamW(lr=1e-3), plan=heddle.Plan(loss_average="batches"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, foreach=False)
    for _ in range(3):
        step(batch)
        optimizer.zero_grad()
        model(**batch, use_cache=False).loss.backward()
        optimizer.step()
    state = step.optimizer_state_dict()
    assert state["step"] == 3
    for name, parameter in model.named_parameters():
        for kind in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(state["state"][name][kind], optimizer.state[parameter][kind]), (name, kind)


def test_bf16_keeps_an_fp32_master():
    """Two bf16 steps from fp32 weights: the master moves by what fp32 AdamW does with the bf16 gradients, the parameter is the master rounded."""
    model, batch = FAMILIES["llama"](2, 16)
    step = heddle.compile(model, batch, optimizer=heddle.AdamW(lr=1e-3, weight_decay=0.0), plan=heddle.Plan(precision="bf16", loss_average="batches"))
    masters = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(masters.values(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, foreach=False)
    for _ in range(2):
        for name, gradient in step.gradients(batch).items():
            assert gradient.dtype == torch.float32
            masters[name].grad = gradient
        step(batch)
        optimizer.step()
    state = step.state_dict()
    for name, master in masters.items():
        assert state[name].dtype == torch.float32
        assert torch.equal(state[name], master), name


@pytest.mark.parametrize(
    "options, message",
    [
        ({"learning_rate": 1.0}, "no option 'learning_rate'"),
        ({"weight_decy": 1.0}, "did you mean 'weight_decay'"),
        ({"lr": -1.0}, "lr=-1.0"),
        ({"betas": (0.9, 1.0)}, "a beta=1.0"),
        ({"state_dtype": "fp23"}, "state_dtype='fp23'"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(heddle.HeddleError, match=message):
        heddle.AdamW(**options)


@pytest.mark.parametrize(
    "params, message",
    [
        ([], "nothing to train"),
        ([{"params": ["*nrom*"]}], r"'\*nrom\*' takes no parameter"),
        ([{"params": ["*"], "momentum": 0.9}], "no option 'momentum'"),
        ([{"params": ["*norm*"]}], "no param group takes"),
        ([{"params": [torch.zeros(3)]}], "is no parameter of the model"),
    ],
)
def test_groups_are_checked(params, message):
    model, batch = FAMILIES["llama"](2, 16)
    with pytest.raises(heddle.HeddleError, match=message):
        heddle.compile(model, batch, optimizer=heddle.AdamW(params=params))
