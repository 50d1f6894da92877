//! Tables as text.

use crate::support::output::printable;

/// Rows of cells under their headings, each column as wide as its widest cell. Control characters,
/// which a peer may have put into a name, are shown as "?".
pub fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let mut lines = vec![headings.map(str::to_string).to_vec()];
    lines.extend(rows.iter().map(|row| row.to_vec()));
    columns(&lines)
}

/// Rows of cells, each column as wide as its widest cell. Control characters are shown as "?".
pub fn columns(rows: &[Vec<String>]) -> String {
    let clean = |cell: &String| printable(cell).replace(['\n', '\t'], "?");
    let lines: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(clean).collect())
        .collect();
    let count = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |cells: &Vec<String>| {
        let cells = cells
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"));
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
