//! The names that files of a result have. What `concord train` removes, moves or refuses in an
//! output folder, and what `concord push` sends, goes by them.

use std::path::{Component, Path};

use concord_models::companions;
use concord_verify::training::bundle;

/// What the name of a folder with a checkpoint begins with; the number of steps follows.
pub const CHECKPOINT: &str = "checkpoint-";

/// The folder of the proof.
pub const PROOF: &str = "proof";

/// The folder, in that of the proof, of the states that are kept for replay: a file for each
/// tensor, named by its digest, so that what two states share is there once.
pub const STATES: &str = "states";

/// The file there that says which states these are.
pub const STATES_INDEX: &str = "states.json";

/// The file with the steps of a job.
pub const LOG_FILE: &str = "log.jsonl";

/// The file with the progress of a job, in a checkpoint.
pub const TRAINER_STATE: &str = "trainer_state.json";

/// What the name of an event file of TensorBoard begins with.
pub const EVENTS: &str = "events.out.tfevents.";

/// Files of a model or an adapter, of its card, and of a run, besides a model's companions.
const FILES: [&str; 7] = [
    "README.md",
    "adapter_config.json",
    "adapter_model.bin",
    "config.json",
    "pytorch_model.bin",
    "report.html",
    LOG_FILE,
];

/// The steps in the name of a folder of a checkpoint.
pub fn steps_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix(CHECKPOINT)?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

/// Whether a file or folder of this name may be part of a result, or is one of Concord's own files
/// beside it.
pub fn is_ours(name: &str) -> bool {
    let is_folder = name == PROOF || name == companions::TEMPLATES || steps_of(name).is_some();
    is_folder || is_file(name) || name.starts_with(".concord")
}

/// Whether a file of a result may have this path within its folder.
pub fn is_path(path: &str) -> bool {
    let parts = Path::new(path).components().map(|part| match part {
        Component::Normal(part) => part.to_str(),
        _ => None,
    });
    let Some(parts) = parts.collect::<Option<Vec<&str>>>() else {
        return false;
    };
    match parts.as_slice() {
        [PROOF, name] => bundle::FILES.contains(name),
        [PROOF, STATES, name] => *name == STATES_INDEX || is_digest(name),
        [folder, rest @ ..] if steps_of(folder).is_some() => {
            rest == [TRAINER_STATE] || is_model_file(rest)
        }
        // The folder of event files is named by the job.
        [.., name] if name.starts_with(EVENTS) => true,
        parts => is_model_file(parts),
    }
}

fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_model_file(parts: &[&str]) -> bool {
    match parts {
        [name] => is_file(name),
        [companions::TEMPLATES, name] => name.ends_with(".jinja"),
        _ => false,
    }
}

fn is_file(name: &str) -> bool {
    let is_weights = name.ends_with(".safetensors") || name.ends_with(".index.json");
    is_weights || companions::NAMES.contains(&name) || FILES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_result_has_is_a_path_of_it() {
        for path in [
            "adapter_config.json",
            "model-00001-of-00002.safetensors",
            "additional_chat_templates/tool_use.jinja",
            "proof/job.spec",
            "proof/states/states.json",
            "proof/states/e1dd3dfe845f272e8646b7db7728828e0a9f40bbf935565bb106344de8497661",
            "checkpoint-12/trainer_state.json",
            "checkpoint-12/additional_chat_templates/a.jinja",
            "runs/events.out.tfevents.0.0123",
        ] {
            assert!(is_path(path), "{path}");
        }
        for path in [
            "",
            "notes.md",
            "sub/important.txt",
            "sub/adapter_config.json",
            "proof",
            "proof/mine",
            "proof/job.spec/x",
            "proof/states",
            "proof/states/mine",
            "states/e1dd3dfe845f272e8646b7db7728828e0a9f40bbf935565bb106344de8497661",
            "checkpoint-12",
            "checkpoint-x/config.json",
            ".concord-state",
            "../config.json",
            "/config.json",
            "trainer_state.json",
        ] {
            assert!(!is_path(path), "{path}");
        }
    }
}
