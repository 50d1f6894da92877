//! Every key of every tool, and what becomes of it. Files are read by these tables, and the
//! reference is written from them.

mod axolotl;
pub(crate) mod gaps;
mod llama_factory;
mod torchtune;
mod trainer;
mod trl;
mod unsloth;

use crate::tool::Tool;

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Treat {
    /// It is this key of Concord, with the same values.
    Same(&'static str),
    /// It is read, together with others; the text says what becomes of it.
    Read(&'static str),
    /// It changes nothing here, and why.
    Idle(&'static str),
    /// These values change nothing; others are refused.
    Unless {
        /// The values, in lower case; `0` stands for every spelling of it.
        values: &'static [&'static str],
        /// What other values would need, and what to do.
        else_: &'static str,
        /// The value for `--set` that does it; `null` removes the key.
        set: &'static str,
    },
    /// It is refused; the text says what to do.
    Refuse(&'static str),
}

/// Keys with the same treatment.
#[derive(Clone, Copy, Debug)]
pub struct KeyRow {
    /// Paths, with spaces between them; a `*` at the end stands for the rest of a name, `[]` for
    /// each item of a list.
    pub keys: &'static str,
    pub treat: Treat,
}

const fn row(keys: &'static str, treat: Treat) -> KeyRow {
    KeyRow { keys, treat }
}

/// Concord's own keys at the top of a file.
pub const OWN_KEYS: [&str; 68] = [
    "base_model",
    "load_in_4bit",
    "bnb_4bit_quant_type",
    "load_in_8bit",
    "datasets",
    "mix_strategy",
    "interleave_probs",
    "adapter",
    "lora_r",
    "lora_alpha",
    "lora_target_modules",
    "lora_exclude_modules",
    "peft_layers_to_transform",
    "peft_layers_pattern",
    "lora_rank_pattern",
    "lora_alpha_pattern",
    "peft_use_rslora",
    "peft_use_dora",
    "lora_dropout",
    "lora_modules_to_save",
    "initial_adapter",
    "sequence_len",
    "sample_packing",
    "micro_batch_size",
    "gradient_accumulation_steps",
    "max_steps",
    "num_epochs",
    "learning_rate",
    "lr_scheduler",
    "min_lr_ratio",
    "loraplus_lr_ratio",
    "warmup_steps",
    "warmup_ratio",
    "optimizer",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "momentum",
    "nesterov",
    "weight_decay",
    "weight_decay_exempt",
    "max_grad_norm",
    "neftune_noise_alpha",
    "label_smoothing_factor",
    "z_loss",
    "seed",
    "shuffle",
    "output_dir",
    "save_steps",
    "val_set_size",
    "test_datasets",
    "eval_steps",
    "evals_per_epoch",
    "eval_batch_size",
    "eval_on_start",
    "load_best_model_at_end",
    "early_stopping_patience",
    "early_stopping_threshold",
    "loss_watchdog_threshold",
    "loss_watchdog_patience",
    "save_strategy",
    "saves_per_epoch",
    "save_total_limit",
    "replay_steps",
    "report_to",
    "logging_dir",
    "precision",
    "recompute",
];

/// The tables of a tool; the first that has a key decides.
pub fn rows(tool: Tool) -> Vec<&'static [KeyRow]> {
    match tool {
        Tool::Concord => Vec::new(),
        Tool::Axolotl => vec![&axolotl::ROWS, &axolotl::DATASETS, &axolotl::SPEED],
        Tool::Trl => vec![&trl::ROWS, &trainer::ROWS],
        Tool::LlamaFactory => vec![&llama_factory::ROWS, &trainer::ROWS],
        Tool::Torchtune => vec![&torchtune::ROWS],
        Tool::Unsloth => vec![&unsloth::ROWS],
    }
}

/// Data sets to be evaluated, whose keys are those of the data sets that are learnt from.
const LIKE: [(Tool, &str, &str); 2] = [
    (Tool::Axolotl, "test_datasets", "datasets"),
    (Tool::Torchtune, "dataset_val", "dataset"),
];

/// A path within a data set to be evaluated, as it would be within one that is learnt from.
fn learnt_from(tool: Tool, path: &str) -> Option<String> {
    let mut like = LIKE.iter().filter(|(of, ..)| *of == tool);
    like.find_map(|(_, name, other)| {
        let rest = path.strip_prefix(name)?;
        let is_it = rest.is_empty() || rest.starts_with(['.', '[']);
        is_it.then(|| format!("{other}{rest}"))
    })
}

/// The row of a path, in which lists have `[]`.
pub fn find(tool: Tool, path: &str) -> Option<&'static KeyRow> {
    let of_its_own = row_of(tool, path);
    of_its_own.or_else(|| row_of(tool, &learnt_from(tool, path)?))
}

fn row_of(tool: Tool, path: &str) -> Option<&'static KeyRow> {
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => path == pattern,
    };
    let mut rows = rows(tool).into_iter().flatten();
    rows.find(|row| row.keys.split(' ').any(fits))
}

/// Whether keys within `path` are in the tables, so that it is opened rather than looked up.
pub fn has_within(tool: Tool, path: &str) -> bool {
    let other = learnt_from(tool, path);
    let path = other.as_deref().unwrap_or(path);
    let is_within = |pattern: &str| {
        let rest = pattern.strip_prefix(path);
        rest.is_some_and(|rest| rest.starts_with(['.', '[']))
    };
    let mut rows = rows(tool).into_iter().flatten();
    rows.any(|row| row.keys.split(' ').any(is_within))
}

/// All paths of a tool.
pub fn names(tool: Tool) -> impl Iterator<Item = &'static str> {
    let rows = rows(tool).into_iter().flatten();
    rows.flat_map(|row| row.keys.split(' '))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_key_has_one_row_that_can_be_reached() {
        for tool in Tool::ALL {
            let mut seen = BTreeSet::new();
            for table in rows(tool) {
                for row in table {
                    for key in row.keys.split(' ') {
                        assert!(!key.is_empty(), "{tool:?}: two spaces in {}", row.keys);
                        // A later table may repeat a key of an earlier one, which then decides.
                        let is_new = seen.insert((key, table.as_ptr()));
                        assert!(is_new, "{tool:?}: {key} twice");
                    }
                }
            }
            assert!(tool == Tool::Concord || seen.len() > 40, "{tool:?}");
        }
    }

    #[test]
    fn texts_of_rows_end_without_a_full_stop() {
        for tool in Tool::ALL {
            for row in rows(tool).into_iter().flatten() {
                let text = match row.treat {
                    Treat::Same(key) => {
                        assert!(OWN_KEYS.contains(&key), "{key}");
                        continue;
                    }
                    Treat::Read(text) | Treat::Idle(text) | Treat::Refuse(text) => text,
                    Treat::Unless { else_, .. } => else_,
                };
                assert!(
                    !text.is_empty() && !text.ends_with('.'),
                    "{}: {text}",
                    row.keys
                );
            }
        }
    }
}
