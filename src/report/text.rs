//! Findings on a terminal.
//!
//! The texts carry colour; whoever writes them out strips it where the other end is no terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet, level::NOTE};
use anstyle::{AnsiColor, Style};

use super::{Located, LocatedFault, Summary};
use crate::prose;
use crate::rules::{Action, Finding};
use crate::yaml::{Place, Source};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const DENIED: Style = AnsiColor::BrightRed.on_default().bold();
const WARNED: Style = AnsiColor::Yellow.on_default().bold();

/// How wide paragraphs are set. Fixed, so that what CI logs and what a person sees are the same.
const WIDTH: usize = 96;

/// The longest line that is shown whole, in bytes.
const MOST_LINE: usize = 240;
/// How much of a longer one is shown before a place and from its beginning on, in bytes.
const AROUND: usize = 48;

/// Findings one after the other, each as a block with the line it is about.
///
/// A fix is set at the margin, between a comment that says what it is for and an empty line: what
/// is copied from a terminal can be applied as it is. One that several findings share is printed
/// with the first of them.
pub fn findings(located: &[Located<'_>]) -> String {
    let mut out = String::new();
    let mut fixes: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, Located { finding, place }) in located.iter().enumerate() {
        out.push_str(&block(finding, place.as_ref()));
        out.push('\n');
        if !finding.fix.is_empty() {
            match fixes.get(finding.fix.as_str()) {
                None => {
                    fixes.insert(&finding.fix, i);
                    let about = clean(&format!("# fix for {}: {}", finding.rule.code, finding.object));
                    let _ = write!(out, "\n{DIM}{about}{DIM:#}\n{}\n", clean(finding.fix.trim_end()));
                }
                Some(first) => {
                    let object = located.get(*first).map(|first| first.finding.object.to_string()).unwrap_or_default();
                    let _ = writeln!(out, "   = fix: the one above, printed for {}", clean(&object));
                }
            }
        }
        out.push('\n');
    }
    out
}

fn block(finding: &Finding, place: Option<&Place<'_>>) -> String {
    let level = match finding.action {
        _ if finding.waived.is_some() => Level::INFO.with_name("waived"),
        Action::Deny => Level::ERROR.with_name("deny"),
        Action::Warn => Level::WARNING.with_name("warn"),
        Action::Audit | Action::Off => Level::INFO.with_name("audit"),
    };
    let title = level.primary_title(finding.message.as_str()).id(finding.rule.code);
    let object = clean(&finding.object.to_string());
    let shown = place.map(Shown::of);
    let group = match &shown {
        Some(shown) => title.element(shown.snippet()),
        None => title.element(Origin::path(object)),
    };
    let paragraph = |name: &'static str, text: &str| NOTE.with_name(name).message(filled(text, name.len()));
    let mut messages = Vec::new();
    if let Some(waived) = &finding.waived {
        messages.push(paragraph("waived", &waived.to_string()));
    }
    if !finding.why.is_empty() {
        messages.push(paragraph("why", &finding.why));
    }
    messages.extend(finding.evidence.iter().map(|line| paragraph("note", line)));
    if !finding.help.is_empty() {
        messages.push(Level::HELP.message(filled(&finding.help, "help".len())));
    }
    render(group.elements(messages), shown.as_ref())
}

/// Something that could not be read.
pub fn fault(fault: &LocatedFault<'_>) -> String {
    let title = Level::ERROR.primary_title(fault.problem.message.as_str());
    let shown = fault.place.as_ref().map(Shown::of);
    let group = match &shown {
        Some(shown) => title.element(shown.snippet()),
        None => title.element(Origin::path(clean(fault.name))),
    };
    let help = fault.problem.help.as_deref().map(|help| Level::HELP.message(filled(help, "help".len())));
    render(group.elements(help), shown.as_ref()) + "\n\n"
}

/// A remark: one line.
pub fn note(text: &str) -> String {
    format!("{BOLD}note{BOLD:#}: {}\n", clean(text))
}

