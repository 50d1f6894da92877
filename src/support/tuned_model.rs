//! A model as `concord merge` and `concord export` write it: the files of one, or a base model with
//! an adapter.

use std::path::{Path, PathBuf};

use anyhow::Context;
use concord_models::export::ExportSource;
use concord_models::peft::{Adapter, MergedModel};
use concord_models::weights::ModelFolder;
use indicatif::{ProgressBar, ProgressStyle};

use crate::support::load_in::{self, LoadInArgs};
use crate::support::loaded_model::{NamedModel, note_base, resolve};
use crate::support::output::Output;

/// Which model is written.
#[derive(Clone, Debug, clap::Args)]
pub struct TunedModelArgs {
    /// An adapter (a PEFT folder, or one that `concord train` wrote), or a model: a folder, a GGUF
    /// file, or owner/name of the Hugging Face hub.
    #[arg(value_name = "ADAPTER_OR_MODEL")]
    model: String,
    /// The base model of the adapter, in place of the one that adapter_config.json names.
    #[arg(long, value_name = "DIR_OR_HUB_ID")]
    base: Option<String>,
    #[command(flatten)]
    load_in: LoadInArgs,
}

/// A model whose files have been found and checked.
#[derive(Debug)]
pub struct TunedModel {
    /// The model, or the base model of the adapter.
    pub base: ModelFolder,
    /// The adapter, and its folder.
    pub adapter: Option<(PathBuf, Adapter)>,
}

impl TunedModelArgs {
    /// Finds the model, downloading it if needed, and checks its files.
    ///
    /// # Errors
    /// Naming the file and what is wrong with it.
    pub fn open(&self) -> anyhow::Result<TunedModel> {
        let named = match &self.base {
            Some(base) => NamedModel {
                model: resolve(base).context("--base")?,
                adapter: Some(PathBuf::from(&self.model)),
            },
            None => NamedModel::find(&self.model)?,
        };
        let base = load_in::open(&named.model, self.load_in.format())?;
        let adapter = named
            .adapter
            .map(|folder| {
                let adapter = Adapter::open(&folder, base.config())?;
                note_base(&folder, base.dir(), self.load_in)?;
                anyhow::Ok((folder, adapter))
            })
            .transpose()?;
        Ok(TunedModel { base, adapter })
    }
}

impl TunedModel {
    /// Gives its numbers to `work`.
    pub fn with_source<T>(&self, work: impl FnOnce(&dyn ExportSource) -> T) -> T {
        match &self.adapter {
            Some((_, adapter)) => work(&MergedModel {
                base: &self.base,
                adapter,
            }),
            None => work(&self.base),
        }
    }

    /// The folder that was named: that of the adapter where there is one.
    pub fn dir(&self) -> &Path {
        match &self.adapter {
            Some((folder, _)) => folder,
            None => self.base.dir(),
        }
    }
}

/// A bar of the bytes that are written; hidden with `--json`.
pub fn bar(output: &Output) -> ProgressBar {
    let bar = match output.is_json() {
        true => ProgressBar::hidden(),
        false => ProgressBar::no_length(),
    };
    let style = ProgressStyle::with_template("{bar:20} {bytes}/{total_bytes} written");
    bar.with_style(style.expect("the template is right"))
}
