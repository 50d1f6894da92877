//! The other tools.

use concord_recipe::{Learnt, RowKind, Saves, TooLong, Tool, Warmup};

use crate::{job, job_with, problems, values};

pub const LLAMA_FACTORY: &str = include_str!("llama_factory.yaml");

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

const HANDBOOK: &str = include_str!("handbook.yaml");

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

pub const TORCHTUNE: &str = include_str!("torchtune.yaml");

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

const UNSLOTH: &str = include_str!("unsloth.yaml");

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
