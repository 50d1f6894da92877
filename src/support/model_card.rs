//! The model card of a result: the README.md of its folder, as the hub reads it.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use concord_models::hub;
use concord_proto::{AdapterSpec, Course};
use concord_verify::training::bundle::Bundle;

use crate::support::job_file::{JobFile, explain};
use crate::support::output::counted;
use crate::support::tuned_model::TunedModel;

/// The file of the card.
pub const FILE: &str = "README.md";

/// The folder of a proof within that of a result.
const PROOF: &str = "proof";

/// Settings that the proof does not have in the words of a job file: those of them are shown that
/// are not as they are without the key. The first three always are, where they have a value.
const SHOWN: [&str; 18] = [
    "optimizer",
    "lr_scheduler",
    "lora_alpha",
    "load_in_4bit",
    "bnb_4bit_quant_type",
    "load_in_8bit",
    "sample_packing",
    "peft_use_rslora",
    "lora_rank_pattern",
    "lora_alpha_pattern",
    "lora_exclude_modules",
    "peft_layers_to_transform",
    "loraplus_lr_ratio",
    "neftune_noise_alpha",
    "label_smoothing_factor",
    "z_loss",
    "val_set_size",
    "early_stopping_patience",
];
const SHOWN_ALWAYS: usize = 3;

/// What a folder has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CardKind {
    Adapter,
    Tuned,
    Merged,
    /// A model whose numbers were written again.
    Converted,
    /// A GGUF file.
    Gguf,
}

/// What a card says.
struct ModelCard<'a> {
    kind: CardKind,
    /// The name or path of the base model.
    base: &'a str,
    /// The proof of the training, where there is one.
    bundle: Option<&'a Bundle>,
    /// Rows of the table that the proof does not have.
    rows: Vec<(&'static str, String)>,
}

/// The card of a job's result, which has these settings. Of paths on this machine it has the last
/// part alone.
pub fn of_job(job: &JobFile, settings: &[(String, String)], bundle: &Bundle) -> String {
    let data = job.datasets.iter().map(|source| {
        let path = source.path.to_string_lossy();
        let name = match is_path(&path) {
            true => last(&path),
            false => path.to_string(),
        };
        format!("`{name}` ({})", source.kind.name())
    });
    let mut rows = vec![
        ("data", data.collect::<Vec<String>>().join(", ")),
        ("sequence_len", job.sequence_len.to_string()),
        ("seed", job.seed.to_string()),
    ];
    rows.extend(shown(settings));
    let kind = match bundle.spec.adapter {
        AdapterSpec::Full => CardKind::Tuned,
        AdapterSpec::Lora { .. } => CardKind::Adapter,
    };
    let card = ModelCard {
        kind,
        base: &job.base_model,
        bundle: Some(bundle),
        rows,
    };
    card.text(&last(&job.output_dir.to_string_lossy()))
}

/// The card of a model with an adapter merged into it, or of a model that was written in another
/// dtype.
///
/// # Errors
/// Where the adapter has a proof that cannot be read.
pub fn merged(model: &TunedModel) -> anyhow::Result<String> {
    let kind = match model.adapter {
        Some(_) => CardKind::Merged,
        None => CardKind::Converted,
    };
    of_tuned(model, kind, Vec::new())
}

/// The card of a GGUF file whose numbers are of `form`.
///
/// # Errors
/// As [`merged`].
pub fn exported(model: &TunedModel, form: &str) -> anyhow::Result<String> {
    of_tuned(model, CardKind::Gguf, vec![("numbers", form.to_string())])
}

