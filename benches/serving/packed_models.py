"""GGUF files of TinyLlama's shape with random blocks, for `llama-bench` and for `concord generate`.

    python3 packed_models.py FOLDER [--layers 22] [--types F16,Q8_0,Q4_K]

Needs gguf and numpy. The numbers mean nothing; sizes and formats are those of a real file.
"""

import argparse
from pathlib import Path

import gguf
import numpy as np

HIDDEN, INNER, KEYS, VOCAB, HEADS, KEY_HEADS = 2048, 5632, 256, 32000, 32, 4

# Bytes of a block with the upper byte of an f16 scale.
SCALES = {"F16": [1], "Q8_0": [1], "Q4_0": [1], "Q4_K": [1, 3], "Q6_K": [209]}


def blocks(random, kind, rows, cols):
    """Random codes; all scales are near 2^-10, with a minimum that is as small."""
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    data = random.integers(0, 256, (rows, cols // elements, size), dtype=np.uint8)
    for at in SCALES[kind.name]:
        data[:, :, at] = data[:, :, at] & 0x83 | 0x14
    return data.reshape(rows, -1)


def write(path, kind, layers):
    random = np.random.default_rng(7)
    file = gguf.GGUFWriter(path, "llama")
    file.add_context_length(2048)
    file.add_embedding_length(HIDDEN)
    file.add_block_count(layers)
    file.add_feed_forward_length(INNER)
    file.add_head_count(HEADS)
    file.add_head_count_kv(KEY_HEADS)
    file.add_layer_norm_rms_eps(1e-5)
    file.add_rope_freq_base(10000.0)
    file.add_rope_dimension_count(HIDDEN // HEADS)
    file.add_vocab_size(VOCAB)
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    pieces += [f"\u2581{i}" for i in range(VOCAB - len(pieces))]
    kinds = [2, 3, 3] + [6] * 256
    file.add_tokenizer_model("llama")
    file.add_tokenizer_pre("default")
    file.add_token_list(pieces)
    file.add_token_scores([-float(i) for i in range(VOCAB)])
    file.add_token_types(kinds + [1] * (VOCAB - len(kinds)))
    file.add_bos_token_id(1)
    file.add_eos_token_id(2)

    def matrix(name, rows, cols):
        data = blocks(random, kind, rows, cols)
        if kind.name == "F16":
            data = data.view(np.float16)
        file.add_tensor(f"{name}.weight", data, raw_dtype=kind)

    def norm(name):
        file.add_tensor(f"{name}.weight", np.ones(HIDDEN, np.float32))

    matrix("token_embd", VOCAB, HIDDEN)
    matrix("output", VOCAB, HIDDEN)
    norm("output_norm")
    for layer in range(layers):
        block = f"blk.{layer}."
        norm(block + "attn_norm")
        norm(block + "ffn_norm")
        matrix(block + "attn_q", HIDDEN, HIDDEN)
        matrix(block + "attn_k", KEYS, HIDDEN)
        matrix(block + "attn_v", KEYS, HIDDEN)
        matrix(block + "attn_output", HIDDEN, HIDDEN)
        matrix(block + "ffn_gate", INNER, HIDDEN)
        matrix(block + "ffn_up", INNER, HIDDEN)
        matrix(block + "ffn_down", HIDDEN, INNER)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--types", default="F16,Q8_0,Q4_K")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in args.types.split(","):
        path = args.folder / f"tinyllama-{args.layers}-{name}.gguf"
        write(path, gguf.GGMLQuantizationType[name], args.layers)
        print(path, path.stat().st_size)


main()
