//! The demo's output: numbered acts, one fact per line, colours only in a terminal.

use std::cell::RefCell;
use std::io::{IsTerminal, Write, stderr, stdout};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::job::HASH;
use crate::support::output::Output;

/// Before every fact of an act.
const INDENT: &str = "     ";
/// Columns of a label, such as the name of a worker.
const LABEL: usize = 8;

/// The kind of a piece of text, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Headings.
    Strong,
    /// Text of little importance.
    Quiet,
    /// Something that went as it should.
    Good,
    /// A fault or a failure.
    Bad,
    /// Hashes.
    Hash,
}

impl Tone {
    /// The parameters of the terminal's "select graphic rendition".
    fn code(self) -> &'static str {
        match self {
            Self::Strong => "1",
            Self::Quiet => "2",
            Self::Good => "32",
            Self::Bad => "31",
            Self::Hash => "36",
        }
    }
}

/// Where the demo is shown.
pub struct Screen {
    output: Output,
    has_colours: bool,
    has_bars: bool,
    /// The progress bar of the current act.
    bar: RefCell<ProgressBar>,
}

impl Screen {
    /// A screen that prints text or, with `--json`, objects. Bars are drawn on stderr if that is a
    /// terminal.
    pub fn new(output: Output) -> Self {
        let wants_none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            output,
            has_colours: stdout().is_terminal() && !wants_none && !is_dumb,
            has_bars: !output.is_json() && stderr().is_terminal() && !is_dumb,
            bar: RefCell::new(ProgressBar::hidden()),
        }
    }

    /// Prints an object, with `--json`.
    pub fn object(&self, object: &Value) {
        self.output.result("", object);
    }

    /// `text` in the colour of its tone.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        match self.has_colours {
            true => format!("\x1b[{}m{text}\x1b[0m", tone.code()),
            false => text.to_string(),
        }
    }

    /// Prints a line of text, unless `--json` is given.
    pub fn line(&self, text: &str) {
        if !self.output.is_json() {
            // A closed stdout is no reason to fail.
            let print = || writeln!(stdout(), "{}", text.trim_end());
            let _ = self.bar.borrow().suspend(print);
        }
    }

    /// The heading of an act.
    pub fn heading(&self, number: u32, title: &str) {
        self.line("");
        let number = self.paint(Tone::Quiet, &format!("  {number}"));
        self.line(&format!("{number}  {}", self.paint(Tone::Strong, title)));
    }

    /// A fact with a label.
    pub fn fact(&self, label: &str, text: &str) {
        let label = self.paint(Tone::Quiet, &format!("{label:<LABEL$}"));
        self.line(&format!("{INDENT}{label}{text}"));
    }

    /// Prints something that happened.
    pub fn note(&self, text: &str) {
        self.line(&format!(
            "{INDENT}{} {text}",
            self.paint(Tone::Quiet, "\u{b7}")
        ));
    }

    /// Prints something that went as it should.
    pub fn good(&self, text: &str) {
        self.line(&format!(
            "{INDENT}{} {text}",
            self.paint(Tone::Good, "\u{2713}")
        ));
    }

    /// Prints a fault or a failure.
    pub fn bad(&self, text: &str) {
        self.line(&format!(
            "{INDENT}{} {text}",
            self.paint(Tone::Bad, "\u{2717}")
        ));
    }

    /// A hash, with a mark that shows whether it is the expected one.
    pub fn hash(&self, hash: &str) -> String {
        let mark = match hash == HASH {
            true => self.paint(Tone::Good, " \u{2713}"),
            false => self.paint(Tone::Bad, " \u{2717}"),
        };
        format!("{}{mark}", self.paint(Tone::Hash, hash))
    }

    /// Starts a bar of `steps` steps.
    pub fn start_bar(&self, steps: u32) {
        if self.has_bars {
            let style =
                ProgressStyle::with_template("     {bar:30.cyan/dim} {pos:>3}/{len}  {msg}");
            let style = style.expect("the template is right");
            let bar = ProgressBar::new(u64::from(steps))
                .with_style(style.progress_chars("\u{2501}\u{2501}\u{2500}"))
                .with_message("starting");
            self.bar.replace(bar);
        }
    }

    pub fn move_bar(&self, steps: u32, loss: f64) {
        let bar = self.bar.borrow();
        bar.set_message(format!("loss {loss:.3}"));
        bar.set_position(u64::from(steps));
    }

    /// Removes the bar.
    pub fn end_bar(&self) {
        self.bar.replace(ProgressBar::hidden()).finish_and_clear();
    }
}

/// What a model wrote, on one line: everything but printable ASCII is shown as a dot.
pub fn printable(text: &str) -> String {
    let shown = |c: char| {
        if c.is_ascii_graphic() || c == ' ' {
            c
        } else {
            '\u{b7}'
        }
    };
    text.chars().map(shown).collect()
}

/// "alice", "alice and bob", "alice, bob and carol".
pub fn list(names: &[String]) -> String {
    match names {
        [] => "nobody".to_string(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::{list, printable};

    #[test]
    fn names_are_listed_as_people_do() {
        let names = ["alice", "bob", "carol"].map(str::to_string);
        assert_eq!(list(&[]), "nobody");
        assert_eq!(list(&names[..1]), "alice");
        assert_eq!(list(&names[..2]), "alice and bob");
        assert_eq!(list(&names), "alice, bob and carol");
    }

    #[test]
    fn noise_cannot_reach_the_terminal() {
        assert_eq!(printable("a\x1b[2J \u{e9}\n."), "a\u{b7}[2J \u{b7}\u{b7}.");
    }
}
