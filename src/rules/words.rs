//! Names and numbers as a person reads them.

use std::collections::BTreeSet;

use super::{Subject, Violation};
use crate::cluster::Cluster;
use crate::model::{Direction, WorkloadId};

/// How many names a sentence holds before the rest is counted.
const NAMED: usize = 5;

/// `a`, `a and b`, `a, b and c`.
pub(super) fn list<T: AsRef<str>>(items: &[T]) -> String {
    match items {
        [] => String::new(),
        [one] => one.as_ref().to_owned(),
        [head @ .., last] => {
            let head: Vec<_> = head.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", head.join(", "), last.as_ref())
        }
    }
}

/// The first few of many, the rest as a number: `` `a`, `b` and 12 more ``.
pub(super) fn some_of<T: AsRef<str>>(items: &[T]) -> String {
    if items.len() <= NAMED {
        return list(items);
    }
    let (named, rest) = items.split_at(NAMED - 1);
    let mut named: Vec<String> = named.iter().map(|item| item.as_ref().to_owned()).collect();
    named.push(format!("{} more", rest.len()));
    list(&named)
}

/// `ingress`, `egress`, or `ingress and egress`.
pub(super) fn directions(directions: &[Direction]) -> String {
    list(&directions.iter().map(|direction| direction.field()).collect::<Vec<_>>())
}

/// The workloads among violations, a controller's pods folded into it, each as `` `Deployment cart` ``,
/// in order.
pub(super) fn workloads(cluster: &Cluster, violations: &[&Violation]) -> Vec<String> {
    let mut owners: BTreeSet<WorkloadId> = BTreeSet::new();
    for violation in violations {
        let Subject::Workload(id) = &violation.subject else { continue };
        let owner = match cluster.workload(&violation.namespace, id) {
            Some(workload) => cluster.root_owner(workload),
            None => id.clone(),
        };
        owners.insert(owner);
    }
    owners.into_iter().map(|id| format!("`{id}`")).collect()
}

/// A share in percent, never rounded to all of it.
pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        percent if percent < 10.0 => format!("{percent:.1}"),
        percent if (99.5..100.0).contains(&percent) => "over 99".to_owned(),
        percent => format!("{percent:.0}"),
    }
}

/// A count of addresses: exact up to a million, then in words.
pub(super) fn addresses(count: f64) -> String {
    let scaled = |unit: f64, name: &str| format!("{:.1} {name}", count / unit);
    match count {
        n if n < 1e6 => format!("{n:.0}"),
        n if n < 1e9 => scaled(1e6, "million"),
        n if n < 1e12 => scaled(1e9, "billion"),
        n => format!("{n:.1e}"),
    }
}
