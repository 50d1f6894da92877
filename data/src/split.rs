//! A part of the rows of a data set, as Hugging Face's data sets write it.

use std::str::FromStr;

/// A split and a part of its rows: `train`, `train[:10%]`, `test[100:200]`, `train[-50:]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowSplit {
    /// The name of the split, such as `train`.
    pub name: String,
    pub(crate) from: Option<PartEdge>,
    pub(crate) to: Option<PartEdge>,
}

/// The end of a part; counted from the end of all rows where it is negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartEdge {
    Row(i64),
    /// Rounded to the nearest row, and to an even one between two.
    Percent(i64),
}

impl FromStr for RowSplit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not a split such as train, train[:10%], train[1000:2000] or \
                 train[-100:]"
            )
        };
        let is_name = |name: &str| {
            let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            !name.is_empty() && name.chars().all(is_letter)
        };
        let (name, part) = match text.split_once('[') {
            None => (text, None),
            Some((name, rest)) => (name, Some(rest.strip_suffix(']').ok_or_else(wrong)?)),
        };
        if !is_name(name) {
            return Err(wrong());
        }
        let (from, to) = match part.map(|part| part.split_once(':').ok_or_else(wrong)) {
            None => (None, None),
            Some(edges) => {
                let (from, to) = edges?;
                (edge(from).ok_or_else(wrong)?, edge(to).ok_or_else(wrong)?)
            }
        };
        Ok(Self {
            name: name.to_string(),
            from,
            to,
        })
    }
}

impl RowSplit {
    /// Whether it is not all rows of the split.
    pub fn is_part(&self) -> bool {
        self.from.is_some() || self.to.is_some()
    }
}

/// An edge, or none where the text is empty.
fn edge(text: &str) -> Option<Option<PartEdge>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(None);
    }
    match text.strip_suffix('%') {
        None => text.parse().ok().map(|row| Some(PartEdge::Row(row))),
        Some(share) => {
            let share: i64 = share.trim().parse().ok()?;
            let fits = (-100..=100).contains(&share);
            fits.then_some(Some(PartEdge::Percent(share)))
        }
    }
}

impl PartEdge {
    pub(crate) fn needs_count(self) -> bool {
        !matches!(self, Self::Row(0..))
    }

    /// The row, of `count`.
    pub(crate) fn row(self, count: u64) -> u64 {
        let row = match self {
            Self::Row(row) => row,
            Self::Percent(share) => (share as f64 * count as f64 / 100.0).round_ties_even() as i64,
        };
        match row < 0 {
            true => count.saturating_sub(row.unsigned_abs()),
            false => (row as u64).min(count),
        }
    }
}
