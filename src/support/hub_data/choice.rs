//! Which files of a repository are a split of a data set, by the rules that Hugging Face documents:
//! the configurations of its README.md, or else the names of the files.

use serde_yaml_ng::Value;

/// Endings of files of data, before the packing.
const ENDINGS: [&str; 7] = ["parquet", "jsonl", "json", "ndjson", "csv", "tsv", "txt"];

/// Words in names of files, by the split that they mean.
const WORDS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "val", "dev"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// At most so many names are shown.
const SHOWN_MAX: usize = 20;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice<'a> {
    /// The configuration, by its name.
    pub config: Option<&'a str>,
    pub split: &'a str,
    /// Patterns of the files that are meant; none for those of the split.
    pub files: &'a [String],
}

impl Choice<'_> {
    /// The names of the files, in order.
    ///
    /// # Errors
    /// Half a sentence that says what there is instead.
    pub fn of(&self, files: &[&str], readme: Option<&str>) -> Result<Vec<String>, String> {
        let mut found = match (self.files, readme.and_then(configs)) {
            ([], Some(configs)) => self.of_configs(&configs, files)?,
            ([], None) => self.of_names(files)?,
            (patterns, _) => matching(patterns, files)?,
        };
        found.sort();
        found.dedup();
        let mut forms: Vec<&str> = found.iter().filter_map(|name| ending(name)).collect();
        forms.sort_unstable();
        forms.dedup();
        match forms.len() {
            0 => Err(format!(
                "no file of it is one of data ({}); there are {}",
                ENDINGS.join(", "),
                shown(files)
            )),
            1 => Ok(found),
            _ => Err(format!(
                "its files are of several forms ({}): name those that are meant by `data_files`",
                forms.join(", ")
            )),
        }
    }

    fn of_configs(&self, configs: &[Value], files: &[&str]) -> Result<Vec<String>, String> {
        let name = |config: &Value| {
            config["config_name"]
                .as_str()
                .unwrap_or("default")
                .to_string()
        };
        let names: Vec<String> = configs.iter().map(name).collect();
        let wanted = match (self.config, names.as_slice()) {
            (Some(asked), _) => names.iter().position(|name| name == asked),
            (None, [_]) => Some(0),
            (None, _) => {
                let is_default = |config: &Value| config["default"].as_bool() == Some(true);
                let marked = configs.iter().position(is_default);
                marked.or_else(|| names.iter().position(|name| name == "default"))
            }
        };
        let Some(index) = wanted else {
            return Err(format!(
                "it has the configurations {}: set `name` to one of them",
                names.join(", ")
            ));
        };
        let config = &configs[index];
        let folder = config["data_dir"].as_str().map(|dir| dir.trim_matches('/'));
        let patterns = match (patterns(&config["data_files"], self.split), folder) {
            (Err(splits), _) => {
                return Err(format!(
                    "it has no split `{}`, but {}",
                    self.split,
                    splits.join(", ")
                ));
            }
            (Ok(patterns), None) => patterns,
            (Ok(patterns), Some(dir)) => {
                let within = |pattern: &String| format!("{dir}/{pattern}");
                patterns.iter().map(within).collect()
            }
        };
        match (patterns.is_empty(), folder) {
            (false, _) => matching(&patterns, files),
            (true, None) => self.of_names(files),
            (true, Some(dir)) => {
                let start = format!("{dir}/");
                let within: Vec<&str> = files
                    .iter()
                    .copied()
                    .filter(|name| name.starts_with(&start))
                    .collect();
                self.by_names(&within)
            }
        }
    }

    /// Without configurations a name is that of a folder.
    fn of_names(&self, files: &[&str]) -> Result<Vec<String>, String> {
        let Some(config) = self.config.filter(|name| *name != "default") else {
            return self.by_names(files);
        };
        let start = format!("{config}/");
        let within: Vec<&str> = files
            .iter()
            .copied()
            .filter(|name| name.starts_with(&start))
            .collect();
        match within.is_empty() {
            true => Err(format!(
                "it has no configuration `{config}`: leave out `name`"
            )),
            false => self.by_names(&within),
        }
    }

    fn by_names(&self, files: &[&str]) -> Result<Vec<String>, String> {
        let data: Vec<&str> = files
            .iter()
            .copied()
            .filter(|name| ending(name).is_some())
            .collect();
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_string).collect();
        // `data/train-00000-of-00003.parquet` names its split exactly.
        let mut exact: Vec<&str> = data.iter().filter_map(|name| sharded(name)).collect();
        exact.sort_unstable();
        exact.dedup();
        if !exact.is_empty() {
            return match exact.contains(&self.split) {
                true => Ok(owned(
                    data.into_iter()
                        .filter(|name| sharded(name) == Some(self.split))
                        .collect(),
                )),
                false => Err(format!(
                    "it has no split `{}`, but {}",
                    self.split,
                    exact.join(", ")
                )),
            };
        }
        let splits = |name: &str| -> Vec<&'static str> {
            let is_of = |words: &[&str]| words.iter().any(|word| has_word(name, word));
            let found = WORDS.iter().filter(|(_, words)| is_of(words));
            found.map(|(split, _)| *split).collect()
        };
        if data.iter().all(|name| splits(name).is_empty()) && self.split == "train" {
            return Ok(owned(data));
        }
        let is_wanted = |name: &&str| splits(name).contains(&self.split);
        let found: Vec<&str> = data.iter().copied().filter(is_wanted).collect();
        match found.is_empty() {
            true => Err(format!(
                "no file of it is of the split `{}`; there are {}",
                self.split,
                shown(&data)
            )),
            false => Ok(owned(found)),
        }
    }
}

