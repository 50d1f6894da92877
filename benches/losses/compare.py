"""Losses, gradient norms and rates of every step against torch + peft, option by option.

    python3 benches/losses/compare.py --concord target/release/concord MODEL_DIR...

Each case of cases.py runs as `concord train`, and as a plain loop of torch + peft over the same
examples in f32 (loop.py), which begins with the same adapter. --only WORDS takes the cases with
these words in their names. Exits with 1 where a loss or a norm differs by more than 2e-3 of its
size, or a rate by more than 1e-6 of the largest.

Needs torch, transformers, peft, bitsandbytes, lion-pytorch, gguf, blake3 and safetensors.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import pathlib
import random
import subprocess
import sys
import tempfile

import torch
import transformers
from safetensors.torch import save_file

import loop
import trainer
from cases import CASES, COMMON

STEPS, LENGTH = 10, 48
TOLERANCE, TOLERANCE_OF_RATES = 2e-3, 1e-6
TEXT = " ".join(["Seven birds sat on a wall, and one of them could sing.",
                 "The others asked it why it was so sad today.",
                 "Once upon a time there was a little boat that wanted to see the sea.",
                 "She said: my house is small, but there is a place for you at the fire."])


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return done.stdout


def texts(tokenizer, seed):
    """An endless text of sentences in another order each time, as ids."""
    draw, sentences = random.Random(seed), TEXT.split(". ")
    while True:
        yield from tokenizer.encode(" " + draw.choice(sentences) + ".", add_special_tokens=False)


def full_rows(tokenizer, count, seed):
    ids = texts(tokenizer, seed)
    rows = [[next(ids) for _ in range(LENGTH)] for _ in range(count)]
    return [(row, row) for row in rows]


def masked_rows(tokenizer, count):
    """Rows of many lengths, whose first part is not learnt."""
    draw, rows = random.Random(5), []
    for row, _ in full_rows(tokenizer, count, 2):
        length = draw.randrange(8, LENGTH)
        asked = draw.randrange(1, length - 4)
        rows.append((row[:length], [-100] * asked + row[asked:length]))
    return rows


def write_rows(rows, path):
    lines = [json.dumps({"input_ids": ids, "labels": labels}) for ids, labels in rows]
    path.write_text("\n".join(lines))


def data_of(concord, model, keys, tokenizer, home):
    """Writes a data set; the keys that name it, and the examples of each step."""
    micro, accumulated = keys["micro_batch_size"], keys.get("gradient_accumulation_steps", 1)
    of_step = micro * accumulated
    if keys.pop("rows", None) == "masked":
        count = 24 if keys.get("sample_packing") else STEPS * of_step
        rows = masked_rows(tokenizer, count)
        write_rows(rows, home / "rows.jsonl")
        data = {"datasets": [{"path": str(home / "rows.jsonl"), "type": "tokens"}],
                "shuffle": False, "max_steps": STEPS}
        if not keys.get("sample_packing"):
            return data, [rows[i:i + of_step] for i in range(0, len(rows), of_step)]
        # How examples share sequences is for the job to say: each step takes them all.
        once = keys | data | {"num_epochs": 1, "output_dir": str(home / "none")}
        del once["max_steps"]
        data["gradient_accumulation_steps"] = steps_of(concord, model, once, home)
        return data, [rows] * STEPS
    rows = full_rows(tokenizer, STEPS * of_step, 1)
    ids = torch.tensor([row for row, _ in rows]).reshape(STEPS, accumulated, micro, LENGTH)
    save_file({"tokens": ids}, home / "data.safetensors")
    data = {"datasets": [{"path": str(home / "data.safetensors"), "type": "tokens"}],
            "max_steps": STEPS}
    return data, [rows[i:i + of_step] for i in range(0, len(rows), of_step)]


def write_job(model, keys, home, name):
    keys = {"base_model": str(model), "sequence_len": LENGTH, "output_dir": str(home / name)} | keys
    (home / f"{name}.yaml").write_text(json.dumps(keys))
    return home / f"{name}.yaml"


def steps_of(concord, model, keys, home):
    """Steps of a job, which is not run."""
    lines = run(concord, "train", write_job(model, keys, home, "dry"), "--dry-run", "--json")
    found = [json.loads(line) for line in lines.splitlines()]
    return next(line["steps"] for line in found if line["event"] == "dry_run")


def job(concord, model, keys, home, name):
    """Runs a job; its folder, and the lines of its log."""
    run(concord, "train", write_job(model, keys, home, name), "--checkers", "0")
    lines = (home / name / "log.jsonl").read_text().splitlines()
    return home / name, [json.loads(line) for line in lines]


def first_adapter(concord, model, keys, home):
    """The adapter that a job begins with: what one step at a rate of nothing leaves."""
    left_out = ("eval_steps", "eval_on_start", "test_datasets", "weight_decay", "warmup_steps",
                "warmup_ratio", "num_epochs")
    keys = {key: value for key, value in keys.items() if key not in left_out}
    return job(concord, model, keys | {"learning_rate": 1e-30, "max_steps": 1}, home, "start")[0]


def differences(log, theirs):
    """The largest differences of losses, norms and rates, each relative."""
    ours = [line for line in log if line["event"] == "step"]
    assert len(ours) == len(theirs) > 1, (len(ours), len(theirs))
    off = [max(abs(line[key] - step[at]) / abs(step[at]) for line, step in zip(ours, theirs))
           for at, key in enumerate(["loss", "grad_norm"])]
    largest = max(rate for _, _, rate in theirs)
    rates = [abs(line["learning_rate"] - step[2]) / largest for line, step in zip(ours, theirs)]
    return *off, max(rates)


def case(concord, model, name):
    """The largest differences of a case: of losses, norms, rates, and losses of evaluations."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as home:
        home = pathlib.Path(home)
        if name in trainer.CASES:
            return *trainer.compare_with(concord, model, name, home), None
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(model)
        keys = {key: value for key, value in (COMMON | CASES[name]).items() if value is not None}
        data, batches = data_of(concord, model, keys, tokenizer, home)
        held_out, start = [], None
        if keys.get("eval_steps"):
            held_out = masked_rows(tokenizer, 13)
            write_rows(held_out, home / "held_out.jsonl")
            data["test_datasets"] = [{"path": str(home / "held_out.jsonl"), "type": "tokens"}]
        if keys["adapter"] == "lora":
            start = first_adapter(concord, model, keys | data, home)
        _, log = job(concord, model, keys | data, home, "out")
        theirs, evaluated = loop.train(keys, model, start, batches, held_out)
    found = {line["step"]: line["eval_loss"] for line in log if line["event"] == "evaluation"}
    assert found.keys() == evaluated.keys(), (found, evaluated)
    held = [abs(found[step] - evaluated[step]) / evaluated[step] for step in found]
    return *differences(log, theirs), max(held, default=None)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--concord", required=True, type=os.path.abspath)
    parser.add_argument("--only", default="", help="words in the names of cases")
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    args = parser.parse_args()
    is_good = True
    print("| model | option | loss | norm | learning rate | evaluations |")
    print("|---|---|---|---|---|---|")
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=spawn) as pool:
        for model in args.models:
            names = [name for name in [*CASES, *trainer.CASES] if args.only in name]
            model = model.resolve()
            runs = [pool.submit(case, args.concord, model, name) for name in names]
            for name, ran in zip(names, runs):
                row = f"| {model.name} | {name} |"
                try:
                    loss, norm, rate, held = ran.result()
                except RuntimeError as error:
                    print(f"{row} refused: {error} | | | |", flush=True)
                    continue
                bad = (max(loss, norm, held or 0) > TOLERANCE or rate > TOLERANCE_OF_RATES)
                is_good &= not bad
                held = "" if held is None else f"{held:.1e}"
                print(f"{row} {loss:.1e} | {norm:.1e} | {rate:.0e} | {held} |"
                      f"{' TOO MUCH' if bad else ''}", flush=True)
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
