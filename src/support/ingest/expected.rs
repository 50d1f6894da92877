//! What the file of another tool says of the model's tokenizer and embedding: it must be so
//! already.

use anyhow::bail;
use concord_recipe::TokenRole;
use concord_text::TextTokenizer;

use crate::support::job_file::JobFile;

/// Refuses a job whose file names other tokens for begin and end than the tokenizer has, or asks
/// for more than the `rows` of the model's embedding.
///
/// # Errors
/// Naming the key and what the model has.
pub(super) fn check(job: &JobFile, tokenizer: &TextTokenizer, rows: usize) -> anyhow::Result<()> {
    for expected in &job.expected {
        let own = match expected.role {
            TokenRole::Begin => tokenizer.bos(),
            TokenRole::End => tokenizer.eos(),
            TokenRole::RowsOf32 => {
                check_rows(&expected.key, tokenizer.vocab_size(), rows)?;
                continue;
            }
        };
        if own != Some(expected.text.as_str()) {
            bail!(
                "`{}` is {:?}, and the model's tokenizer has {}: put it into the model's \
                 tokenizer_config.json, or remove the key",
                expected.key,
                expected.text,
                own.map_or("none".to_string(), |own| format!("{own:?}"))
            );
        }
    }
    Ok(())
}

/// Refuses an embedding of fewer rows than a multiple of 32 that has one for each token.
fn check_rows(key: &str, tokens: usize, rows: usize) -> anyhow::Result<()> {
    let asked = tokens.next_multiple_of(32);
    if rows < asked {
        bail!(
            "`{key}` asks for an embedding of {asked} rows, and the model's has {rows}: it stays \
             as it is, so set the key to false"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_rows;

    #[test]
    fn an_embedding_is_long_enough_or_refused() {
        for (tokens, rows) in [(50_295, 51_200), (64, 64), (1, 32)] {
            check_rows("key", tokens, rows).unwrap();
        }
        let error = check_rows("key", 33, 63).unwrap_err().to_string();
        assert!(error.contains("`key` asks for an embedding of 64 rows, and the model's has 63"));
    }
}
