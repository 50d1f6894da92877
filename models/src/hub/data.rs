//! Files of a data set of the hub.

use std::fs;
use std::path::{Path, PathBuf};

use hf_hub::Cache;

use super::download::{Fetch, repo_at};
use super::{ChooseFiles, Download, ModelHub, RepoName};

const README: &str = "README.md";

/// The longest README.md that is read.
const README_BYTES_MAX: u64 = 4 << 20;

/// The list of files of a commit, beside its snapshot: without it a cache does not say whether it
/// has all of them.
const LISTS: &str = "concord-files";

impl ModelHub {
    pub(super) fn fetch_data(
        &self,
        name: &RepoName,
        choose: &ChooseFiles,
        progress: &mut dyn FnMut(Download),
    ) -> Result<Vec<PathBuf>, String> {
        let path = self.cache.clone();
        let path = path.ok_or("there is no place to keep downloads: set HF_HOME")?;
        let cache = Cache::new(path);
        if self.offline {
            return kept(&cache, name, choose).map_err(|why| {
                format!(
                    "there is no such file, {why}, and HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is \
                     set: unset it to download the data"
                )
            });
        }
        let api = self.api(&cache)?;
        let asked = repo_at(name, &name.revision);
        let info = match api.repo(asked.clone()).info() {
            Ok(info) => info,
            Err(error) => {
                return kept(&cache, name, choose).map_err(|_| {
                    format!(
                        "there is no such file, and the hub did not give the data set {}@{}: {}",
                        name.repo,
                        name.revision,
                        self.explain(name, &error)
                    )
                });
            }
        };
        // The commit becomes part of a path in the cache.
        if !info.sha.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(format!("the hub names the commit {:?}", info.sha));
        }
        let files: Vec<&str> = info.siblings.iter().map(|f| f.rfilename.as_str()).collect();
        if let Some(strange) = files.iter().find(|file| !is_plain(file)) {
            return Err(format!("the hub names the file {strange:?}"));
        }
        let commit = Fetch {
            api: &api,
            cache: &cache,
            repo: repo_at(name, &info.sha),
            sha: &info.sha,
            explain: &|error| self.explain(name, error),
        };
        let readme = match files.contains(&README) {
            true => read(&commit.one(README, &files, progress)?),
            false => None,
        };
        let chosen = choose(&files, readme.as_deref())?;
        let mut found = Vec::new();
        for file in &chosen {
            found.push(commit.one(file, &files, progress)?);
        }
        let wrong = |error: std::io::Error| format!("cannot write its cache: {error}");
        let noted = cache.repo(asked).create_ref(&info.sha);
        noted.map_err(|error| format!("cannot write its cache: {error}"))?;
        let lists = folder(&cache, name).join(LISTS);
        fs::create_dir_all(&lists).map_err(wrong)?;
        fs::write(lists.join(&info.sha), files.join("\n")).map_err(wrong)?;
        Ok(found)
    }
}

/// The files as they lie in the cache; or why not.
fn kept(cache: &Cache, name: &RepoName, choose: &ChooseFiles) -> Result<Vec<PathBuf>, String> {
    let folder = folder(cache, name);
    let lacks = || {
        format!(
            "{}@{} is not in the cache {}",
            name.repo,
            name.revision,
            cache.path().display()
        )
    };
    let noted = fs::read_to_string(folder.join("refs").join(&name.revision));
    let sha = noted.map_or_else(|_| name.revision.clone(), |sha| sha.trim().to_string());
    let list = fs::read_to_string(folder.join(LISTS).join(&sha)).map_err(|_| lacks())?;
    let files: Vec<&str> = list.lines().collect();
    let snapshot = folder.join("snapshots").join(&sha);
    let readme = read(&snapshot.join(README));
    let chosen = choose(&files, readme.as_deref())?;
    let paths: Vec<PathBuf> = chosen.iter().map(|file| snapshot.join(file)).collect();
    match paths.iter().find(|path| !path.is_file()) {
        Some(missing) => Err(format!("{}: {} is missing", lacks(), missing.display())),
        None => Ok(paths),
    }
}

/// The folder of a repository of data, as huggingface_hub names it.
fn folder(cache: &Cache, name: &RepoName) -> PathBuf {
    let own = format!("datasets--{}", name.repo.replace('/', "--"));
    cache.path().join(own)
}

fn read(path: &Path) -> Option<String> {
    let is_short = fs::metadata(path).is_ok_and(|found| found.len() <= README_BYTES_MAX);
    is_short.then(|| fs::read_to_string(path).ok()).flatten()
}

/// Whether the name of a file stays within its folder.
fn is_plain(file: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    file.split('/').all(is_part) && !file.contains(['\\', '\n', '\0'])
}