/// The last line: `2 denied, 1 warning in 14 objects (27 documents read)`.
pub fn summary(summary: &Summary) -> String {
    let Summary { denied, warned, audited, waived, errors, objects, documents } = *summary;
    let count = |number: usize, one: &str, many: &str| format!("{number} {}", if number == 1 { one } else { many });
    let mut found = Vec::new();
    if denied > 0 {
        found.push(format!("{DENIED}{denied} denied{DENIED:#}"));
    }
    if warned > 0 {
        found.push(format!("{WARNED}{}{WARNED:#}", count(warned, "warning", "warnings")));
    }
    if audited > 0 {
        found.push(format!("{audited} for audit"));
    }
    if waived > 0 {
        found.push(format!("{waived} waived"));
    }
    if found.is_empty() {
        found.push("no findings".to_owned());
    }
    let (found, objects) = (found.join(", "), count(objects, "object", "objects"));
    let documents = count(documents, "document", "documents");
    let errors = if errors > 0 { format!("; {}", count(errors, "error", "errors")) } else { String::new() };
    format!("{found} in {objects} ({documents} read){errors}\n")
}

/// A text without control characters, which a manifest could hold to draw on the terminal. What
/// goes through the renderer is rid of them there.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

fn render(group: Group<'_>, shown: Option<&Shown>) -> String {
    let rendered = Renderer::styled().render(&[group]);
    match shown {
        Some(shown) => shown.corrected(rendered),
        None => rendered,
    }
}

/// The line a place is on, with a caret under it. Only that line is handed over, or what is near of a
/// long one: the renderer would walk all of it for each finding, and JSON may be one line of many
/// megabytes.
struct Shown {
    path: String,
    line: usize,
    text: String,
    marked: Range<usize>,
    /// Whether this is not all of the line. The path then has line and column in it.
    is_cut: bool,
}

impl Shown {
    fn of(place: &Place<'_>) -> Self {
        let Place { source, span } = place;
        let (line, text, marked) = excerpt(source, span);
        let path = clean(&source.name);
        if text.len() <= MOST_LINE {
            return Self { path, line, text: text.to_owned(), marked, is_cut: false };
        }
        let (text, marked) = near(text, marked);
        // The renderer counts columns in what it is shown.
        let path = format!("{path}:{line}:{}", place.position().column);
        Self { path, line, text, marked, is_cut: true }
    }

    fn snippet(&self) -> Snippet<'_, Annotation<'_>> {
        let annotation = AnnotationKind::Primary.span(self.marked.clone());
        Snippet::source(&self.text).line_start(self.line).path(&self.path).annotation(annotation)
    }

    /// What was rendered, without the column of what was shown behind that of the place.
    fn corrected(&self, rendered: String) -> String {
        let Self { path, line, text, marked, is_cut } = self;
        if !is_cut {
            return rendered;
        }
        let column = text.get(..marked.start).unwrap_or_default().chars().count() + 1;
        rendered.replacen(&format!("{path}:{line}:{column}"), path, 1)
    }
}

/// Of a long line, what is near a place in it, with a mark where it was cut.
fn near(text: &str, marked: Range<usize>) -> (String, Range<usize>) {
    let start = text.floor_char_boundary(marked.start.saturating_sub(AROUND));
    let end = text.ceil_char_boundary((marked.start + AROUND).min(text.len()));
    let mark = |is_cut: bool| if is_cut { "…" } else { "" };
    let (before, after) = (mark(start > 0), mark(end < text.len()));
    let within = |offset: usize| offset.clamp(start, end) - start + before.len();
    let shown = text.get(start..end).unwrap_or_default();
    (format!("{before}{shown}{after}"), within(marked.start)..within(marked.end))
}

/// The line a span begins on: its number, its text, and the part of it the span covers.
fn excerpt<'a>(source: &'a Source, span: &Range<usize>) -> (usize, &'a str, Range<usize>) {
    let line = source.position(span.start).line;
    let start = source.line_start(line);
    let text = source.text.get(start..source.line_start(line + 1)).unwrap_or_default().trim_end_matches(['\n', '\r']);
    let within = |offset: usize| offset.saturating_sub(start).min(text.len());
    (line, text, within(span.start)..within(span.end))
}

