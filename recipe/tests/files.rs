//! Files with the keys of public ones, one or more of each tool: what they become, and what is
//! refused.

use concord_recipe::{
    Learnt, Place, Request, Resolved, RowKind, Saves, StepsRule, TokenRole, TooLong, Tool, Warmup,
    resolve,
};

const INFO: &str = r#"{
    "ours": {"file_name": "ours.json"},
    "talks": {"file_name": "talks.json", "formatting": "sharegpt",
              "columns": {"messages": "chat"}, "tags": {"user_tag": "human"}},
    "far": {"hf_hub_url": "owner/far"},
    "ranked": {"file_name": "r.json", "ranking": true}
}"#;

fn files(path: &str) -> Result<String, String> {
    match path {
        "sets/dataset_info.json" => Ok(INFO.to_string()),
        _ => Err("no such file".to_string()),
    }
}

fn job_with(text: &str, sets: &[&str]) -> Resolved {
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    let request = Request {
        tool: None,
        sets: &sets,
        files: &files,
    };
    resolve(text, &request).expect(text)
}

fn job(text: &str) -> Resolved {
    job_with(text, &[])
}

/// A setting as text.
fn value(job: &Resolved, key: &str) -> String {
    let setting = job
        .setting(key)
        .unwrap_or_else(|| panic!("no {key} in {job:#?}"));
    serde_json::to_string(&setting.value)
        .unwrap()
        .replace('"', "")
}

#[track_caller]
fn values(job: &Resolved, expected: &[(&str, &str)]) {
    for (key, expected) in expected {
        assert_eq!(value(job, key), *expected, "{key}");
    }
}

/// Keys of problems, with what `--set` would be.
fn problems(job: &Resolved) -> Vec<(&str, Option<&str>)> {
    let problems = job.problems.iter();
    problems
        .map(|problem| (problem.key.as_str(), problem.set.as_deref()))
        .collect()
}

const AXOLOTL: &str = "\
base_model: owner/base
datasets:
  - path: rows.jsonl
    type: alpaca
val_set_size: 0.1
output_dir: ./out
adapter: lora
sequence_len: 2048
sample_packing: true
eval_sample_packing: true
lora_r: 16
lora_alpha: 32
lora_dropout: 0.05
lora_target_modules:
  - gate_proj
  - self_attn.q_proj
wandb_project:
wandb_name:
gradient_accumulation_steps: 2
micro_batch_size: 2
num_epochs: 1
optimizer: adamw_8bit
lr_scheduler: cosine
learning_rate: 0.0002
bf16: auto
tf32: false
gradient_checkpointing: true
resume_from_checkpoint:
logging_steps: 1
attn_implementation: flash_attention_2
loss_watchdog_threshold: 5.0
loss_watchdog_patience: 3
warmup_ratio: 0.1
evals_per_epoch: 4
saves_per_epoch: 1
weight_decay: 0.0
special_tokens:
  pad_token: <pad>
  eos_token: </s>
";

#[test]
fn axolotl_lora() {
    let found = job(AXOLOTL);
    assert_eq!(found.tool, Tool::Axolotl);
    assert_eq!(
        problems(&found),
        [
            ("val_set_size", Some("val_set_size=0")),
            ("lora_dropout", Some("lora_dropout=0")),
            (
                "loss_watchdog_threshold",
                Some("loss_watchdog_threshold=null")
            ),
            (
                "loss_watchdog_patience",
                Some("loss_watchdog_patience=null")
            ),
        ]
    );
    let places: Vec<Place> = found.problems.iter().map(|problem| problem.place).collect();
    assert_eq!(places, [5, 13, 31, 32].map(Place::Line));
    values(
        &found,
        &[
            ("adapter", "lora"),
            ("lora_alpha", "32"),
            ("lora_target_modules", "[gate_proj,q_proj]"),
            ("optimizer", "adamw_8bit"),
            ("lr_scheduler", "cosine_from_zero"),
            ("recompute", "true"),
            ("num_epochs", "1"),
            ("sample_packing", "true"),
            ("seed", "42"),
        ],
    );
    let rules = found.rules.unwrap();
    assert_eq!(rules.length.rule, StepsRule::WholePacked);
    assert_eq!(
        (rules.warmup, rules.saves),
        (Warmup::ShareDown(0.1), Saves::PerEpoch(1.0))
    );
    let set = &found.datasets[0];
    assert_eq!(
        (set.kind, &set.learnt, set.too_long),
        (RowKind::Alpaca, &Learnt::Answers, TooLong::Drop)
    );
    let expected = &found.expected[0];
    assert_eq!((expected.role, &*expected.text), (TokenRole::End, "</s>"));
    let idle: Vec<&str> = found.idle.iter().map(|idle| &*idle.key).collect();
    assert!(
        idle.contains(&"bf16") && idle.contains(&"special_tokens.pad_token"),
        "{idle:?}"
    );
    // Null is as good as no key.
    assert!(!idle.contains(&"wandb_project"));
}

