//! The commands of a page of Markdown, in their order.

/// A fenced block of a page.
pub struct Block {
    /// What stands after the fence, such as "sh".
    pub language: String,
    pub lines: Vec<String>,
}

/// The fenced blocks of a page.
pub fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in page.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                open = Some(Block {
                    language: language.trim().to_string(),
                    lines: Vec::new(),
                });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.lines.push(line.to_string()),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is never closed");
    blocks
}

/// The commands of the page's shell blocks, without their comments; a line that ends in a backslash
/// goes on in the next one.
pub fn commands(page: &str) -> Vec<String> {
    let mut commands = Vec::new();
    for block in blocks(page).iter().filter(|block| block.language == "sh") {
        let mut started = String::new();
        for line in &block.lines {
            let line = without_comment(line);
            started.push_str(line.strip_suffix('\\').unwrap_or(line).trim());
            if line.ends_with('\\') {
                started.push(' ');
            } else if !started.is_empty() {
                commands.push(std::mem::take(&mut started));
            }
        }
        assert_eq!(started, "", "a block ends in a backslash");
    }
    commands
}

/// The commands that stand in the text between backticks.
pub fn mentioned(page: &str) -> Vec<String> {
    let mut fenced = false;
    let mut text = String::new();
    for line in page.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            text.push_str(line);
            text.push('\n');
        }
    }
    let spans = text.split('`').skip(1).step_by(2);
    let ours = spans.filter(|span| span.starts_with("concord "));
    ours.map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// A line of a shell without the comment at its end: none of ours quotes a " #".
fn without_comment(line: &str) -> &str {
    let line = line.split_once(" #").map_or(line, |(command, _)| command);
    if line.starts_with('#') {
        return "";
    }
    line.trim_end()
}
