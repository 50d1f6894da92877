//! Makes a deployment from a model folder, with what the API needs to know of the model.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::bail;
use concord_gateway::SamplingDefaults;
use concord_kernels::packed::QuantFormat;
use concord_models::generation_config::{GenerationConfig, end_tokens};
use concord_models::weights::ModelFolder;
use concord_proto::ARITHMETIC_VERSION;
use concord_proto::serving::{Deployment, ServedPrecision, ServingProfile};
use concord_text::{ChatTemplate, TextTokenizer};

use crate::support::blobs::BlobSet;
use crate::support::kv_cache::KvCacheArgs;
use crate::support::load_in;
use crate::support::profile::{self, KeptFormats};

/// A model, ready to be served.
pub struct ModelToServe {
    /// What is served.
    pub deployment: Deployment,
    /// The profile for the planner.
    pub profile: ServingProfile,
    /// The blobs that the store must have.
    pub blobs: BlobSet,
    /// Its files.
    pub folder: ModelFolder,
    pub tokenizer: Arc<TextTokenizer>,
    /// Its chat template, where it has one.
    pub template: Option<ChatTemplate>,
    /// Tokens that end an answer.
    pub stop_tokens: Vec<u32>,
    /// Sampling parameters of requests that leave them out.
    pub defaults: SamplingDefaults,
    /// A sentence for each key of its `generation_config.json` that is not applied.
    pub not_applied: Vec<String>,
}

impl ModelToServe {
    /// Reads a model folder, which is quantised to `format` where there is one. `positions` bounds
    /// prompt and answer; the model's own limit without. `kv_cache` says how keys and values are
    /// kept, `keeps_packed` whether workers hold matrices as they lie, as they do on a CPU.
    ///
    /// # Errors
    /// Naming the file and what is wrong with it, or a limit beyond the model's.
    pub fn open(
        path: &Path,
        positions: Option<u32>,
        format: Option<QuantFormat>,
        kv_cache: KvCacheArgs,
        keeps_packed: bool,
    ) -> anyhow::Result<Self> {
        let folder = load_in::open(path, format)?;
        let config = folder.config().clone();
        let most = u32::try_from(config.max_positions).unwrap_or(u32::MAX);
        let positions = match positions {
            Some(0) => bail!("--max-model-len 0: at least one position"),
            Some(asked) if asked > most => {
                bail!("--max-model-len {asked}: the model has {most} positions")
            }
            Some(asked) => asked,
            None => most,
        };
        let tokenizer = folder.tokenizer()?;
        let tokenizer_notes = tokenizer.notes().to_vec();
        tokenizer.check(config.vocab)?;
        let mut blobs = BlobSet::believing_kept_digests();
        let model = blobs.model(&folder)?;
        let deployment = Deployment {
            arithmetic: ARITHMETIC_VERSION,
            model,
            tokenizer: blobs.bytes(folder.tokenizer_json()?),
            layers: config.layers as u32,
            vocab: config.vocab as u32,
            positions,
            precision: ServedPrecision {
                key_values: kv_cache.bits(),
                ..ServedPrecision::of(16)
            },
        };
        let kept = match keeps_packed {
            true => KeptFormats::of(&folder)?,
            false => KeptFormats::default(),
        };
        let generation = folder.generation()?;
        let template = folder.chat_template()?;
        let no_template = template.is_none().then(|| NO_TEMPLATE.to_string());
        Ok(Self {
            profile: profile::serving(&config, &kept, kv_cache.precision()),
            template,
            stop_tokens: end_tokens(&config, &tokenizer),
            tokenizer: Arc::new(tokenizer),
            defaults: sampling_defaults(&generation),
            not_applied: [
                generation.not_applied,
                tokenizer_notes,
                Vec::from_iter(no_template),
            ]
            .concat(),
            deployment,
            blobs,
            folder,
        })
    }
}

/// A note, because transformers refuses chats with such a model.
const NO_TEMPLATE: &str = "the model has no chat template: a chat is put to it as lines that begin \
                           with `user:` and `assistant:`";

/// Parameters that the file leaves out are OpenAI's.
fn sampling_defaults(generation: &GenerationConfig) -> SamplingDefaults {
    let open_ai = SamplingDefaults::default();
    SamplingDefaults {
        temperature: generation.temperature.unwrap_or(open_ai.temperature),
        top_p: generation.top_p.unwrap_or(open_ai.top_p),
        top_k: generation.top_k.unwrap_or(open_ai.top_k),
    }
}

/// The seconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |elapsed| elapsed.as_secs())
}
