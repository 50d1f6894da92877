//! Data sets of the Hugging Face hub: which files of a repository are meant, and where they are on
//! this machine.

mod choice;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use concord_data::DatasetSource;
use concord_models::hub;
use indicatif::{ProgressBar, ProgressStyle};

use choice::Choice;

/// Finds the files of a data set whose path is no file here but a name of the hub, and downloads
/// those that the cache lacks. Other data sets stay as they are.
///
/// # Errors
/// Naming the data set, what was tried, and what would help.
pub fn find(source: &mut DatasetSource) -> anyhow::Result<()> {
    let name = source.path.to_string_lossy().into_owned();
    let is_here = source.path.exists() || name.contains(['*', '?']);
    if is_here {
        let config = source.hub.name.as_deref().filter(|name| *name != "default");
        if let Some(name) = config.or(source.hub.revision.as_deref()) {
            bail!(
                "data set {}: `{name}` is one of the hub's, and these are files here: leave out \
                `name` and `revision`",
                source.path.display()
            );
        }
        return match source.hub.data_files.is_empty() {
            true => Ok(()),
            false => beside(source),
        };
    }
    if source.given_files.is_some() || !hub::is_data_name(&name) {
        return Ok(());
    }
    let asked = Choice {
        config: source.hub.name.as_deref(),
        split: source
            .split
            .as_ref()
            .map_or("train", |split| split.name.as_str()),
        files: &source.hub.data_files,
    };
    let revision = source.hub.revision.as_deref().unwrap_or("main");
    let style = ProgressStyle::with_template("{bar:20} {bytes}/{total_bytes}  {wide_msg}")?;
    let bar = ProgressBar::no_length().with_style(style);
    let choose = |files: &[&str], readme: Option<&str>| asked.of(files, readme);
    let files = hub::data_files(&name, revision, &choose, &mut |download| {
        bar.set_length(download.total_bytes);
        bar.set_position(download.done_bytes);
        bar.set_message(download.file.to_string());
    });
    bar.finish_and_clear();
    source.given_files = Some(files.with_context(|| format!("data set {name}"))?);
    Ok(())
}

/// Files of a folder, by the patterns of `data_files`.
fn beside(source: &mut DatasetSource) -> anyhow::Result<()> {
    let folder = match source.path.is_dir() {
        true => source.path.clone(),
        false => source.path.parent().unwrap_or(Path::new("")).to_path_buf(),
    };
    let mut files: Vec<PathBuf> = Vec::new();
    for pattern in &source.hub.data_files {
        let mut one = DatasetSource::new(folder.join(pattern), source.kind);
        one.split = None;
        files.extend(one.files()?);
    }
    files.sort();
    files.dedup();
    source.given_files = Some(files);
    Ok(())
}
