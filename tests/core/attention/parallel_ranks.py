"""What each rank does in the tests of sequence parallelism: every case against the plain decoder in float64.

Started by `test_parallel.py` with torch's spawn, one process per rank, gloo on loopback.
"""

import json
import os
from datetime import timedelta
from itertools import product

import decoder_oracle
import torch
import torch.distributed as dist
from tiny_models import make_model
from torch.nn.functional import cross_entropy

from longrecipe_core.attention import attach, gather_sequence, pad_sequence, probe, sequence_group, shard_sequence

FAMILIES = ["llama", "qwen2", "mistral"]
RATIOS = [1, 3, 4]
MODES = ["ulysses", "ring", "usp", "dist-flash"]
HEADS, IGNORED = 12, -100
CASES = [
    f"{mode} {family} {ratio} {checkpointing}"
    for mode, family, ratio, checkpointing in product(MODES, FAMILIES, RATIOS, ["plain", "checkpointed"])
]


def make_sample(length, batch):
    """Tokens, strictly increasing positions with jumps, and labels shifted before anything is cut."""
    draw = torch.Generator().manual_seed(length)
    tokens = torch.randint(1, 97, (batch, length), generator=draw)
    skips = torch.randint(0, 30, (batch, length), generator=draw) * (torch.rand(batch, length, generator=draw) < 0.2)
    positions = torch.arange(length) + skips.cumsum(1)
    labels = torch.cat([tokens[:, 1:], torch.full((batch, 1), IGNORED)], dim=1)
    labels[0, 3:6] = IGNORED
    return tokens, positions, labels


def oracle(model, tokens, positions, labels):
    """Logits, mean loss and its gradients by name, from float64 arithmetic that knows no ranks."""
    weights = {name: p.detach().double().requires_grad_(True) for name, p in model.named_parameters()}
    logits = decoder_oracle.logits(weights, model.config, tokens, positions)
    loss = cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    return logits.detach(), loss.item(), dict(zip(weights, torch.autograd.grad(loss, weights.values()), strict=True))


def parallel_errors(model, mode, tokens, positions, labels, expected, group=None, ulysses_degree=None):
    """Largest differences of logits, loss and gradients between the ranks' shares, put together, and the oracle."""
    logits, loss, gradients = expected
    attach(model, mode, group, ulysses_degree)
    length, multiple = tokens.shape[1], sequence_group(mode, group, ulysses_degree).layout.multiple

    def part(tensor, padding):
        return shard_sequence(pad_sequence(tensor, multiple, padding), mode, group, ulysses_degree=ulysses_degree)

    model.zero_grad(set_to_none=True)
    mine = model(input_ids=part(tokens, 0), position_ids=part(positions, 0), use_cache=False).logits
    summed = cross_entropy(
        mine.flatten(0, 1), part(labels, IGNORED).flatten(), ignore_index=IGNORED, reduction="sum"
    ) / int((labels != IGNORED).sum())
    summed.backward()
    whole = gather_sequence(mine.detach(), mode, group, ulysses_degree=ulysses_degree)[:, :length]
    total = summed.detach().clone()
    dist.all_reduce(total, group=group)
    worst = relative = 0.0
    for name, parameter in model.named_parameters():
        gradient = parameter.grad.clone()
        dist.all_reduce(gradient, group=group)
        difference, size = gradient - gradients[name], gradients[name].norm()
        worst = max(worst, float(difference.abs().max()))
        # A key's bias adds the same to all scores of a query, so its true gradient is zero up to RoPE's turn.
        relative = max(relative, float(difference.norm() / size) if size > 1e-4 else 0.0)
    return {
        "logits": float((whole - logits).abs().max()),
        "loss": abs(float(total) - loss),
        "gradients": worst,
        "gradients, relative": relative,
    }


