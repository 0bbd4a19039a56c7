//! What findings read like where `kubectl` prints them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::rules::{Action, Finding};
use crate::{prose, yaml};

/// How wide paragraphs are set: `kubectl` prints a message as it is.
const WIDTH: usize = 96;

/// Past this many bytes a denial gives only the first line of each finding, and past twice as many
/// only their number: the audit log and events carry the message too.
const MOST_DETAIL: usize = 16 * 1024;

/// Everything that is wrong, at once: the API server shows a user only one denial.
///
/// The findings come first, then everything that mends them as one stream of YAML documents at the
/// margin, up to the end: it can be copied and applied as it is.
pub(super) fn denial(findings: &[&Finding]) -> String {
    let is_one = findings.len() == 1;
    let mut text = String::new();
    if !is_one {
        let mut rules: Vec<String> = Vec::new();
        for finding in findings {
            let rule = format!("{} {}", finding.rule.code, finding.rule.name);
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        let _ = writeln!(text, "{} violations: {}\n", findings.len(), rules.join(", "));
    }
    let mut reasons = BTreeSet::new();
    let mut fixes: Vec<(&str, Vec<usize>)> = Vec::new();
    for (i, finding) in findings.iter().enumerate() {
        if text.len() > 2 * MOST_DETAIL {
            let _ = writeln!(text, "\nand {} more", findings.len() - i);
            break;
        }
        let number = i + 1;
        if !is_one {
            let _ = write!(text, "{}{number}. ", if i > 0 { "\n" } else { "" });
        }
        let _ = writeln!(text, "{}", headline(finding));
        if text.len() > MOST_DETAIL {
            continue;
        }
        if reasons.insert(&finding.why) {
            paragraph(&mut text, "why: ", &finding.why);
        }
        for line in &finding.evidence {
            paragraph(&mut text, "- ", line);
        }
        paragraph(&mut text, "do: ", &finding.help);
        if finding.fix.is_empty() {
            continue;
        }
        match fixes.iter_mut().find(|(fix, _)| *fix == finding.fix) {
            Some((_, numbers)) => numbers.push(number),
            None => fixes.push((&finding.fix, vec![number])),
        }
    }
    for (i, (fix, numbers)) in fixes.iter().enumerate() {
        text.push_str(if i == 0 { "\n" } else { "---\n" });
        if !is_one {
            let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
            let _ = writeln!(text, "# mends {}", numbers.join(", "));
        }
        text.push_str(fix.trim_end());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

/// `[NP001 missing-default-deny] …`: what is wrong, as a line that stands alone.
fn headline(finding: &Finding) -> String {
    format!("[{} {}] {}", finding.rule.code, finding.rule.name, one_line(&finding.message))
}

/// A paragraph set in below its finding, its lines hanging below each other.
fn paragraph(out: &mut String, name: &str, text: &str) {
    let indent = 2 + name.len();
    for (i, line) in prose::wrap(&one_line(text), WIDTH - indent).iter().enumerate() {
        let _ = match i {
            0 => writeln!(out, "  {name}{line}"),
            _ => writeln!(out, "{:indent$}{}", "", line.trim_start()),
        };
    }
}

/// How many warnings an answer carries; the last says how many are left out.
const MOST_WARNINGS: usize = 20;
/// The runes all warnings of an answer may take: past 4096 the API server cuts each of them to 256.
const MOST_RUNES: usize = 4000;
/// The runes of one warning: what it is about comes first.
const MOST_RUNES_OF_ONE: usize = 1000;

/// Warnings, each on one line: what is wrong, and behind it a command that mends it where one line
/// holds it and there is room left when everything has been said.
pub(super) fn warnings(findings: &[Finding]) -> Vec<String> {
    let mut told: Vec<(String, Option<String>)> = Vec::new();
    let mut commands = BTreeSet::new();
    for finding in findings.iter().filter(|finding| finding.action == Action::Warn) {
        let line = cut(&headline(finding), MOST_RUNES_OF_ONE);
        if !told.iter().any(|(other, _)| *other == line) {
            let command = command(finding).filter(|command| commands.insert(command.clone()));
            told.push((line, command));
        }
    }
    let (mut room, mut runes) = (MOST_WARNINGS, MOST_RUNES);
    let mut take = |text: &str| {
        let length = text.chars().count();
        let fits = room > 0 && length <= runes;
        if fits {
            (room, runes) = (room - 1, runes - length);
        }
        fits
    };
    let all = told.len();
    let mut fitting = told.iter().take_while(|(line, _)| take(line)).count();
    let mut left_out = None;
    if fitting < all {
        // The last line makes room for itself.
        fitting = fitting.min(MOST_WARNINGS - 1);
        left_out = Some(format!("[portcullis] and {} more: `portcullis check` tells them all", all - fitting));
    }
    let mut lines = Vec::new();
    for (line, command) in told.into_iter().take(fitting) {
        let command = command.filter(|command| left_out.is_none() && take(command));
        lines.extend([Some(line), command].into_iter().flatten());
    }
    lines.extend(left_out);
    lines
}

/// The command that applies the fix: JSON is YAML on one line. Nothing for what stood before the
/// change, which is not the user's to mend now.
fn command(finding: &Finding) -> Option<String> {
    if finding.standing || finding.fix.is_empty() {
        return None;
    }
    let documents = yaml::parse(&finding.fix).into_iter();
    let mut objects: Vec<Value> = documents.map(|document| Some(document.ok()?.value())).collect::<Option<_>>()?;
    let object = match objects.len() {
        1 => objects.pop()?,
        _ => json!({ "apiVersion": "v1", "kind": "List", "items": objects }),
    };
    let object = object.to_string();
    // What a terminal might show otherwise than it is must not be copied into a shell.
    if one_line(&object) != object {
        return None;
    }
    // `printf` and not `echo`, which in some shells reads escapes.
    let command = format!("printf %s {} | kubectl apply -f -", shell_quoted(&object));
    Some(format!("[{}] to mend it: {}", finding.rule.code, command))
}

/// A text as one word of a POSIX shell.
fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A text without line breaks and other control characters, for which the API server drops a
/// warning, and without the marks that reverse or hide text on a terminal.
pub(super) fn one_line(text: &str) -> String {
    let is_unfit = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    text.split(|c| c == ' ' || is_unfit(c)).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The beginning of a text, with a mark where it is cut.
fn cut(text: &str, runes: usize) -> String {
    if text.chars().count() <= runes {
        return text.to_owned();
    }
    text.chars().take(runes - 1).chain(['…']).collect()
}

/// The longest value of an annotation: audit logs drop whole events that grow too large.
const MOST_ANNOTATION: usize = 512;

/// For the API server's audit log, which puts the webhook's name and a slash before each key: the
/// verdict, and for each rule its action and first message.
pub(super) fn annotations(findings: &[Finding]) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::new();
    let Some(verdict) = findings.iter().map(|finding| finding.action).max() else { return annotations };
    annotations.insert("verdict".to_owned(), verdict.to_string());
    let mut by_rule: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in findings {
        by_rule.entry(finding.rule.name).or_default().push(finding);
    }
    for (rule, findings) in by_rule {
        let Some(gravest) = findings.iter().rev().max_by_key(|finding| finding.action) else { continue };
        let more = match findings.len() {
            1 => String::new(),
            many => format!(" (and {} more)", many - 1),
        };
        let action = match &gravest.waived {
            Some(waived) => format!("waived until {} by {}", waived.until, waived.by),
            None => gravest.action.to_string(),
        };
        let said = cut(&one_line(&format!("{action}: {}", gravest.message)), MOST_ANNOTATION);
        annotations.insert(rule.to_owned(), said + &more);
    }
    annotations
}