/// The configurations in the head of a README.md.
fn configs(readme: &str) -> Option<Vec<Value>> {
    let head = readme.trim_start_matches('\u{feff}').strip_prefix("---")?;
    let (head, _) = head.split_once("\n---")?;
    let head: Value = serde_yaml_ng::from_str(head).ok()?;
    let configs = head.get("configs")?.as_sequence()?.clone();
    (!configs.is_empty()).then_some(configs)
}

/// The patterns that `data_files` has for a split; none where it has no entry at all.
///
/// # Errors
/// The splits that it has instead.
fn patterns(value: &Value, split: &str) -> Result<Vec<String>, Vec<String>> {
    let texts = |value: &Value| -> Vec<String> {
        match value {
            Value::String(text) => vec![text.clone()],
            Value::Sequence(items) => items
                .iter()
                .filter_map(|item| item.as_str().map(str::to_string))
                .collect(),
            _ => Vec::new(),
        }
    };
    let splits: Vec<(String, Vec<String>)> = match value {
        Value::Sequence(items) if items.iter().any(Value::is_mapping) => items
            .iter()
            .filter_map(|item| Some((item["split"].as_str()?.to_string(), texts(&item["path"]))))
            .collect(),
        Value::Mapping(map) => map
            .iter()
            .filter_map(|(name, paths)| Some((name.as_str()?.to_string(), texts(paths))))
            .collect(),
        Value::Null => return Ok(Vec::new()),
        // Without splits all is for training.
        value => vec![("train".to_string(), texts(value))],
    };
    match splits.iter().find(|(name, _)| name == split) {
        Some((_, patterns)) => Ok(patterns.clone()),
        None => Err(splits.into_iter().map(|(name, _)| name).collect()),
    }
}

/// The files that patterns name, each one at least.
fn matching(patterns: &[String], files: &[&str]) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for pattern in patterns {
        let clean = pattern.trim_start_matches("./");
        let before = found.len();
        let fits = files.iter().filter(|name| fits(clean, name));
        found.extend(fits.map(|name| name.to_string()));
        if found.len() == before {
            return Err(format!(
                "it has no file {pattern}; there are {}",
                shown(files)
            ));
        }
    }
    Ok(found)
}

/// Whether a name fits a pattern: `*` and `?` stay within a folder, `**` does not.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    // For each place in the pattern, whether the name so far leads there.
    let mut at = vec![false; pattern.len() + 1];
    at[0] = true;
    let skip_stars = |at: &mut Vec<bool>| {
        for index in 0..pattern.len() {
            at[index + 1] |= at[index] && pattern[index] == b'*';
        }
    };
    skip_stars(&mut at);
    for byte in name {
        let mut next = vec![false; pattern.len() + 1];
        for (index, one) in pattern.iter().enumerate().filter(|(index, _)| at[*index]) {
            let neighbours = [index.checked_sub(1), Some(index + 1)];
            let mut neighbours = neighbours.into_iter().flatten();
            let is_deep = *one == b'*' && neighbours.any(|i| pattern.get(i) == Some(&b'*'));
            match one {
                b'*' if *byte != b'/' || is_deep => next[index] = true,
                b'?' if *byte != b'/' => next[index + 1] = true,
                own if own == byte => next[index + 1] = true,
                _ => {}
            }
        }
        at = next;
        skip_stars(&mut at);
    }
    at[pattern.len()]
}

