//! Tables as text.

/// Rows of cells under their headings, each column as wide as its widest cell. Control characters,
/// which a peer may have put into a name, are shown as "?".
pub fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let clean = |cell: &str| -> String {
        cell.chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect()
    };
    let mut lines = vec![headings.map(str::to_string)];
    lines.extend(
        rows.iter()
            .map(|row| row.each_ref().map(|cell| clean(cell))),
    );
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let line = |cells: &[String; N]| {
        let cells = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_clean() {
        let rows = [
            ["a".to_string(), "long\x1b[2J".to_string()],
            ["bbb".to_string(), String::new()],
        ];
        let expected = "id   name\na    long?[2J\nbbb";
        assert_eq!(table(["id", "name"], &rows), expected);
    }
}
