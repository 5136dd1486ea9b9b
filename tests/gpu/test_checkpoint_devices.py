"""A checkpoint of one device read on the other, back and forth: the same bits of weights, masters and moments, and the same training after it.

Run: PYTHONPATH=api/python HEDDLE_LIB_DIR=<folder of the shared libraries> python3 tests/gpu/test_checkpoint_devices.py
Without a GPU both devices are the CPU: what is tested then is this file. The last line is "passed".
"""

import tempfile

import heddle
import torch
import transformers

DEVICES = ("cuda", "cpu") if torch.cuda.is_available() else ("cpu", "cpu")


def model_of():
    config = transformers.LlamaConfig(vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True, use_cache=False)
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).train()


def batch(number, rows=4):
    ids = torch.randint(3, 512, (rows, 64), generator=torch.Generator().manual_seed(number))
    return {"input_ids": ids, "labels": ids}


def compiled(device, ranks, precision, kind):
    """Of several ranks on the CPU, of one on a GPU."""
    optimizer = heddle.AdamW(lr=1e-3)
    if kind == "muon":
        optimizer = heddle.Muon(lr=1e-2, ns="standard", adamw=optimizer)
    example = {name: tensor.to(device) for name, tensor in batch(0, 1).items()}
    plan = heddle.Plan(precision=precision, clip=0.5, zero=3 if ranks > 1 else 0, dp=ranks)
    return heddle.compile(model_of().to(device), example, optimizer=optimizer, plan=plan, device=device)


def state_of(step):
    moments = step.optimizer_state_dict()["state"]
    tensors = {**step.state_dict(), **{f"{kind}/{name}": tensor for name, kinds in moments.items() for kind, tensor in kinds.items()}}
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def same(a, b):
    return a.keys() == b.keys() and all(a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a)


def trained(step, device, first, count):
    return [step({name: tensor.to(device) for name, tensor in batch(number).items()}).loss for number in range(first, first + count)]


def there_and_back(precision, kind, writer, reader):
    with tempfile.TemporaryDirectory() as folder:
        ranks = {"cpu": 2, "cuda": 1}
        first, second, third = (compiled(device, ranks[device], precision, kind) for device in (writer, reader, writer))
        trained(first, writer, 1, 3)
        first.save_checkpoint(folder + "/there", {"next": 4})
        assert second.load_checkpoint(folder + "/there") == {"next": 4} and second.global_step == 3
        assert same(state_of(first), state_of(second)), "bits were lost on the way there"
        second.save_checkpoint(folder + "/back")
        third.load_checkpoint(folder + "/back")
        assert same(state_of(first), state_of(third)), "bits were lost on the way back"
        a, b, c = trained(first, writer, 4, 3), trained(second, reader, 4, 3), trained(third, writer, 4, 3)
        bound = 1e-4 if precision == "fp32" else 2e-2
        assert a == c or writer == "cuda" and max(abs(x - y) for x, y in zip(a, c)) < bound
        apart = max(abs(x - y) for x, y in zip(a, b))
        # Other devices round otherwise.
        assert apart < bound, (apart, a, b)
        print(f"{precision} {kind} {writer} -> {reader} -> {writer}: the same bits; the next three losses {apart:.1e} apart", flush=True)


def main():
    for precision, kind in (("fp32", "adamw"), ("fp32", "muon"), ("bf16", "adamw"), ("bf16", "muon")):
        there_and_back(precision, kind, *DEVICES)
        there_and_back(precision, kind, *reversed(DEVICES))
    print("passed")


if __name__ == "__main__":
    main()
