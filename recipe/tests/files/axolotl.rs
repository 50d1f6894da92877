//! Axolotl.

use concord_recipe::{
    Learnt, Place, RowKind, Saves, StepsRule, TokenRole, TooLong, Tool, TurnTemplate, Warmup,
};

use crate::{job, job_with, problems, values};

pub const AXOLOTL: &str = include_str!("axolotl.yaml");

#[test]
fn axolotl_lora() {
    let found = job(AXOLOTL);
    assert_eq!(found.tool, Tool::Axolotl);
    assert_eq!(problems(&found), []);
    values(
        &found,
        &[
            ("adapter", "lora"),
            ("lora_alpha", "32"),
            ("lora_dropout", "0.05"),
            ("lora_target_modules", "[gate_proj,self_attn.q_proj]"),
            ("optimizer", "adamw_8bit"),
            ("lr_scheduler", "cosine_from_zero"),
            ("recompute", "true"),
            ("num_epochs", "1"),
            ("sample_packing", "true"),
            ("seed", "42"),
            ("val_set_size", "0.1"),
            // A checkpoint falls on every fourth evaluation.
            ("load_best_model_at_end", "true"),
            ("loss_watchdog_threshold", "5.0"),
            ("loss_watchdog_patience", "3"),
        ],
    );
    let rules = found.rules.unwrap();
    assert_eq!(rules.length.rule, StepsRule::WholePacked);
    assert_eq!(
        (rules.warmup, rules.saves),
        (Warmup::ShareDown(0.1), Saves::PerEpoch(1.0))
    );
    assert_eq!(rules.evaluations, Some(Saves::PerEpoch(4.0)));
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
    assert!(
        problems(&decays)
            .iter()
            .all(|(key, _)| *key != "weight_decay")
    );
    let spared = ("weight_decay_exempt", "norms_and_biases");
    values(&decays, &[("weight_decay", "0.1"), spared]);
    assert!(found.setting("weight_decay_exempt").is_none());
}

#[test]
fn axolotl_shapes_of_adapters() {
    let more = "peft_use_rslora: false\nlora_rank_pattern: {q_proj: 4}\nlora_alpha_pattern: {}\n\
                peft_layers_to_transform: [0, 1]\npeft_layers_pattern: layers\n\
                lora_modules_to_save: [embed_tokens, lm_head]\n";
    let found = job(&(AXOLOTL.to_string() + more));
    values(
        &found,
        &[
            ("lora_rank_pattern", "{q_proj:4}"),
            ("peft_layers_to_transform", "[0,1]"),
            ("peft_layers_pattern", "layers"),
            ("lora_modules_to_save", "[embed_tokens,lm_head]"),
        ],
    );
    assert!(found.setting("peft_use_rslora").is_none());
    assert!(
        found
            .idle
            .iter()
            .any(|idle| idle.key == "lora_alpha_pattern")
    );
    let list = "lora_target_modules:\n  - gate_proj\n  - self_attn.q_proj\n";
    let text = AXOLOTL.replace(list, "lora_target_modules: '.*[qv]_proj'\n");
    values(&job(&text), &[("lora_target_modules", ".*[qv]_proj")]);
}