/// A paragraph filled to the width that is left behind `   = name: `.
fn filled(text: &str, name: usize) -> String {
    prose::wrap(text, WIDTH - name).join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FieldPath, ObjectRef};
    use crate::rules::CL_UNREADABLE_OBJECT;

    fn finding(name: &str, fix: &str) -> Finding {
        let object = ObjectRef { kind: "Pod".into(), namespace: Some("shop".into()), name: name.into() };
        Finding {
            rule: &CL_UNREADABLE_OBJECT,
            action: Action::Warn,
            fix: fix.into(),
            ..Finding::new(None, object, FieldPath::root(), format!("{name} is wrong"))
        }
    }

    fn plain(located: &[Located<'_>]) -> String {
        anstream::adapter::strip_str(&findings(located)).to_string()
    }

    #[test]
    fn only_the_line_of_the_field_is_shown() {
        let source = Source::new("a.yaml", "one: 1\r\ntwo: [2,\n  3]\nthree: 3\n");
        let at = |from: &str, to: &str| {
            let start = source.text.find(from).unwrap();
            excerpt(&source, &(start..start + source.text[start..].find(to).unwrap() + to.len()))
        };
        assert_eq!(at("1", "1"), (1, "one: 1", 5..6));
        assert_eq!(at("[2", "3]"), (2, "two: [2,", 5..8), "a span of two lines ends with the first");
        assert_eq!(excerpt(&source, &(source.text.len()..source.text.len())), (5, "", 0..0));
    }

    /// What is shown of the first `needle` in a text, under the title.
    fn shown_at(text: &str, needle: &str) -> String {
        let source = Source::new("a.json", text);
        let start = text.find(needle).unwrap();
        let place = Some(Place { source: &source, span: start..start + needle.len() });
        plain(&[Located { finding: &finding("a", ""), place }])
    }

    #[test]
    fn of_a_long_line_only_what_is_near_is_shown_and_the_column_is_that_of_the_file() {
        let (before, after) = ("ü".repeat(500), "ä".repeat(500));
        let text = shown_at(&format!("{{}}\n{before}x: [1]{after}"), "[1]");
        let (shown, carets) = (format!("…{}x: [1]{}…", "ü".repeat(23), "ä".repeat(23)), " ".repeat(27) + "^^^");
        assert_eq!(text, format!("warn[CL001]: a is wrong\n --> a.json:2:504\n  |\n2 | {shown}\n  | {carets}\n\n"));
        let text = shown_at(&format!("{{{}}}", "1".repeat(1000)), &format!("{{{}}}", "1".repeat(1000)));
        assert!(text.contains(" --> a.json:1:1\n") && text.contains("1 | {111"), "{text}");
        let text = shown_at(&format!("{}x", " ".repeat(1000)), "x");
        assert!(text.contains(" --> a.json:1:1001\n"), "{text}");
    }

    #[test]
    fn a_line_that_is_not_long_is_shown_whole() {
        let line = format!("x: {}", "y".repeat(100));
        let text = shown_at(&line, "x");
        assert!(text.contains(&format!("\n1 | {line}\n")) && text.contains("a.json:1:1\n"), "{text}");
    }

    #[test]
    fn a_finding_in_no_file_names_its_object() {
        let finding = finding("a", "");
        assert_eq!(plain(&[Located { finding: &finding, place: None }]), "warn[CL001]: a is wrong\n--> Pod shop/a\n\n");
    }

    #[test]
    fn a_shared_fix_is_printed_once() {
        let (one, two, three) = (finding("a", "kind: X\n"), finding("b", "kind: X\n"), finding("c", "kind: Y\n"));
        let located = [&one, &two, &three].map(|finding| Located { finding, place: None });
        let text = plain(&located);
        assert_eq!(text.matches("\nkind: X\n\n").count(), 1, "{text}");
        assert_eq!(text.matches("\nkind: Y\n\n").count(), 1, "{text}");
        assert!(text.contains("= fix: the one above, printed for Pod shop/a\n"), "{text}");
    }

    #[test]
    fn control_characters_of_a_manifest_do_not_reach_the_terminal() {
        let source = Source::new("a.yaml", "name: \u{1b}[2Jx\n");
        let finding = finding("\u{1b}[2Jx", "name: \u{1b}[2Jx");
        let place = Some(Place { source: &source, span: 6..11 });
        let text = findings(&[Located { finding: &finding, place }, Located { finding: &finding, place: None }]);
        assert!(!text.contains("\u{1b}[2J"), "{text:?}");
        assert!(!note("\u{1b}[2Jx").contains("\u{1b}[2J"));
    }

    #[test]
    fn the_summary_counts_in_words() {
        let said = |numbers: Summary| anstream::adapter::strip_str(&summary(&numbers)).to_string();
        assert_eq!(
            said(Summary { documents: 1, ..Summary::default() }),
            "no findings in 0 objects (1 document read)\n"
        );
        assert_eq!(
            said(Summary { denied: 2, warned: 1, audited: 3, waived: 1, errors: 1, objects: 14, documents: 27 }),
            "2 denied, 1 warning, 3 for audit, 1 waived in 14 objects (27 documents read); 1 error\n"
        );
    }
}
