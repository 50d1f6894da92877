"""Trains a few steps of an adapter of each shape, loads it with peft, and compares the logits.

    python adapters.py CONCORD MODEL

CONCORD is the program, MODEL a small model whose weights are in f32 or bf16. Needs torch,
transformers 5, peft and safetensors. Fails where the relative difference is above 2e-3.
"""

import pathlib
import subprocess
import sys
import tempfile

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

SHAPES = {
    "plain": "lora_r: 4",
    "rslora": "{lora_r: 4, peft_use_rslora: true, lora_target_modules: all-linear}",
    "ranks": "{lora_rank_pattern: {q_proj: 2, 'layers.1.mlp.*': 6}, lora_alpha_pattern: {v_proj: 3}}",
    "layers": "{lora_target_modules: [q_proj, down_proj], peft_layers_to_transform: [0, 2]}",
    "regex": r"{lora_target_modules: '.*layers\.[01]\..*(v|up)_proj'}",
    "saved": "{lora_target_modules: [q_proj], lora_modules_to_save: [norm]}",
}
STEPS, LENGTH = 4, 48


def job(folder, model, shape, data):
    keys = shape.strip("{}") if shape.startswith("{") else shape
    return (f"{{base_model: {model}, datasets: [{{path: {data}, type: tokens}}], adapter: lora,\n"
            f"max_steps: {STEPS}, sequence_len: {LENGTH}, micro_batch_size: 2, learning_rate: 3e-3,\n"
            f"output_dir: {folder}, {keys}}}\n")


def main(program, model):
    vocab = AutoConfig.from_pretrained(model).vocab_size
    ids = torch.randint(3, vocab, (STEPS, 1, 2, LENGTH), generator=torch.Generator().manual_seed(1))
    failed = []
    with tempfile.TemporaryDirectory() as at:
        at = pathlib.Path(at)
        save_file({"tokens": ids}, at / "data.safetensors")
        save_file({"input_ids": ids[0, 0].contiguous()}, at / "ids.safetensors")
        for name, shape in SHAPES.items():
            folder, out = at / name, at / f"{name}.safetensors"
            (at / "job.yaml").write_text(job(folder, model, shape, at / "data.safetensors"))
            subprocess.run([program, "train", at / "job.yaml", "--json"], check=True, stdout=subprocess.DEVNULL)
            subprocess.run([program, "logits", "--model", folder, "--input", at / "ids.safetensors",
                            "--output", out], check=True)
            base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
            with torch.no_grad():
                theirs = PeftModel.from_pretrained(base, folder).eval()(ids[0, 0]).logits
                bare = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)(ids[0, 0]).logits
            ours = load_file(out)["logits"]
            error = ((ours - theirs).norm() / theirs.norm()).item()
            change = ((bare - theirs).norm() / theirs.norm()).item()
            print(f"{name}: difference {error:.1e}; the adapter changes the logits by {change:.1e}")
            if error > 2e-3 or change < 10 * error:
                failed.append(name)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
