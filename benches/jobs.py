"""A whole fine-tune, all processes of it, beside the same one by torch and peft, in turns.

    python3 benches/jobs.py --concord target/release/concord --shape 341m --method lora

Makes a Llama of random weights in bf16 and a data set of random tokens, then runs `concord train`
(one worker, one checker, audits at their default rates) and a plain loop of torch + peft over the
same batches, one after the other, --rounds times. Prints tokens a second of the steps (the first
one of each run left out), seconds from start to end, and the most memory that all processes held
together (Pss: a shared page counts once), of each and as ratios. --cores 1 keeps all processes of
either on one core.

The rival runs in f32, in bf16, and for qlora with 4-bit weights of bitsandbytes where that is
installed. Needs Linux, torch, transformers, peft and safetensors.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

from peaks import Watch

# hidden, intermediate, layers, heads, heads of keys, vocabulary
SHAPES = {
    "20m": (384, 1024, 8, 6, 6, 8192),
    "341m": (1024, 2368, 24, 16, 16, 32000),
    "1.1b": (2048, 5632, 22, 32, 4, 32000),
}
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RATE, RANK, ALPHA, CLIP = 1e-4, 16, 32, 1.0

JOB = """base_model: {model}
datasets: [{{path: {data}, type: tokens}}]
adapter: {adapter}
{lora}sequence_len: {length}
micro_batch_size: {batch}
gradient_accumulation_steps: {accumulate}
max_steps: {steps}
learning_rate: {rate}
lr_scheduler: constant
weight_decay: 0.01
max_grad_norm: {clip}
optimizer: {optimizer}
output_dir: {output}
"""


def make_model(shape, folder):
    """A Llama of random weights in bf16."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, inter, layers, heads, kv_heads, vocab = SHAPES[shape]
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=inter, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, vocab_size=vocab,
        max_position_embeddings=2048, tie_word_embeddings=False, dtype="bfloat16",
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def make_data(args, file):
    import torch
    from safetensors.torch import save_file

    shape = (args.steps, args.accumulate, args.batch, args.length)
    generator = torch.Generator().manual_seed(1)
    save_file({"tokens": torch.randint(3, SHAPES[args.shape][5], shape, generator=generator)}, file)


