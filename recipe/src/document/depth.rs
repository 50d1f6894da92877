//! How deep lists and mappings of a YAML text stand in each other, found without reading it: a
//! reader of YAML takes time by the square of the depth.

/// The first line on which more than `most` brackets and braces are open, or which has more marks
/// of lists and keys in front of its value; `None` where there is none. Brackets within texts
/// count, too: they are closed there as a rule.
pub fn too_deep(text: &str, most: usize) -> Option<usize> {
    let mut open = 0_usize;
    for (index, line) in text.lines().enumerate() {
        let marks = line.split(' ').filter(|word| matches!(*word, "-" | "?"));
        if marks.count() > most {
            return Some(index + 1);
        }
        for byte in line.bytes() {
            match byte {
                b'[' | b'{' => open += 1,
                b']' | b'}' => open = open.saturating_sub(1),
                _ => {}
            }
            if open > most {
                return Some(index + 1);
            }
        }
    }
    None
}
