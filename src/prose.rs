//! Paragraphs broken into lines.

/// The lines of a text, none longer than `width` characters unless a word is. An empty line parts
/// paragraphs and stays; single line breaks within one do not. Lines of a list or of code, which
/// start with a dash or four spaces, stay their own.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut is_open = false;
    for line in text.lines() {
        if line.trim().is_empty() || line.starts_with("    ") {
            lines.push(line.trim_end().to_owned());
            is_open = false;
            continue;
        }
        let is_item = line.trim_start().starts_with("- ");
        if !is_open || is_item {
            lines.push(String::new());
        }
        let hang = if is_item { "  " } else { "" };
        for word in line.split_whitespace() {
            let Some(last) = lines.last_mut() else { break };
            if last.is_empty() {
                last.push_str(word);
            } else if last.chars().count() + 1 + word.chars().count() <= width {
                last.push(' ');
                last.push_str(word);
            } else {
                lines.push(format!("{hang}{word}"));
            }
        }
        is_open = true;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::wrap;

    #[test]
    fn paragraphs_are_filled_and_kept_apart() {
        assert_eq!(wrap("one two\nthree four\n\nfive", 9), ["one two", "three", "four", "", "five"]);
    }

    #[test]
    fn lists_and_code_keep_their_lines() {
        assert_eq!(
            wrap("see:\n- first item here\n- second\n\n    code  stays as it is", 12),
            ["see:", "- first item", "  here", "- second", "", "    code  stays as it is"]
        );
    }

    #[test]
    fn a_word_that_is_too_long_is_not_cut() {
        assert_eq!(wrap("a portcullis.dev/mode b", 5), ["a", "portcullis.dev/mode", "b"]);
    }
}
