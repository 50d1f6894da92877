//! Lines from a terminal, with editing and history, or from a pipe.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use rustyline::error::ReadlineError;

/// Lines of the history that are saved from one chat to the next.
const HISTORY: usize = 1_000;

/// Where lines come from.
pub(super) enum PromptInput {
    Terminal(Box<rustyline::DefaultEditor>),
    Pipe(std::io::Lines<std::io::StdinLock<'static>>),
}

impl PromptInput {
    pub(super) fn open() -> anyhow::Result<Self> {
        if !std::io::stdin().is_terminal() {
            return Ok(Self::Pipe(std::io::stdin().lock().lines()));
        }
        let config = rustyline::Config::builder()
            .max_history_size(HISTORY)?
            .build();
        let mut editor = rustyline::DefaultEditor::with_config(config)?;
        if let Some(path) = history_file() {
            // The first time there is no history.
            let _ = editor.load_history(&path);
        }
        Ok(Self::Terminal(Box::new(editor)))
    }

    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// The next line, with its continuation lines; `None` at the end of the input.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<String>> {
        let mut whole = String::new();
        loop {
            let prompt = if whole.is_empty() { "> " } else { ". " };
            let Some(line) = self.line(prompt)? else {
                return Ok(Some(whole).filter(|text| !text.is_empty()));
            };
            match line.strip_suffix('\\') {
                Some(part) => {
                    whole.push_str(part);
                    whole.push('\n');
                }
                None => {
                    whole.push_str(&line);
                    return Ok(Some(whole));
                }
            }
        }
    }

    fn line(&mut self, prompt: &str) -> anyhow::Result<Option<String>> {
        match self {
            Self::Pipe(lines) => Ok(lines.next().transpose()?),
            Self::Terminal(editor) => loop {
                match editor.readline(prompt) {
                    Ok(line) => {
                        editor.add_history_entry(&line)?;
                        return Ok(Some(line));
                    }
                    // Ctrl-C: the line is dropped.
                    Err(ReadlineError::Interrupted) => {}
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
            },
        }
    }

    /// Saves the history for the next chat, if there is a place for it.
    pub(super) fn keep(&mut self) {
        if let (Self::Terminal(editor), Some(path)) = (self, history_file()) {
            if let Some(folder) = path.parent() {
                let _ = std::fs::create_dir_all(folder);
            }
            if let Err(error) = editor.save_history(&path) {
                tracing::warn!("the history is not kept: {error}");
            }
        }
    }
}

fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    Some(state.or_else(home)?.join("concord/chat_history"))
}
