//! `portcullis rules`: the catalogue, and one rule's page.

use std::fmt::Write as _;

use anstyle::Style;
use anyhow::anyhow;

use super::{Outcome, Output, Said, pretty};
use crate::config::closest;
use crate::report;
use crate::rules::{Entry, RULES, entry};

/// Lists the rules, or explains one.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A rule's name or code
    #[arg(value_name = "RULE")]
    rule: Option<String>,
    /// How to tell it
    #[arg(long, short, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

pub(super) fn run(args: &Args, said: &mut Said) -> anyhow::Result<Outcome> {
    let found = args.rule.as_deref().map(|rule| entry(rule).ok_or_else(|| unknown(rule))).transpose()?;
    said.out = match (args.output, found) {
        (Output::Json, found) => pretty(&report::catalogue(found.map(|entry| entry.meta.name)))?,
        (Output::Text, Some(entry)) => report::page(entry),
        (Output::Text, None) => table(),
    };
    Ok(Outcome::Clean)
}

fn unknown(rule: &str) -> anyhow::Error {
    let names = RULES.iter().flat_map(|entry| [entry.meta.name, entry.meta.code]);
    let guess = closest(rule, names).map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
    anyhow!("there is no rule `{rule}`{guess}")
}

fn table() -> String {
    const BOLD: Style = Style::new().bold();
    let pages: Vec<String> = RULES.iter().map(Entry::page).collect();
    let rows = RULES.iter().zip(&pages).map(|(entry, page)| {
        let meta = entry.meta;
        let says = page.lines().next().unwrap_or_default();
        [meta.code, meta.name, meta.severity.as_str(), meta.baseline.as_str(), meta.restricted.as_str(), says]
    });
    let rows: Vec<[&str; 6]> =
        std::iter::once(["code", "name", "severity", "baseline", "restricted", "what it reports"])
            .chain(rows)
            .collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut out = String::new();
    for (i, [cells @ .., says]) in rows.iter().enumerate() {
        let style = if i == 0 { BOLD } else { Style::new() };
        let _ = write!(out, "{style}");
        for (cell, width) in cells.iter().zip(&widths) {
            let _ = write!(out, "{cell:width$}  ");
        }
        let _ = writeln!(out, "{says}{style:#}");
    }
    out
}
