//! The labels that the pods of one workload may carry, as far as selectors can tell them apart: what is
//! written in it, and what the cluster writes beside that (see [`crate::model::Generated`]).

use std::cell::OnceCell;
use std::collections::BTreeMap;

use crate::cluster::NamespaceState;
use crate::model::{
    Generated, Labels, Operator, Owner, POD_TEMPLATE_HASH, Selector, Str, Workload, WorkloadId, is_generated,
};

/// How many kinds of pods one workload is looked at as. Selectors that people write make one or two.
const MOST: usize = 256;

/// A value that no selector names, since no label can have it.
const UNNAMED: &str = "\u{0}";

/// Pods of a workload that are alike to all selectors.
pub(super) struct Variant {
    /// What they carry.
    pub(super) labels: Labels,
    /// Whether there are such pods, or will be without anybody being asked: else there may be.
    pub(super) is_certain: bool,
}

/// What the selectors of a namespace say of labels that the cluster writes.
pub(super) struct Variants<'a> {
    state: &'a NamespaceState,
    keys: BTreeMap<&'a str, Named<'a>>,
    hashes: OnceCell<BTreeMap<&'a WorkloadId, Vec<&'a Str>>>,
}

/// The values selectors name of one key. Those that the same requirements name are one class: no
/// selector tells them apart.
#[derive(Default)]
struct Named<'a> {
    class_of: BTreeMap<&'a str, usize>,
    classes: usize,
}

impl<'a> Variants<'a> {
    pub(super) fn new(state: &'a NamespaceState, selectors: impl IntoIterator<Item = &'a Selector>) -> Self {
        let mut named: BTreeMap<&str, BTreeMap<&str, Vec<usize>>> = BTreeMap::new();
        let requirements = selectors.into_iter().flat_map(Selector::requirements);
        for (number, requirement) in requirements.filter(|it| is_generated(&it.key)).enumerate() {
            let values = named.entry(&requirement.key).or_default();
            if let Operator::In(these) | Operator::NotIn(these) = &requirement.operator {
                for value in these {
                    values.entry(value).or_default().push(number);
                }
            }
        }
        let classed = |values: BTreeMap<&'a str, Vec<usize>>| {
            let mut classes: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
            let mut class_of = BTreeMap::new();
            for (value, by) in values {
                let next = classes.len();
                class_of.insert(value, *classes.entry(by).or_insert(next));
            }
            Named { class_of, classes: classes.len() }
        };
        let keys = named.into_iter().map(|(key, values)| (key, classed(values))).collect();
        Self { state, keys, hashes: OnceCell::new() }
    }

    /// The pods of a workload; nothing where they are of too many kinds.
    pub(super) fn of(&self, workload: &Workload) -> Option<Vec<Variant>> {
        let mut variants = vec![Variant { labels: workload.labels.clone(), is_certain: true }];
        for (key, named) in &self.keys {
            let Some(generated) = workload.generated(key) else { continue };
            let values = self.values(workload, key, named, &generated);
            if variants.len() * values.len() > MOST {
                return None;
            }
            let with = |(variant, (value, is_certain)): (&Variant, &(Option<&str>, bool))| Variant {
                labels: match value {
                    Some(value) => variant.labels.with(key, value),
                    None => variant.labels.without(key),
                },
                is_certain: variant.is_certain && *is_certain,
            };
            let pairs = variants.iter().flat_map(|variant| values.iter().map(move |value| (variant, value)));
            variants = pairs.map(with).collect();
        }
        Some(variants)
    }

    /// The values of one key that are worth telling apart, each with whether it is certain to be had.
    fn values<'v>(
        &'v self,
        workload: &Workload,
        key: &str,
        named: &'v Named<'a>,
        generated: &'v Generated,
    ) -> Vec<(Option<&'v str>, bool)> {
        let certain = |value| (Some(value), true);
        let possible = |value| (Some(value), false);
        match generated {
            Generated::Value(value) => vec![certain(value.as_str())],
            Generated::Numbered(prefix) => {
                let fitting = named.class_of.range(prefix.as_str()..).map(|(value, class)| (*value, *class));
                let fitting = fitting.take_while(|(value, _)| value.starts_with(prefix.as_str()));
                let fitting = fitting.filter(|(value, _)| value.get(prefix.len()..).is_some_and(is_number));
                named.one_of_each(fitting).chain([UNNAMED]).map(certain).collect()
            }
            Generated::Some => {
                let known = if key == POD_TEMPLATE_HASH { self.hashes_of(&workload.id) } else { &[] };
                let known = known.iter().filter_map(|hash| named.class_of.get_key_value(hash.as_str()));
                let known = named.one_of_each(known.map(|(value, class)| (*value, *class)));
                known.chain([UNNAMED]).map(certain).chain(named.one_of_all().map(possible)).collect()
            }
            Generated::Perhaps => {
                let possible = named.one_of_all().chain([UNNAMED]).map(possible);
                std::iter::once((None, true)).chain(possible).collect()
            }
        }
    }

    /// The revisions of a Deployment that there are: it makes pods of each by being scaled or rolled
    /// back.
    fn hashes_of(&self, deployment: &WorkloadId) -> &[&'a Str] {
        let all = || {
            let mut hashes: BTreeMap<&WorkloadId, Vec<&Str>> = BTreeMap::new();
            for set in self.state.workloads.iter().filter(|it| it.id.kind == "ReplicaSet") {
                let owner = set.owner.as_ref().and_then(Owner::workload);
                if let (Some(owner), Some(hash)) = (owner, set.labels.get(POD_TEMPLATE_HASH)) {
                    hashes.entry(owner).or_default().push(hash);
                }
            }
            hashes
        };
        self.hashes.get_or_init(all).get(deployment).map_or(&[], Vec::as_slice)
    }
}

