//! Which tensors of a folder are parts of packed weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::file::TensorFile;
use super::packed::{PackedMatrix, PackedParts, QuantMethod};
use super::shards::TensorHome;
use crate::error::ModelError;
use crate::json;

/// The packed weights of a folder.
#[derive(Debug)]
pub(super) struct Quantized {
    method: QuantMethod,
    /// The prefix of the parts' names, by the name of the weight.
    modules: BTreeMap<String, String>,
    parts: BTreeMap<String, TensorHome>,
}

/// Files that described the packing before `config.json` had a key for it.
pub(crate) const OLDER_METHODS: [&str; 2] = ["quantize_config.json", "quant_config.json"];

/// How a method names the parts of a weight. A tensor whose name ends with a marker shows that
/// there is a packed weight. The rest of that name is the module; the weight's parts are all
/// tensors named by the module and one of `ends`.
struct PartNames {
    markers: &'static [&'static str],
    ends: &'static [&'static str],
    /// The suffix of the weight's own name.
    weight: &'static str,
    /// Two ends of which a module has one alone: with both it would lie there twice.
    either: [&'static str; 2],
}

const GPTQ: PartNames = PartNames {
    markers: &[".qweight"],
    ends: &[".qweight", ".qzeros", ".scales", ".g_idx"],
    weight: ".weight",
    either: [".qweight", ".weight"],
};
const COMPRESSED: PartNames = PartNames {
    markers: &[".weight_packed", ".weight_scale"],
    ends: &[
        ".weight",
        ".weight_packed",
        ".weight_shape",
        ".weight_scale",
        ".weight_zero_point",
        ".weight_g_idx",
        // Scales of activations, which are not rounded here.
        ".input_scale",
        ".input_zero_point",
        ".output_scale",
        ".output_zero_point",
    ],
    weight: ".weight",
    either: [".weight_packed", ".weight"],
};
const FP8: PartNames = PartNames {
    markers: &[".weight_scale_inv", ".weight_scale"],
    ends: &[
        ".weight",
        ".weight_scale_inv",
        ".weight_scale",
        // Scales of activations, which are not rounded here.
        ".input_scale",
        ".activation_scale",
        ".input_scale_ub",
    ],
    weight: ".weight",
    either: [".weight_scale_inv", ".weight_scale"],
};
const BITSANDBYTES: PartNames = PartNames {
    markers: &[".weight.absmax", ".SCB"],
    ends: &[
        ".weight",
        ".weight.absmax",
        ".weight.quant_map",
        ".weight.nested_absmax",
        ".weight.nested_quant_map",
        ".weight.quant_state.bitsandbytes__nf4",
        ".weight.quant_state.bitsandbytes__fp4",
        ".SCB",
        ".weight_format",
    ],
    weight: ".weight",
    either: [".weight.absmax", ".SCB"],
};
const MXFP4: PartNames = PartNames {
    markers: &["_blocks"],
    ends: &["_blocks", "_scales"],
    weight: "",
    either: ["_blocks", ""],
};

impl PartNames {
    fn of(method: &QuantMethod) -> Self {
        match method {
            QuantMethod::Gptq(_) | QuantMethod::Awq(_) => GPTQ,
            QuantMethod::Compressed(_) => COMPRESSED,
            QuantMethod::Fp8(_) => FP8,
            QuantMethod::Bitsandbytes => BITSANDBYTES,
            QuantMethod::Mxfp4 => MXFP4,
        }
    }

    /// Refuses a weight that lies in two ways: one of them would be passed over.
    fn check_once(
        &self,
        module: &str,
        files: &[TensorFile],
        homes: &BTreeMap<String, TensorHome>,
    ) -> Result<(), ModelError> {
        let [one, other] = self.either.map(|end| format!("{module}{end}"));
        match (homes.get(&one), homes.get(&other)) {
            (Some(_), Some(home)) => Err(ModelError::BadPackedTensor {
                path: files
                    .get(home.file)
                    .map_or_else(PathBuf::new, |file| file.path().to_path_buf()),
                tensor: home.stored.clone(),
                reason: format!(
                    "beside it stands `{one}`: they are one weight in two ways, and nothing says \
                     which counts. Remove one of the two, or download the model again"
                ),
            }),
            _ => Ok(()),
        }
    }
}

