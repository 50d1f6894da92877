//! The other tools.

use concord_recipe::{Learnt, RowKind, Saves, TooLong, Tool, Warmup};

use crate::{job, job_with, problems, values};

pub const LLAMA_FACTORY: &str = "\
### model
model_name_or_path: owner/base
trust_remote_code: true
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all
dataset: ours,talks
dataset_dir: sets
template: qwen3
cutoff_len: 2048
max_samples: 1000
preprocessing_num_workers: 16
output_dir: saves/a
logging_steps: 10
save_steps: 500
plot_loss: true
overwrite_output_dir: true
report_to: none
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000
resume_from_checkpoint: null
";

#[test]
fn llama_factory() {
    let text = LLAMA_FACTORY;
    let found = job(text);
    assert_eq!(found.tool, Tool::LlamaFactory);
    assert_eq!(problems(&found), []);
    values(
        &found,
        &[
            ("lora_alpha", "16"),
            ("micro_batch_size", "1"),
            ("sequence_len", "2048"),
            ("recompute", "true"),
        ],
    );
    assert_eq!(found.rules.unwrap().warmup, Warmup::ShareUp(0.1));
    assert_eq!(found.rules.unwrap().length.steps(1_091, 1, 8), Some(411));
    let kinds: Vec<RowKind> = found.datasets.iter().map(|set| set.kind).collect();
    assert_eq!(kinds, [RowKind::AlpacaChat, RowKind::Chat]);
    assert_eq!(found.datasets[0].path, "sets/ours.json");
    assert_eq!(found.datasets[0].too_long, TooLong::ShortenTurns);
    for set in ["train_on_prompt=true", "template=gemma2", "stage=pt"] {
        let found = job_with(text, &[set, "dataset=ours"]);
        assert_eq!(found.datasets[0].too_long, TooLong::Truncate, "{set}");
        let tells = found.notes.iter().any(|note| note.contains("cutoff_len"));
        assert_eq!(tells, set != "stage=pt", "{set}");
    }
    assert_eq!(found.datasets[1].roles["user"], ["human"]);
    assert_eq!(found.datasets[1].max_rows, Some(1_000));
    let far = job_with(
        text,
        &["dataset=far", "mask_history=true", "template=llama3"],
    );
    assert_eq!(problems(&far), []);
    assert_eq!(far.datasets[0].path, "owner/far");
    assert!(far.datasets[0].last_answer);
    for (template, expected) in [("glm4", "template"), ("qwen3", "mask_history")] {
        let set = format!("template={template}");
        let found = job_with(text, &[&set, "mask_history=true"]);
        assert_eq!(found.problems[0].key, expected);
    }
    for (set, expected) in [("ranked", "ranking"), ("none", "lacks")] {
        let found = job_with(text, &[&format!("dataset={set}"), "template=null"]);
        assert_eq!(problems(&found).len(), 1, "{set}");
        assert!(
            found.problems[0].what.contains(expected),
            "{}",
            found.problems[0]
        );
    }
    let stage = job_with(text, &["stage=dpo", "finetuning_type=oft", "template=null"]);
    assert_eq!(
        problems(&stage),
        [
            ("finetuning_type", Some("finetuning_type=lora")),
            ("stage", None)
        ]
    );
}

const HANDBOOK: &str = "\
model_name_or_path: owner/base
torch_dtype: null
use_peft: true
load_in_4bit: true
lora_alpha: 16
lora_dropout: 0.05
lora_r: 16
lora_target_modules: [q_proj, v_proj]
chat_template: \"{% for m in messages %}{{ m['content'] }}{% endfor %}\"
dataset_mixture:
  datasets:
    - id: chats.jsonl
      config: default
      split: train_sft
      columns: [messages]
      weight: 0.5
  test_split_size: 1000
  seed: 0
dataset_num_proc: 12
bf16: true
do_eval: true
eval_strategy: epoch
gradient_accumulation_steps: 2
gradient_checkpointing: true
gradient_checkpointing_kwargs:
  use_reentrant: false
learning_rate: 2.0e-04
lr_scheduler_type: cosine_with_min_lr
lr_scheduler_kwargs: {min_lr_rate: 0.1}
max_seq_length: 2048
max_steps: -1
num_train_epochs: 1
output_dir: data/a
optim: paged_adamw_32bit
per_device_train_batch_size: 4
push_to_hub: true
report_to: [tensorboard]
save_strategy: \"no\"
seed: 42
warmup_ratio: 0.1
eos_token: <|im_end|>
";

/// A list of which a part has an effect is no key without one.
#[test]
fn trackers_that_are_not_told_are_named_beside_those_that_are() {
    let both = HANDBOOK.replace("[tensorboard]", "[wandb, tensorboard]");
    let found = job(&both);
    values(&found, &[("report_to", "tensorboard")]);
    assert!(found.idle.iter().all(|idle| idle.key != "report_to"));
    let names = |note: &&String| note.contains("nothing is sent to wandb");
    assert_eq!(
        found.notes.iter().filter(names).count(),
        1,
        "{:?}",
        found.notes
    );
    let found = job(&HANDBOOK.replace("[tensorboard]", "wandb"));
    let idle = found.idle.iter().find(|idle| idle.key == "report_to");
    let why = &idle.expect("it has no effect").why;
    assert!(
        why.contains("wandb sync") && why.contains("log.jsonl"),
        "{why}"
    );
}

