"""Losses and gradient norms of transformers and peft with dropout, noise, smoothed targets and
z-loss, where the random numbers are those of NUMERICS.md, section 6. Prints a table of
reference.rs: `python make_regularization.py shared/models/tinystories-260k [dora]`.
"""

import struct
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.trainer_pt_utils import LabelSmoother

SEED, STEP, RANK, ALPHA = 9, 4, 4, 8.0
LENGTHS = [61, 40]
DORA = [dict(), dict(dropout=0.1), dict(dropout=0.5)]
CASES = [
    dict(),
    dict(dropout=0.1),
    dict(dropout=0.5),
    dict(noise=5.0),
    dict(smoothing=0.1),
    dict(z=1e-3),
    dict(dropout=0.3, noise=5.0, smoothing=0.2, z=0.01),
]

IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
ORDER = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
MASK = 0xFFFFFFFF


def compress(chain, block, length, flags):
    """The compression function of BLAKE3, of the first chunk."""
    words = list(struct.unpack("<16I", block.ljust(64, b"\0")))
    v = list(chain) + IV[:4] + [0, 0, length, flags]

    def mix(a, b, c, d, x, y):
        for word, left, right in ((x, 16, 12), (y, 8, 7)):
            v[a] = (v[a] + v[b] + word) & MASK
            v[d] = turn(v[d] ^ v[a], left)
            v[c] = (v[c] + v[d]) & MASK
            v[b] = turn(v[b] ^ v[c], right)

    def turn(x, by):
        return (x >> by | x << (32 - by)) & MASK

    for _ in range(7):
        for i in range(4):
            mix(i, 4 + i, 8 + i, 12 + i, words[2 * i], words[2 * i + 1])
        for i in range(4):
            j = [(i + k) % 4 for k in range(4)]
            mix(j[0], 4 + j[1], 8 + j[2], 12 + j[3], words[8 + 2 * i], words[9 + 2 * i])
        words = [words[i] for i in ORDER]
    return [v[i] ^ v[i + 8] for i in range(8)]


def blake3_chunk(key, data, flags):
    """BLAKE3 of one chunk, as words."""
    assert len(data) <= 1024
    blocks = [data[i : i + 64] for i in range(0, len(data), 64)] or [b""]
    for i, block in enumerate(blocks):
        start, end = i == 0, i == len(blocks) - 1
        key = compress(key, block, len(block), flags | start | end * (2 | 8))
    return key


def derived(context, data):
    """The first 64 bits of BLAKE3's derive_key."""
    key = blake3_chunk(IV, context.encode(), 32)
    low, high, *_ = blake3_chunk(key, data, 64)
    return high << 32 | low


def philox(key, counter, stream):
    """The four words of Philox 4x32-10."""
    low, high = key & MASK, key >> 32
    x = [counter & MASK, counter >> 32, stream & MASK, stream >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [b >> 32 ^ x[1] ^ low, b & MASK, a >> 32 ^ x[3] ^ high, a & MASK]
        low, high = (low + 0x9E3779B9) & MASK, (high + 0xBB67AE85) & MASK
    return x


DOMAIN = "concord 1 random numbers of training: "


def drawn(name, tokens, columns, per_group, take):
    """What `take` makes of the words and the place of each column, [tokens, columns]."""
    seed = struct.pack("<QI", SEED, STEP)
    key = derived(DOMAIN + "tensor", seed + name.encode())
    stream = derived(DOMAIN + "document", struct.pack(f"<{len(tokens)}I", *tokens))
    rows = []
    for position in range(len(tokens)):
        row, words = [], {}
        for column in range(columns):
            group = column // (16 * per_group) * 16 + column % 16
            if group not in words:
                words[group] = philox(key, position << 32 | group, stream)
            row.append(take(words[group], column // 16 % per_group))
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def kept(name, tokens, columns, share):
    threshold = round(65536 * share)
    half = lambda words, place: words[place // 2] >> 16 * (place % 2) & 0xFFFF
    mask = drawn(name, tokens, columns, 8, lambda *at: float(half(*at) >= threshold))
    return mask * 65536 / (65536 - threshold)


class Drop(torch.nn.Module):
    def __init__(self, name, share):
        super().__init__()
        self.name, self.share = name, share

    def forward(self, x):
        return x * kept(self.name, TOKENS, x.shape[-1], self.share)


def run(model, case):
    global TOKENS
    share = case.get("dropout", 0.0)
    for name, module in model.named_modules():
        if hasattr(module, "lora_dropout") and "default" in module.lora_A:
            drop = Drop(f"{name}.lora_A.weight", share) if share else torch.nn.Identity()
            module.lora_dropout["default"] = drop
    model.zero_grad()
    table, total = model.get_input_embeddings(), 0.0
    for length in LENGTHS:
        TOKENS = [(i * i * 31 + i * 7) % 61 + 3 for i in range(length)]
        ids = torch.tensor([TOKENS])
        x = table(ids)
        if case.get("noise"):
            unit = lambda words, place: (words[place] >> 8) / 2**23 - 1
            reach = case["noise"] / (length * x.shape[-1]) ** 0.5
            x = x + reach * drawn("embedding noise", TOKENS, x.shape[-1], 4, unit)
        logits = model(inputs_embeds=x).logits
        smoother = LabelSmoother(epsilon=case.get("smoothing", 0.0))
        loss = smoother({"logits": logits}, ids.clone(), shift_labels=True) * (length - 1)
        log_sums = torch.logsumexp(logits[0, :-1], -1)
        loss = loss + case.get("z", 0.0) * (log_sums**2).sum()
        loss.backward()
        total += loss.item()
    squares = sum((p.grad**2).sum() for p in model.parameters() if p.grad is not None)
    count = sum(length - 1 for length in LENGTHS)
    return total / count, squares.sqrt().item() / count


def main():
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float64)
    targets = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split()
    dora = sys.argv[2:] == ["dora"]
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets, lora_dropout=0.0, use_dora=dora)
    model = get_peft_model(model, config)
    model.train()
    # The magnitudes of DoRA stay the norms of the rows of the model.
    factors = [(n.replace(".default", ""), p) for n, p in model.named_parameters()
               if "lora_A" in n or "lora_B" in n]
    for index, (_, factor) in enumerate(sorted(factors, key=lambda named: named[0])):
        values = [((i * i * 7 + index * 13 + i) % 23 - 11) / 128 for i in range(factor.numel())]
        factor.data = torch.tensor(values, dtype=torch.float64).reshape(factor.shape)
    for case in DORA if dora else CASES:
        loss, norm = run(model, case)
        print(f"    {case}: ({loss:.6}, {norm:.6}),")


if __name__ == "__main__":
    main()