def rival(args):
    """The loop of torch + peft: a line of JSON for each step."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(args.cores)
    options = {"dtype": torch.float32 if args.rival == "f32" else torch.bfloat16}
    if args.method == "qlora":
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=options["dtype"]
        )
    model = AutoModelForCausalLM.from_pretrained(args.model, **options)
    if args.method != "full":
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=PROJECTIONS)
        model = get_peft_model(model, lora)
    model.train()
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=RATE, weight_decay=0.01)
    for step in load_file(args.data)["tokens"]:
        start, total = time.perf_counter(), 0.0
        for ids in step:
            loss = model(ids, labels=ids).loss / len(step)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(params, CLIP)
        optimizer.step()
        optimizer.zero_grad()
        seconds = time.perf_counter() - start
        print(json.dumps({"event": "step", "loss": total, "seconds": seconds}), flush=True)


def measure(command, cores):
    """Runs a command that prints events; its steps, seconds and peak memory."""
    if cores == 1:
        command = ["taskset", "-c", "0", *command]
    began = time.time()
    child = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True,
                             stderr=subprocess.PIPE)
    watch = Watch(child.pid)
    looking = threading.Thread(target=watch.run)
    looking.start()
    errors = []
    reading = threading.Thread(target=lambda: errors.extend(child.stderr))
    reading.start()
    events = [json.loads(line) for line in child.stdout if line.startswith("{")]
    code = child.wait()
    watch.over = True
    looking.join()
    reading.join()
    if code != 0:
        return {"failed": "".join(errors[-3:]).strip() or f"exit {code}"}
    steps = [event for event in events if event.get("event") == "step"]
    seconds = [e["micros"] / 1e6 if "micros" in e else e["seconds"] for e in steps]
    return {
        "steps": seconds[1:], "losses": [event["loss"] for event in steps],
        "job_s": time.time() - began, "pss_mib": watch.pss / 1024,
        "result": next((e for e in events if e.get("event") == "result"), {}),
        "processes": {
            f"{pid} {seen['name']}": seen["VmHWM"] >> 10 for pid, seen in watch.seen.items()
        },
    }


def median(values):
    return sorted(values)[len(values) // 2]


def ours(args, home, number):
    """One job of Concord, in a folder of its own."""
    output = home / f"out-{number}"
    lora = "" if args.method == "full" else f"lora_r: {RANK}\nlora_alpha: {ALPHA}\n"
    if args.method == "qlora":
        lora += "load_in_4bit: true\n"
    job = home / f"job-{number}.yaml"
    job.write_text(JOB.format(
        model=args.model, data=args.data, output=output, lora=lora, steps=args.steps,
        adapter={"lora": "lora", "qlora": "lora", "full": "full"}[args.method], rate=RATE,
        length=args.length, batch=args.batch, accumulate=args.accumulate, clip=CLIP,
        optimizer=args.optimizer,
    ))
    command = [args.concord, "train", job, "--json", *args.options]
    return measure(command, args.cores)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--concord", default="target/release/concord")
    parser.add_argument("--shape", choices=SHAPES, default="20m")
    parser.add_argument("--method", choices=["lora", "qlora", "full"], default="lora")
    parser.add_argument("--optimizer", default="adamw_torch")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--accumulate", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rivals", default="f32,bf16", help="f32, bf16 or both")
    parser.add_argument("--home", help="where models and results are kept; by default nowhere")
    parser.add_argument("--rival", help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    parser.add_argument("options", nargs="*", help="options of `concord train`, after --")
    args = parser.parse_args()
    if args.rival:
        return rival(args)
    with tempfile.TemporaryDirectory() as temporary:
        home = pathlib.Path(args.home or temporary)
        home.mkdir(parents=True, exist_ok=True)
        args.model, args.data = home / args.shape, pathlib.Path(temporary) / "data.safetensors"
        if not args.model.exists():
            make_model(args.shape, args.model)
        make_data(args, args.data)
        compare(args, pathlib.Path(temporary))


def compare(args, home):
    names = [name for name in args.rivals.split(",") if name]
    runs = {"concord": [], **{name: [] for name in names}}
    passed = [f"--{key}={getattr(args, key)}" for key in ("method", "cores", "model", "data")]
    for number in range(args.rounds):
        runs["concord"].append(ours(args, home, number))
        for name in names:
            command = [sys.executable, __file__, f"--rival={name}", *passed]
            runs[name].append(measure(command, args.cores))
    tokens = args.batch * args.accumulate * args.length
    print(f"{args.shape} {args.method}, {args.cores} cores, {tokens} tokens a step")
    print("| | tokens/s | job, s | memory, MiB | first loss | last loss |")
    print("|---|---|---|---|---|---|")
    table = {}
    for name, found in runs.items():
        good = [run for run in found if "failed" not in run]
        if not good:
            print(f"| {name} | failed: {found[0]['failed']} | | | | |")
            continue
        seconds = min(median(run["steps"]) for run in good)
        row = (tokens / seconds, min(run["job_s"] for run in good),
               max(run["pss_mib"] for run in good))
        table[name] = row
        losses = good[0]["losses"]
        print(f"| {name} | {row[0]:.0f} | {row[1]:.1f} | {row[2]:.0f} | {losses[0]:.4f} "
              f"| {losses[-1]:.4f} |")
    for name in names:
        if name in table and "concord" in table:
            mine, theirs = table["concord"], table[name]
            print(f"against {name}: tokens/s x {mine[0] / theirs[0]:.2f}, job x "
                  f"{theirs[1] / mine[1]:.2f}, memory x {mine[2] / theirs[2]:.2f}")
    for run in runs["concord"]:
        print(json.dumps({key: run.get(key) for key in ("failed", "processes", "result")}),
              file=sys.stderr)


if __name__ == "__main__":
    main()
