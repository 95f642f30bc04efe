"""A plain decoder in float64, written from the architectures' papers; shares no line with transformers or with us."""

import torch


def rms(x, weight, eps):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def rotate(x, positions, theta):
    """`x` is [batch, sequence, heads, dim]; pairs are (i, i + dim/2)."""
    half = x.shape[-1] // 2
    frequency = 1.0 / theta ** (torch.arange(half, dtype=torch.float64) / half)
    angle = positions[:, :, None, None].double() * frequency
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], dim=-1)


def logits(weights, config, tokens, positions, starts=None):
    """`weights`: name -> float64 tensor; returns [batch, sequence, vocabulary]. Every token sees all before it."""
    heads, kv, eps = config.num_attention_heads, config.num_key_value_heads, config.rms_norm_eps
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    theta = config.rope_parameters["rope_theta"]
    batch, length = tokens.shape
    visible = torch.tril(torch.ones(length, length, dtype=torch.bool))
    if starts is not None:
        sample = torch.zeros(length, dtype=torch.long)
        for start in starts[1:]:
            sample[start:] += 1
        visible = visible & (sample[:, None] == sample[None, :])
    x = weights["model.embed_tokens.weight"][tokens]
    for layer in range(config.num_hidden_layers):

        def of(name, layer=layer):
            return weights.get(f"model.layers.{layer}.{name}")

        y = rms(x, of("input_layernorm.weight"), eps)
        if of("self_attn.qkv_proj.weight") is not None:
            q, k, v = (y @ of("self_attn.qkv_proj.weight").T).split([heads * dim, kv * dim, kv * dim], dim=-1)
        else:
            q, k, v = (y @ of(f"self_attn.{n}_proj.weight").T for n in "qkv")
            if of("self_attn.q_proj.bias") is not None:
                q, k, v = (z + of(f"self_attn.{n}_proj.bias") for z, n in zip((q, k, v), "qkv", strict=True))
        q, k, v = (z.view(batch, length, -1, dim) for z in (q, k, v))
        if of("self_attn.q_norm.weight") is not None:
            q, k = rms(q, of("self_attn.q_norm.weight"), eps), rms(k, of("self_attn.k_norm.weight"), eps)
        q, k = rotate(q, positions, theta), rotate(k, positions, theta)
        mixed = []
        for head in range(heads):
            score = q[:, :, head] @ k[:, :, head * kv // heads].transpose(1, 2) / dim**0.5
            score = score.masked_fill(~visible, float("-inf"))
            mixed.append(score.softmax(-1) @ v[:, :, head * kv // heads])
        x = x + torch.cat(mixed, dim=-1) @ of("self_attn.o_proj.weight").T
        y = rms(x, of("post_attention_layernorm.weight"), eps)
        if of("mlp.gate_up_proj.weight") is not None:
            gate, up = (y @ of("mlp.gate_up_proj.weight").T).chunk(2, dim=-1)
        else:
            gate, up = y @ of("mlp.gate_proj.weight").T, y @ of("mlp.up_proj.weight").T
        x = x + (gate * torch.sigmoid(gate) * up) @ of("mlp.down_proj.weight").T
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    return rms(x, weights["model.norm.weight"], eps) @ head.T
