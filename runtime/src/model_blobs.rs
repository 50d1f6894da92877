//! The tensors of some layers of a model, on disk: what is packed there stays so, and is mapped; of
//! others a slice is in memory as f32 at a time.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use concord_kernels::Tensor;
use concord_kernels::packed::BlockFormat;
use concord_models::ModelError;
use concord_models::config::{DecoderConfig, TensorPlace};
use concord_models::decoder::TensorSource;
use concord_models::weights::{BlockMatrix, TakeRows, check_rows, runs_of_rows};
use concord_proto::manifest::{ModelManifest, ModelTensor};
use concord_proto::tensor::{TensorHeader, numbers};
use concord_proto::{Digest, Layers};

use crate::blobs::Blobs;
use crate::{RuntimeError, spec};

/// Tensors of a model by name, as blobs that have been fetched.
pub(crate) struct ModelBlobs {
    blobs: Blobs,
    /// Address and shape, by name.
    tensors: BTreeMap<String, (Digest, Vec<usize>)>,
    /// The formats of those that are here, by name.
    formats: BTreeMap<String, BlockFormat>,
}

impl ModelBlobs {
    /// Fetches the tensors of `layers`, except for those that are here.
    ///
    /// # Errors
    /// [`RuntimeError`] where one is unavailable.
    pub(crate) async fn fetch(
        blobs: &Blobs,
        config: &DecoderConfig,
        manifest: &ModelManifest,
        layers: Layers,
    ) -> Result<Self, RuntimeError> {
        let specs = config.tensors().into_iter();
        let mut shapes: BTreeMap<String, Vec<usize>> =
            specs.map(|spec| (spec.name, spec.shape)).collect();
        let (mut tensors, mut formats) = (BTreeMap::new(), BTreeMap::new());
        for ModelTensor { name, blob, .. } in &manifest.tensors {
            let place =
                TensorPlace::of(name).map(|place| spec::place(place, config.tie_embeddings));
            if place.is_some_and(|place| layers.holds(place, name, config.layers as u32))
                && let Some(shape) = shapes.remove(name)
            {
                blobs.fetch(*blob).await?;
                // One that cannot be read is refused with a reason when it is loaded.
                if let Ok(header) = blobs.open(*blob).and_then(|mut blob| blob.header()) {
                    formats.insert(name.clone(), header.dtype);
                }
                tensors.insert(name.clone(), (*blob, shape));
            }
        }
        Ok(Self {
            blobs: blobs.clone(),
            tensors,
            formats,
        })
    }

    /// No tensors: for a stage that trains all its tensors.
    pub(crate) fn none(blobs: &Blobs) -> Self {
        Self {
            blobs: blobs.clone(),
            tensors: BTreeMap::new(),
            formats: BTreeMap::new(),
        }
    }

    /// The addresses of the tensors.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = Digest> {
        self.tensors.values().map(|(address, _)| *address)
    }

    fn found(&self, name: &str) -> Result<(Digest, &[usize]), ModelError> {
        let found = self.tensors.get(name);
        let found = found.ok_or_else(|| bad(name, "the model's manifest lacks it".into()))?;
        Ok((found.0, &found.1))
    }
}

impl TensorSource for ModelBlobs {
    fn tensor(&self, name: &str) -> Result<Tensor, ModelError> {
        let (_, shape) = self.found(name)?;
        let mut all = Vec::with_capacity(shape.iter().product());
        self.rows(name, &mut |_, rows| {
            all.extend_from_slice(rows.data());
            Ok(())
        })?;
        Ok(Tensor::new(shape, all)?)
    }

    fn rows(&self, name: &str, take: &mut TakeRows<'_>) -> Result<(), ModelError> {
        let read = self.read(name, take);
        if read.is_err()
            && let Ok((address, _)) = self.found(name)
        {
            // It may have changed on disk since it was fetched: it is read as a whole before it is
            // used again, and fetched again where it must be.
            self.blobs.doubt(address);
        }
        read
    }

    fn format(&self, name: &str) -> BlockFormat {
        self.formats.get(name).copied().unwrap_or(BlockFormat::F32)
    }

    fn blocks(&self, name: &str) -> Result<Option<BlockMatrix>, ModelError> {
        let (address, shape) = self.found(name)?;
        let &[rows, cols] = shape else {
            return Ok(None);
        };
        // Read as numbers, it is read with the reasons that it cannot be.
        let Some(mapped) = self.blobs.map(address) else {
            return Ok(None);
        };
        let format = mapped.header.dtype;
        // Numbers of 32 bits become codes, which takes a reading of its own.
        if format == BlockFormat::F32 {
            return Ok(None);
        }
        check_shape(name, &mapped.header, shape)?;
        // The address says what the blob has: where that fills no shape, the job is at fault.
        if format.row_bytes(cols).is_none() {
            return Err(bad(name, no_rows(format, cols)));
        }
        if mapped.header.element_bytes() != Some(mapped.elements().len() as u64) {
            return Err(bad(
                name,
                format!("its bytes do not fill the shape {shape:?}"),
            ));
        }
        if !mapped.is_whole(address) {
            self.blobs.doubt(address);
            let why = RuntimeError::WrongBlob {
                expected: address,
                got: mapped.header.digest(mapped.elements()),
            };
            return Err(unread(name, &why));
        }
        Ok(Some(BlockMatrix {
            format,
            rows,
            cols,
            owner: mapped.owner,
            range: mapped.range,
        }))
    }
}

