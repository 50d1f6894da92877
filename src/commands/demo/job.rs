//! The job of all acts.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{corpus, model};

/// Seed of the weights, of the data, and of the order of sequences.
pub const SEED: u64 = 7;
pub const STEPS: u32 = 60;
/// Microbatches of a step.
pub const MICROBATCHES: u32 = 6;
/// The digest of the job's last step record, which is the same on every machine. README.md shows
/// it. It changes with the bits of the result (`ARITHMETIC_VERSION`) and with the encoding of the
/// job spec, of manifests and of records.
pub const HASH: &str = "e1dd3dfe845f272e8646b7db7728828e0a9f40bbf935565bb106344de8497661";
/// Sentences in the data.
const SENTENCES: u64 = 2_000;

/// A model and data that were made for the job.
pub struct DemoJob {
    home: PathBuf,
    /// The number of the model's weights.
    pub weights: usize,
    /// The data.
    pub text: String,
}

impl DemoJob {
    /// Makes model and data in the folder `home`.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn make(home: &Path) -> anyhow::Result<Self> {
        let weights = model::write(&home.join("model"), SEED)?;
        let text = corpus::text(SENTENCES, SEED);
        model::write_file(&home.join("data.txt"), &text)?;
        Ok(Self {
            home: home.to_path_buf(),
            weights,
            text,
        })
    }

    /// The folder of the model as it was before the training.
    pub fn base(&self) -> PathBuf {
        self.home.join("model")
    }

    /// Writes the job file of an act, whose result goes to `tuned-1`, `tuned-2` and so on. The
    /// output folder is not part of the job, so all acts run the same one.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn file(&self, act: u32) -> anyhow::Result<PathBuf> {
        // A JSON string is valid YAML, whatever characters the path has.
        let path = |name: &str| json!(self.home.join(name)).to_string();
        let text = format!(
            "base_model: {}\ndatasets: [{{path: {}, type: text}}]\nadapter: full\n\
             sequence_len: 64\nmicro_batch_size: 4\n\
             gradient_accumulation_steps: {MICROBATCHES}\nmax_steps: {STEPS}\n\
             learning_rate: 1e-2\nlr_scheduler: cosine\nwarmup_steps: 5\nadam_beta2: 0.98\n\
             seed: {SEED}\nsave_steps: 30\noutput_dir: {}\n",
            path("model"),
            path("data.txt"),
            path(&format!("tuned-{act}")),
        );
        let file = self.home.join(format!("job-{act}.yaml"));
        model::write_file(&file, &text)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::HASH;

    #[test]
    fn the_readme_shows_the_hash_and_no_other_one() {
        let page = include_str!("../../../README.md");
        let is_hash = |word: &&str| word.len() == 64;
        let words = page.split(|c: char| !c.is_ascii_hexdigit()).filter(is_hash);
        let words: Vec<&str> = words.collect();
        assert!(!words.is_empty(), "README.md shows what the demo comes to");
        assert!(words.iter().all(|word| *word == HASH), "{words:?}");
    }
}
