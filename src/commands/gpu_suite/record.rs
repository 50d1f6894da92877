//! The results of a run, and the two files to which they are written.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use super::hardware::SuiteHeader;
use super::soak::Soaked;
use super::timing::Timing;
use super::verdict::SuiteVerdict;

/// The results of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// What was tested.
    pub header: SuiteHeader,
    /// The outcome of each check.
    pub verdicts: Vec<SuiteVerdict>,
    /// The measured speeds; `None` where they were not asked for.
    pub timing: Option<Timing>,
    /// The soak; `None` where it was not asked for.
    pub soak: Option<Soaked>,
}

impl Record {
    /// A run without results yet.
    pub fn new(header: SuiteHeader) -> Self {
        Self {
            header,
            verdicts: Vec::new(),
            timing: None,
            soak: None,
        }
    }

    /// Names of the checks that failed.
    pub fn failures(&self) -> Vec<&str> {
        let checks = self.verdicts.iter().filter(|verdict| !verdict.is_good());
        let soak = self.soak.as_ref().filter(|soak| !soak.is_good());
        checks
            .map(|verdict| verdict.name.as_str())
            .chain(soak.map(|_| "soak"))
            .collect()
    }

    /// How many numbers differ in all checks together.
    pub fn differing(&self) -> usize {
        self.verdicts.iter().map(SuiteVerdict::differing).sum()
    }

    /// The outcome in a line.
    pub fn last_line(&self) -> String {
        let (checks, failed) = (self.verdicts.len(), self.failures().len());
        match failed {
            0 => format!("{checks} checks, 0 differing bits: the GPU gives the bits of the CPU"),
            _ => format!(
                "{checks} checks, {failed} FAILED, {} numbers differ",
                self.differing()
            ),
        }
    }

    /// Writes results.json and results.md into `folder`, which is created if it is missing.
    ///
    /// # Errors
    /// Naming the file or folder that cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text + "\n")
                .with_context(|| format!("cannot write {}", path.display()))
        };
        write("results.json", serde_json::to_string_pretty(self)?)?;
        write("results.md", self.markdown())
    }

    fn markdown(&self) -> String {
        let mut text = format!(
            "# {}\n\n{}\n",
            self.header.name,
            fenced(&self.header.text())
        );
        text += &format!("\n{}\n", self.last_line());
        for failure in self.failures() {
            text += &format!("\n* FAILED: {failure}");
        }
        if let Some(soak) = &self.soak {
            text += &format!("\n{}\n", soak.text());
        }
        if let Some(timing) = &self.timing {
            text += &format!("\n## Rates\n\n{}\n", timing.ceilings.text());
            text += &format!("\n{}", fenced(timing.text().trim()));
        }
        text
    }
}

fn fenced(text: &str) -> String {
    format!("```\n{text}\n```")
}
