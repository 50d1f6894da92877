//! Files of a model folder beside its configuration and its weights. A download fetches them, and
//! an export takes them along.

use std::fs;
use std::path::Path;

use crate::error::ModelError;

/// Companion files directly in the folder.
pub const NAMES: [&str; 10] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
];

/// The folder of further chat templates; the file stem is the template's name.
pub const TEMPLATES: &str = "additional_chat_templates";

/// Whether a file is a companion, by its path within the model folder.
pub(crate) fn is_companion(path: &str) -> bool {
    let template = path.strip_prefix(TEMPLATES).and_then(|rest| {
        let name = rest.strip_prefix('/')?.strip_suffix(".jinja")?;
        // The name becomes part of a path on this machine, so it must not leave the folder.
        Some(!name.is_empty() && !name.contains(['/', '\\']))
    });
    template.unwrap_or_else(|| NAMES.contains(&path))
}

/// The companion files of a folder, as paths within it, sorted.
///
/// # Errors
/// [`ModelError::Io`].
pub(crate) fn companions(folder: &Path) -> Result<Vec<String>, ModelError> {
    let mut found: Vec<String> = NAMES.map(str::to_string).into();
    let templates = folder.join(TEMPLATES);
    if templates.is_dir() {
        let cannot = || ModelError::io("list", &templates);
        for entry in fs::read_dir(&templates).map_err(cannot())? {
            let name = entry.map_err(cannot())?.file_name();
            found.extend(name.to_str().map(|name| format!("{TEMPLATES}/{name}")));
        }
    }
    found.retain(|path| is_companion(path) && folder.join(path).is_file());
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_by_their_paths() {
        for path in ["tokenizer.json", "additional_chat_templates/tool_use.jinja"] {
            assert!(is_companion(path), "{path}");
        }
        for path in [
            "config.json",
            "model.safetensors",
            "additional_chat_templates",
            "additional_chat_templates/.jinja",
            "additional_chat_templates/x.py",
            "additional_chat_templates/../../x.jinja",
            "additional_chat_templates/a/b.jinja",
            "additional_chat_templates/a\\b.jinja",
            "additional_chat_templates.jinja",
        ] {
            assert!(!is_companion(path), "{path}");
        }
    }
}
