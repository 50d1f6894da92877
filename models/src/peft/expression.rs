//! Regular expressions for names of modules. An adapter may come from others, so their length,
//! size, number and steps are bounded, and what exceeds a bound is refused by name.

use std::cell::Cell;

use fancy_regex::{Regex, RegexBuilder};

use super::bad_selection::{BadSelection, bad};
use crate::json::shown;

/// Bytes of an expression.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// Bytes of an expression that is ready to be asked; counted repetitions multiply them.
const READY_BYTES_MAX: usize = 64 << 10;

/// Steps back within one name. Those of PEFT's documents take some hundred.
const STEPS_MAX: usize = 20_000;

/// Expressions of an option that are more than a name. PEFT writes names, of which there may be as
/// many as a model has matrices.
const COUNT_MAX: usize = 128;

/// Names of an option.
const NAMES_MAX: usize = 1 << 17;

/// What PEFT puts around the text of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Around {
    /// It fits whole names.
    Nothing,
    /// It fits the end of a name, from a `.` on.
    Start,
    /// It fits parts of a name that are followed by the index of a layer.
    Layers,
    /// It fits a module and all that is within it.
    Within,
}

/// A regular expression, ready to be asked.
#[derive(Debug)]
pub(super) struct Expression {
    option: &'static str,
    text: String,
    form: Form,
    /// Whether it was given up for a name.
    is_stuck: Cell<bool>,
}

#[derive(Debug)]
enum Form {
    /// The end of a name, in which `.` is any letter.
    End,
    Regex(Box<Regex>),
}

impl Expression {
    /// Reads the text of an option.
    ///
    /// # Errors
    /// [`BadSelection`] where it is none, or too large.
    pub(super) fn of(
        option: &'static str,
        text: &str,
        around: Around,
    ) -> Result<Self, BadSelection> {
        let form = match around == Around::Start && is_name(text) {
            true => Form::End,
            false => Form::Regex(Box::new(ready(option, text, around)?)),
        };
        Ok(Self {
            option,
            text: text.to_string(),
            form,
            is_stuck: Cell::new(false),
        })
    }

    /// Whether it fits a name; also false where it is given up, which [`Self::check_steps`] tells.
    pub(super) fn fits(&self, module: &str) -> bool {
        match &self.form {
            Form::End => ends_in(module.as_bytes(), self.text.as_bytes()),
            Form::Regex(regex) => regex.is_match(module).unwrap_or_else(|_| {
                self.is_stuck.set(true);
                false
            }),
        }
    }

    /// The index of a layer that it finds in a name.
    pub(super) fn index(&self, module: &str) -> Option<u32> {
        let Form::Regex(regex) = &self.form else {
            return None;
        };
        let found = regex.captures(module).unwrap_or_else(|_| {
            self.is_stuck.set(true);
            None
        })?;
        found.get(found.len() - 1)?.as_str().parse().ok()
    }

    /// Refuses an expression that was given up.
    ///
    /// # Errors
    /// [`BadSelection`].
    pub(super) fn check_steps(&self) -> Result<(), BadSelection> {
        if !self.is_stuck.get() {
            return Ok(());
        }
        let expected = format!(
            "it takes over {STEPS_MAX} steps to find out whether it fits a name: write it without \
             repetitions within repetitions, or give names"
        );
        Err(bad(self.option, shown(&self.text), expected))
    }
}

/// Refuses an option with too many expressions.
///
/// # Errors
/// [`BadSelection`].
pub(super) fn check_count<'a>(
    option: &'static str,
    texts: impl Iterator<Item = &'a String> + Clone,
) -> Result<(), BadSelection> {
    let all = texts.clone().count();
    let expressions = texts.filter(|text| !is_name(text)).count();
    if all <= NAMES_MAX && expressions <= COUNT_MAX {
        return Ok(());
    }
    let found = format!("{all} entries, {expressions} of them regular expressions");
    let expected = format!(
        "at most {NAMES_MAX} are read, and {COUNT_MAX} regular expressions: name the modules"
    );
    Err(bad(option, found, expected))
}

