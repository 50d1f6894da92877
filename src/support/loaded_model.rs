//! A whole model on this machine, with an adapter if one is given.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use concord_kernels::Device;
use concord_kernels::coded::Precision;
use concord_models::config::DecoderConfig;
use concord_models::decoder::{Precisions, Stage, StageOptions};
use concord_models::generation_config::GenerationConfig;
use concord_models::hub;
use concord_models::peft::Adapter;
use concord_models::weights::ModelFolder;
use concord_text::TextTokenizer;
use indicatif::{ProgressBar, ProgressStyle};

use crate::support::device::DeviceArgs;
use crate::support::job_mark::Mark;
use crate::support::kv_cache::KvCacheArgs;
use crate::support::load_in::{self, LoadInArgs};

/// The file that identifies a PEFT folder.
const ADAPTER_CONFIG: &str = "adapter_config.json";

/// The temperature if neither the options nor the model give one.
pub const TEMPERATURE: f32 = 0.8;

/// Which model to compute, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct ModelArgs {
    /// A model folder, a GGUF file, a folder that `concord train` wrote, or owner/name of the
    /// Hugging Face hub.
    #[arg(long, value_name = "DIR_OR_HUB_ID")]
    pub model: String,
    /// A PEFT folder with a LoRA adapter for the model.
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    #[command(flatten)]
    pub load_in: LoadInArgs,
    #[command(flatten)]
    pub kv_cache: KvCacheArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// The folders that `--model` names: that of a model, or those of an adapter and its base model.
#[derive(Debug)]
pub struct NamedModel {
    /// The folder of the model, or of the base model.
    pub model: PathBuf,
    /// The folder of the adapter, if the name is that of an adapter.
    pub adapter: Option<PathBuf>,
}

impl NamedModel {
    /// Finds the folders, downloading them if needed.
    ///
    /// # Errors
    /// Where they are not found, or a folder is both a model and an adapter.
    pub fn find(model: &str) -> anyhow::Result<Self> {
        let named = resolve(model).context("--model")?;
        let base = base_of_adapter(&named).context("--model")?;
        let Some(base) = base else {
            return Ok(Self {
                model: named,
                adapter: None,
            });
        };
        let model = resolve(&base).with_context(|| {
            let named = named.display();
            format!(
                "--model {named} is an adapter, and the base model that its adapter_config.json \
                 names is unavailable"
            )
        })?;
        Ok(Self {
            model,
            adapter: Some(named),
        })
    }
}

/// A model whose files have been found and checked; no weights are in memory yet.
#[derive(Debug)]
pub struct OpenedModel {
    device: Device,
    folder: ModelFolder,
    adapter: Option<Adapter>,
    key_values: Precision,
}

impl ModelArgs {
    /// Finds the model, downloading it if needed, and checks its files.
    ///
    /// # Errors
    /// Naming the file and what is wrong with it.
    pub fn open(&self) -> anyhow::Result<OpenedModel> {
        let device = self.device.device(None)?;
        let named = NamedModel::find(&self.model)?;
        if named.adapter.is_some() && self.adapter.is_some() {
            bail!(
                "--model {} is an adapter itself: give its base model with --adapter",
                self.model
            );
        }
        let adapter = named.adapter.or_else(|| self.adapter.clone());
        let folder = load_in::open(&named.model, self.load_in.format())?;
        let adapter = adapter
            .map(|path| {
                let adapter = Adapter::open(&path, folder.config())?;
                note_base(&path, folder.dir(), self.load_in)?;
                anyhow::Ok(adapter)
            })
            .transpose()?;
        Ok(OpenedModel {
            device,
            folder,
            adapter,
            key_values: self.kv_cache.precision(),
        })
    }
}

/// Tells on stderr that an adapter was made for another model, by its name, or for its own model
/// quantised in another way.
///
/// # Errors
/// Where its `adapter_config.json` cannot be read.
pub fn note_base(adapter: &Path, model: &Path, load_in: LoadInArgs) -> anyhow::Result<()> {
    if let Some(note) = Adapter::base_note(adapter, model)? {
        eprintln!("note: {note}");
    }
    if let Some(trained) = trained_in(adapter).filter(|trained| *trained != load_in) {
        eprintln!(
            "note: the adapter {} was trained on its base model {}, which is used {} here: give \
             {} for the very model that it was trained on",
            adapter.display(),
            trained.in_words(),
            load_in.in_words(),
            trained.options()
        );
    }
    Ok(())
}

/// How the base model of an adapter was read when a job of this program trained it, by the mark of
/// its folder, or of the folder that has it as a checkpoint. `None` where no mark says it: one that
/// cannot be read keeps no adapter from being used.
fn trained_in(adapter: &Path) -> Option<LoadInArgs> {
    let parent = adapter.parent().filter(|_| {
        let name = adapter.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("checkpoint-")
    });
    let mark = |folder| Mark::read(folder).ok().flatten();
    let mark = mark(adapter).or_else(|| parent.and_then(mark))?;
    LoadInArgs::of_settings(&mark.settings)
}