#[test]
fn alignment_handbook() {
    let text = HANDBOOK;
    let found = job(text);
    assert_eq!(found.tool, Tool::Trl);
    assert_eq!(problems(&found), []);
    let rules = found.rules.unwrap();
    assert_eq!(rules.evaluations, Some(Saves::PerEpoch(1.0)));
    values(
        &found,
        &[
            ("min_lr_ratio", "0.1"),
            ("optimizer", "adamw_torch"),
            ("lora_alpha", "16"),
            ("val_set_size", "1000"),
        ],
    );
    assert_eq!(found.rules.unwrap().saves, Saves::Never);
    let set = &found.datasets[0];
    assert_eq!(set.kind, RowKind::ByColumns);
    assert_eq!(
        (set.split.as_deref(), set.weight),
        (Some("train_sft"), Some(0.5))
    );
    assert_eq!(
        (set.name.as_deref(), &*set.columns),
        (Some("default"), ["messages".to_string()].as_slice())
    );
    assert_eq!(found.datasets[0].learnt, Learnt::All);
    assert_eq!(found.expected.len(), 1);
    assert_eq!(problems(&job_with(text, &found.remedies())), []);
    // What is absent is TRL's own default.
    let bare = job("model_name_or_path: m\nuse_peft: true\ndataset_name: a.jsonl\n");
    assert_eq!(problems(&bare), []);
    values(
        &bare,
        &[
            ("learning_rate", "0.00002"),
            ("micro_batch_size", "8"),
            ("lora_alpha", "32"),
            ("lora_dropout", "0.05"),
            ("lora_target_modules", "[q_proj,v_proj]"),
            ("sequence_len", "1024"),
            ("lr_scheduler", "linear_from_zero"),
            ("num_epochs", "3"),
            ("recompute", "true"),
        ],
    );
    values(
        &job("model_name_or_path: m\ndataset_name: a.jsonl\n"),
        &[("adapter", "full")],
    );
}

pub const TORCHTUNE: &str = "\
output_dir: /tmp/tune
model:
  _component_: torchtune.models.qwen2_5.lora_qwen2_5_0_5b
  lora_attn_modules: ['q_proj', 'v_proj', 'output_proj']
  apply_lora_to_mlp: True
  lora_rank: 32
  lora_alpha: 64
  lora_dropout: 0.0
tokenizer:
  _component_: torchtune.models.qwen2_5.qwen2_5_tokenizer
  path: /tmp/m/vocab.json
  max_seq_len: null
checkpointer:
  _component_: torchtune.training.FullModelHFCheckpointer
  checkpoint_dir: ${base}/m
  checkpoint_files: [model.safetensors]
  recipe_checkpoint: null
  output_dir: ${output_dir}
  model_type: QWEN2
base: /models
resume_from_checkpoint: False
dataset:
  _component_: torchtune.datasets.alpaca_cleaned_dataset
  packed: False
seed: null
shuffle: True
batch_size: 2
optimizer:
  _component_: torch.optim.AdamW
  fused: True
  weight_decay: 0.01
  lr: 2e-3
lr_scheduler:
  _component_: torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup
  num_warmup_steps: 100
loss:
  _component_: torchtune.modules.loss.LinearCrossEntropyLoss
epochs: 2
max_steps_per_epoch: null
gradient_accumulation_steps: 8
clip_grad_norm: null
compile: False
device: cuda
dtype: bf16
enable_activation_checkpointing: False
metric_logger:
  _component_: torchtune.training.metric_logging.DiskLogger
  log_dir: ${output_dir}/logs
log_every_n_steps: 1
profiler: {enabled: False}
";

#[test]
fn torchtune() {
    let text = TORCHTUNE;
    let found = job(text);
    assert_eq!(found.tool, Tool::Torchtune);
    assert_eq!(problems(&found), [("base", None),]);
    values(
        &found,
        &[
            ("base_model", "/models/m"),
            ("sequence_len", "longest"),
            (
                "lora_target_modules",
                "[q_proj,v_proj,o_proj,gate_proj,up_proj,down_proj]",
            ),
            ("lora_r", "32"),
            ("max_grad_norm", "0"),
            ("weight_decay", "0.01"),
            ("lr_scheduler", "cosine_from_zero"),
        ],
    );
    assert_eq!(found.datasets[0].learnt, Learnt::All);
    let rules = found.rules.unwrap();
    assert_eq!(rules.warmup, Warmup::Steps(100));
    assert_eq!(rules.length.steps(1_000, 2, 8), Some(124));
}

const UNSLOTH: &str = "\
training:
  max_seq_length: 2048
  num_epochs: 0
  learning_rate: 2e-4
  batch_size: 2
  gradient_accumulation_steps: 4
  warmup_steps: 5
  max_steps: 30
  save_steps: 0
  weight_decay: 0.001
  random_seed: 3407
  packing: false
  train_on_completions: true
  gradient_checkpointing: \"unsloth\"
  optim: \"adamw_8bit\"
  lr_scheduler_type: \"linear\"
lora:
  lora_r: 16
  lora_alpha: 16
  lora_dropout: 0.0
  target_modules: [q_proj, v_proj]
  use_rslora: false
  use_loftq: false
  use_dora: false
logging: {enable_wandb: false}
inference: {temperature: 1.0}
";

#[test]
fn unsloth_studio() {
    let text = UNSLOTH;
    let found = job(text);
    assert_eq!(found.tool, Tool::Unsloth);
    assert_eq!(problems(&found), [("model", None), ("data.dataset", None)]);
    let sets = ["model=m", "data.dataset=a.jsonl", "training.output_dir=o"];
    let found = job_with(text, &sets);
    assert_eq!(problems(&found), []);
    values(
        &found,
        &[
            ("base_model", "m"),
            ("output_dir", "o"),
            ("max_steps", "30"),
            ("seed", "3407"),
            ("recompute", "true"),
            ("lr_scheduler", "linear_from_zero"),
        ],
    );
    assert_eq!(found.rules.unwrap().saves, Saves::Never);
    assert_eq!(found.datasets[0].learnt, Learnt::Answers);
}
