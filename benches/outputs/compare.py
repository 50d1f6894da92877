"""What comes out of a job, read by the tools that it is for.

Trains an adapter with each option and a full fine-tune of each model, merges, exports, and compares
the logits that `concord logits` computes of each output with those of peft, transformers and
llama.cpp.

    python3 benches/outputs/compare.py --concord target/release/concord \
        --llama ./llama_logits MODEL_DIR...

It needs torch, transformers 5, peft, bitsandbytes, gguf and safetensors; --llama is the program of
llama_logits.cpp beside this file, without which GGUF files are not compared. A packed base needs a
model whose rows are whole blocks: benches/wide_model.py makes one. --only WORDS takes the options
with these words in their names. Exits with 1 where a difference is beyond its tolerance: relative
to the largest logit, 1e-3 in f32, 2e-3 in f16 and 5e-2 where llama.cpp rounds activations to 8
bits; or where an adapter changes the logits by less than 10 times that difference.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import bitsandbytes
import numpy
import peft
import torch
import transformers
from safetensors.numpy import load_file, save_file

from options import OPTIONS, QUANTISED, base_of, initial, load

TOLERANCE = {"f32": 1e-3, "f16": 2e-3, "bf16": 1e-3, "q8_0": 5e-2, "q4_k_m": 5e-2}
# Within the windows of small models: llama.cpp has none in files of `llama`.
TOKENS = 20

JOB = {"sequence_len": 64, "micro_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 4}


class Refused(Exception):
    """The program says no, and why."""


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise Refused(done.stderr.strip().splitlines()[-1].replace("|", "/"))
    return done.stdout


def train(concord, model, adapter, home, name, keys):
    data, output = home / "data.txt", home / name
    data.write_text("Seven birds sat on a wall, and one of them could sing. " * 60)
    job = JOB | {
        "base_model": str(model), "datasets": [{"path": str(data), "type": "text"}],
        "adapter": adapter, "learning_rate": 2e-2 if adapter == "lora" else 1e-4,
        "output_dir": str(output)} | keys
    (home / f"{name}.yaml").write_text(json.dumps(job))
    run(concord, "train", home / f"{name}.yaml", "--checkers", "0")
    return output


def ours(concord, model, ids, home, *more):
    save_file({"input_ids": ids[None].astype(numpy.int64)}, home / "ids.safetensors")
    run(concord, "logits", "--model", model, "--input", home / "ids.safetensors", "--output",
        home / "logits.safetensors", *more)
    return load_file(home / "logits.safetensors")["logits"][0]


def of_torch(model, ids):
    model.eval()
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            # On a CPU its forward pass is of bf16 but in training, where it is of f32.
            module.train()
    with torch.no_grad():
        return model(torch.tensor(ids[None].astype(numpy.int64))).logits[0].float().numpy()


def of_llama(program, file, ids, home):
    ids.astype(numpy.int32).tofile(home / "ids")
    run(program, file, home / "ids", home / "logits")
    return numpy.fromfile(home / "logits", dtype=numpy.float32).reshape(len(ids), -1)


class Table:
    def __init__(self):
        self.is_good = True
        print("| model | output | read by | largest difference | same next token |")
        print("|---|---|---|---|---|")

    def row(self, model, output, reader, found, expected, kind, bare=None):
        off = float(numpy.abs(found - expected).max() / numpy.abs(expected).max())
        same = int((found.argmax(-1) == expected.argmax(-1)).sum())
        bad = "" if off <= TOLERANCE[kind] else " TOO MUCH"
        if bare is not None:
            change = float(numpy.abs(bare - expected).max() / numpy.abs(expected).max())
            bad += " IT CHANGES NOTHING" if change < 10 * off else ""
        self.is_good &= not bad
        print(f"| {model} | {output} | {reader} | {off:.1e}{bad} | {same} of {len(found)} |",
              flush=True)

    def refused(self, model, output, why):
        print(f"| {model} | {output} | refused: {why} | | |", flush=True)


def keys_of(option, model, home, concord):
    """The keys of an option; the files that they name are made."""
    keys = dict(OPTIONS[option])
    if "initial_adapter" in keys:
        initial(model, home / "initial")
        keys["initial_adapter"] = str(home / "initial")
    if "base_model" in keys:
        kind = keys["base_model"].strip("{}")
        keys["base_model"] = str(home / f"base-{kind}.gguf")
        run(concord, "export", model, "--gguf", kind, "-o", keys["base_model"])
    return keys


def compare_option(args, model, option, table, ids, bare):
    """An adapter by peft, and merged and exported in f32."""
    name, more = model.name, QUANTISED.get(option, [])
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder)

        def merge(what, to, *options):
            run(args.concord, "merge", what, "-o", home / to, "--dtype", "f32", *options)
            return home / to

        try:
            keys = keys_of(option, model, home, args.concord)
            adapter = train(args.concord, model, "lora", home, "adapter", keys)
        except Refused as why:
            table.refused(name, option, why)
            return
        found = ours(args.concord, adapter, ids, home, *more)
        base, reader = base_of(option, model, home, merge)
        with_peft = peft.PeftModel.from_pretrained(base, adapter)
        table.row(name, option, reader, found, of_torch(with_peft, ids), "f32", bare)
        merged = merge(adapter, "merged", *more)
        of_merged = ours(args.concord, merged, ids, home)
        table.row(name, f"{option}: merged, f32", "transformers", of_merged,
                  of_torch(load(merged), ids), "f32")
        table.row(name, f"{option}: merged, f32", "the adapter itself", of_merged, found, "f32")
        if args.llama:
            file = home / "f32.gguf"
            run(args.concord, "export", adapter, "--gguf", "f32", "-o", file, *more)
            table.row(name, f"{option}: GGUF, f32", "llama.cpp",
                      ours(args.concord, file, ids, home),
                      of_llama(args.llama, file, ids, home), "f32")


def compare_formats(args, model, table, ids):
    """A plain adapter and a full fine-tune in every format that is written."""
    with tempfile.TemporaryDirectory() as folder:
        home, name = pathlib.Path(folder), model.name
        adapter = train(args.concord, model, "lora", home, "lora", {"lora_r": 8, "lora_alpha": 32})
        for dtype, shards in [("f32", "64K"), ("f16", "5G"), ("f16", "64K"), ("bf16", "5G")]:
            merged = home / f"merged-{dtype}-{shards}"
            run(args.concord, "merge", adapter, "-o", merged, "--dtype", dtype,
                "--max-shard-size", shards)
            found = ours(args.concord, merged, ids, home)
            in_shards = ", in shards" if shards == "64K" else ""
            is_sharded = (merged / "model.safetensors.index.json").exists()
            assert is_sharded == bool(in_shards), merged
            table.row(name, f"merged, {dtype}{in_shards}", "transformers", found,
                      of_torch(load(merged), ids), dtype)
        full = train(args.concord, model, "full", home, "full", {})
        table.row(name, "full", "transformers", ours(args.concord, full, ids, home),
                  of_torch(load(full), ids), "f32")
        for what, of in [(adapter, "LoRA"), (full, "full")] if args.llama else []:
            for kind in ["f32", "f16", "q8_0", "q4_k_m"]:
                file = home / f"{of}-{kind}.gguf"
                run(args.concord, "export", what, "--gguf", kind, "-o", file)
                table.row(name, f"{of}: GGUF, {kind}", "llama.cpp",
                          ours(args.concord, file, ids, home),
                          of_llama(args.llama, file, ids, home), kind)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--concord", required=True)
    parser.add_argument("--llama", help="the program of llama_logits.cpp")
    parser.add_argument("--only", default="", help="words in the names of options")
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    table = Table()
    for model in map(pathlib.Path.resolve, args.models):
        vocab = transformers.AutoConfig.from_pretrained(model).vocab_size
        ids = numpy.random.default_rng(7).integers(3, vocab, TOKENS)
        bare = of_torch(load(model), ids)
        for option in [option for option in OPTIONS if args.only in option]:
            compare_option(args, model, option, table, ids, bare)
        if not args.only:
            compare_formats(args, model, table, ids)
    sys.exit(0 if table.is_good else 1)


if __name__ == "__main__":
    main()
