import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from longrecipe_core.errors import MergeError
from longrecipe_core.merging import average, merge_checkpoints
from longrecipe_core.modeling import check_complete, load_model, save_model
from longrecipe_core.modeling.weights import stored_tensors

INDEX = "model.safetensors.index.json"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Every tensor but the smallest takes several pieces, the last one not full."""
    monkeypatch.setattr(average, "PIECE", 1000)
    monkeypatch.setattr(average, "BLOCK", 9000)  # a few pieces each, and more than one for a tensor


def weights_of(seed, dtype=torch.float32, **more):
    draw = torch.Generator().manual_seed(seed)
    shapes = {
        "model.embed_tokens.weight": (70, 33),
        "model.norm.weight": (33,),
        "model.layers.0.w": (3, 5, 7),
    }
    values = {name: torch.randn(shape, generator=draw).to(dtype) for name, shape in shapes.items()}
    return values | {"scalar": torch.tensor(0.5 + seed, dtype=dtype), "nothing": torch.zeros(0, 4, dtype=dtype)} | more


def write(directory: Path, weights, shards=1, config=None):
    directory.mkdir(parents=True)
    names = list(weights)
    parts = [names[i::shards] for i in range(shards)]
    if shards == 1:
        save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    else:
        files = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
        for file, part in zip(files, parts, strict=True):
            save_file({n: weights[n] for n in part}, directory / file, metadata={"format": "pt"})
        places = {n: file for file, part in zip(files, parts, strict=True) for n in part}
        (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (directory / "config.json").write_text(json.dumps(config or {"model_type": "llama"}))
    return str(directory)


def read(directory: Path):
    found = {}
    for file in directory.glob("*.safetensors"):
        part = load_file(file)
        assert not part.keys() & found.keys()
        found |= part
    return found


def oracle(sources, dtype):
    """Plain torch over whole state dicts."""
    result = {}
    for name in sources[0][0]:
        total = torch.zeros_like(sources[0][0][name], dtype=torch.float32)
        for values, weight in sources:
            total = total + values[name].to(torch.float32) * weight
        result[name] = total.to(dtype)
    return result


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype, name
        assert found[name].shape == value.shape, name
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.3, 0.9), (-0.25, 1.25)])
@pytest.mark.parametrize("shards", [(1, 1), (3, 1), (1, 2), (2, 3)])
def test_average_equals_plain_torch_bit_for_bit(tmp_path, dtype, shares, shards):
    values = [weights_of(i, dtype) for i in (1, 2)]
    directories = [write(tmp_path / str(i), v, shards[i]) for i, v in enumerate(values)]
    merge_checkpoints(list(zip(directories, shares, strict=True)), str(tmp_path / "out"))
    assert_same(read(tmp_path / "out"), oracle(list(zip(values, shares, strict=True)), dtype))
    layout = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == layout
    if shards[1] > 1:
        wanted = json.loads((tmp_path / "1" / INDEX).read_text())["weight_map"]
        index = json.loads((tmp_path / "out" / INDEX).read_text())
        assert index["weight_map"] == wanted
        assert index["metadata"]["total_size"] == sum(v.nbytes for v in read(tmp_path / "out").values())


def test_three_sources_of_mixed_types_and_a_wished_type(tmp_path):
    types = (torch.float32, torch.bfloat16, torch.float16)
    values = [weights_of(i, dtype) for i, dtype in enumerate(types)]
    shares = (0.2, 0.3, 0.5)
    directories = [write(tmp_path / str(i), v, config={"source": i}) for i, v in enumerate(values)]
    sources = list(zip(directories, shares, strict=True))
    pairs = list(zip(values, shares, strict=True))
    merge_checkpoints(sources, str(tmp_path / "last"))
    assert_same(read(tmp_path / "last"), oracle(pairs, torch.float16))
    for dtype in ("float32", "bfloat16"):
        merge_checkpoints(sources, str(tmp_path / dtype), dtype=dtype)
        assert_same(read(tmp_path / dtype), oracle(pairs, getattr(torch, dtype)))
        config = json.loads((tmp_path / dtype / "config.json").read_text())
        assert config["source"] == 2
        assert (config["dtype"], config["torch_dtype"]) == (dtype, dtype)


def test_weights_zero_and_one_reproduce_the_last_source(tmp_path):
    values = [weights_of(i) for i in (1, 2)]
    values[1]["model.norm.weight"][:5] = -0.0
    one, other = (write(tmp_path / str(i), v) for i, v in enumerate(values))
    merge_checkpoints([(one, 0), (other, 1)], str(tmp_path / "out"))
    for name, value in read(tmp_path / "out").items():
        assert value.numpy().tobytes() == values[1][name].numpy().tobytes(), name  # -0.0 is not 0.0
    merge_checkpoints([(other, 1.0)], str(tmp_path / "alone"))
    assert_same(read(tmp_path / "alone"), values[1])


def test_integers_and_booleans_are_copied_or_refused(tmp_path):
    counts = {"steps": torch.arange(3000), "a_mask": torch.tensor([True, False, True])}
    one = write(tmp_path / "one", weights_of(1, **counts))
    two = write(tmp_path / "two", weights_of(2, **counts))
    merge_checkpoints([(one, 0.5), (two, 0.5)], str(tmp_path / "out"), dtype="bfloat16")
    for tensor in stored_tensors([tmp_path / "out" / "model.safetensors"]).values():
        assert tensor.start % {"I64": 8, "BF16": 2, "BOOL": 1}[tensor.dtype] == 0, tensor  # aligned
    found = read(tmp_path / "out")
    assert torch.equal(found["steps"], counts["steps"])
    assert torch.equal(found["a_mask"], counts["a_mask"])
    late = counts["steps"].clone()
    late[2999] += 1
    three = write(tmp_path / "three", weights_of(3, **(counts | {"steps": late})))
    with pytest.raises(MergeError, match="tensor steps holds I64"):
        merge_checkpoints([(one, 0.5), (three, 0.5)], str(tmp_path / "bad"))
    four = write(tmp_path / "four", weights_of(3, **(counts | {"steps": late.float()})))
    with pytest.raises(MergeError, match=r"tensor steps is I64 .* F32"):
        merge_checkpoints([(one, 0.5), (four, 0.5)], str(tmp_path / "bad"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["four", "one", "out", "three", "two"]


def changed(values, name, tensor):
    return {**{n: v for n, v in values.items() if n != name}, **({} if tensor is None else {name: tensor})}


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (None, "tensor model.norm.weight is in .* but not in"),
        (torch.zeros(34), "tensor model.norm.weight has shape"),
        (torch.zeros(1, 33), "tensor model.norm.weight has shape"),
    ],
)
def test_a_mismatch_names_the_tensor_and_leaves_nothing(tmp_path, place, tensor, words):
    values = [weights_of(1), weights_of(2)]
    values[place] = changed(values[place], "model.norm.weight", tensor)
    sources = [(write(tmp_path / "in" / str(i), v), 0.5) for i, v in enumerate(values)]
    with pytest.raises(ValueError, match=words) as caught:
        merge_checkpoints(sources, str(tmp_path / "out"))
    assert isinstance(caught.value, MergeError)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("shares", "dtype", "words"),
    [
        ((float("nan"), 1), None, "weight nan"),
        ((0.5, float("inf")), None, "weight inf"),
        ((0, 0), None, "all weights are zero"),
        ((0.5, 0.5), "int8", "dtype int8"),
        ((1e38, 1e38), None, "not finite"),
        ((1e6, 0), "float16", "tensor .* not finite in F16"),
    ],
)
def test_impossible_requests(tmp_path, shares, dtype, words):
    sources = [(write(tmp_path / "in" / str(i), weights_of(i)), w) for i, w in enumerate(shares)]
    with pytest.raises(MergeError, match=words):
        merge_checkpoints(sources, str(tmp_path / "out"), dtype=dtype)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_sources_that_are_no_checkpoints(tmp_path):
    good = write(tmp_path / "good", weights_of(1))
    with pytest.raises(MergeError, match="no sources"):
        merge_checkpoints([], str(tmp_path / "out"))
    pickle = tmp_path / "pickle"
    pickle.mkdir()
    (pickle / "pytorch_model.bin").write_bytes(b"x")
    (pickle / "config.json").write_text("{}")
    with pytest.raises(MergeError, match="convert the model to safetensors"):
        merge_checkpoints([(str(pickle), 0.5), (good, 0.5)], str(tmp_path / "out"))
    with pytest.raises(MergeError, match="nowhere"):
        merge_checkpoints([(str(tmp_path / "nowhere"), 0.5), (good, 0.5)], str(tmp_path / "out"))
    cut = tmp_path / "good" / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1])
    with pytest.raises(MergeError, match="not a whole safetensors file"):
        merge_checkpoints([(good, 1)], str(tmp_path / "out"))
    values = weights_of(1)
    values["model.norm.weight"][3] = float("nan")
    bad = write(tmp_path / "nan", values)
    with pytest.raises(MergeError, match=r"tensor model.norm.weight: .*not finite"):
        merge_checkpoints([(bad, 1)], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_output_that_exists_is_left_alone(tmp_path):
    source = write(tmp_path / "source", weights_of(1))
    out = tmp_path / "out"
    out.mkdir()
    merge_checkpoints([(source, 1)], str(out))  # empty: fine
    before = (out / "model.safetensors").stat()
    with pytest.raises(MergeError, match="not an empty directory"):
        merge_checkpoints([(source, 1)], str(out))
    assert (out / "model.safetensors").stat() == before
    with pytest.raises(MergeError, match="not an empty directory"):
        merge_checkpoints([(source, 1)], source)


@pytest.mark.parametrize("twice", ["base", "trained"])
def test_config_and_companions_come_from_the_last_source(tmp_path, twice):
    torch.manual_seed(0)
    small = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True,
    }  # fmt: skip
    models = {}
    for name, theta, window in (("base", 1e4, 64), ("trained", 7e5, 512)):
        config = LlamaConfig(
            **small,
            max_position_embeddings=window,
            rope_parameters={"rope_type": "default", "rope_theta": theta},
        )
        models[name] = AutoModelForCausalLM.from_config(config)
        save_model(models[name], tmp_path / name)
        (tmp_path / name / "tokenizer.json").write_text(json.dumps(name))
        (tmp_path / name / "optimizer.bin").write_bytes(b"state")
    # As some published checkpoints are: a tied head stored a second time.
    stored = load_file(tmp_path / twice / "model.safetensors")
    stored["lm_head.weight"] = stored["model.embed_tokens.weight"].clone()
    save_file(stored, tmp_path / twice / "model.safetensors", metadata={"format": "pt"})
    out = tmp_path / "out"
    merge_checkpoints([(str(tmp_path / "base"), 0.5), (str(tmp_path / "trained"), 0.5)], str(out))
    assert (out / "config.json").read_bytes() == (tmp_path / "trained" / "config.json").read_bytes()
    assert json.loads((out / "tokenizer.json").read_text()) == "trained"
    assert not (out / "optimizer.bin").exists()
    check_complete(out)
    merged = load_model(out)
    assert merged.config.rope_parameters["rope_theta"] == 7e5
    assert merged.config.max_position_embeddings == 512
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    states = [models[name].state_dict() for name in ("base", "trained")]
    for name, value in merged.state_dict().items():
        assert torch.equal(value, states[0][name] * 0.5 + states[1][name] * 0.5)
    stored["lm_head.weight"][0, 0] += 1  # a head of its own
    save_file(stored, tmp_path / twice / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MergeError, match=r"tensor lm_head.weight is in"):
        merge_checkpoints([(str(tmp_path / "base"), 0.5), (str(tmp_path / "trained"), 0.5)], str(out) + "2")


def test_an_exception_midway_leaves_nothing(tmp_path, monkeypatch):
    source = write(tmp_path / "in", weights_of(1), shards=2)
    calls = []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return average.average_pieces(*arguments)

    monkeypatch.setattr("longrecipe_core.merging.merge.average_pieces", fail)
    with pytest.raises(KeyboardInterrupt):
        merge_checkpoints([(source, 1)], str(tmp_path / "deep" / "out"))
    assert len(calls) == 4
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_killed_merge_shows_no_output_and_the_next_cleans_up(tmp_path):
    source = write(tmp_path / "in", weights_of(1), shards=2)
    code = f"""
        import os, signal
        from longrecipe_core.merging import merge, merge_checkpoints
        plain, count = merge.write_shard, 0
        def killed(*arguments):
            global count
            count += 1
            if count == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            plain(*arguments)
        merge.write_shard = killed
        merge_checkpoints([({source!r}, 1)], {str(tmp_path / "out")!r})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert any(path.name.startswith(".out.partial-") for path in tmp_path.iterdir())
    merge_checkpoints([(source, 1)], str(tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert (tmp_path / "out").stat().st_mode & 0o777 == (tmp_path / "in").stat().st_mode & 0o777


def test_peak_memory_does_not_grow_with_the_model(tmp_path):
    """Two checkpoints of 384 MiB, one tensor half of each: far less than a shard more than before."""
    rows = 48 * 1024
    for name, value in (("one", 1.0), ("two", 3.0)):
        write(tmp_path / name, {"a": torch.full((rows, 2048), value, dtype=torch.bfloat16),
                                "b": torch.full((rows, 2048), value, dtype=torch.bfloat16)})  # fmt: skip
    code = f"""
        import torch
        from pathlib import Path
        from longrecipe_core.merging import merge_checkpoints
        torch.set_num_threads(1)
        torch.randn(1000, 1000) @ torch.randn(1000, 1000)
        def peak():  # not ru_maxrss: that starts with the parent's
            lines = Path("/proc/self/status").read_text().splitlines()
            return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
        before = peak()
        merge_checkpoints([({str(tmp_path / "one")!r}, 0.5), ({str(tmp_path / "two")!r}, 0.5)],
                          {str(tmp_path / "out")!r})
        print(peak() - before)
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    grown_mib = int(done.stdout) / 1024
    print(f"peak memory grew by {grown_mib:.0f} MiB")
    assert grown_mib < 64
    assert (load_file(tmp_path / "out" / "model.safetensors")["a"] == 2).all()
