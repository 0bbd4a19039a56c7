//! Findings on a terminal.
//!
//! The texts carry colour; whoever writes them out strips it where the other end is no terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet, level::NOTE};
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
    let group = match place {
        Some(place) => title.element(snippet(place)),
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
    render(group.elements(messages))
}

/// Something that could not be read.
pub fn fault(fault: &LocatedFault<'_>) -> String {
    let title = Level::ERROR.primary_title(fault.problem.message.as_str());
    let group = match &fault.place {
        Some(place) => title.element(snippet(place)),
        None => title.element(Origin::path(clean(fault.name))),
    };
    let help = fault.problem.help.as_deref().map(|help| Level::HELP.message(filled(help, "help".len())));
    render(group.elements(help)) + "\n\n"
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

fn render(group: Group<'_>) -> String {
    Renderer::styled().render(&[group])
}

/// The line a place is on, with a caret under it. Only that line is handed over: the renderer would
/// walk the whole file for each finding.
fn snippet<'a>(place: &Place<'a>) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let Place { source, span } = place;
    let (line, text, marked) = excerpt(source, span);
    Snippet::source(text).line_start(line).path(clean(&source.name)).annotation(AnnotationKind::Primary.span(marked))
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
