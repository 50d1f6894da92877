use concord_data::DatasetKind;
use concord_models::config::Projection;
use concord_models::golden::tiny_llama;
use concord_proto::{CurveFromZero, MomentFormat, ScheduleKind};

use super::*;

mod adapter;
mod optimizer;
mod rates;
mod silent;

const JOB: &str = "\
base_model: models/small
datasets: [{path: a.txt, type: text}]
adapter: lora            # lora | full
lora_r: 4
lora_alpha: 32
sequence_len: 128
micro_batch_size: 2
gradient_accumulation_steps: 8
max_steps: 30
learning_rate: 1e-3
lr_scheduler: linear
warmup_steps: 5
seed: 7
output_dir: out/a
";

fn parse(text: &str) -> anyhow::Result<JobFile> {
    JobFile::parse(Path::new("job.yaml"), text)
}

/// The job with one line taken out and others put in.
fn with(without: &str, more: &str) -> anyhow::Result<JobFile> {
    let kept = JOB
        .lines()
        .filter(|line| !line.starts_with(&format!("{without}:")));
    let mut text: Vec<&str> = kept.collect();
    text.extend(more.lines());
    parse(&text.join("\n"))
}

fn refusal(without: &str, more: &str) -> String {
    format!("{:#}", with(without, more).expect_err(more))
}

/// The steps of a job that does not count its data.
fn steps(job: &JobFile) -> Steps {
    job.timing.settle(1, 1, 1).unwrap()
}

#[test]
fn every_value_is_read() {
    let job = parse(JOB).unwrap();
    assert_eq!(job.base_model, "models/small");
    let text = DatasetSource {
        seed: 7,
        ..DatasetSource::new("a.txt", DatasetKind::Text)
    };
    assert_eq!(job.datasets, [text]);
    assert_eq!(
        (job.adapter, job.sequence_len, job.micro_batch_size),
        (AdapterKind::Lora, 128, 2)
    );
    assert_eq!(job.gradient_accumulation_steps, 8);
    assert_eq!((steps(&job).steps, steps(&job).warmup), (30, 5));
    assert_eq!(
        (job.rates.peak, job.rates.curve),
        (1e-3, ScheduleKind::Linear)
    );
    assert_eq!((job.seed, job.order()), (7, Order::Shuffled { seed: 7 }));
    let lora = job.lora(None, &tiny_llama()).unwrap();
    assert_eq!(lora, LoraSpec::uniform(4, 32.0, tiny_llama().projections()));
}

#[test]
fn what_is_left_out_has_the_usual_value() {
    let job = parse(
        "{base_model: m, datasets: [{path: a.safetensors, type: tokens}], sequence_len: 8, \
         max_steps: 1, \
         learning_rate: 0.5, output_dir: o}",
    )
    .unwrap();
    assert_eq!(job.adapter, AdapterKind::Lora);
    assert_eq!(
        (job.micro_batch_size, job.gradient_accumulation_steps),
        (1, 1)
    );
    let adamw = |moments| UpdateRule::AdamW {
        beta1: 0.9.into(),
        beta2: 0.999.into(),
        epsilon: 1e-8.into(),
        moments,
    };
    assert_eq!(job.rule, adamw(MomentFormat::F32));
    assert_eq!(
        (job.weight_decay, job.max_grad_norm, job.seed),
        (0.0, 1.0, 42)
    );
    assert_eq!(
        (job.rates.curve, steps(&job).warmup),
        (ScheduleKind::Cosine, 0)
    );
    assert_eq!((steps(&job).save, job.recompute), (10, false));
    assert_eq!(
        job.precision,
        PrecisionSpec {
            weights: 16,
            activations: 16
        }
    );
    assert_eq!(job.order(), Order::AsGiven);
    let lora = job.lora(None, &tiny_llama()).unwrap();
    let usual = LoraSpec::uniform(lora::LORA_R, lora::LORA_ALPHA, tiny_llama().projections());
    assert_eq!(lora, usual);
}

