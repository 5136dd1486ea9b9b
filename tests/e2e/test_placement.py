"""Where a real Llama's collectives stand, what is copied into its buckets and what stays gathered, read off the schedule that the compiler writes."""

import collections
import json
import re
import subprocess

import families
import heddle
import pytest
from heddle._native import library_dir
from torch.nn.attention import SDPBackend, sdpa_kernel

LAYERS = 4


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def llama(request, tmp_path_factory):
    config = families._dense(families.hf.LlamaConfig, False, num_hidden_layers=LAYERS)
    model, batch = families._causal(config, 2, 16)
    path = tmp_path_factory.mktemp(request.param) / "step.mlir"
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        heddle.capture(model, batch, device=request.param, precision="bf16").save(path)
    return request.param, path


Step = collections.namedtuple("Step", "kind name reads writes stream waits signal")


class Section:
    """Steps in order, each value as (buffer, bytes of the buffer, whether it is scratch)."""

    def __init__(self, header, lines, names):
        self.scratch = int(re.search(r"scratch_bytes = (\d+)", header)[1])
        names, self.steps = dict(names), []
        for line in lines:
            note(line, names)
            match = re.match(r' *sched\.(aten|kernel|host|collective) "([^"]+)"\(([^)]*)\) -> \(([^)]*)\)(.*)', line) or re.match(r" *sched\.(gemm)()\(([^)]*)\) to (%\d+)(.*)", line) \
                or re.match(r" *sched\.(copy)() (%\d+) to (%\d+)(.*)", line)
            if match:
                rest = match[5].split("{")[0]
                number = lambda key: re.search(rf" {key} (\d+)", rest)  # noqa: E731
                waits = re.search(r" wait \[([\d, ]*)\]", rest)
                self.steps.append(Step(match[1], match[2], *([names[value] for value in re.findall(r"%\d+", match[i])] for i in (3, 4)),
                                       int(number("stream")[1]) if number("stream") else 0, [int(n) for n in waits[1].split(",")] if waits else [],
                                       int(number("signal")[1]) if number("signal") else None))

    def named(self, name):
        return [step for step in self.steps if step.name == name]

    def gathered(self):
        """Buffers that gathers fill: (first step, last step, bytes)."""
        spans = {}
        filled = {step.writes[0][0] for step in self.named("all_gather") if step.writes[0][2]}
        for index, step in enumerate(self.steps):
            for buffer, size, _ in step.reads + step.writes:
                if buffer in filled:
                    spans[buffer] = (spans.get(buffer, (index,))[0], index, size)
        return list(spans.values())


def note(line, names):
    if match := re.match(r" *(%\d+) = sched\.buffer (\w+) \w+ \w+ (\d+) bytes", line):
        names[match[1]] = (match[1], int(match[3]), match[2] == "scratch")
    elif match := re.match(r" *(%\d+) = sched\.value (%\d+)", line):
        names[match[1]] = names[match[2]]


