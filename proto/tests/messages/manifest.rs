//! Values of manifests.

use concord_formats::BlockFormat;
use concord_proto::SequenceEntry;
use concord_proto::manifest::*;
use concord_proto::moment::MomentHeader;
use concord_proto::tensor::TensorHeader;

use super::Source;

impl Source {
    pub fn tensor_header(&mut self) -> TensorHeader {
        let dtypes = [BlockFormat::F32, BlockFormat::F16, BlockFormat::Bf16];
        TensorHeader {
            dtype: dtypes[self.below(3) as usize],
            shape: self.list(Self::u64),
        }
    }

    pub fn moment_header(&mut self) -> MomentHeader {
        MomentHeader {
            is_second: self.flag(),
            shape: self.list(Self::u64),
        }
    }

    pub fn model_manifest(&mut self) -> ModelManifest {
        ModelManifest {
            config: self.text(),
            tensors: self.list(|s| ModelTensor {
                name: s.text(),
                blob: s.digest(),
                bytes: s.u64(),
            }),
        }
    }

    pub fn data_manifest(&mut self) -> DataManifest {
        DataManifest {
            sequence_len: self.u32(),
            chunk_sequences: self.u32(),
            chunks: self.list(Self::digest),
            sequences: self.list(|s| SequenceEntry {
                digest: s.digest(),
                tokens: s.u32(),
                documents: s.u32(),
                targets: s.u32(),
            }),
        }
    }

    pub fn state_manifest(&mut self) -> StateManifest {
        StateManifest {
            step: self.u32(),
            entries: self.list(Self::state_entry),
        }
    }
}
