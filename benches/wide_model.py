"""Writes a Llama of random weights in f32 whose rows are whole blocks of every packed format.

    python3 benches/wide_model.py FOLDER MODEL

The tokenizer is that of the folder MODEL. Needs torch and transformers.
"""

import pathlib
import shutil
import sys

import torch
import transformers


def main(folder, model):
    folder, model = pathlib.Path(folder), pathlib.Path(model)
    vocab = transformers.AutoConfig.from_pretrained(model).vocab_size
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=8,
        num_key_value_heads=4, vocab_size=vocab, max_position_embeddings=512, bos_token_id=1,
        eos_token_id=2, initializer_range=0.08, tie_word_embeddings=False)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    for name in ["tokenizer.json", "tokenizer_config.json"]:
        shutil.copy(model / name, folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
