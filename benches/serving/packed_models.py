"""GGUF files of a published shape with random blocks, for `llama-bench` and for `concord`.

    python3 packed_models.py FOLDER [--shape tinyllama] [--layers 22] [--types F16,Q8_0,Q4_K]

Needs gguf and numpy. The numbers mean nothing; sizes and formats are those of a real file. One
tensor is in memory at a time.
"""

import argparse
from pathlib import Path

import gguf
import numpy as np

# Hidden, inner and key width, vocabulary, heads, key heads, layers, base of the rotation.
SHAPES = {
    "tinyllama": (2048, 5632, 256, 32000, 32, 4, 22, 10000.0),
    "llama-3-8b": (4096, 14336, 1024, 128256, 32, 8, 32, 500000.0),
}

# Bytes of a block with the upper byte of an f16 scale.
SCALES = {"F16": [1], "Q8_0": [1], "Q4_0": [1], "Q4_K": [1, 3], "Q6_K": [209]}


def blocks(random, kind, rows, cols):
    """Random codes; all scales are near 2^-10, with a minimum that is as small."""
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    data = random.integers(0, 256, (rows, cols // elements, size), dtype=np.uint8)
    for at in SCALES[kind.name]:
        data[:, :, at] = data[:, :, at] & 0x83 | 0x14
    return data.reshape(rows, -1)


def matrices(shape, layers):
    """Names, rows and columns; a norm has no rows."""
    hidden, inner, keys, vocab = shape[:4]
    yield "token_embd", vocab, hidden
    yield "output", vocab, hidden
    yield "output_norm", 0, hidden
    for layer in range(layers):
        block = f"blk.{layer}."
        yield block + "attn_norm", 0, hidden
        yield block + "ffn_norm", 0, hidden
        yield block + "attn_q", hidden, hidden
        yield block + "attn_k", keys, hidden
        yield block + "attn_v", keys, hidden
        yield block + "attn_output", hidden, hidden
        yield block + "ffn_gate", inner, hidden
        yield block + "ffn_up", inner, hidden
        yield block + "ffn_down", hidden, inner


def write(path, kind, shape, layers):
    hidden, inner, _, vocab, heads, key_heads, _, base = shape
    random = np.random.default_rng(7)
    file = gguf.GGUFWriter(path, "llama")
    file.add_context_length(2048)
    file.add_embedding_length(hidden)
    file.add_block_count(layers)
    file.add_feed_forward_length(inner)
    file.add_head_count(heads)
    file.add_head_count_kv(key_heads)
    file.add_layer_norm_rms_eps(1e-5)
    file.add_rope_freq_base(base)
    file.add_rope_dimension_count(hidden // heads)
    file.add_vocab_size(vocab)
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    pieces += [f"\u2581{i}" for i in range(vocab - len(pieces))]
    kinds = [2, 3, 3] + [6] * 256
    file.add_tokenizer_model("llama")
    file.add_tokenizer_pre("default")
    file.add_token_list(pieces)
    file.add_token_scores([-float(i) for i in range(vocab)])
    file.add_token_types(kinds + [1] * (vocab - len(kinds)))
    file.add_bos_token_id(1)
    file.add_eos_token_id(2)
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    f32 = gguf.GGMLQuantizationType.F32
    for name, rows, cols in matrices(shape, layers):
        if rows:
            width = cols // elements * size
            file.add_tensor_info(f"{name}.weight", (rows, width), np.dtype(np.uint8), rows * width, kind)
        else:
            file.add_tensor_info(f"{name}.weight", (cols,), np.dtype(np.float32), 4 * cols, f32)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_ti_data_to_file()
    for _, rows, cols in matrices(shape, layers):
        file.write_tensor_data(blocks(random, kind, rows, cols) if rows else np.ones(cols, np.float32))
    file.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="tinyllama")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--types", default="F16,Q8_0,Q4_K")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    shape = SHAPES[args.shape]
    layers = args.layers or shape[6]
    for name in args.types.split(","):
        path = args.folder / f"{args.shape}-{layers}-{name}.gguf"
        write(path, gguf.GGMLQuantizationType[name], shape, layers)
        print(path, path.stat().st_size)


main()
