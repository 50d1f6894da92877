"""The whole path by TRL's SFTTrainer, from texts and conversations on: tokens, masks, packing.

Each step takes the whole data set, so that the order of the examples, and which of them share a
sequence, are for each program to say.
"""

import json
import random
import shutil

import datasets
import transformers
import trl

import compare
import loop

EPOCHS, LENGTH = 6, 128
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}Answer: "
    "{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}"
    "{% else %}Question: {{ m.content }}\n{% endif %}{% endfor %}")
WORDS = "the cat dog boat bird house sea fire day was sat ran saw had little big red happy".split()


def rows_of(shape):
    draw = random.Random(11)

    def text(least=4):
        return " ".join(draw.choice(WORDS) for _ in range(draw.randrange(least, 18)))

    def turns():
        return [{"role": role, "content": text()} for _ in range(draw.randrange(1, 3))
                for role in ("user", "assistant")]

    make = {"text": lambda: {"text": text()}, "messages": lambda: {"messages": turns()},
            "prompt": lambda: {"prompt": text() + ":", "completion": " " + text()}}[shape]
    return [make() for _ in range(24)]


# The type of the data set, the shape of its rows, more keys, and the trainer's settings.
CASES = {
    "SFTTrainer: text": ("completion", "text", {}, {}),
    "SFTTrainer: text, packed": ("completion", "text", {"sample_packing": True}, {"packing": True}),
    "SFTTrainer: prompt and completion": ("prompt_completion", "prompt", {}, {}),
    "SFTTrainer: messages, answers alone": (
        "chat_template", "messages", {}, {"assistant_only_loss": True}),
    "SFTTrainer: messages, answers alone, packed": (
        "chat_template", "messages", {"sample_packing": True},
        {"assistant_only_loss": True, "packing": True}),
    "SFTTrainer: text, full": ("completion", "text", {"adapter": "full"}, {}),
}


def with_template(model, home):
    folder = home / "model"
    shutil.copytree(model, folder)
    folder.chmod(0o755)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def their_steps(model, start, rows, keys, settings, home):
    """Loss, norm and rate of every step of SFTTrainer."""
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(model)
    own = loop.base_model({}, model)
    if start:
        own = loop.adapted(own, {"lora_r": 4, "lora_alpha": 8}, start, {})
    config = trl.SFTConfig(
        output_dir=str(home / "theirs"), use_cpu=True, bf16=False, fp16=False, report_to="none",
        save_strategy="no", logging_steps=1, disable_tqdm=True, gradient_checkpointing=False,
        num_train_epochs=EPOCHS, per_device_train_batch_size=4, gradient_accumulation_steps=1000,
        learning_rate=keys["learning_rate"], lr_scheduler_type="linear", warmup_steps=2,
        optim="adamw_torch", weight_decay=0.0, max_length=LENGTH, **settings)
    trainer = trl.SFTTrainer(own, args=config, train_dataset=datasets.Dataset.from_list(rows),
                             processing_class=tokenizer)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    history = [line for line in trainer.state.log_history if "grad_norm" in line]
    return [(line["loss"], float(line["grad_norm"]), line["learning_rate"]) for line in history]


def compare_with(concord, model, name, home):
    """The largest differences of losses, norms and rates."""
    kind, shape, more, settings = CASES[name]
    model, rows = with_template(model, home), rows_of(shape)
    (home / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    keys = {"datasets": [{"path": str(home / "rows.jsonl"), "type": kind}], "adapter": "lora",
            "sequence_len": LENGTH, "num_epochs": 1, "learning_rate": 3e-3} | more
    keys["gradient_accumulation_steps"] = compare.steps_of(concord, model, keys, home)
    keys |= {"num_epochs": EPOCHS, "warmup_steps": 2, "lr_scheduler": "linear_from_zero"}
    start = None
    if keys["adapter"] == "lora":
        keys |= {"lora_r": 4, "lora_alpha": 8}
        start = compare.first_adapter(concord, model, keys, home)
    else:
        keys["learning_rate"] = 1e-3
    _, log = compare.job(concord, model, keys, home, "out")
    return compare.differences(log, their_steps(model, start, rows, keys, settings, home))
