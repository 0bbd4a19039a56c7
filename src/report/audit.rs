//! How a cluster stands, on a terminal and for programs.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::json::JsonFinding;
use super::{Located, findings};
use crate::audit::{Dns, Isolation, Mtls, Posture, Scan, Waivers};
use crate::rules::{Action, Mode};

const GOOD: Style = AnsiColor::Green.on_default();
const POOR: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::BrightRed.on_default().bold();
const PLAIN: Style = Style::new();
const DIM: Style = Style::new().dimmed();
const HEAD: Style = Style::new().bold();

/// An audit, and what of the cluster is not known.
pub struct Audited<'a> {
    /// What it came to.
    pub scan: &'a Scan,
    /// What may not be read, as `kubectl` names it.
    pub forbidden: &'a [String],
    /// The mode of namespaces that have none of their own.
    pub mode: Mode,
}

/// A cell: what it says, and how it looks.
type Cell = (String, Style);

impl Audited<'_> {
    /// A row for each namespace, the worst first.
    pub fn table(&self) -> String {
        let mut rows: Vec<&Posture> = self.scan.namespaces.iter().collect();
        rows.sort_by_key(|posture| {
            let Posture { worst, findings, namespace, .. } = posture;
            (std::cmp::Reverse((worst.map(|(action, severity, _)| (action, severity)), *findings)), namespace)
        });
        let head = ["NAMESPACE", "MODE", "IN", "OUT", "DNS", "MTLS", "WAIVERS", "WORST FINDING"];
        let mut cells = vec![head.map(|name| (name.to_owned(), HEAD))];
        cells.extend(rows.iter().map(|posture| self.row(posture)));
        let mut out = columns(&cells);
        out.push('\n');
        out.push_str(&self.summary());
        if let Some(first) = rows.first().filter(|posture| posture.worst.is_some()) {
            let _ = writeln!(out, "more about one: portcullis audit {}", first.namespace);
        }
        out
    }

    /// The one namespace that was asked for, and everything that is wrong there.
    pub fn in_full(&self) -> String {
        let mut out = String::new();
        for posture in &self.scan.namespaces {
            let Posture { namespace, workloads, is_exempt, .. } = posture;
            let exempt = if *is_exempt { ", exempt by the configuration" } else { "" };
            let _ = writeln!(out, "{HEAD}{namespace}{HEAD:#}, {workloads} workloads{exempt}\n");
            let row = self.row(posture);
            for (name, (text, style)) in
                ["", "mode", "in", "out", "dns", "mtls", "waivers"].into_iter().zip(row).skip(1)
            {
                let _ = writeln!(out, "  {name:8} {style}{text}{style:#}");
            }
            out.push('\n');
        }
        let located: Vec<_> = self.scan.findings.iter().map(|finding| Located { finding, place: None }).collect();
        out.push_str(&findings(&located));
        if located.is_empty() {
            out.push_str("nothing to object to\n");
        }
        out
    }

    fn row(&self, posture: &Posture) -> [Cell; 8] {
        let Posture { namespace, mode, ingress, egress, dns, mtls, waivers, worst, findings, workloads, .. } = posture;
        let unsure =
            |(text, style): Cell| if posture.is_uncertain { (format!("{text}?"), POOR) } else { (text, style) };
        let more = if *findings > 1 { format!(" and {} more", findings - 1) } else { String::new() };
        let worst = match worst {
            Some((action, severity, rule)) => {
                let style = match action {
                    Action::Deny => BAD,
                    Action::Warn => POOR,
                    Action::Audit | Action::Off => PLAIN,
                };
                (format!("{rule} ({}, {action}){more}", severity.as_str()), style)
            }
            None if posture.is_exempt => ("exempt".to_owned(), DIM),
            None => ("none".to_owned(), GOOD),
        };
        [
            (namespace.to_string(), PLAIN),
            (mode.as_str().to_owned(), if *mode == self.mode { PLAIN } else { HEAD }),
            unsure(isolation(*ingress, *workloads)),
            unsure(isolation(*egress, *workloads)),
            unsure(match dns {
                Dns::Reachable => ("ok".to_owned(), GOOD),
                Dns::CutOff(workloads) => (format!("{workloads} cut off"), BAD),
            }),
            match mtls {
                Mtls::Outside => ("-".to_owned(), DIM),
                Mtls::Strict => ("strict".to_owned(), GOOD),
                Mtls::Plaintext(_) => ("plaintext".to_owned(), BAD),
                Mtls::Unknown => ("unknown".to_owned(), POOR),
            },
            waivers_cell(waivers),
            worst,
        ]
    }

    /// What it comes to, in a few lines.
    fn summary(&self) -> String {
        let all = &self.scan.namespaces;
        let count = |is_so: &dyn Fn(&Posture) -> bool| all.iter().filter(|posture| is_so(posture)).count();
        let closed = count(&|it| it.ingress == Isolation::Yes && it.egress == Isolation::Yes);
        let dark = count(&|it| it.dns != Dns::Reachable);
        let plain = count(&|it| matches!(it.mtls, Mtls::Plaintext(_)));
        let denied = count(&|it| it.worst.is_some_and(|(action, ..)| action == Action::Deny));
        let mut out = format!(
            "{} of {} namespaces are closed both ways; names cannot be resolved in {dark}, plaintext is accepted in {plain}\n",
            closed,
            all.len()
        );
        let would = if self.mode == Mode::Enforce { "" } else { ", once they are enforced" };
        if denied > 0 {
            let _ = writeln!(out, "in {denied} something stands that would be denied if it came today{would}");
        }
        if all.iter().any(|posture| posture.is_uncertain) {
            out.push_str("?  policies of another system may say otherwise\n");
        }
        out
    }
}