def every_mode(rank, world):
    """All of CASES; odd lengths that no mode divides."""
    found, known = {}, {}
    for number, case in enumerate(CASES):
        mode, family, ratio, checkpointing = case.split()
        model = make_model(family, heads=HEADS, kv_heads=HEADS // int(ratio), hidden=96)
        if checkpointing == "checkpointed":
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        length, batch = [(29, 1), (37, 2)][number // 2 % 2]
        sample = make_sample(length, batch)
        key = (family, ratio, length, batch)
        if key not in known:
            known[key] = oracle(model, *sample)
        found[case] = parallel_errors(model, mode, *sample, known[key])
    return found


def data_parallel(rank, world):
    """Two sequence groups of two ranks, each with a sequence of its own; usp with a ring, and heads only."""
    groups = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    found = {}
    for mode, degree in [("ulysses", None), ("ring", None), ("usp", 2), ("usp", 1), ("dist-flash", None)]:
        model = make_model("llama", heads=HEADS, kv_heads=3, hidden=96)
        sample = make_sample(29 + rank // 2, 1)
        found[f"{mode} {degree}"] = parallel_errors(
            model, mode, *sample, oracle(model, *sample), groups[rank // 2], degree
        )
    return found


def usp_of_strided_ranks(rank, world):
    """A sequence group that is not the world, of four ranks in an odd order of degrees."""
    group = dist.new_group([0, 1, 2, 3])
    model = make_model("qwen2", heads=HEADS, kv_heads=4, hidden=96)
    sample = make_sample(41, 2)
    return {
        str(degree): parallel_errors(model, "usp", *sample, oracle(model, *sample), group, degree)
        for degree in (1, 2, 4)
    }


def packed_with_ulysses(rank, world):
    """Packed samples that must not see each other, on rows of the whole sequence."""
    model = make_model("llama", heads=HEADS, kv_heads=4, hidden=96)
    tokens, _, _ = make_sample(24, 2)
    positions = torch.arange(24).expand(2, -1)
    starts = [torch.tensor([0, 7, 16]), torch.tensor([0, 3])]
    attach(model, "ulysses")
    part = [shard_sequence(tensor, "ulysses") for tensor in (tokens, positions)]
    mine = model(input_ids=part[0], position_ids=part[1], use_cache=False, sample_starts=starts).logits
    whole = gather_sequence(mine.detach(), "ulysses")
    weights = {name: p.detach().double() for name, p in model.named_parameters()}
    worst = max(
        float(
            (whole[row] - decoder_oracle.logits(weights, model.config, tokens[[row]], positions[[row]], s)[0])
            .abs()
            .max()
        )
        for row, s in enumerate([first.tolist() for first in starts])
    )
    return {"logits": worst}


def gathered_loss(rank, world):
    """The same whole loss on every rank, taken from gathered logits: the summed gradients are that loss's."""
    model = make_model("llama", heads=HEADS, kv_heads=4, hidden=96)
    tokens, positions, labels = make_sample(16, 1)
    _, _, gradients = oracle(model, tokens, positions, labels)
    attach(model, "ring")
    mine = model(
        input_ids=shard_sequence(tokens, "ring"), position_ids=shard_sequence(positions, "ring"), use_cache=False
    ).logits
    whole = gather_sequence(mine, "ring")
    cross_entropy(whole.flatten(0, 1), labels.flatten(), ignore_index=IGNORED).backward()
    worst = 0.0
    for name, parameter in model.named_parameters():
        dist.all_reduce(parameter.grad)
        worst = max(worst, float((parameter.grad - gradients[name]).abs().max()))
    return {"gradients": worst}


def probes(rank, world):
    """The start-up check in each mode, and one that must fail: ranks that don't see each other."""
    said = {}
    for mode in MODES:
        model = make_model("llama", heads=HEADS, kv_heads=3, hidden=96)
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        attach(model, mode)
        probe(model, sequence_group(mode))
        said[mode] = "passes"
        attach(model, "local")
        try:
            probe(model, sequence_group(mode))
        except ValueError as error:
            said[f"{mode}, cut"] = str(error)
    return said


def refusals(rank, world):
    """One line each; every rank meets the same refusal, so none waits for another."""
    model = make_model("llama", heads=9, kv_heads=3, hidden=72)
    tokens, positions, labels = make_sample(17, 1)
    said = {}

    def refused(name, call):
        try:
            call()
        except ValueError as error:
            said[name] = str(error)

    refused("heads", lambda: attach(model, "ulysses"))
    refused("degree", lambda: attach(model, "usp", ulysses_degree=3))
    refused("length", lambda: shard_sequence(tokens, "ring"))
    attach(model, "ring")
    refused("positions", lambda: model(input_ids=tokens))
    refused("labels", lambda: model(input_ids=tokens, position_ids=positions, labels=labels))
    refused("mask", lambda: model(input_ids=tokens, position_ids=positions, attention_mask=torch.zeros(1, 17).long()))
    starts = [torch.tensor([0, 4])]
    refused("packed", lambda: model(input_ids=tokens, position_ids=positions, sample_starts=starts))
    attach(model)
    said["local again"] = "position" if model(input_ids=tokens, labels=tokens).loss is not None else ""
    return said


# By world size: all in one start of the processes, which costs more than the cases.
FUNCTIONS = {
    2: [every_mode, packed_with_ulysses],
    4: [every_mode, data_parallel, usp_of_strided_ranks, packed_with_ulysses, gathered_loss, probes, refusals],
}


def rank_main(rank, world, port, path):
    """Join the group, run the functions, leave all ranks' answers in a file."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=world, timeout=timedelta(minutes=10))
    found = {}
    for function in FUNCTIONS[world]:
        everyone = [None] * world
        dist.all_gather_object(everyone, function(rank, world))
        found[function.__name__] = everyone
    if rank == 0:
        with open(path, "w") as file:
            json.dump(found, file)
    dist.barrier()
    os._exit(0)  # gloo's threads may abort the process that tears them down, and nothing is left to do
