//! Parses a line of input in `concord chat`, and carries out its commands.

use std::path::PathBuf;

use super::conversation::{ChatSettings, Conversation};
use crate::support::home;

const HELP: &str = "\
/system TEXT     tell the model something before the conversation; no TEXT removes it
/retry           answer the last question again
/undo            take back the last question and its answer
/clear           begin anew
/set NAME VALUE  temperature, top_p, max_tokens or seed: a number, or any; /set shows them
/stats           tokens and speed of the last answer
/save FILE       write the conversation (JSON messages)
/load FILE       go on with a conversation of a file
/quit            end; so does Ctrl-D
A line that ends in \\ goes on in the next one. // begins a message with a slash.";

/// What a line means.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ChatCommand {
    Nothing,
    Say(String),
    Help,
    System(String),
    Retry,
    Undo,
    Clear,
    Set(String, String),
    Settings,
    Stats,
    Save(PathBuf),
    Load(PathBuf),
    Quit,
}

impl ChatCommand {
    /// Reads a line.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let line = line.trim();
        if line.is_empty() {
            return Ok(Self::Nothing);
        }
        if let Some(text) = line.strip_prefix("//") {
            return Ok(Self::Say(format!("/{text}")));
        }
        let Some(command) = line.strip_prefix('/') else {
            return Ok(Self::Say(line.to_string()));
        };
        let (name, rest) = command
            .split_once(char::is_whitespace)
            .unwrap_or((command, ""));
        let rest = rest.trim();
        let file = || match rest {
            "" => Err(format!("/{name} needs a FILE")),
            // No shell has expanded the path.
            path => home::expand(path)
                .map(PathBuf::from)
                .map_err(|error| error.to_string()),
        };
        match name {
            "help" | "?" => Ok(Self::Help),
            "system" => Ok(Self::System(rest.to_string())),
            "retry" => Ok(Self::Retry),
            "undo" => Ok(Self::Undo),
            "clear" => Ok(Self::Clear),
            "stats" => Ok(Self::Stats),
            "save" => file().map(Self::Save),
            "load" => file().map(Self::Load),
            "quit" | "exit" => Ok(Self::Quit),
            "set" if rest.is_empty() => Ok(Self::Settings),
            "set" => match rest.split_once(char::is_whitespace) {
                Some((name, value)) => Ok(Self::Set(name.into(), value.trim().into())),
                None => Err("/set NAME VALUE, such as /set temperature 0.5".to_string()),
            },
            other => Err(format!("there is no /{other}; /help lists what there is")),
        }
    }

    /// Carries out a command that does not ask the model. Returns what to print.
    pub(super) fn carry_out(
        self,
        conversation: &mut Conversation,
        settings: &mut ChatSettings,
    ) -> anyhow::Result<String> {
        Ok(match self {
            Self::Help => HELP.to_string(),
            Self::System(text) => {
                conversation.set_system(&text);
                "from the next answer on".to_string()
            }
            Self::Undo if conversation.undo() => "taken back".to_string(),
            Self::Undo => "there is nothing to take back".to_string(),
            Self::Clear => {
                conversation.clear();
                "a new conversation".to_string()
            }
            Self::Set(name, value) => {
                settings.set(&name, &value)?;
                settings.to_string()
            }
            Self::Settings => settings.to_string(),
            Self::Stats => {
                let ((prompt, answer), seconds) = (conversation.tokens, conversation.seconds);
                let rate = f64::from(answer) / seconds.max(1e-9);
                format!("{prompt} + {answer} tokens in {seconds:.2} s, {rate:.1} tokens/s")
            }
            Self::Save(path) => {
                conversation.save(&path)?;
                format!("written to {}", path.display())
            }
            Self::Load(path) => {
                conversation.load(&path)?;
                format!("goes on with {}", path.display())
            }
            Self::Nothing | Self::Say(_) | Self::Retry | Self::Quit => String::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let set = ChatCommand::Set("seed".to_string(), "7".to_string());
        for (line, command) in [
            ("  ", ChatCommand::Nothing),
            ("hello", ChatCommand::Say("hello".to_string())),
            ("//etc", ChatCommand::Say("/etc".to_string())),
            ("/set seed 7", set),
            ("/save a b.json", ChatCommand::Save("a b.json".into())),
            ("/quit", ChatCommand::Quit),
            ("/set", ChatCommand::Settings),
            ("/set  ", ChatCommand::Settings),
        ] {
            assert_eq!(ChatCommand::parse(line), Ok(command), "{line}");
        }
        for line in ["/nothing", "/set seed", "/save"] {
            assert!(ChatCommand::parse(line).is_err(), "{line}");
        }
    }
}
