//! Parses the coordinator's message about a wrong result, so that it can be shown in short lines.

/// A conviction for a wrong result.
#[derive(Debug, PartialEq, Eq)]
pub struct Testimony<'a> {
    /// The piece of work.
    pub piece: &'a str,
    /// The digest that was signed for it.
    pub claimed: &'a str,
    /// The correct digest.
    pub found: &'a str,
    /// The members that re-ran it, and the referee.
    pub checkers: Vec<String>,
}

impl<'a> Testimony<'a> {
    /// Parses evidence; `name` gives a member's name by the first digits of its key. `None` where
    /// the evidence is of another kind.
    pub fn of(evidence: &'a str, name: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let (place, rest) = evidence.split_once(": ")?;
        let (piece, _) = place.split_once(" in step ")?;
        let (_, rest) = rest.split_once(" is claimed as ")?;
        let (claimed, rest) = rest.split_once(" and is ")?;
        let (found, rest) = rest.split_once(", as ")?;
        let finders = rest.strip_suffix(" found")?.split(" and ");
        let checkers = finders.map(|finder| match finder {
            "the referee" => Some(finder.to_string()),
            short => name(short),
        });
        Some(Self {
            piece,
            claimed,
            found,
            checkers: checkers.collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Testimony;

    #[test]
    fn evidence_is_taken_apart() {
        let name = |short: &str| match short {
            "57" => Some("trent".to_string()),
            _ => None,
        };
        let evidence = "the backward of microbatch 5, layers 1..4 in step 13: Gradient(1) is \
                        claimed as 4782e82c and is 29f7546a, as 57 and the referee found";
        let expected = Testimony {
            piece: "the backward of microbatch 5, layers 1..4",
            claimed: "4782e82c",
            found: "29f7546a",
            checkers: vec!["trent".to_string(), "the referee".to_string()],
        };
        assert_eq!(Testimony::of(evidence, &name), Some(expected));
        assert_eq!(Testimony::of(&evidence.replace("57", "58"), &name), None);
        assert_eq!(
            Testimony::of("it sent bytes that are no message", &name),
            None
        );
    }
}
