//! Whether a head is the embedding: config.json says so, and the weights may say otherwise.

use super::file::widened;
use super::folder::ModelFolder;
use crate::config::with_value;
use crate::error::ModelError;

/// Bytes that are compared at a time: whole elements of every format.
const COMPARED_BYTES: usize = 1 << 16;

/// The head's name in most families.
const HEAD: &str = "lm_head.weight";

impl ModelFolder {
    /// Settles `tie_embeddings` as transformers 5 does: where config.json says that the head is the
    /// embedding, but the weights have both and they differ, the head of the weights is used; where
    /// they have the head alone, it is the embedding, too.
    ///
    /// In the first case the text of the configuration says `tie_word_embeddings` false from here
    /// on, because another machine that gets it must come to the same model.
    pub(super) fn settle_head(&mut self) -> Result<(), ModelError> {
        let parts = self.config.parts();
        let (embed, head) = (&parts.embed_weight(), &parts.head_weight());
        // transformers 5 writes the head of every family by one name, and reads it by either.
        if !self.homes.contains_key(head)
            && let Some(home) = self.homes.remove(HEAD)
        {
            self.homes.insert(head.clone(), home);
        }
        if !self.config.tie_embeddings {
            return match self.homes.contains_key(head) {
                true => Ok(()),
                false => Err(ModelError::MissingHead {
                    path: self.place(head),
                }),
            };
        }
        match (self.homes.contains_key(embed), self.homes.get(head)) {
            (true, Some(_)) if !self.is_equal(embed, head)? => {
                self.config.tie_embeddings = false;
                self.config_json = with_value(&self.config_json, "tie_word_embeddings", "false");
            }
            (false, Some(head)) => {
                let head = head.clone();
                self.homes.insert(embed.clone(), head);
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether two tensors have the same shape and the same numbers, in whatever formats.
    fn is_equal(&self, a: &str, b: &str) -> Result<bool, ModelError> {
        let ((a_file, a), (b_file, b)) = (self.found(a)?, self.found(b)?);
        if a_file.shape(a) != b_file.shape(b) {
            return Ok(false);
        }
        let (Some(a_type), Some(b_type)) = (a_file.dtype(a), b_file.dtype(b)) else {
            return Ok(false);
        };
        let (a, b) = (a_file.bytes(a)?, b_file.bytes(b)?);
        if a_type == b_type && a == b {
            return Ok(true);
        }
        // Formats that are not read cannot be compared; loading them is refused later.
        let (a_width, b_width) = (a_type.bitsize() / 8, b_type.bitsize() / 8);
        if a_width == 0 || b_width == 0 {
            return Ok(false);
        }
        let count = COMPARED_BYTES / a_width.max(b_width);
        let mut pairs = a.chunks(count * a_width).zip(b.chunks(count * b_width));
        // -0 is 0 here, as for torch.
        Ok(
            pairs.all(|(a, b)| match (widened(a_type, a), widened(b_type, b)) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            }),
        )
    }
}