#[test]
fn axolotl_qlora() {
    let text = AXOLOTL
        .replace(
            "adapter: lora",
            "adapter: qlora\nload_in_4bit: true\npeft_use_rslora: true\npeft_use_dora: true",
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
            ("lora_alpha", "32"),
            ("peft_use_rslora", "true"),
            ("peft_use_dora", "true"),
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
fn optimizers_that_are_not_computed_are_refused_with_one_that_is() {
    let with = |name: &str| AXOLOTL.replace("optimizer: adamw_8bit", &format!("optimizer: {name}"));
    for (name, own) in [
        ("lion_8bit", "lion_8bit"),
        ("paged_lion_8bit", "lion_8bit"),
        ("paged_adamw_32bit", "adamw_torch"),
    ] {
        values(&job(&with(name)), &[("optimizer", own)]);
    }
    for (name, instead) in [
        ("adafactor", "adamw_8bit"),
        ("ademamix_8bit", "adamw_8bit"),
        ("rmsprop", "adamw_torch"),
        ("lion_pytorch", "lion_32bit"),
    ] {
        let set = format!("optimizer={instead}");
        let found = job(&with(name));
        assert!(
            problems(&found).contains(&("optimizer", Some(&*set))),
            "{name}"
        );
    }
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
lr_scheduler: polynomial
";
    let found = job(text);
    assert_eq!(
        problems(&found),
        [
            ("plugins", None),
            ("lr_scheduler", Some("lr_scheduler=cosine")),
        ]
    );
    let set = &found.datasets[0];
    assert_eq!(set.kind, RowKind::Chat);
    assert_eq!(set.template, TurnTemplate::Named("llama3".to_string()));
    assert_eq!(set.split.as_deref(), Some("train[:20%]"));
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
fn axolotl_rows_and_turns() {
    let text = "\
base_model: owner/base
chat_template: chatml
eot_tokens: [\"<|im_end|>\"]
ignore_fields: [note]
datasets:
  - path: owner/set
    name: main
    revision: v2
    data_files: [a.parquet]
    type: chat_template
    shards: 4
    drop_system_message: true
    message_field_training: train
    chat_template: gemma
  - path: parts.jsonl
    type: input_output
    ignore_fields: [other]
  - path: ids.jsonl
  - path: asked.jsonl
    type:
      system_prompt: \"Be {brief}.\"
      system_format: \"S: {system}\\n\"
      field_instruction: question
      format: \"Q: {instruction} {input}\\nA: \"
learning_rate: 1e-4
";
    let found = job(text);
    assert_eq!(problems(&found), []);
    let [first, second, third, asked] = found.datasets.as_slice() else {
        panic!("{:#?}", found.datasets);
    };
    assert_eq!(
        (&*first.path, first.name.as_deref()),
        ("owner/set", Some("main"))
    );
    assert_eq!(
        (first.revision.as_deref(), first.shard),
        (Some("v2"), Some((4, 0)))
    );
    assert_eq!(first.data_files, ["a.parquet"]);
    assert_eq!(first.end_tokens, ["<|im_end|>"]);
    assert!(first.drops_system);
    assert_eq!(first.fields["training"], "train");
    assert_eq!(first.template, TurnTemplate::Named("gemma".to_string()));
    assert_eq!(first.ignored, ["note"]);
    assert_eq!(
        (second.kind, third.kind),
        (RowKind::Segments, RowKind::Tokens)
    );
    assert_eq!(second.ignored, ["other", "note"]);
    assert_eq!(asked.kind, RowKind::Instruct);
    assert_eq!(asked.fields["instruction"], "question");
    let format = "S: Be {{brief}}.\nQ: {instruction} {input}\nA: ";
    assert_eq!(asked.format.as_deref(), Some(format));
    let no = job(&text.replace("chat_template: gemma", "chat_template: exaone"));
    assert_eq!(problems(&no), [("datasets[0].chat_template", None)]);
    assert!(
        no.problems[0].remedy.contains("chatml, cohere"),
        "{:?}",
        no.problems
    );
}

#[test]
fn parts_of_rows_have_a_number() {
    let with = |shards: &str| {
        let path = "path: rows.jsonl";
        job(&AXOLOTL.replace(path, &format!("{path}\n    {shards}")))
    };
    let third = with("shards: 4\n    shards_idx: 2");
    assert_eq!(problems(&third), []);
    assert_eq!(third.datasets[0].shard, Some((4, 2)));
    for no in [
        "shards: 4\n    shards_idx: 4",
        "shards: 2.5",
        "shards_idx: 1",
    ] {
        assert_eq!(problems(&with(no)), [("datasets[0].shards", None)], "{no}");
    }
}

#[test]
fn a_key_of_concords_own_does_not_make_it_concords() {
    let text = format!("{AXOLOTL}shuffle: false\nrecompute: true\n");
    let found = job(&text);
    assert_eq!(found.tool, Tool::Axolotl);
    values(&found, &[("shuffle", "false"), ("recompute", "true")]);
}