impl ModelBlobs {
    fn read(&self, name: &str, take: &mut TakeRows<'_>) -> Result<(), ModelError> {
        let (address, shape) = self.found(name)?;
        let failed = |error: RuntimeError| match error {
            RuntimeError::BadBlob { why, .. } => bad(name, why),
            RuntimeError::Io { why, .. } if why.kind() == ErrorKind::UnexpectedEof => {
                bad(name, format!("its bytes do not fill the shape {shape:?}"))
            }
            error => unread(name, &error),
        };
        let mut blob = self.blobs.open(address).map_err(failed)?;
        let header = blob.header().map_err(failed)?;
        check_shape(name, &header, shape)?;
        let cols = shape.last().copied().unwrap_or(1);
        let rows = shape
            .iter()
            .product::<usize>()
            .checked_div(cols)
            .unwrap_or(0);
        let width = header.dtype.row_bytes(cols);
        let width = width.ok_or_else(|| bad(name, no_rows(header.dtype, cols)))?;
        let mut bytes = Vec::new();
        for run in runs_of_rows(rows, cols) {
            bytes.resize(run.len() * width, 0);
            blob.fill(&mut bytes).map_err(failed)?;
            let data = numbers(header.dtype, &bytes);
            let some = Tensor::new(&[run.len(), cols], data)?;
            check_rows(name, run.start * cols, &some)?;
            take(rows, some)?;
        }
        match blob.finish().map_err(failed)? {
            0 => Ok(()),
            left => Err(bad(name, format!("{left} bytes follow those of its shape"))),
        }
    }
}

/// It was whole when it was fetched: the fault is this machine's, and not the model's.
fn unread(name: &str, error: &RuntimeError) -> ModelError {
    ModelError::Io {
        action: "read",
        path: name.into(),
        source: std::io::Error::other(error.to_string()),
    }
}

fn check_shape(name: &str, header: &TensorHeader, shape: &[usize]) -> Result<(), ModelError> {
    let is_same = |(a, b): (&u64, &usize)| *a == *b as u64;
    if header.shape.len() == shape.len() && header.shape.iter().zip(shape).all(is_same) {
        return Ok(());
    }
    Err(bad(name, format!("it has the shape {:?}", header.shape)))
}

fn no_rows(format: BlockFormat, cols: usize) -> String {
    format!("rows of {cols} are no whole blocks of {}", format.name())
}

fn bad(name: &str, reason: String) -> ModelError {
    ModelError::BadWeightsFile {
        path: name.into(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use concord_proto::Domain;
    use tonic::transport::Endpoint;

    use super::*;
    use crate::blobs::BlobOptions;
    use crate::tensor_blob;

    #[tokio::test]
    async fn what_has_changed_on_disk_is_fetched_again() {
        let folder = tempfile::tempdir().unwrap();
        // Nobody listens there.
        let coordinator = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let dir = folder.path().to_path_buf();
        let blobs = Blobs::new(coordinator, dir, &BlobOptions::default()).unwrap();
        let tensor = Tensor::new(&[2, 2], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let mut bytes = tensor_blob::encode(&tensor).unwrap();
        let address = Digest::of(Domain::Blob, &bytes);
        let path = folder.path().join(address.to_string());
        std::fs::write(&path, &bytes).unwrap();
        let model = ModelBlobs {
            blobs: blobs.clone(),
            tensors: BTreeMap::from([("w".to_string(), (address, vec![2, 2]))]),
            formats: BTreeMap::new(),
        };
        blobs.fetch(address).await.unwrap();
        assert_eq!(model.tensor("w").unwrap().data(), tensor.data());
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        blobs.fetch(address).await.expect("it was whole");
        assert!(model.tensor("w").is_err());
        let again = blobs.fetch(address).await;
        assert!(again.is_err(), "the copy that is broken is believed again");
    }

    #[tokio::test]
    async fn blocks_stay_blocks_until_they_are_others() {
        // A small blob is read, and a larger one mapped.
        for rows in [3, 3_000] {
            let folder = tempfile::tempdir().unwrap();
            let coordinator = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
            let dir = folder.path().to_path_buf();
            let blobs = Blobs::new(coordinator, dir, &BlobOptions::default()).unwrap();
            let header = TensorHeader {
                dtype: BlockFormat::Q8_0,
                shape: vec![rows as u64, 512],
            };
            let elements: Vec<u8> = (0..rows * 16 * 34).map(|i| (i % 60) as u8).collect();
            let mut bytes = header.blob(&elements);
            let address = header.digest(&elements);
            let path = folder.path().join(address.to_string());
            std::fs::write(&path, &bytes).unwrap();
            let model = ModelBlobs {
                blobs: blobs.clone(),
                tensors: BTreeMap::from([("w".to_string(), (address, vec![rows, 512]))]),
                formats: BTreeMap::from([("w".to_string(), BlockFormat::Q8_0)]),
            };
            blobs.fetch(address).await.unwrap();
            let blocks = model.blocks("w").unwrap().expect("they lie as blocks");
            assert_eq!((blocks.rows, blocks.cols), (rows, 512));
            assert_eq!(blocks.bytes(), elements);
            let decoded = numbers(BlockFormat::Q8_0, &elements);
            assert_eq!(model.tensor("w").unwrap().data(), decoded);

            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert!(model.blocks("w").is_err());
            assert!(blobs.fetch(address).await.is_err(), "it is believed again");
        }
    }
}