#[test]
fn a_number_is_a_number_however_it_is_spelt() {
    for spelling in [
        "1e-3", "1.0e-3", "0.001", "1E-3", "1e-03", "\"1e-3\"", ".001",
    ] {
        let job = with("learning_rate", &format!("learning_rate: {spelling}"));
        assert_eq!(
            job.unwrap().rates.peak.to_bits(),
            1e-3_f32.to_bits(),
            "{spelling}"
        );
    }
    let job = with("max_steps", "max_steps: 1e2").unwrap();
    assert_eq!(steps(&job).steps, 100);
    assert_eq!(
        with("seed", "seed: 18446744073709551615").unwrap().seed,
        u64::MAX
    );
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_and_its_line() {
    let error = refusal("lora_r", "lora_rr: 4");
    assert_eq!(
        error,
        "job.yaml:14: unknown key `lora_rr`: did you mean `lora_r`?"
    );
    let error = refusal("learning_rate", "learning-rate: 1e-3");
    assert!(error.ends_with("did you mean `learning_rate`?"), "{error}");
    let error = refusal("", "warmup_ratioo_of_the_moon: 1");
    assert!(
        error.contains("known are base_model, load_in_4bit,"),
        "{error}"
    );
    // Of a short word, nothing is left where two letters are changed.
    let error = refusal("", "foo: 1");
    assert!(error.contains("known are base_model"), "{error}");
    let error = refusal("", "lr: 3");
    assert!(error.ends_with("set `learning_rate`"), "{error}");
    let error = refusal("", "num_train_epochs: 3");
    assert!(
        error.ends_with("unknown key `num_train_epochs`: set `num_epochs`"),
        "{error}"
    );
    let error = refusal("datasets", "datasets:\n  - path: a.txt\n    tipe: text");
    assert_eq!(
        error,
        "job.yaml:16: unknown key `datasets[0].tipe`: did you mean `type`?"
    );
    let error = refusal("", "precision: {wieghts: 8}");
    assert!(
        error.ends_with("`precision.wieghts`: did you mean `weights`?"),
        "{error}"
    );
}

#[test]
fn a_missing_key_is_named() {
    let needed = [
        "base_model",
        "datasets",
        "sequence_len",
        "learning_rate",
        "output_dir",
    ];
    for key in needed {
        assert_eq!(
            refusal(key, ""),
            format!("job.yaml: the key `{key}` is missing")
        );
    }
    let error = refusal("datasets", "datasets: [{type: text}]");
    assert_eq!(error, "job.yaml: the key `datasets[0].path` is missing");
    assert_eq!(
        refusal("max_steps", ""),
        "job.yaml: the key `max_steps` is missing; give it, or `num_epochs`"
    );
}

/// Lines with a value out of range, and a part of what is said about each.
const OUT_OF_RANGE: &[(&str, &str)] = &[
    (
        "lora_r: 0",
        "`lora_r` is 0, but must be a whole number from 1 to 4096",
    ),
    (
        "lora_r: 8.5",
        "`lora_r` is 8.5, but must be a whole number from 1 to 4096",
    ),
    ("lora_r: -1", "`lora_r` is -1, but must be"),
    ("lora_r: [1]", "`lora_r` is [1], but must be"),
    (
        "lora_alpha: 0",
        "`lora_alpha` is 0, but must be a number above 0",
    ),
    ("sequence_len: 1", "must be a whole number from 2"),
    ("max_steps: 0", "must be a whole number from 1"),
    ("micro_batch_size: 0", "must be a whole number from 1"),
    ("gradient_accumulation_steps: 5000", "from 1 to 4096"),
    (
        "learning_rate: 0",
        "`learning_rate` is 0, but must be above 0, and at most 1",
    ),
    ("learning_rate: .nan", "but must be above 0, and at most 1"),
    ("learning_rate: 1e-60", "but must be above 0, and at most 1"),
    (
        "learning_rate: fast",
        "`learning_rate` is \"fast\", but must be above 0",
    ),
    (
        "lr_scheduler: cosin",
        "is \"cosin\", but must be one of cosine, linear, constant",
    ),
    (
        "warmup_steps: 31",
        "`warmup_steps` is 31, but must be a whole number from 0 to 30 (max_steps)",
    ),
    (
        "adam_beta2: 1",
        "`adam_beta2` is 1, but must be 0 or more, and below 1",
    ),
    ("adam_epsilon: 0", "above 0, and at most 1"),
    ("weight_decay: -0.1", "from 0 to 1"),
    ("max_grad_norm: -1", "a number, 0 or more"),
    ("seed: 1.5", "a whole number from 0 to 2^64 - 1"),
    (
        "shuffle: maybe",
        "`shuffle` is \"maybe\", but must be true or false",
    ),
    ("recompute: 1", "must be true or false"),
    ("save_steps: 0", "must be a whole number from 1"),
    (
        "precision: {weights: 4}",
        "`precision.weights` is 4, but must be one of 8, 14 and 16",
    ),
    ("precision: 8", "`precision` is 8, but must be a mapping"),
    (
        "adapter: dora",
        "`adapter` is \"dora\", but must be one of lora, qlora, full",
    ),
    (
        "base_model: 7",
        "`base_model` is 7, but must be a model folder, or owner/name",
    ),
    ("output_dir: ''", "`output_dir` is \"\", but must be a path"),
    (
        "datasets: a.txt",
        "`datasets` is \"a.txt\", but must be a list of mappings",
    ),
    ("datasets: []", "`datasets` is empty"),
    (
        "datasets: [{path: a, type: csv}]",
        "must be one of text, completion, instruct, alpaca, alpaca_turns,",
    ),
    (
        "lora_target_modules: []",
        "a list of at least one name, all-linear, or a regular expression",
    ),
    ("lora_target_modules: [q_prj]", "q_prj"),
];

#[test]
fn a_value_out_of_range_is_refused_with_what_is_allowed() {
    for &(line, expected) in OUT_OF_RANGE {
        let key = line.split(':').next().unwrap();
        let error = refusal(key, line);
        assert!(
            error.contains(expected),
            "{line}\n gives {error}\n not   {expected}"
        );
        assert!(error.starts_with("job.yaml"), "{error}");
    }
}

#[test]
fn checkpoints_follow_from_steps_and_epochs() {
    let settled = |line: &str| {
        let job = with("save_steps", line).unwrap();
        // 30 steps of 16 sequences: three passes.
        let steps = job.timing.settle(160, 2, 8).unwrap();
        (steps.save, steps.has_folders, job.save_total_limit)
    };
    assert_eq!(settled("save_steps: 7"), (7, true, 2));
    assert_eq!(settled("save_strategy: epoch"), (10, true, 2));
    assert_eq!(
        settled("saves_per_epoch: 2\nsave_total_limit: 0"),
        (5, true, 0)
    );
    assert_eq!(settled("save_strategy: no\nsave_steps: 4"), (4, false, 2));
    for (lines, key) in [
        ("save_steps: 7\nsaves_per_epoch: 2", "saves_per_epoch"),
        ("save_steps: 7\nsave_strategy: epoch", "save_steps"),
        (
            "saves_per_epoch: 2\nsave_strategy: epoch",
            "saves_per_epoch",
        ),
        ("logging_dir: runs", "logging_dir"),
    ] {
        let error = refusal("", lines);
        assert!(error.contains(&format!("`{key}` has no effect")), "{error}");
    }
    let job = with("", "report_to: tensorboard").unwrap();
    let runs = job.output_dir.join("runs");
    assert_eq!(job.tensorboard_dir, Some(runs));
}

#[test]
fn rows_and_templates_are_chosen_by_words() {
    let of = |keys: &str| {
        let line = format!("datasets: [{{path: a.jsonl, type: chat_template, {keys}}}]");
        with("datasets", &line).map(|job| job.datasets[0].clone())
    };
    let keys = "split: 'train[:10%]', weight: 0.5, chat_template: chatml, mask_history: true";
    let source = of(keys).unwrap();
    assert_eq!(source.split, Some("train[:10%]".parse().unwrap()));
    assert_eq!((source.weight, source.seed), (Some(0.5), 7));
    assert_eq!(
        source.chat_template,
        concord_recipe::named_template("chatml")
    );
    assert!(source.mask_history);
    for (keys, expected) in [
        (
            "split: 'train[1]'",
            "is not a split such as train, train[:10%]",
        ),
        ("weight: 1.5", "above 0, and at most 1"),
        ("chat_template: exaone", "one of the names chatml, cohere"),
        (
            "format: '{instruction}'",
            "has no effect with `type: chat_template`",
        ),
    ] {
        let error = of(keys).unwrap_err().to_string();
        assert!(error.contains(expected), "{keys}: {error}");
    }
    let longest = with("sequence_len", "sequence_len: longest").unwrap();
    assert!(longest.is_longest);
    assert_eq!(longest.sequence_len, LEN_MAX);
}

#[test]
fn steps_follow_from_epochs_and_shares() {
    let job = with("max_steps", "num_epochs: 2.5").unwrap();
    // 1,001 sequences, 16 a step.
    let settled = job.timing.settle(1_001, 2, 8).unwrap();
    assert_eq!((settled.steps, settled.warmup, settled.save), (157, 5, 10));
    let both = with("", "num_epochs: 2.5").unwrap();
    assert_eq!(both.timing.settle(1_001, 2, 8).unwrap().steps, 30);
    // A tenth of 30 steps is 3, and of 31 steps rounded up 4; a tenth of 1,600 sequences is 160.
    let share = with("warmup_steps", "warmup_ratio: 0.1").unwrap();
    assert_eq!(share.timing.settle(1, 2, 8).unwrap().warmup, 3);
    let tenth = "max_steps: 31\nwarmup_ratio: 0.1";
    let tenth = parse(
        &JOB.replace("max_steps: 30", tenth)
            .replace("warmup_steps: 5\n", ""),
    )
    .unwrap();
    assert_eq!(tenth.timing.settle(1, 2, 8).unwrap().warmup, 4);
    let tenth = with("max_steps", "num_epochs: 0.1").unwrap();
    assert_eq!(tenth.timing.settle(1_600, 2, 8).unwrap().steps, 10);
    let error = job.timing.settle(0, 2, 8).unwrap_err().to_string();
    assert!(error.contains("too few for a step"), "{error}");
    let error = job.timing.settle(u64::MAX, 1, 1).unwrap_err().to_string();
    assert!(error.contains("are the most"), "{error}");
    let error = refusal("", "warmup_ratio: 0.1");
    assert!(
        error.contains("`warmup_ratio` has no effect beside `warmup_steps`"),
        "{error}"
    );
    let tokens = "datasets: [{path: a.safetensors, type: tokens}]\nnum_epochs: 1";
    assert!(refusal("datasets", tokens).contains("`num_epochs` has no effect on a data set"));
}

#[test]
fn curves_of_hugging_face_begin_at_zero() {
    let job = with(
        "lr_scheduler",
        "lr_scheduler: cosine_from_zero\nmin_lr_ratio: 0.25",
    )
    .unwrap();
    let floor = 0.25_f32.into();
    let cosine = ScheduleKind::FromZero(CurveFromZero::Cosine { floor });
    assert_eq!(job.schedule(&steps(&job)).kind, cosine);
    let error = refusal("", "min_lr_ratio: 0.1");
    assert!(
        error.contains("`min_lr_ratio` has no effect without"),
        "{error}"
    );
}

#[test]
fn wrong_values_are_told_together() {
    let error = refusal("lora_r", "lora_r: 0\nadam_beta1: 2\nlora_rr: 1");
    for expected in [
        "job.yaml:14: `lora_r` is 0, but",
        "job.yaml:15: `adam_beta1` is 2, but",
        "job.yaml:16: unknown key `lora_rr`",
    ] {
        assert!(error.contains(expected), "{expected} is not in\n{error}");
    }
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    let error = refusal("adapter", "adapter: full");
    assert!(
        error.contains("`lora_r` has no effect with `adapter: full`"),
        "{error}"
    );
    let tokens = "datasets: [{path: a.safetensors, type: tokens}, {path: b, type: text}]";
    assert!(refusal("datasets", tokens).contains("must be the only one"));
    let tokens = "datasets: [{path: a.safetensors, type: tokens}]\nshuffle: true";
    assert!(refusal("datasets", tokens).contains("taken in its own order"));
}

#[test]
fn an_initial_adapter_gives_the_shape() {
    let initial = Adapter {
        lora: LoraSpec::uniform(2, 4.0, [Projection::Q, Projection::V]),
        tensors: Default::default(),
    };
    let error = parse(JOB)
        .unwrap()
        .lora(Some(&initial), &tiny_llama())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`lora_r` is 4, but the initial adapter has 2"),
        "{error}"
    );
    let job = with("lora_r", "lora_target_modules: [v_proj, q_proj]").unwrap();
    let error = job
        .lora(Some(&initial), &tiny_llama())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`lora_alpha` is 32, but the initial adapter has 4"),
        "{error}"
    );
    let job = with("lora_r", "").unwrap();
    let mut bare = job;
    bare.lora.alpha = None;
    let found = bare.lora(Some(&initial), &tiny_llama()).unwrap();
    assert_eq!(found, initial.lora);
}

#[test]
fn what_is_no_mapping_is_refused() {
    assert!(format!("{:#}", parse("").unwrap_err()).contains("the job file is empty"));
    assert!(format!("{:#}", parse("- a").unwrap_err()).contains("`key: value` lines"));
    let error = format!("{:#}", parse("base_model: [a\nlora_r: 8").unwrap_err());
    assert!(
        error.contains("job.yaml: not valid YAML") && error.contains("line"),
        "{error}"
    );
}

/// The reader of other tools' files knows Concord's own keys by a list, as it knows no table of
/// this program.
#[test]
fn the_reader_of_other_tools_knows_every_key_of_a_job() {
    let mut listed = concord_recipe::OWN_KEYS.to_vec();
    let mut known: Vec<&str> = Section::Job.keys().map(|key| key.name).collect();
    listed.sort_unstable();
    known.sort_unstable();
    assert_eq!(listed, known);
}