def schedule(path, options):
    """The sections by name, and the plan's configuration."""
    options += f" sidecar={path.with_suffix('.safetensors')}"
    done = subprocess.run([library_dir() / "heddle-opt", path, f"--train-pipeline={options}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    names, sections, header, inside = {}, {}, None, []
    for line in done.stdout.splitlines():
        if match := re.match(r' *sched\.section "(\w+)"', line):
            header, inside = line, []
            current = match[1]
        elif header and re.match(r"    }", line):
            sections[current], header = Section(header, inside, names), None
        elif header:
            inside.append(line)
        else:
            note(line, names)
    config = re.search(r'config = "((?:[^"\\]|\\.)*)"', done.stdout)[1]
    return sections, json.loads(re.sub(r"\\([0-9A-F]{2})", lambda byte: chr(int(byte[1], 16)), config))


def test_weight_gradients_and_gathers_are_not_copied(llama):
    """Of the 7 matrices of a layer, the embedding, the head and 2 norms a layer and one: matrix products go into their bucket, the rest is what is copied. Without the products of packs
    in graph-accumulate-in-gemm every gradient is."""
    device, path = llama
    matrices, others = 7 * LAYERS + 1, 2 * LAYERS + 2
    for zero, wire in ((1, ""), (2, ""), (3, ""), (3, " reduce-dtype=bf16")):
        sections, config = schedule(path, f"zero={zero} mesh=dp:2{wire}")
        for name in ("micro_first", "micro_next"):
            steps = sections[name].steps
            multiplied = [step for step in steps if step.kind == "gemm"]
            into = {step.reads[0][0] for step in sections[name].named("reduce_scatter")}
            copies = [step for step in steps if step.kind == "copy" and step.writes[0][0] in into]
            if device == "cuda":
                assert len(multiplied) == (0 if wire else matrices)
                assert len(copies) == (others if zero > 1 and not wire else 0)
            elif zero > 1:
                assert len(copies) == (0 if wire else matrices + others)
            filled = {step.writes[0][0] for step in sections[name].named("all_gather")}
            assert not [step for step in steps if step.kind == "copy" and step.reads[0][0] in filled]
            assert len(filled) == (0 if zero < 3 else len(sections[name].named("all_gather")))
        if device == "cuda":
            assert config["gradients"]["in_place"] == (matrices + others if wire else matrices)
            assert sum(entry["count"] for entry in config["gradients"]["copied"]) == (0 if wire else others)
            # A norm whose weight is gathered for each pass is one kernel in each all the same.
            assert config["fusion"]["kernels"]["rms_norm"] == 2 * LAYERS + 1 and not config["fusion"]["inlined"]


MUON = ' optimizer={"skip_nonfinite":true,"groups":[{"params":["*"],"roles":["matrix","stack"],"muon":{}},{"params":["*"]}]}'


@pytest.mark.parametrize("optimizer", ["", MUON], ids=["adamw", "muon"])
@pytest.mark.parametrize("prefetch", [0, 1, 9000, 30000, 60000])
def test_gathered_high_water(llama, prefetch, optimizer):
    """At most the two largest layers and what may be on its way: nothing, one element, less than a layer, one, two. A layer is one bucket, for Muon one of matrices and one of norms. With the
    limit ignored in placeGathers all but the last fail."""
    sections, _ = schedule(llama[1], f"zero=3 mesh=dp:64 prefetch={prefetch}" + optimizer)
    further = schedule(llama[1], "zero=3 mesh=dp:64 prefetch=500000000" + optimizer)[0]
    ahead = 0
    for name in ("micro_first", "micro_next"):
        spans = sections[name].gathered()
        sizes = sorted(size for _, _, size in spans)
        most = max(sum(size for first, last, size in spans if first <= at <= last) for at in range(len(sections[name].steps)))
        layers = sum(sizes[-2:]) + (2 * sizes[0] if optimizer else 0)
        assert most <= layers + 2 * prefetch
        unlimited = further[name].gathered()
        most_of_all = max(sum(size for first, last, size in unlimited if first <= at <= last) for at in range(len(further[name].steps)))
        assert prefetch >= 60000 or most_of_all > layers + 2 * prefetch, "the limit is none"
        for step in sections[name].steps:
            if step.name == "all_gather":
                where = sections[name].steps.index(step)
                used = next(i for i, later in enumerate(sections[name].steps) if i > where and any(read[0] == step.writes[0][0] for read in later.reads))
                ahead += sum(between.stream == 0 for between in sections[name].steps[where:used])
    assert (ahead > 0) == (prefetch != 0)


def waits_for_reductions(steps):
    reduced = {step.signal for step in steps if step.stream == 2} - {None}
    return sum(event in reduced for step in steps if step.stream == 0 for event in step.waits)


@pytest.mark.parametrize("zero", [2, 3])
def test_work_stands_between_a_signal_and_its_wait(llama, zero):
    """Between a gather and the work that waits for it, unless no work stands before; between the gradient that a reduction waits for and the work that waits for the reduction. With prefetch=0
    it fails. On the GPU the reductions of 64 ranks take longer than the work: with reducing=1 it waits for them more often."""
    sections, _ = schedule(llama[1], f"zero={zero} mesh=dp:64")
    looked = 0
    if llama[0] == "cuda":
        held = schedule(llama[1], f"zero={zero} mesh=dp:64 reducing=1")[0]
        assert waits_for_reductions(sections["micro_first"].steps) < waits_for_reductions(held["micro_first"].steps)
    for name in ("micro_first", "micro_next"):
        steps, signalled = sections[name].steps, {}
        work = lambda first, last: sum(step.stream == 0 for step in steps[first:last])  # noqa: E731
        for at, step in enumerate(steps):
            for event in step.waits:
                since = signalled[event]
                if step.stream == 0 and steps[since].name == "all_gather":
                    assert work(since + 1, at) > 0 or work(0, since) == 0, (name, at)
                    looked += 1
                elif step.stream == 0:
                    ready = max([signalled[e] for e in steps[since].waits] + [next(i for i, s in enumerate(steps) if s.stream == 0)])
                    assert work(ready + 1, at) > 0, (name, at)
            if step.signal is not None:
                signalled[step.signal] = at
    assert looked > 0 or zero == 2


@pytest.mark.parametrize("zero", [2, 3])
def test_computation_does_not_wait_for_packs(llama, zero):
    """As few waits of computation for reductions as values demand, which is none, and no reduction waits for computation after its pack is complete; under `reducing` and `memory` the arena
    is the smaller one, and computation waits. Without `until` in PlanMemory's requests computation waits in every case."""
    sections, _ = schedule(llama[1], f"zero={zero} mesh=dp:2")
    held, _ = schedule(llama[1], f"zero={zero} mesh=dp:2 reducing=1")
    for name in ("micro_first", "micro_next"):
        steps = sections[name].steps
        assert len(sections[name].named("reduce_scatter")) > LAYERS and waits_for_reductions(steps) == 0
        signals = {step.signal: at for at, step in enumerate(steps) if step.signal is not None}
        for at, step in enumerate(steps):
            filled = [i for i in range(at) if steps[i].stream == 0 and {buffer[0] for buffer in steps[i].writes} & {buffer[0] for buffer in step.reads}]
            assert step.stream != 2 or all(steps[signals[event]].stream != 0 or signals[event] <= filled[-1] for event in step.waits), (name, at)
        elements = sum(step.reads[0][1] // 4 for step in sections[name].named("reduce_scatter"))
        assert held[name].scratch <= sections[name].scratch <= held[name].scratch + 4 * elements
    if zero == 3:
        room = schedule(llama[1], "zero=3 mesh=dp:2 memory=1000000000")[1]["kept_gathered"]["scratch_budget"]
        least = sections["micro_next"].scratch - 1
        tight, _ = schedule(llama[1], f"zero=3 mesh=dp:2 unshard=off memory={10**9 - room + least}")
        assert tight["micro_next"].scratch <= least and waits_for_reductions(tight["micro_next"].steps) > 0


def test_parameters_stay_gathered_where_memory_allows(llama):
    """On one stream every gather is exposed, so all that fits stays; the arena is under the budget whatever it is, and more room never means less kept."""
    path = llama[1]
    sections, config = schedule(path, "zero=3 mesh=dp:2 overlap=off memory=1000000000")
    resident = 10**9 - config["kept_gathered"]["scratch_budget"]
    both = config["kept_gathered"]["of"]
    assert config["kept_gathered"]["buckets"] == both > LAYERS
    gathers = len(sections["micro_first"].named("all_gather"))
    least = max(section.scratch for section in schedule(path, "zero=3 mesh=dp:2 overlap=off unshard=off")[0].values())
    most = max(section.scratch for section in sections.values())
    assert most > least
    kept = []
    for step in range(5):
        budget = resident + least + (most - least) * step // 4
        sections, config = schedule(path, f"zero=3 mesh=dp:2 overlap=off memory={budget}")
        assert max(section.scratch for section in sections.values()) <= config["kept_gathered"]["scratch_budget"] == budget - resident
        kept.append(config["kept_gathered"]["buckets"])
        assert len(sections["micro_next"].named("all_gather")) == gathers + both - kept[-1]
    assert kept == sorted(kept) and kept[-1] == both and len(set(kept)) > 2
    refused = subprocess.run([library_dir() / "heddle-opt", path, f"--train-pipeline=zero=3 mesh=dp:2 memory={resident} sidecar={path.with_suffix('.safetensors')}"], capture_output=True, text=True)
    assert refused.returncode != 0 and f"bytes on a rank and memory allows {resident}" in refused.stderr


def distances(steps):
    """How many steps stand between each gather and the first that reads what it brings."""
    return [next(i for i, later in enumerate(steps) if i > at and any(read[0] == step.writes[0][0] for read in later.reads)) - at for at, step in enumerate(steps) if step.name == "all_gather"]


def test_measured_costs_place_collectives(llama, tmp_path):
    """What a file of costs says is what counts: gathers are issued further ahead of fast work than of slow work."""
    path = llama[1]
    costs = {"format": "heddle.costs", "version": 1, "device": "x", "torch": "2.11.0", "precision": "bf16", "operators": []}
    (tmp_path / "none.json").write_text(json.dumps(costs))
    refused = subprocess.run([library_dir() / "heddle-opt", path, f"--train-pipeline=zero=3 mesh=dp:2 costs={tmp_path / 'none.json'} sidecar={path.with_suffix('.safetensors')}"], capture_output=True, text=True)
    assert refused.returncode != 0 and "measured none of this plan's operators" in refused.stderr
    ahead = {}
    for seconds in (0.001, 1e6):
        # The multiplications of this model: [tokens, k] by [k, n].
        sizes = {64, 96, 32, 320, 16}
        costs["operators"] = [{"operator": f"aten::mm bf16[32,{k}] bf16[{k},{n}] -> bf16[32,{n}]", "runs": 1, "microseconds": seconds} for k in sizes for n in sizes]
        (tmp_path / "costs.json").write_text(json.dumps(costs))
        sections, _ = schedule(path, f"zero=3 mesh=dp:2 costs={tmp_path / 'costs.json'}")
        ahead[seconds] = distances(sections["micro_first"].steps)
    assert sum(ahead[0.001]) > sum(ahead[1e6])


def network(path, bytes_per_second, microseconds=10.0, ranks=2):
    """A file of costs that knows collectives only."""
    path.write_text(json.dumps({"format": "heddle.costs", "version": 1, "device": "x", "torch": "2.11.0", "precision": "bf16", "operators": [], "collectives": [
        {"collective": name, "axis": "dp", "ranks": ranks, "microseconds": microseconds, "bytes_per_second": bytes_per_second} for name in ("all_gather", "reduce_scatter", "all_reduce", "broadcast")]}))
    return path


def exposed(plan, costs):
    """Seconds in which the first micro-batch waits for nothing but collectives, as heddle-inspect predicts it."""
    told = subprocess.run([library_dir() / "heddle-inspect", plan, "--costs", costs], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    amount, unit = re.search(r"Section micro_first.*?of which ([\d.]+) (\w+) exposed", told.stdout, re.DOTALL).groups()
    return float(amount) * {"s": 1, "ms": 1e-3, "us": 1e-6}[unit]


def test_a_measured_network_places_collectives(llama, tmp_path):
    """Over a slow network gathers are issued further ahead, and more of their time is predicted to be exposed; a plan that was placed for it exposes no more of it than one that was not.
    With the table's price in `Prices::of` the plans are equal; with it in heddle-inspect the predictions are."""
    path = llama[1]
    ahead, plans = {}, {}
    costs = {speed: network(tmp_path / f"{speed}.json", float(speed)) for speed in ("1e12", "1e8")}
    for speed, file in costs.items():
        options = f"zero=3 mesh=dp:2 costs={file}"
        ahead[speed] = sum(distances(schedule(path, options)[0]["micro_first"].steps))
        plans[speed] = tmp_path / f"{speed}.plan"
        done = subprocess.run([library_dir() / "heddle-opt", path, f"--train-pipeline={options} sidecar={path.with_suffix('.safetensors')}", "-o", plans[speed]], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert ahead["1e8"] > ahead["1e12"] > 0
    slow, fast = exposed(plans["1e8"], costs["1e8"]), exposed(plans["1e8"], costs["1e12"])
    assert slow > 2 * fast and slow <= exposed(plans["1e12"], costs["1e8"])
    for ranks, bandwidth, message in ((4, 1e9, "measured none of this plan's operators"), (2, 0.0, "a collective's time cannot be"), (2, -1.0, "a collective's time cannot be")):
        file = network(tmp_path / "bad.json", bandwidth, ranks=ranks)
        refused = subprocess.run([library_dir() / "heddle-opt", path, f"--train-pipeline=zero=3 mesh=dp:2 costs={file} sidecar={path.with_suffix('.safetensors')}"], capture_output=True, text=True)
        assert refused.returncode != 0 and message in refused.stderr, refused.stderr