fn of_tuned(
    model: &TunedModel,
    kind: CardKind,
    mut rows: Vec<(&'static str, String)>,
) -> anyhow::Result<String> {
    let proof = model.dir().join(PROOF);
    let bundle = match proof.is_dir() {
        true => Some(Bundle::read_dir(&proof)?),
        false => None,
    };
    let base = model.base.dir().to_string_lossy();
    let adapter = (model.adapter.as_ref()).map(|(dir, _)| last(&dir.to_string_lossy()));
    rows.extend(adapter.iter().map(|name| ("adapter", format!("`{name}`"))));
    let card = ModelCard {
        kind,
        base: &base,
        bundle: bundle.as_ref(),
        rows,
    };
    Ok(card.text(&adapter.unwrap_or_else(|| last(&base))))
}

impl ModelCard<'_> {
    fn text(&self, name: &str) -> String {
        let base = hub_name(self.base);
        let shown = base.clone().unwrap_or_else(|| last(self.base));
        let mut text = self.front(base.as_deref());
        let what = match self.kind {
            CardKind::Adapter => format!("A LoRA adapter for `{shown}`"),
            CardKind::Tuned => format!("A full fine-tune of `{shown}`"),
            CardKind::Converted => format!("`{shown}`, written anew, maybe in another dtype"),
            CardKind::Merged => format!("`{shown}` with a LoRA adapter merged into it"),
            CardKind::Gguf => format!("A GGUF file of `{shown}`{}", self.merged_words()),
        };
        let _ = write!(text, "\n# {name}\n\n{what}, written by Concord.\n");
        let mut rows = vec![("base model", format!("`{shown}`"))];
        rows.extend(self.rows.clone());
        rows.extend(self.bundle.map(settings).unwrap_or_default());
        text.push_str("\n## Training\n\n| setting | value |\n|---|---|\n");
        for (name, value) in rows {
            let _ = writeln!(text, "| {name} | {} |", value.replace('|', "\\|"));
        }
        text.push_str(self.verification());
        text
    }

    /// Whether the rows name an adapter, in words.
    fn merged_words(&self) -> &'static str {
        match self.rows.iter().any(|(name, _)| *name == "adapter") {
            true => " with a LoRA adapter merged into it",
            false => "",
        }
    }

    /// What the hub reads.
    fn front(&self, base: Option<&str>) -> String {
        let (library, relation) = match self.kind {
            CardKind::Adapter => ("peft", "adapter"),
            CardKind::Tuned | CardKind::Converted | CardKind::Merged => {
                ("transformers", "finetune")
            }
            CardKind::Gguf => ("gguf", "quantized"),
        };
        let mut text = format!("---\nlibrary_name: {library}\npipeline_tag: text-generation\n");
        if let Some(base) = base {
            let _ = write!(
                text,
                "base_model: {base}\nbase_model_relation: {relation}\n"
            );
        }
        text.push_str("tags:\n- concord\n");
        if matches!(self.kind, CardKind::Adapter | CardKind::Merged) {
            text.push_str("- lora\n");
        }
        text.push_str("---\n");
        text
    }

    fn verification(&self) -> &'static str {
        match (self.kind, self.bundle) {
            (_, None) => "",
            (CardKind::Converted, _) => {
                "\n## Verification\n\nThe hash is that of the training, whose folder has the \
                 proof and the weights that it is of.\n"
            }
            (CardKind::Gguf, _) => {
                "\n## Verification\n\nThe hash is that of the training, whose folder has the \
                 proof.\nExporting it again gives the same bytes.\n"
            }
            (CardKind::Merged, _) => {
                "\n## Verification\n\nThe hash is that of the training of the adapter, whose \
                 folder has the proof.\nMerging it again gives the same bytes.\n"
            }
            _ => {
                "\n## Verification\n\nThe folder `proof` shows who signed for what, and which \
                 parts were computed again.\nIts hash is a function of the model, the data and the \
                 settings alone: the same job has it\non every machine. In this folder:\n\n```sh\n\
                 concord verify proof --model .\n```\n\nAdd `--checker KEY` with the key of an \
                 auditor that you trust, or compute a part\nof the job again (`--replay 3 --job \
                 FILE`): without, a proof is complete, and not proven.\n"
            }
        }
    }
}

/// What a proof says of its job.
fn settings(bundle: &Bundle) -> Vec<(&'static str, String)> {
    let spec = &bundle.spec;
    let mut rows = Vec::new();
    if let AdapterSpec::Lora(updates) = &spec.adapter {
        rows.push(("lora_r", updates.rank.to_string()));
        let scale = f64::from(updates.alpha.get()) / f64::from(updates.rank);
        rows.push(("scale of the adapter", format!("{scale:.4}")));
        rows.push(("lora_target_modules", updates.targets.join(", ")));
        if !updates.others.is_empty() {
            let others = counted(updates.others.len() as u64, "module");
            rows.push(("of another rank or alpha, or none", others));
        }
        if !updates.saved.is_empty() {
            rows.push(("lora_modules_to_save", updates.saved.join(", ")));
        }
        if updates.use_dora {
            rows.push(("peft_use_dora", "true".to_string()));
        }
        let dropout = spec.regularization.lora_dropout.get();
        if dropout > 0.0 {
            rows.push(("lora_dropout", dropout.to_string()));
        }
    }
    let optimizer = &spec.optimizer;
    rows.extend(course(bundle));
    rows.extend([
        (
            "sequences a step",
            counted(spec.sequences_per_step(), "sequence"),
        ),
        (
            "learning_rate",
            spec.schedule.learning_rate.get().to_string(),
        ),
        ("warmup_steps", spec.schedule.warmup_steps.to_string()),
        ("weight_decay", optimizer.weight_decay.get().to_string()),
        ("max_grad_norm", optimizer.max_grad_norm.get().to_string()),
    ]);
    if let Some(record) = bundle.records.last() {
        rows.push(("hash", format!("`{}`", record.digest())));
    }
    rows.push(("job", format!("`{}`", spec.id())));
    rows
}