/// The ending of a file of data, without its packing; those of JSON are one.
fn ending(name: &str) -> Option<&'static str> {
    let base = name.rsplit('/').next().unwrap_or(name).to_lowercase();
    let hidden = base.starts_with('.') || base.starts_with("dataset_info");
    let base = base.trim_end_matches(".gz").trim_end_matches(".zst");
    let (_, end) = base.rsplit_once('.')?;
    let found = ENDINGS.into_iter().find(|known| *known == end && !hidden)?;
    Some(match found {
        "jsonl" | "ndjson" => "json",
        found => found,
    })
}

/// The split in a name such as `data/train-00000-of-00003.parquet`.
fn sharded(name: &str) -> Option<&str> {
    let base = name.rsplit('/').next().unwrap_or(name);
    let (before, _) = base.split_once("-of-")?;
    let (split, number) = before.rsplit_once('-')?;
    let is_number = number.len() == 5 && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && !split.is_empty()).then_some(split)
}

fn has_word(name: &str, word: &str) -> bool {
    let name = name.to_lowercase();
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
    words.any(|own| own == word)
}

fn shown(files: &[&str]) -> String {
    let more = files.len().saturating_sub(SHOWN_MAX);
    let names = files[..files.len() - more].join(", ");
    match more {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(files: &[&str], readme: Option<&str>, asked: Choice) -> String {
        match asked.of(files, readme) {
            Ok(found) => found.join(" "),
            Err(why) => format!("! {why}"),
        }
    }

    const TRAIN: Choice = Choice {
        config: None,
        split: "train",
        files: &[],
    };

    #[test]
    fn files_are_chosen_by_their_names() {
        let sharded = [
            "README.md",
            "data/train_sft-00000-of-00002.parquet",
            "data/train_sft-00001-of-00002.parquet",
            "data/test_sft-00000-of-00001.parquet",
        ];
        let asked = Choice {
            split: "train_sft",
            ..TRAIN
        };
        assert_eq!(
            choose(&sharded, None, asked),
            "data/train_sft-00000-of-00002.parquet data/train_sft-00001-of-00002.parquet"
        );
        let none = choose(&sharded, None, TRAIN);
        assert_eq!(none, "! it has no split `train`, but test_sft, train_sft");
        let plain = [
            "README.md",
            "alpaca.json",
            "dataset_info.json",
            ".gitattributes",
        ];
        assert_eq!(choose(&plain, None, TRAIN), "alpaca.json");
        let words = ["a/test.csv", "a/training-set.csv", "b/train.csv"];
        assert_eq!(
            choose(&words, None, TRAIN),
            "a/training-set.csv b/train.csv"
        );
        let asked = Choice {
            config: Some("b"),
            ..TRAIN
        };
        assert_eq!(choose(&words, None, asked), "b/train.csv");
        assert!(
            choose(&["a.json", "b.csv"], None, TRAIN).starts_with("! its files are of several")
        );
        assert!(choose(&["model.bin"], None, TRAIN).starts_with("! no file of it is one of data"));
        let files = ["**/t*.csv".to_string()];
        let asked = Choice {
            files: &files,
            ..TRAIN
        };
        assert_eq!(
            choose(&words, None, asked),
            "a/test.csv a/training-set.csv b/train.csv"
        );
        assert!(fits("data/*.json", "data/a.json") && !fits("data/*.json", "data/x/a.json"));
        assert!(fits("a?.txt", "ab.txt") && !fits("a?.txt", "a/.txt"));
    }

    #[test]
    fn configurations_of_the_readme_decide() {
        let readme = "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n    \
                      path: main/train-*\n  - split: test\n    path: main/test-*\n- config_name: \
                      extra\n  data_files: extra.csv\n---\nwords\n";
        let files = [
            "main/train-00000-of-00001.parquet",
            "main/test-0.parquet",
            "extra.csv",
        ];
        let of = |config: Option<&str>, split| {
            let asked = Choice {
                config,
                split,
                ..TRAIN
            };
            choose(&files, Some(readme), asked)
        };
        assert_eq!(
            of(Some("main"), "train"),
            "main/train-00000-of-00001.parquet"
        );
        assert_eq!(of(Some("extra"), "train"), "extra.csv");
        assert_eq!(
            of(None, "train"),
            "! it has the configurations main, extra: set `name` to one of them"
        );
        assert_eq!(
            of(Some("main"), "dev"),
            "! it has no split `dev`, but train, test"
        );
    }
}