#[test]
fn what_is_proposed_is_enough() {
    let found = job(AXOLOTL);
    let again = job_with(AXOLOTL, &found.remedies());
    assert_eq!(problems(&again), []);
    assert_eq!(
        again.setting("lora_r").unwrap().source.place,
        Some(Place::Line(11))
    );
    let other = job_with(AXOLOTL, &["lora_r=4", "datasets.0.path=b.jsonl"]);
    assert_eq!(
        other.setting("lora_r").unwrap().source.place,
        Some(Place::Set)
    );
    assert_eq!(other.datasets[0].path, "b.jsonl");
}

#[test]
fn axolotl_without_an_adapter_trains_every_weight() {
    let text = AXOLOTL.replace("adapter: lora\n", "adapter:\n");
    let found = job(&text);
    values(&found, &[("adapter", "full")]);
    assert!(found.setting("lora_r").is_none() && found.setting("lora_alpha").is_none());
    assert!(found.idle.iter().any(|idle| idle.key == "lora_r"));
    let decays = job(&text.replace("weight_decay: 0.0", "weight_decay: 0.1"));
    assert!(problems(&decays).contains(&("weight_decay", Some("weight_decay=0"))));
}

#[test]
fn axolotl_qlora() {
    let text = AXOLOTL
        .replace(
            "adapter: lora",
            "adapter: qlora\nload_in_4bit: true\npeft_use_rslora: true",
        )
        .replace(
            "warmup_ratio: 0.1",
            "warmup_steps: 10\nmax_steps: 50\ncosine_min_lr_ratio: 0.1",
        )
        .replace("saves_per_epoch: 1", "save_steps: 0.25");
    let found = job(&text);
    values(
        &found,
        &[
            ("load_in_4bit", "true"),
            ("lora_alpha", "128.0"),
            ("min_lr_ratio", "0.1"),
            ("max_steps", "50"),
        ],
    );
    let rules = found.rules.unwrap();
    assert_eq!(
        (rules.warmup, rules.saves),
        (Warmup::Steps(10), Saves::Share(0.25))
    );
    assert_eq!(rules.length.steps(1_000, 2, 2), Some(50));
    let bare = job(&AXOLOTL.replace("adapter: lora", "adapter: qlora"));
    assert!(problems(&bare).contains(&("adapter", Some("adapter=lora"))));
}

#[test]
fn axolotl_conversations() {
    let text = "\
base_model: owner/base
model_type: AutoModelForCausalLM
chat_template: llama3
datasets:
  - path: talks.jsonl
    type: chat_template
    split: train[:20%]
    field_messages: conversations
    message_property_mappings: {role: from, content: value}
    roles_to_train: [assistant]
    train_on_eos: last
adapter: lora
lora_r: 8
lora_alpha: 8
lora_target_linear: true
lora_target_modules: ['q_proj']
plugins: [axolotl.integrations.liger.LigerPlugin, my.Plugin]
learning_rate: 1e-4
optimizer: lion_8bit
lr_scheduler: rex
";
    let found = job(text);
    assert_eq!(
        problems(&found),
        [
            ("chat_template", Some("chat_template=tokenizer_default")),
            ("datasets[0].split", Some("datasets.0.split=null")),
            ("plugins", None),
            ("optimizer", Some("optimizer=adamw_torch")),
            ("lr_scheduler", Some("lr_scheduler=cosine")),
        ]
    );
    let set = &found.datasets[0];
    assert_eq!(set.kind, RowKind::Chat);
    assert_eq!(
        (&*set.fields["messages"], &*set.fields["role"]),
        ("conversations", "from")
    );
    assert_eq!(set.learnt, Learnt::Roles(vec!["assistant".to_string()]));
    assert_eq!(set.learnt_ends.as_deref(), Some("last"));
    assert!(found.setting("lora_target_modules").is_none());
    assert_eq!(found.rules.unwrap().warmup, Warmup::Axolotl);
}

