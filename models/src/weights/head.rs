//! Whether the head is tied to the embedding: config.json says so, but the weights may contradict.

use super::file::widened;
use super::folder::ModelFolder;
use crate::config::with_value;
use crate::error::ModelError;

/// Bytes that are compared at a time; a multiple of every dtype's size.
const COMPARED_BYTES: usize = 1 << 16;

/// The head's name in most families.
const HEAD: &str = "lm_head.weight";

impl ModelFolder {
    /// Decides `tie_embeddings` as transformers 5 does. Where config.json ties the head, but the
    /// weights have both tensors and these differ, the head of the weights is used. Where they have
    /// only the head, it is the embedding, too.
    ///
    /// In the first case `tie_word_embeddings` becomes false in the text of the configuration,
    /// because other machines that get this text must come to the same model.
    pub(super) fn settle_head(&mut self) -> Result<(), ModelError> {
        let parts = self.config.parts();
        let (embed, head) = (&parts.embed_weight(), &parts.head_weight());
        // transformers 5 saves the head of every family as `lm_head`, and reads it by that name or
        // the family's own.
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

    /// Whether two tensors have the same shape and the same numbers, whatever their dtypes.
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
        // Unsupported dtypes cannot be compared; loading them is refused later.
        let (a_width, b_width) = (a_type.bitsize() / 8, b_type.bitsize() / 8);
        if a_width == 0 || b_width == 0 {
            return Ok(false);
        }
        let count = COMPARED_BYTES / a_width.max(b_width);
        let mut pairs = a.chunks(count * a_width).zip(b.chunks(count * b_width));
        // -0 equals 0 here, as in torch.
        Ok(
            pairs.all(|(a, b)| match (widened(a_type, a), widened(b_type, b)) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            }),
        )
    }
}
