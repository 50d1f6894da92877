//! Checks that `output_dir` does not overlap with the files that the job reads.

use std::path::{Component, Path, PathBuf};

use anyhow::bail;

use crate::support::job_file::JobFile;
use crate::support::result_names::is_ours;

/// Refuses an output folder that is, or contains, a folder that the job reads, or that has an input
/// file under a name that a result uses. `output` is canonical; links are followed. Inputs that are
/// not there yet, such as a model of the hub, are checked by [`check_base`].
///
/// # Errors
/// Naming the key of the job file and the path.
pub fn check(output: &Path, job: &JobFile) -> anyhow::Result<()> {
    check_folder(output, "base_model", Path::new(&job.base_model))?;
    if let Some(adapter) = &job.initial_adapter {
        check_folder(output, "initial_adapter", adapter)?;
    }
    for source in job.all_datasets() {
        check_file(output, &source.path)?;
    }
    Ok(())
}

/// As [`check`], for the folder in which the base model was found.
///
/// # Errors
/// Naming the path.
pub fn check_base(output: &Path, folder: &Path) -> anyhow::Result<()> {
    check_folder(output, "base_model", folder)
}

/// Refuses a `--pool-dir` that is the output folder or a folder that the job reads, because the
/// state of a pool needs a folder of its own.
///
/// # Errors
/// Naming both.
pub fn check_pool_dir(pool_dir: &Path, output: &Path, job: &JobFile) -> anyhow::Result<()> {
    let Some(dir) = canonical(pool_dir) else {
        return Ok(());
    };
    let base = canonical(Path::new(&job.base_model));
    let adapter = job.initial_adapter.as_deref().and_then(canonical);
    let others = [
        ("output_dir", Some(output.to_path_buf())),
        ("base_model", base),
        ("initial_adapter", adapter),
    ];
    for (key, other) in others {
        if other.is_some_and(|other| other == dir) {
            bail!(
                "--pool-dir: {} is the folder of `{key}`: choose one of its own for the state of \
                 the pool",
                pool_dir.display()
            );
        }
    }
    Ok(())
}

fn check_folder(output: &Path, key: &str, read: &Path) -> anyhow::Result<()> {
    let Some(folder) = canonical(read) else {
        return Ok(());
    };
    let how = if folder == output {
        "is the folder"
    } else if folder.starts_with(output) {
        "contains the folder"
    } else {
        return Ok(());
    };
    bail!(
        "output_dir: {} {how} of `{key}` ({}), whose files the result must not touch: choose a \
         folder of its own for the result",
        output.display(),
        read.display()
    )
}

fn check_file(output: &Path, read: &Path) -> anyhow::Result<()> {
    let Some(file) = canonical(read) else {
        return Ok(());
    };
    let Ok(inside) = file.strip_prefix(output) else {
        return Ok(());
    };
    let first = match inside.components().next() {
        Some(Component::Normal(name)) => name.to_string_lossy().into_owned(),
        _ => String::new(),
    };
    if first.is_empty() || is_ours(&first) {
        bail!(
            "output_dir: {} has the data set {} where the result goes: choose a folder of its own \
             for the result",
            output.display(),
            read.display()
        );
    }
    Ok(())
}

fn canonical(path: &Path) -> Option<PathBuf> {
    std::fs::canonicalize(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_files_that_are_read_stay_untouched() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        for folder in ["base", "base/out", "all/base", "base-2"] {
            std::fs::create_dir_all(home.join(folder)).unwrap();
        }
        for file in ["config.json", "data.jsonl", "log.jsonl"] {
            std::fs::write(home.join("base/out").join(file), "").unwrap();
        }
        let verdict = |output: &str, read: &str| {
            check_folder(&home.join(output), "base_model", &home.join(read))
                .err()
                .map(|error| error.to_string())
        };
        let clear = [
            ("base/out", "base"),
            ("base-2", "base"),
            ("base", "base-2"),
            ("all/base", "base"),
            ("base", "nowhere"),
        ];
        for (output, read) in clear {
            assert_eq!(verdict(output, read), None, "{output} {read}");
        }
        assert!(verdict("base", "base").unwrap().contains("is the folder"));
        let around = verdict("all", "all/base").unwrap();
        assert!(around.contains("contains the folder"), "{around}");
        let roundabout = verdict("base", "all/../base").unwrap();
        assert!(roundabout.contains("`base_model`"), "{roundabout}");
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(home.join("base"), home.join("link")).unwrap();
            assert!(verdict("base", "link").is_some());
        }
        let file =
            |name: &str| check_file(&home.join("base/out"), &home.join("base/out").join(name));
        assert!(file("data.jsonl").is_ok(), "no result has this name");
        assert!(file("log.jsonl").is_err() && file("config.json").is_err());
        assert!(file("").is_err(), "the folder itself");
    }
}
