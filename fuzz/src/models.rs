//! Models on disk. The first byte of an input says which model it belongs to, the others are its
//! file; what else that model needs lies beside it, unchanged.

use std::cell::RefCell;
use std::path::Path;

use tempfile::TempDir;

use crate::files::{Target, targets};
use crate::read::read_all;
use crate::seeds;

/// The models of a target, each in a folder.
type Group = Vec<(Target, TempDir)>;

/// Whether a model belongs to a target, by the name that the tests give it.
fn belongs(target: &str, model: &str) -> bool {
    let safetensors = ["safetensors", "index"];
    match target {
        "safetensors" => safetensors.contains(&model),
        "pickle" => model.starts_with("pickle"),
        "gguf" => model.starts_with("GGUF"),
        _ => {
            let others = ["safetensors", "pickle", "gguf"];
            let is_elsewhere = others.iter().any(|other| belongs(other, model));
            // Names of families and of the file are in small letters.
            let is_config = model == "config.json" || model == model.to_lowercase();
            !is_elsewhere && is_config == (target == "config")
        }
    }
}

/// A folder for files, in memory where the system has such a place: inputs come by the thousands.
pub(crate) fn folder() -> TempDir {
    let shared = Path::new("/dev/shm");
    let folder = match shared.is_dir() {
        true => tempfile::tempdir_in(shared),
        false => tempfile::tempdir(),
    };
    folder.expect("a folder can be made")
}

fn group(target: &str) -> Group {
    let of_target = targets()
        .into_iter()
        .filter(|one| belongs(target, one.name));
    let group: Group = of_target
        .map(|one| {
            let folder = folder();
            one.write(folder.path());
            (one, folder)
        })
        .collect();
    assert!(!group.is_empty() && group.len() < 256, "{target}");
    group
}

/// Writes the first inputs of a target.
pub fn write_seeds(target: &str) {
    let of_target = targets()
        .into_iter()
        .filter(|one| belongs(target, one.name));
    let inputs = of_target
        .zip(0_u8..)
        .map(|(one, index)| [&[index], one.seed()].concat());
    seeds::write(target, inputs);
}

/// Reads an input of a target: it is taken, or refused with the name of its file.
///
/// # Panics
/// Where it is neither.
pub fn read(target: &str, input: &[u8]) {
    thread_local! {
        static GROUP: RefCell<Option<Group>> = const { RefCell::new(None) };
    }
    let Some((which, file)) = input.split_first() else {
        return;
    };
    GROUP.with_borrow_mut(|group| {
        let group = group.get_or_insert_with(|| self::group(target));
        let (model, folder) = &group[usize::from(*which) % group.len()];
        model.change(folder.path(), file);
        if let Err(error) = read_all(&model.opened(folder.path())) {
            let named = folder.path().to_string_lossy();
            assert!(error.contains(&*named), "{}: {error}", model.name);
        }
    });
}