#[test]
fn llama_factory() {
    let text = "\
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
    let found = job(text);
    assert_eq!(found.tool, Tool::LlamaFactory);
    assert_eq!(problems(&found), [("template", Some("template=null"))]);
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
    assert_eq!(found.datasets[1].roles["user"], ["human"]);
    assert_eq!(found.datasets[1].max_rows, Some(1_000));
    for (set, expected) in [
        ("far", "hf_hub_url"),
        ("ranked", "ranking"),
        ("none", "lacks"),
    ] {
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

#[test]
fn alignment_handbook() {
    let text = "\
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
    let found = job(text);
    assert_eq!(found.tool, Tool::Trl);
    assert_eq!(
        problems(&found),
        [
            ("lora_dropout", Some("lora_dropout=0")),
            (
                "dataset_mixture.datasets[0].split",
                Some("dataset_mixture.datasets.0.split=null")
            ),
            (
                "dataset_mixture.datasets[0].weight",
                Some("dataset_mixture.datasets.0.weight=1")
            ),
            (
                "dataset_mixture.test_split_size",
                Some("dataset_mixture.test_split_size=null")
            ),
            ("do_eval", Some("do_eval=null")),
            ("eval_strategy", Some("eval_strategy=null")),
        ]
    );
    values(
        &found,
        &[
            ("min_lr_ratio", "0.1"),
            ("optimizer", "adamw_torch"),
            ("lora_alpha", "16"),
        ],
    );
    assert_eq!(found.rules.unwrap().saves, Saves::End);
    assert_eq!(found.datasets[0].kind, RowKind::ByColumns);
    assert_eq!(found.datasets[0].learnt, Learnt::All);
    assert_eq!(found.expected.len(), 1);
    assert_eq!(problems(&job_with(text, &found.remedies())), []);
    // What is absent is TRL's own default.
    let bare = job("model_name_or_path: m\nuse_peft: true\ndataset_name: a.jsonl\n");
    assert_eq!(problems(&bare), [("lora_dropout", Some("lora_dropout=0"))]);
    values(
        &bare,
        &[
            ("learning_rate", "0.00002"),
            ("micro_batch_size", "8"),
            ("lora_alpha", "32"),
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

#[test]
fn torchtune() {
    let text = "\
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
    let found = job(text);
    assert_eq!(found.tool, Tool::Torchtune);
    assert_eq!(
        problems(&found),
        [
            ("tokenizer.max_seq_len", Some("tokenizer.max_seq_len=2048")),
            ("base", None),
        ]
    );
    values(
        &found,
        &[
            ("base_model", "/models/m"),
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

#[test]
fn unsloth_studio() {
    let text = "\
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
    assert_eq!(found.rules.unwrap().saves, Saves::End);
    assert_eq!(found.datasets[0].learnt, Learnt::Answers);
}

#[test]
fn concords_own_files_are_passed_on() {
    for text in [
        "base_model: m\ndatasets: [{path: a, type: text}]\nsample_packing: true\n",
        "base_model: m\nrecompute: true\nnum_epochs: 1\nbf16: true\n",
        "base_model: m\nlora_rr: 8\n",
        "adapter: qlora\n",
        "max_steps: 3\n",
    ] {
        let found = job(text);
        assert_eq!(found.tool, Tool::Concord, "{text}");
        assert!(
            found.settings.is_empty() && found.problems.is_empty(),
            "{text}"
        );
    }
}

#[test]
fn unknown_keys_and_wrong_values_are_all_told_at_once() {
    let text = AXOLOTL
        .replace("lora_r: 16", "lora_r: 16\nlora_rr: 3\nlora_alhpa: 1")
        .replace("num_epochs: 1", "num_epochs: many")
        .replace(
            "micro_batch_size: 2",
            "micro_batch_size: -2\ndatasset: !x 3",
        );
    let found = job(&text);
    let texts: Vec<String> = found
        .problems
        .iter()
        .map(|problem| problem.to_string())
        .collect();
    for expected in [
        "`lora_rr` is 3: no such key of Axolotl is known; did you mean `lora_r`?",
        "`lora_alhpa` is 1: no such key of Axolotl is known; did you mean `lora_alpha`?",
        "`num_epochs` is \"many\", but must be a number",
        "`micro_batch_size` is -2, but must be a whole number, 0 or more",
        "`datasset` has a tag of YAML (!...), which means nothing here; remove it",
    ] {
        assert!(
            texts.iter().any(|text| text == expected),
            "{expected}\nis not in {texts:#?}"
        );
    }
}

#[test]
fn no_text_makes_it_fail() {
    // Each line of each file is cut, doubled or changed.
    let values = [
        "", "null", "[]", "{}", "-1", "[[1]]", "{a: b}", "\"\"", "1e309", ".nan", "*x",
    ];
    for base in [
        AXOLOTL,
        "model_name_or_path: m\ndataset_mixture: 3\ntemplate: x\n",
    ] {
        let lines: Vec<&str> = base.lines().collect();
        for index in 0..lines.len() {
            for value in values {
                let mut changed: Vec<String> = lines.iter().map(|line| line.to_string()).collect();
                let key = lines[index].split(':').next().unwrap_or_default();
                changed[index] = format!("{key}: {value}");
                for tool in Tool::ALL {
                    let request = Request {
                        tool: Some(tool),
                        sets: &[],
                        files: &files,
                    };
                    let _ = resolve(&changed.join("\n"), &request);
                }
            }
        }
    }
}