impl OpenedModel {
    /// The model's configuration.
    pub fn config(&self) -> &DecoderConfig {
        self.folder.config()
    }

    /// The files of the model.
    pub fn folder(&self) -> &ModelFolder {
        &self.folder
    }

    /// The folder of the model, or its GGUF file.
    pub fn dir(&self) -> &Path {
        self.folder.dir()
    }

    /// The model's tokenizer, checked against its embedding.
    ///
    /// # Errors
    /// Where it is missing, broken or belongs to another model.
    pub fn tokenizer(&self) -> anyhow::Result<TextTokenizer> {
        let tokenizer = self.folder.tokenizer()?;
        for note in tokenizer.notes() {
            eprintln!("note: {note}");
        }
        tokenizer.check(self.config().vocab)?;
        Ok(tokenizer)
    }

    /// The model's recommended sampling parameters. Those that are not applied are reported on
    /// stderr.
    ///
    /// # Errors
    /// Naming the key of its `generation_config.json` that cannot be used.
    pub fn generation(&self) -> anyhow::Result<GenerationConfig> {
        let generation = self.folder.generation()?;
        for sentence in &generation.not_applied {
            eprintln!("note: {sentence}");
        }
        Ok(generation)
    }

    /// Loads all layers, for sequences of up to `positions` tokens. A terminal shows a spinner.
    ///
    /// # Errors
    /// Where a tensor is broken.
    pub fn load(&self, positions: usize) -> anyhow::Result<Stage> {
        let spinner = ProgressBar::new_spinner();
        spinner.set_message(format!("loading {}", self.folder.dir().display()));
        spinner.enable_steady_tick(Duration::from_millis(100));
        let lora = self.adapter.as_ref().map(|adapter| adapter.lora.clone());
        let config = Arc::new(self.config().clone());
        let options = StageOptions {
            device: self.device.clone(),
            layers: (0..config.layers as u32).into(),
            config,
            precisions: Precisions {
                weights: Precision::I16,
                activations: Precision::I16,
                key_values: self.key_values,
            },
            lora,
            trains_all: false,
            positions,
        };
        let none = BTreeMap::new();
        let values = self
            .adapter
            .as_ref()
            .map_or(&none, |adapter| &adapter.tensors);
        let stage = Stage::load(options, &self.folder, values);
        spinner.finish_and_clear();
        Ok(stage?)
    }
}

/// The folder of a model: one on this machine, or one that is downloaded, with a progress bar.
///
/// # Errors
/// Where there is no such model; says what was tried.
pub fn resolve(model: &str) -> anyhow::Result<PathBuf> {
    let style = ProgressStyle::with_template("{bar:20} {bytes}/{total_bytes}  {wide_msg}")?;
    let bar = ProgressBar::no_length().with_style(style);
    let path = hub::resolve(model, None, &mut |download| {
        bar.set_length(download.total_bytes);
        bar.set_position(download.done_bytes);
        bar.set_message(download.file.to_string());
    });
    bar.finish_and_clear();
    Ok(path?)
}

/// The folder of a model's configuration: one on this machine, or one in the hub's cache, into
/// which only `config.json` is downloaded if it is missing.
///
/// # Errors
/// Where there is no such model; says what was tried.
pub fn resolve_config(model: &str) -> anyhow::Result<PathBuf> {
    Ok(hub::resolve_config(model)?)
}

/// The base model that a PEFT folder names; `None` for other folders.
///
/// # Errors
/// Where a folder is both a model and an adapter, or an adapter names no base model.
pub(crate) fn base_of_adapter(folder: &Path) -> anyhow::Result<Option<String>> {
    let path = folder.join(ADAPTER_CONFIG);
    if !path.is_file() {
        return Ok(None);
    }
    if folder.join("config.json").is_file() {
        bail!(
            "{} has config.json, as models have, and {ADAPTER_CONFIG}, as adapters have: which of \
             the two is meant? Move the files of the other one away; an adapter in a folder of its \
             own can be given by --adapter, too",
            folder.display()
        );
    }
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let config: serde_json::Value = serde_json::from_slice(&bytes)
        .with_context(|| format!("{}: not valid JSON", path.display()))?;
    match config["base_model_name_or_path"].as_str() {
        Some(base) if !base.is_empty() => {
            let revision = config["revision"].as_str().filter(|name| !name.is_empty());
            Ok(Some(match revision {
                // A folder has no revisions.
                Some(revision) if !hub::is_here(base) && !base.contains('@') => {
                    format!("{base}@{revision}")
                }
                _ => base.to_string(),
            }))
        }
        _ => bail!(
            "{} names no base model (base_model_name_or_path): give the base model as --model and \
             this folder as --adapter",
            path.display()
        ),
    }
}
