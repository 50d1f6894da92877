//! GGUF files, however wrong.

/// A GGUF file in the making.
#[derive(Clone, Default)]
pub struct GgufWriter {
    pairs: Vec<(String, u32, Vec<u8>)>,
    tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
}

pub fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

impl GgufWriter {
    /// A small model of `architecture`: hidden 256, feed-forward 512, two layers, four heads of 64,
    /// two of keys, as many tokens as `vocab`, and no tokenizer.
    pub fn model(architecture: &str, vocab: u32) -> Self {
        let mut file = Self::default();
        file.string("general.architecture", architecture);
        for (key, value) in [
            ("context_length", 128),
            ("embedding_length", 256),
            ("block_count", 2),
            ("feed_forward_length", 512),
            ("attention.head_count", 4),
            ("attention.head_count_kv", 2),
            ("vocab_size", vocab),
        ] {
            file.u32(&format!("{architecture}.{key}"), value);
        }
        let eps = format!("{architecture}.attention.layer_norm_rms_epsilon");
        file.pair(&eps, 6, 1e-5_f32.to_le_bytes().to_vec());
        file
    }

    /// Any value; a key that is there is replaced.
    pub fn pair(&mut self, key: &str, kind: u32, value: Vec<u8>) {
        self.pairs.retain(|(known, _, _)| known != key);
        self.pairs.push((key.to_string(), kind, value));
    }

    pub fn u32(&mut self, key: &str, value: u32) {
        self.pair(key, 4, value.to_le_bytes().to_vec());
    }

    pub fn string(&mut self, key: &str, value: &str) {
        self.pair(key, 8, text(value));
    }

    pub fn strings(&mut self, key: &str, values: &[&str]) {
        let mut bytes = 8_u32.to_le_bytes().to_vec();
        bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| bytes.extend(text(value)));
        self.pair(key, 9, bytes);
    }

    pub fn i32s(&mut self, key: &str, values: &[i32]) {
        let mut bytes = 5_u32.to_le_bytes().to_vec();
        bytes.extend((values.len() as u64).to_le_bytes());
        values
            .iter()
            .for_each(|value| bytes.extend(value.to_le_bytes()));
        self.pair(key, 9, bytes);
    }

    /// A tensor of a type of ggml; its shape as transformers has it, rows first.
    pub fn tensor(&mut self, name: &str, shape: &[usize], kind: u32, bytes: Vec<u8>) {
        let dims = shape.iter().rev().map(|dim| *dim as u64).collect();
        self.tensors.push((name.to_string(), dims, kind, bytes));
    }

    /// Takes a tensor out, and gives its bytes.
    pub fn taken(&mut self, name: &str) -> Vec<u8> {
        let at = self.tensors.iter().position(|(known, ..)| known == name);
        self.tensors.remove(at.unwrap()).3
    }

    /// The file. `edit` may change the offset of each tensor.
    pub fn bytes(&self, edit: impl Fn(usize, u64) -> u64) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.pairs.len() as u64).to_le_bytes());
        for (key, kind, value) in &self.pairs {
            out.extend(text(key));
            out.extend(kind.to_le_bytes());
            out.extend(value);
        }
        let mut data: Vec<u8> = Vec::new();
        for (index, (name, dims, kind, bytes)) in self.tensors.iter().enumerate() {
            data.resize(data.len().next_multiple_of(32), 0);
            out.extend(text(name));
            out.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend(edit(index, data.len() as u64).to_le_bytes());
            data.extend(bytes);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(data);
        out
    }

    /// The file as it should be.
    pub fn whole(&self) -> Vec<u8> {
        self.bytes(|_, offset| offset)
    }
}
