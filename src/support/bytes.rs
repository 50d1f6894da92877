//! Sizes on the command line.

/// Parses a number of bytes with an optional K, M, G or T (powers of 1,024).
///
/// # Errors
/// A message where it is not a size.
pub fn parse(text: &str) -> Result<u64, String> {
    let refuse = || format!("'{text}' is no size: try 512M or 8G");
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let shift = match unit
        .trim()
        .to_ascii_uppercase()
        .trim_end_matches("IB")
        .trim_end_matches('B')
    {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(refuse()),
    };
    let number: u64 = digits.parse().map_err(|_| refuse())?;
    number.checked_mul(1 << shift).ok_or_else(refuse)
}

/// A size as text, such as "2.5 GiB".
pub fn size(bytes: u64) -> String {
    match bytes >> 30 {
        0 => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse("4096"), Ok(4096));
        assert_eq!(parse("512M"), Ok(512 << 20));
        assert_eq!(parse("8GiB"), Ok(8 << 30));
        assert!(parse("eight").is_err() && parse("99999999T").is_err());
    }

    #[test]
    fn sizes_are_for_people() {
        assert_eq!(size(3 << 19), "1.5 MiB");
        assert_eq!(size(5 << 29), "2.5 GiB");
    }
}