impl<'a> Named<'a> {
    /// One value of each class there is.
    fn one_of_all(&self) -> impl Iterator<Item = &'a str> {
        self.one_of_each(self.class_of.iter().map(|(value, class)| (*value, *class)))
    }

    /// One of these values for each class that is among them.
    fn one_of_each<'v>(&self, values: impl Iterator<Item = (&'v str, usize)>) -> impl Iterator<Item = &'v str> {
        let mut seen = vec![false; self.classes];
        let is_first = move |class: usize| seen.get_mut(class).is_some_and(|seen| !std::mem::replace(seen, true));
        let mut is_first = is_first;
        values.filter_map(move |(value, class)| is_first(class).then_some(value))
    }
}

/// Whether a text is a number as controllers write it.
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Cluster;
    use crate::rules::testing::objects;

    const POLICIES: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: shop}, spec: {podSelector: {matchExpressions: [{key: pod-template-hash, operator: In, values: [aa, bb, cc]}]}}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: b, namespace: shop}, spec: {podSelector: {matchExpressions: [{key: statefulset.kubernetes.io/pod-name, operator: NotIn, values: [web-0, web-1, web-x, web-01, db-0]}]}}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: c, namespace: shop}, spec: {podSelector: {matchLabels: {topology.kubernetes.io/zone: a}}}}
";

    /// The pods of the last object of a text, beside these policies: a key's value, `?` where it is
    /// only possible.
    fn of(key: &str, text: &str) -> Vec<String> {
        let all = objects(&format!("{POLICIES}\n---\n{text}"));
        let Some(crate::model::Object::Workload(workload)) = all.last().cloned() else { panic!("no workload") };
        let cluster = Cluster::of(all);
        let state = cluster.namespace("shop").unwrap();
        let variants = Variants::new(state, state.policies.iter().map(|policy| &policy.pods));
        let told = |variant: &Variant| {
            let value = variant.labels.get(key).map_or("-", Str::as_str).replace(UNNAMED, "*");
            format!("{value}{}", if variant.is_certain { "" } else { "?" })
        };
        let mut told: Vec<_> = variants.of(&workload).unwrap().iter().map(told).collect();
        told.sort();
        told.dedup();
        told
    }

    fn template(kind: &str, labels: &str) -> String {
        let group = if kind == "Job" { "batch" } else { "apps" };
        format!(
            "{{apiVersion: {group}/v1, kind: {kind}, metadata: {{name: web, namespace: shop}}, spec: {{template: {{metadata: {{labels: {{{labels}}}}}}}}}}}"
        )
    }

    #[test]
    fn values_that_no_selector_tells_apart_are_one() {
        assert_eq!(of("pod-template-hash", &template("Deployment", "")), ["*", "*?", "aa?"]);
    }

    #[test]
    fn the_revisions_there_are_are_certain() {
        let set = "{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: web-1, namespace: shop, ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, controller: true}]}, spec: {replicas: 0, template: {metadata: {labels: {pod-template-hash: bb}}}}}";
        let deployment = template("Deployment", "");
        assert_eq!(of("pod-template-hash", &format!("{set}\n---\n{deployment}")), ["*", "*?", "aa?", "bb", "bb?"]);
        assert_eq!(of("pod-template-hash", set), ["bb", "bb?"]);
    }

    #[test]
    fn the_ordinals_of_a_stateful_set_are_certain_and_nothing_else_is_its_pods_name() {
        let key = "statefulset.kubernetes.io/pod-name";
        assert_eq!(of(key, &template("StatefulSet", "")), ["*", "*?", "web-0", "web-0?"]);
        assert_eq!(of(key, &template("Deployment", "")), ["-", "-?"]);
    }
}