impl Quantized {
    /// Finds the packed weights of a folder, and moves their parts out of `homes`. `None` where
    /// neither `config` nor an older file says that weights are packed.
    ///
    /// # Errors
    /// [`ModelError`] naming the key that cannot be used, or the tensor that lies in two ways.
    pub(super) fn find(
        dir: &Path,
        config: &str,
        files: &[TensorFile],
        homes: &mut BTreeMap<String, TensorHome>,
    ) -> Result<Option<Self>, ModelError> {
        let Some((said_by, method)) = method(dir, config)? else {
            return Ok(None);
        };
        let names = PartNames::of(&method);
        let mut modules = BTreeMap::new();
        for name in homes.keys() {
            let module = names.markers.iter().find_map(|end| name.strip_suffix(end));
            if let Some(module) = module {
                modules.insert(format!("{module}{}", names.weight), module.to_string());
            }
        }
        if modules.is_empty() {
            return Err(packs_nothing(said_by, &names));
        }
        let mut parts = BTreeMap::new();
        for module in modules.values() {
            names.check_once(module, files, homes)?;
            for end in names.ends {
                let name = format!("{module}{end}");
                if let Some(home) = homes.remove(&name) {
                    parts.insert(name, home);
                }
            }
        }
        Ok(Some(Self {
            method,
            modules,
            parts,
        }))
    }

    /// The names of the packed weights.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.modules.keys().map(String::as_str)
    }

    /// Whether a weight is packed.
    pub(super) fn has(&self, name: &str) -> bool {
        self.modules.contains_key(name)
    }

    /// Gives a packed weight a second name.
    pub(super) fn alias(&mut self, name: &str, second: &str) {
        if let Some(module) = self.modules.get(name) {
            self.modules.insert(second.to_string(), module.clone());
        }
    }

    /// Gives a packed weight another name.
    pub(super) fn rename(&mut self, name: &str, other: &str) {
        self.alias(name, other);
        self.modules.remove(name);
    }

    /// The packed weight `name`, if it is one.
    ///
    /// # Errors
    /// [`ModelError`] naming the part that is missing or broken.
    pub(super) fn matrix<'a>(
        &'a self,
        files: &'a [TensorFile],
        name: &str,
    ) -> Result<Option<PackedMatrix<'a>>, ModelError> {
        let Some(module) = self.modules.get(name) else {
            return Ok(None);
        };
        let parts = PackedParts {
            files,
            homes: &self.parts,
            module,
        };
        PackedMatrix::open(&self.method, parts).map(Some)
    }

    /// Where the first part of a packed weight is.
    pub(super) fn home(&self, name: &str) -> Option<&TensorHome> {
        self.homes(name).next()
    }

    /// Where the parts of a packed weight are.
    pub(super) fn homes(&self, name: &str) -> impl Iterator<Item = &TensorHome> {
        let module = self.modules.get(name);
        let parts = module.map(|module| self.parts.range(module.clone()..));
        let parts = parts.into_iter().flatten();
        parts.map_while(move |(part, home)| part.starts_with(module?.as_str()).then_some(home))
    }
}

/// What `quantization_config` says, or else one of the older files; and the file that says it.
fn method(dir: &Path, config: &str) -> Result<Option<(PathBuf, QuantMethod)>, ModelError> {
    let path = dir.join("config.json");
    let object = json::object(&path, config.as_bytes())?;
    match object.get("quantization_config") {
        Some(Value::Object(config)) if !config.is_empty() => {
            let method = QuantMethod::read(&path, config)?;
            return Ok(Some((path, method)));
        }
        None | Some(Value::Null | Value::Object(_)) => {}
        Some(other) => {
            return Err(ModelError::BadValue {
                path,
                key: "quantization_config",
                found: json::shown(other),
                expected: "must be an object".to_string(),
            });
        }
    }
    for name in OLDER_METHODS {
        let path = dir.join(name);
        if path.is_file() {
            let text = std::fs::read(&path).map_err(ModelError::io("read", &path))?;
            let config: Map<String, Value> = json::object(&path, &text)?;
            let method = QuantMethod::read(&path, &config)?;
            return Ok(Some((path, method)));
        }
    }
    Ok(None)
}

/// Refuses a configuration that says how weights are packed beside a file that says it itself.
pub(super) fn check_unpacked(dir: &Path, config: &str, file: &Path) -> Result<(), ModelError> {
    match method(dir, config)? {
        None => Ok(()),
        Some((path, _)) => Err(ModelError::UnusableKey {
            path,
            key: "quantization_config".to_string(),
            found: "there".to_string(),
            reason: format!(
                "the weights are in {}, which says itself how they are packed: remove the key, or \
                 the file where it is one of its own",
                file.display()
            ),
        }),
    }
}

/// The error that a file says how weights are packed, and none is.
fn packs_nothing(path: PathBuf, names: &PartNames) -> ModelError {
    ModelError::UnusableKey {
        path,
        key: "quantization_config".to_string(),
        found: "there".to_string(),
        reason: format!(
            "no tensor of the weights is packed so (none ends with {}): other programs would \
             round them when they read them. Take the weights that belong to the file, or remove \
             the key, or the file where it is one of its own, to compute with the weights as they \
             are",
            names.markers.join(" or ")
        ),
    }
}
