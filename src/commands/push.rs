//! `concord push`: a result as a repository of the Hugging Face hub.

use std::fs::FileType;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::support::hub_upload::{HubUpload, PushedFile};
use crate::support::output::{Output, counted};
use crate::support::result_names::{self, EVENTS, LOG_FILE, PROOF, STATES};

/// Files that show that a folder is a model or an adapter.
const RESULTS: [&str; 2] = ["config.json", "adapter_config.json"];

/// Options of `concord push`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  concord push out/mine owner/name                        # HF_TOKEN has a token that may write
  concord push out/merged owner/name --private
  concord push ggufs owner/name-GGUF --message \"Q4_K_M\"

Hidden files and folders `checkpoint-...` stay here, and so do the states for replay in the proof,
unless --all-files is given; links and what no result has are refused.
HF_ENDPOINT names another server.")]
pub struct PushArgs {
    /// The folder of an adapter, a model or GGUF files.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The repository, which is created where it is not there: owner/name.
    #[arg(value_name = "OWNER/NAME")]
    repo: String,
    /// Creates it as one that only its owner sees.
    #[arg(long)]
    private: bool,
    /// A token that may write, in place of that of HF_TOKEN or of huggingface_hub's login. Others
    /// on this machine may see it among the running commands.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Sends also files that no result has, such as a licence, and the states for replay in the
    /// proof; links are never followed.
    #[arg(long)]
    all_files: bool,
    /// What the commit says.
    #[arg(long, value_name = "TEXT", default_value = "Upload by concord push")]
    message: String,
}

/// Puts the files of a folder into a repository.
///
/// # Errors
/// Naming the folder that is no result, or what the hub answers.
pub fn run(args: &PushArgs, output: &Output) -> anyhow::Result<()> {
    check_name(&args.repo)?;
    let files = files(&args.folder, args.all_files)?;
    for note in notes(&args.folder, args.all_files)? {
        eprintln!("note: {note}");
    }
    let hub = HubUpload::new(args.token.as_deref())?;
    let was_there = hub.create(&args.repo, args.private)?;
    if was_there && args.private {
        eprintln!(
            "note: {} was there already, and who sees it is not changed",
            args.repo
        );
    }
    let total: u64 = files.iter().map(|file| file.size).sum();
    let bar = match output.is_json() {
        true => ProgressBar::hidden(),
        false => ProgressBar::new(total),
    };
    let style = ProgressStyle::with_template("{bar:20} {bytes}/{total_bytes} sent");
    bar.set_style(style.expect("the template is right"));
    let commit = hub.push(&args.repo, &files, &args.message, &mut |sent| bar.inc(sent));
    bar.finish_and_clear();
    let commit = commit?;
    let text = format!(
        "{} at {}\ncommit {commit}",
        counted(files.len() as u64, "file"),
        hub.page(&args.repo)
    );
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let object = json!({
        "event": "pushed", "repo": args.repo, "url": hub.page(&args.repo), "commit": commit,
        "files": paths, "bytes": total,
    });
    output.result(&text, &object);
    Ok(())
}

fn check_name(repo: &str) -> anyhow::Result<()> {
    let is_part = |part: &str| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && part.len() <= 96 && !part.starts_with('.') && part.chars().all(is_plain)
    };
    match repo.split_once('/') {
        Some((owner, name)) if is_part(owner) && is_part(name) => Ok(()),
        _ => bail!("`{repo}` is no name of a repository: give owner/name"),
    }
}

/// The files of a result, by their paths; those that no result has only with `all`.
fn files(folder: &Path, all: bool) -> anyhow::Result<Vec<PushedFile>> {
    let mut files = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(below) = folders.pop() {
        let place = folder.join(&below);
        let cannot = || format!("cannot list {}", place.display());
        for entry in std::fs::read_dir(&place).with_context(cannot)? {
            let entry = entry.with_context(cannot)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // These two name paths of this machine.
            let is_private = name == LOG_FILE || name == "report.html" || name == "runs";
            let is_private = is_private || name.starts_with(EVENTS);
            if name.starts_with('.') || name.starts_with("checkpoint-") || is_private {
                continue;
            }
            let path = match below.as_str() {
                "" => name,
                below => format!("{below}/{name}"),
            };
            // Not followed: a folder that others made could send any file of this machine.
            let found = entry.metadata().with_context(cannot)?;
            if found.is_dir() {
                // Many files, and larger than all else.
                if all || path != states() {
                    folders.push(path);
                }
                continue;
            }
            check_file(&entry.path(), &path, found.file_type(), all)?;
            files.push(PushedFile {
                path,
                local: entry.path(),
                size: found.len(),
            });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let is_result =
        |file: &PushedFile| RESULTS.contains(&file.path.as_str()) || file.path.ends_with(".gguf");
    match files.iter().any(is_result) {
        true => Ok(files),
        false => bail!(
            "{} is no result: it has neither {} nor a GGUF file",
            folder.display(),
            RESULTS.join(" nor ")
        ),
    }
}

/// Refuses what is no regular file, and, without `all`, what no result has.
fn check_file(place: &Path, path: &str, kind: FileType, all: bool) -> anyhow::Result<()> {
    let place = place.display();
    if kind.is_symlink() {
        bail!("{place} is a link, and links are not followed: put the file itself there");
    }
    if !kind.is_file() {
        bail!("{place} is no regular file, and cannot be sent: move it away");
    }
    let is_gguf = path.ends_with(".gguf") && !path.contains('/');
    if !all && !is_gguf && !result_names::is_path(path) {
        bail!(
            "{place} is no file of a result, and is not sent unasked: move it away, or give \
             --all-files"
        );
    }
    Ok(())
}

/// The folder of the states for replay, within that of a result.
fn states() -> String {
    format!("{PROOF}/{STATES}")
}

/// What others should know of a folder that is pushed.
fn notes(folder: &Path, all: bool) -> anyhow::Result<Vec<String>> {
    let mut notes = Vec::new();
    if !all && folder.join(states()).is_dir() {
        notes.push(format!(
            "the states for replay in {} stay here: without them others can replay the job as a \
             whole alone; --all-files sends them",
            states()
        ));
    }
    let path = folder.join("adapter_config.json");
    if let Ok(bytes) = std::fs::read(&path) {
        let config: serde_json::Value = serde_json::from_slice(&bytes)
            .with_context(|| format!("{}: not valid JSON", path.display()))?;
        let base = config["base_model_name_or_path"]
            .as_str()
            .unwrap_or_default();
        if base.is_empty() || Path::new(base).is_absolute() {
            notes.push(format!(
                "{} names its base model by a folder of this machine: others need its name on the \
                 hub there (base_model_name_or_path)",
                path.display()
            ));
        }
    }
    if !folder.join("README.md").is_file() {
        notes.push("there is no README.md, which the hub shows as the model card".to_string());
    }
    Ok(notes)
}