/// Those of the settings of a job that belong on its card.
fn shown(settings: &[(String, String)]) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    for (index, name) in SHOWN.into_iter().enumerate() {
        let Some((_, value)) = settings.iter().find(|(key, _)| key == name) else {
            continue;
        };
        let value = explain::plain(value);
        let is_always = index < SHOWN_ALWAYS && !value.starts_with('(');
        if is_always || !explain::is_usual(name, &value) {
            rows.push((name, value));
        }
    }
    rows
}

/// The steps of a job, and the losses of the state that is its result.
fn course(bundle: &Bundle) -> Vec<(&'static str, String)> {
    let (spec, records) = (&bundle.spec, &bundle.records);
    let losses = records.iter().map(|record| record.loss);
    let end = Course::of(spec, losses).result_steps(spec);
    let done = spec.updates_before(records.len() as u32);
    let steps = match done < spec.steps {
        true => format!("{done} of {}, stopped early", spec.steps),
        false => done.to_string(),
    };
    let mut rows = vec![("steps", steps)];
    let keeps_best = spec.evaluation.is_some_and(|of| of.keep_best);
    let own = match keeps_best {
        true => {
            let best = format!(
                "after step {}, the best on held-out data",
                spec.updates_before(end)
            );
            rows.push(("state", best));
            "loss of that step"
        }
        false => "loss of the last step",
    };
    let up_to_it = &records[..records.len().min(end as usize)];
    let last = |is_evaluation: bool| {
        let mut records = up_to_it.iter();
        records.rfind(|record| spec.is_evaluation(record.step) == is_evaluation)
    };
    let shown = |loss: f32| format!("{loss:.4}");
    rows.extend(last(false).map(|record| (own, shown(record.loss.get()))));
    rows.extend(last(true).map(|record| ("loss on held-out data", shown(record.loss.get()))));
    if let Some(base) = records
        .first()
        .filter(|first| spec.is_evaluation(first.step))
    {
        rows.push(("the same before the first step", shown(base.loss.get())));
    }
    rows
}

/// Whether a text is a path on this machine, and no name of the hub.
fn is_path(text: &str) -> bool {
    hub::is_here(text) || Path::new(text).exists() || text.matches('/').count() != 1
}

/// The last part of a path.
fn last(path: &str) -> String {
    let name = PathBuf::from(path);
    let name = name.file_name().unwrap_or(name.as_os_str());
    name.to_string_lossy().into_owned()
}

/// The name of a model on the hub, where it has one: as it was given, or as a folder of the hub's
/// cache has it.
fn hub_name(base: &str) -> Option<String> {
    if !hub::is_here(base) {
        let name = base.split('@').next()?;
        let mut parts = name.split('/');
        let (owner, name) = (parts.next()?, parts.next()?);
        return (!owner.is_empty()).then(|| format!("{owner}/{name}"));
    }
    let cached = base.split(['/', '\\']).find_map(|part| {
        let (owner, name) = part.strip_prefix("models--")?.split_once("--")?;
        Some(format!("{owner}/{name}"))
    });
    cached.filter(|name| !name.contains(char::is_whitespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_of_the_hub_have_their_name() {
        assert_eq!(hub_name("a/b@main").as_deref(), Some("a/b"));
        assert_eq!(hub_name("/nowhere/model"), None);
        let folder = tempfile::tempdir().unwrap();
        let cached = folder.path().join("models--Qwen--Qwen3-4B/snapshots/1");
        std::fs::create_dir_all(&cached).unwrap();
        let found = hub_name(&cached.to_string_lossy());
        assert_eq!(found.as_deref(), Some("Qwen/Qwen3-4B"));
        assert_eq!(hub_name(&folder.path().to_string_lossy()), None);
    }

    #[test]
    fn the_hub_reads_the_front() {
        let card = ModelCard {
            kind: CardKind::Adapter,
            base: "owner/name",
            bundle: None,
            rows: vec![("data", "a | b".to_string())],
        };
        let text = card.text("mine");
        let (front, rest) = text[4..].split_once("---\n").unwrap();
        let front: serde_json::Value = serde_yaml_ng::from_str(front).unwrap();
        assert_eq!(front["library_name"], "peft");
        assert_eq!(front["base_model"], "owner/name");
        assert_eq!(front["tags"][1], "lora");
        assert!(rest.contains("| data | a \\| b |"), "{rest}");
    }
}
