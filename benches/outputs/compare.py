"""What comes out of a job, read by the tools that it is for.

Trains an adapter and a full fine-tune of each model, merges, exports, and compares the logits that
`concord logits` computes of each output with those of peft, transformers and llama.cpp.

    python3 benches/outputs/compare.py --concord target/release/concord \
        --llama ./llama_logits MODEL_DIR...

It needs torch, transformers, peft and safetensors; --llama is the program of llama_logits.cpp
beside this file, without which GGUF files are not compared. Exits with 1 where a difference is
beyond its tolerance: relative to the largest logit, 1e-3 in f32, 2e-3 in f16 and 5e-2 where
llama.cpp rounds activations to 8 bits.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import numpy
import peft
import torch
import transformers
from safetensors.numpy import load_file, save_file

TOLERANCE = {"f32": 1e-3, "f16": 2e-3, "bf16": 1e-3, "q8_0": 5e-2, "q4_k_m": 5e-2}
# Within the windows of small models: llama.cpp has none in files of `llama`.
TOKENS = 20

JOB = """base_model: {model}
datasets: [{{path: {data}, type: text}}]
adapter: {adapter}
{lora}sequence_len: 64
micro_batch_size: 2
gradient_accumulation_steps: 2
max_steps: 4
learning_rate: {rate}
output_dir: {output}
"""


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def train(concord, model, adapter, home):
    data = home / "data.txt"
    data.write_text("Seven birds sat on a wall, and one of them could sing. " * 60)
    output = home / adapter
    lora = "lora_r: 8\nlora_alpha: 32\n" if adapter == "lora" else ""
    rate = "2e-2" if adapter == "lora" else "1e-4"
    job = home / f"{adapter}.yaml"
    job.write_text(JOB.format(model=model, data=data, adapter=adapter, lora=lora, rate=rate,
                              output=output))
    run(concord, "train", job)
    return output


def ours(concord, model, ids, home):
    save_file({"input_ids": ids[None].astype(numpy.int64)}, home / "ids.safetensors")
    run(concord, "logits", "--model", model, "--input", home / "ids.safetensors", "--output",
        home / "logits.safetensors")
    return load_file(home / "logits.safetensors")["logits"][0]


def of_torch(model, ids):
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

    def row(self, model, output, reader, found, expected, kind):
        off = float(numpy.abs(found - expected).max() / numpy.abs(expected).max())
        same = int((found.argmax(-1) == expected.argmax(-1)).sum())
        bad = "" if off <= TOLERANCE[kind] else " TOO MUCH"
        self.is_good &= not bad
        print(f"| {model} | {output} | {reader} | {off:.1e}{bad} | {same} of {len(found)} |",
              flush=True)


def compare(args, model, table):
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder)
        load = transformers.AutoModelForCausalLM.from_pretrained
        config = transformers.AutoConfig.from_pretrained(model)
        vocab = config.vocab_size
        ids = numpy.random.default_rng(7).integers(3, vocab, TOKENS)
        name = model.name
        adapter = train(args.concord, model, "lora", home)
        adapted = ours(args.concord, adapter, ids, home)
        of_peft = peft.PeftModel.from_pretrained(load(model, dtype=torch.float32), adapter)
        table.row(name, "adapter", "peft", adapted, of_torch(of_peft, ids), "f32")
        plain = ours(args.concord, model, ids, home)
        print(f"(the adapter moves logits by {numpy.abs(plain - adapted).max():.2f})",
              file=sys.stderr)
        for dtype, shards in [("f32", "5G"), ("f16", "64K"), ("bf16", "5G")]:
            merged = home / f"merged-{dtype}"
            run(args.concord, "merge", adapter, "-o", merged, "--dtype", dtype,
                "--max-shard-size", shards)
            found = ours(args.concord, merged, ids, home)
            read = load(merged, dtype=torch.float32)
            table.row(name, f"merged, {dtype}", "transformers", found, of_torch(read, ids), dtype)
            if dtype == "f32":
                table.row(name, "merged, f32", "the adapter itself", found, adapted, "f32")
        full = train(args.concord, model, "full", home)
        found = ours(args.concord, full, ids, home)
        table.row(name, "full", "transformers", found, of_torch(load(full), ids), "f32")
        for kind in ["f32", "f16", "q8_0", "q4_k_m"] if args.llama else []:
            file = home / f"{kind}.gguf"
            run(args.concord, "export", adapter, "--gguf", kind, "-o", file)
            found = ours(args.concord, file, ids, home)
            read = of_llama(args.llama, file, ids, home)
            table.row(name, f"GGUF, {kind}", "llama.cpp", found, read, kind)
            if kind == "f32":
                table.row(name, "GGUF, f32", "the adapter itself", found, adapted, "f32")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--concord", required=True)
    parser.add_argument("--llama", help="the program of llama_logits.cpp")
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    args = parser.parse_args()
    table = Table()
    for model in args.models:
        compare(args, model.resolve(), table)
    sys.exit(0 if table.is_good else 1)


if __name__ == "__main__":
    main()