fn isolation(isolation: Isolation, workloads: usize) -> Cell {
    match isolation {
        Isolation::Yes => ("closed".to_owned(), GOOD),
        Isolation::OnlyToday => ("only today".to_owned(), POOR),
        Isolation::Partly { open } => (format!("{open} of {workloads} open"), BAD),
        Isolation::No if workloads == 0 => ("open (empty)".to_owned(), POOR),
        Isolation::No => ("open".to_owned(), BAD),
    }
}

fn waivers_cell(waivers: &Waivers) -> Cell {
    let Waivers { holding, next_end, void } = *waivers;
    let until = next_end.map(|end| end.to_string().split('T').next().unwrap_or_default().to_owned());
    match (holding, void, until) {
        (0, 0, _) => ("-".to_owned(), DIM),
        (0, void, _) => (format!("{void} void"), POOR),
        (holding, 0, Some(until)) => (format!("{holding}, to {until}"), PLAIN),
        (holding, void, until) => (format!("{holding}, to {}; {void} void", until.unwrap_or_default()), POOR),
    }
}

/// Rows whose columns stand below each other.
fn columns<const N: usize>(rows: &[[Cell; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, (text, _)) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count());
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        let last = row.len().saturating_sub(1);
        for (i, ((text, style), width)) in row.iter().zip(widths).enumerate() {
            let padding = if i == last { 0 } else { width - text.chars().count() + 2 };
            let _ = write!(line, "{style}{text}{style:#}{:padding$}", "");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// What `portcullis audit --output json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JsonAudit<'a> {
    version: u32,
    at: String,
    namespaces: Vec<JsonPosture<'a>>,
    findings: Vec<JsonFinding<'a>>,
    /// What may not be read.
    forbidden: &'a [String],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonPosture<'a> {
    namespace: &'a str,
    exempt: bool,
    mode: &'a str,
    workloads: usize,
    ingress: JsonIsolation,
    egress: JsonIsolation,
    /// How many workloads cannot resolve names, or not reliably.
    without_dns: usize,
    mtls: &'a str,
    /// Whether policies of another system may change what is said of isolation and DNS.
    uncertain: bool,
    waivers: JsonWaivers,
    worst: Option<JsonWorst<'a>>,
    findings: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonIsolation {
    /// `closed`, `only-today`, `partly`, `open`.
    state: &'static str,
    open: Option<usize>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonWaivers {
    holding: usize,
    void: usize,
    next_end: Option<String>,
}

#[derive(Debug, Serialize)]
struct JsonWorst<'a> {
    rule: &'a str,
    action: Action,
    severity: &'a str,
}

impl<'a> From<&'a Audited<'a>> for JsonAudit<'a> {
    fn from(audited: &'a Audited<'a>) -> Self {
        let located = |finding| JsonFinding::of(finding, None);
        Self {
            version: 1,
            at: audited.scan.at.to_string(),
            namespaces: audited.scan.namespaces.iter().map(JsonPosture::from).collect(),
            findings: audited.scan.findings.iter().map(located).collect(),
            forbidden: audited.forbidden,
        }
    }
}

impl<'a> From<&'a Posture> for JsonPosture<'a> {
    fn from(posture: &'a Posture) -> Self {
        let isolation = |isolation| match isolation {
            Isolation::Yes => JsonIsolation { state: "closed", open: None },
            Isolation::OnlyToday => JsonIsolation { state: "only-today", open: Some(0) },
            Isolation::Partly { open } => JsonIsolation { state: "partly", open: Some(open) },
            Isolation::No => JsonIsolation { state: "open", open: None },
        };
        Self {
            namespace: &posture.namespace,
            exempt: posture.is_exempt,
            mode: posture.mode.as_str(),
            workloads: posture.workloads,
            ingress: isolation(posture.ingress),
            egress: isolation(posture.egress),
            without_dns: match posture.dns {
                Dns::Reachable => 0,
                Dns::CutOff(workloads) => workloads,
            },
            mtls: match posture.mtls {
                Mtls::Outside => "outside",
                Mtls::Strict => "strict",
                Mtls::Plaintext(_) => "plaintext",
                Mtls::Unknown => "unknown",
            },
            uncertain: posture.is_uncertain,
            waivers: JsonWaivers {
                holding: posture.waivers.holding,
                void: posture.waivers.void,
                next_end: posture.waivers.next_end.map(|end| end.to_string()),
            },
            worst: posture.worst.map(|(action, severity, rule)| JsonWorst {
                rule,
                action,
                severity: severity.as_str(),
            }),
            findings: posture.findings,
        }
    }
}
