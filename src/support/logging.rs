//! Logging on stderr.

use std::io::IsTerminal;

use anyhow::{Context, bail};
use tracing_subscriber::EnvFilter;

/// The levels: what a directive without a target may be.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Starts to log what `filter` selects, as text or as one JSON object per line. Colours are used
/// only on terminals, and not if `NO_COLOR` is set.
///
/// # Errors
/// Where the filter cannot be read.
pub fn start(filter: &str, json: bool) -> anyhow::Result<()> {
    check(filter)?;
    let parsed = EnvFilter::try_new(filter);
    let parsed = parsed.with_context(|| format!("--log {filter}"))?;
    let has_colours = std::io::stderr().is_terminal() && colours(std::env::var_os("NO_COLOR"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr);
    match json {
        true => builder.json().flatten_event(true).init(),
        false => builder.with_ansi(has_colours).init(),
    }
    Ok(())
}

/// Refuses a misspelt level, such as "inof", which would be read as the name of a target.
fn check(filter: &str) -> anyhow::Result<()> {
    for directive in filter.split(',').map(str::trim) {
        let is_level = LEVELS
            .iter()
            .any(|level| level.eq_ignore_ascii_case(directive));
        let is_more = directive.contains(['=', '[', ':']) || directive.starts_with("concord");
        if !(is_level || is_more) {
            bail!(
                "--log {filter}: '{directive}' is no level; give one of {}, or TARGET=LEVEL such \
                 as concord_runtime=debug, with commas between several",
                LEVELS.join(", ")
            );
        }
    }
    Ok(())
}

/// Whether colours are allowed: see no-color.org.
fn colours(no_color: Option<std::ffi::OsString>) -> bool {
    no_color.is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for right in [
            "info",
            "WARN",
            "off",
            "concord_runtime=debug",
            "warn,concord_gateway::access=info",
            "concord_gateway",
            "[request]=info",
        ] {
            assert!(check(right).is_ok(), "{right}");
            assert!(EnvFilter::try_new(right).is_ok(), "{right}");
        }
        for wrong in ["inof", "", "info,", "verbose", "3,info"] {
            let error = check(wrong).expect_err(wrong).to_string();
            assert!(error.contains(&format!("--log {wrong}")), "{error}");
        }
        assert!(EnvFilter::try_new("concord_runtime=loud").is_err());
    }

    #[test]
    fn no_color_is_heard() {
        assert!(colours(None) && colours(Some("".into())) && !colours(Some("1".into())));
    }
}
