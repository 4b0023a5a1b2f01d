"""The NoPE GPT network and its training step in plain PyTorch, to compare speed, memory and losses with `gpu throughput`.

It begins with the weights that `gpu throughput --weights FOLDER` writes and reads the tokens of `--batches FILE`, so that both programs compute
the same. Needs PyTorch 2.5 or newer; compare.sh runs both. Not part of the build or of any test.
"""

import argparse
import array
import json
import os
import struct
import sys
import time

EPSILON = 1.1920928955078125e-7  # of float32, which the reference's RMSNorm takes
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="folder with config.json and model.safetensors")
    parser.add_argument("--batches", required=True, help="int64 ids, [steps, batch, length + 1]")
    parser.add_argument("--batch", type=int, default=4, help="rows of a step")
    parser.add_argument("--length", type=int, default=64, help="tokens of a row")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", choices=["float32", "bfloat16", "float16"], default="bfloat16")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network")
    parser.add_argument("--beside", help="the --json file of `gpu throughput`: print the ratios and the largest difference of the losses")
    return parser.parse_args()


def read_safetensors(path, torch):
    """Name to float32 tensor; the format is 8 bytes of header length, a JSON header, and the data."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensors = {}
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            file.seek(8 + length + start)
            data = bytearray(file.read(end - start))
            tensors[name] = torch.frombuffer(data, dtype=getattr(torch, DTYPES[entry["dtype"]])).reshape(entry["shape"]).float()
        return tensors


def read_batches(path, steps, rows, length, torch):
    """[steps, rows, length + 1]"""
    ids = array.array("q")
    count = steps * rows * (length + 1)
    if os.path.getsize(path) != 8 * count:
        sys.exit(f"{path} has {os.path.getsize(path)} bytes and not {8 * count}: give --steps, --batch and --length as to `gpu throughput`")
    with open(path, "rb") as file:
        ids.fromfile(file, count)
    return torch.tensor(ids, dtype=torch.int64).view(steps, rows, length + 1)


def network(config, torch):
    """The decoder: pre-norm, no positions, grouped heads, SiLU, the head tied to the embedding."""
    nn, functional = torch.nn, torch.nn.functional
    width, heads, kv_heads = config["embedding_dimensions"], config["num_q_heads"], config["num_kv_heads"]
    size, hidden = width // heads, config["hidden_ratio"] * width

    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.empty(width))

        def forward(self, x):
            x = x.float()
            return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON) * self.weight

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj = nn.Linear(width, heads * size, bias=False)
            self.k_proj = nn.Linear(width, kv_heads * size, bias=False)
            self.v_proj = nn.Linear(width, kv_heads * size, bias=False)
            self.out_proj = nn.Linear(width, width, bias=False)

        def forward(self, x):
            rows, length, _ = x.shape
            q = self.q_proj(x).view(rows, length, heads, size).transpose(1, 2)
            k = self.k_proj(x).view(rows, length, kv_heads, size).transpose(1, 2)
            v = self.v_proj(x).view(rows, length, kv_heads, size).transpose(1, 2)
            k, v = (t.repeat_interleave(heads // kv_heads, dim=1) for t in (k, v))
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.out_proj(mixed.transpose(1, 2).reshape(rows, length, width))

    class FeedForward(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear1 = nn.Linear(width, hidden, bias=False)
            self.linear2 = nn.Linear(hidden, width, bias=False)

        def forward(self, x):
            return self.linear2(functional.silu(self.linear1(x)))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.stage1, self.norm2, self.stage2 = Norm(), Attention(), Norm(), FeedForward()

        def forward(self, x):
            x = x + self.stage1(self.norm1(x))
            return x + self.stage2(self.norm2(x))

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(Block() for _ in range(config["num_decoder_layers"]))

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = Norm()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.token_embeddings = nn.Embedding(config["vocabulary_size"], width)
            self.decoder, self.token_classifier = Decoder(), Classifier()

        def forward(self, tokens, targets):
            x = self.token_embeddings(tokens)
            for layer in self.decoder.layers:
                x = layer(x)
            logits = functional.linear(self.token_classifier.norm(x), self.token_embeddings.weight)
            return functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    return Model()


def train(options, torch):
    with open(os.path.join(options.weights, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    model = network(config, torch)
    model.load_state_dict(read_safetensors(os.path.join(options.weights, "model.safetensors"), torch), strict=True)
    model = model.to(options.device).train()
    parameters = list(model.parameters())
    groups = [{"params": [p for p in parameters if p.dim() >= 2], "weight_decay": 0.1}, {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0}]
    on_gpu = options.device.startswith("cuda")
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, **({"fused": True} if on_gpu else {}))
    scaler = torch.amp.GradScaler(enabled=True) if options.precision == "float16" else None
    batches = read_batches(options.batches, options.steps, options.batch, options.length, torch)
    run = torch.compile(model) if options.compile else model
    losses, seconds = [], []
    for step in range(options.steps):
        start = time.perf_counter()
        rows = batches[step].to(options.device)
        with torch.autocast(options.device.split(":")[0], dtype=getattr(torch, options.precision), enabled=options.precision != "float32"):
            loss = run(rows[:, :-1], rows[:, 1:])
        (scaler.scale(loss) if scaler else loss).backward()
        if scaler:
            scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        if scaler:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        # Kernels are chosen and compiled in the first steps.
        if step >= 3 or options.steps <= 3:
            seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_reserved(options.device) if on_gpu else None
    return losses, sorted(seconds)[len(seconds) // 2], peak


def main():
    options = arguments()
    try:
        import torch
    except ImportError:
        sys.exit("PyTorch is not installed: pip install torch")
    losses, seconds, peak = train(options, torch)
    rate = options.batch * options.length / seconds
    form = "compiled" if options.compile else "eager"
    memory = "" if peak is None else f", {peak / 1e9:.3f} GB reserved at most"
    print(f"PyTorch {torch.__version__}, {form}, {options.precision}: {rate:,.0f} tokens/s{memory}, loss {losses[0]:.4f} to {losses[-1]:.4f}")
    if options.beside:
        with open(options.beside, encoding="utf-8") as file:
            ours = json.load(file)
        difference = max(abs(a - b) for a, b in zip(ours["losses"], losses))
        print(f"ours: {ours['tokens_per_second'] / rate:.2f} times its tokens/s; losses differ by {difference:.1e} at most")


if __name__ == "__main__":
    main()