fn ready(option: &'static str, text: &str, around: Around) -> Result<Regex, BadSelection> {
    if text.len() > TEXT_BYTES_MAX {
        let found = format!("an expression of {} bytes", text.len());
        return Err(bad(
            option,
            found,
            format!("at most {TEXT_BYTES_MAX} are read"),
        ));
    }
    let whole = match around {
        Around::Nothing => format!("^(?:{text})$"),
        Around::Start => format!(r"^(?:.*\.)?(?:{text})$"),
        Around::Layers => format!(r"^(?:|.*?\.)(?:{text})\.(\d+)\."),
        Around::Within => format!(r"^(?:|.*\.)(?:{text})(?:$|\..*)"),
    };
    let read = RegexBuilder::new(&whole)
        .backtrack_limit(STEPS_MAX)
        .delegate_size_limit(READY_BYTES_MAX)
        .delegate_dfa_size_limit(READY_BYTES_MAX)
        .build();
    read.map_err(|error| {
        let expected = format!("must be names, or a regular expression: {error}");
        bad(option, shown(text), expected)
    })
}

/// Whether a text is a name, in which `.` stands for any letter and nothing else is special.
fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
    !text.is_empty() && text.bytes().all(is_plain)
}

/// Whether a name ends in another, from its start or from a `.` on.
fn ends_in(module: &[u8], end: &[u8]) -> bool {
    let Some(at) = module.len().checked_sub(end.len()) else {
        return false;
    };
    let (before, found) = module.split_at(at);
    let fits = |(letter, wanted): (&u8, &u8)| letter == wanted || *wanted == b'.';
    let starts = before.is_empty() || before.ends_with(b".");
    starts && found.iter().zip(end).all(fits)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn names_fit_as_their_expressions_do() {
        let names = ["q_proj", "attn.q_proj", "a.q", "layers.1.q_proj", "."];
        let modules = [
            "model.layers.1.attn.q_proj",
            "model.layers.11.q_proj",
            "attn.q_proj",
            "xattn.q_proj",
            "q_proj",
            "attn_q_proj",
            "a.q",
            "b",
        ];
        for name in names {
            let slow = ready("rank_pattern", name, Around::Start).unwrap();
            let quick = Expression::of("rank_pattern", name, Around::Start).unwrap();
            assert!(matches!(quick.form, Form::End));
            for module in modules {
                let expected = slow.is_match(module).unwrap();
                assert_eq!(quick.fits(module), expected, "{name} {module}");
            }
        }
    }

    #[test]
    fn what_takes_too_long_is_refused_soon() {
        let start = Instant::now();
        let module = "model.layers.0.self_attn.q_proj";
        let slow = r"(?:[a-z_.0-9]+)+(?!z)X";
        let slow = Expression::of("rank_pattern", slow, Around::Start).unwrap();
        slow.check_steps().unwrap();
        assert!(!slow.fits(module));
        let refused = slow.check_steps().unwrap_err();
        assert_eq!(refused.option, "rank_pattern");
        assert!(refused.to_string().contains("steps"), "{refused}");
        for text in ["((?:.*){900}){900}", &"(a|b)".repeat(4_000)] {
            let refused = Expression::of("target_modules", text, Around::Nothing).unwrap_err();
            assert_eq!(refused.option, "target_modules");
        }
        let many: Vec<String> = (0..3_000).map(|index| format!("(?:{index})+")).collect();
        let refused = check_count("rank_pattern", many.iter()).unwrap_err();
        assert!(refused.to_string().contains("3000 of them"), "{refused}");
        let names: Vec<String> = (0..3_000).map(|index| format!("l.{index}")).collect();
        check_count("rank_pattern", names.iter()).unwrap();
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
