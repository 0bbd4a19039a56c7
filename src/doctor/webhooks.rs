//! Other webhooks, by which the gate could be kept from starting.

use super::registration::{Entry, entries, identity};
use super::{Check, Facts, Verdict};
use crate::model::Str;

/// Past this many seconds a webhook that does not answer makes a rollout stall rather than fail.
const LONG: u32 = 10;

/// Webhooks of others that refuse the gate's own pods while they do not answer.
pub(super) fn others(facts: &Facts) -> Check {
    const NAME: &str = "other-webhooks";
    let Ok(webhooks) = &facts.webhooks else {
        return Check::attention(NAME, "the webhooks of others could not be read");
    };
    let labels = facts.cluster.namespace_labels(&facts.namespace);
    let mut told = Vec::new();
    let mut worst = Verdict::Good;
    for configuration in webhooks {
        let (kind, name) = identity(configuration);
        if (kind, name) == ("ValidatingWebhookConfiguration", facts.webhook.as_str()) {
            continue;
        }
        for entry in entries(configuration) {
            if !entry.fails_closed() || entry.sees(&labels).is_err() || !asks_about_pods(facts, &entry) {
                continue;
            }
            let trouble = trouble(facts, &entry);
            let verdict = if trouble.is_some() { Verdict::Bad } else { Verdict::Attention };
            worst = worst.max(verdict);
            let slow = entry.timeout_seconds.filter(|seconds| *seconds > LONG);
            let slow = slow.map(|seconds| format!(", after {seconds} seconds each time")).unwrap_or_default();
            let trouble = trouble.map(|why| format!("; and {why}")).unwrap_or_default();
            told.push(format!("`{}` of {kind} `{name}` has to answer{slow}{trouble}", entry.name));
        }
    }
    let check = match worst {
        Verdict::Good => {
            return Check::good(
                NAME,
                format!("no other webhook can hold up the pods of namespace `{}`", facts.namespace),
            );
        }
        Verdict::Attention => Check::attention(
            NAME,
            format!("{} can hold up the pods of namespace `{}`", count(told.len()), facts.namespace),
        ),
        Verdict::Bad => Check::bad(
            NAME,
            format!(
                "the pods of namespace `{}` cannot be made: a webhook that has to answer is not there",
                facts.namespace
            ),
        ),
    };
    check
        .facts(told)
        .means("their `failurePolicy` is `Fail`: while they do not answer the gate's pods are not made, and if the gate fails closed too, each can wait for the other")
        .advice(format!("leave namespace `{}` out of their `namespaceSelector`", facts.namespace))
}

fn count(webhooks: usize) -> String {
    if webhooks == 1 { "another webhook".to_owned() } else { format!("{webhooks} other webhooks") }
}

/// Whether it is asked when a pod of the gate's namespace is made, or what makes pods.
fn asks_about_pods(facts: &Facts, entry: &Entry) -> bool {
    // An injector that goes by a label is asked about pods that have it. Of what makes pods the own
    // labels are not known.
    let mut known = facts.cluster.namespace(&facts.namespace).into_iter().flat_map(|it| it.live_workloads()).peekable();
    let selects_pods = known.peek().is_none() || known.any(|workload| entry.selects(&workload.labels));
    let is_any = |list: &[String], wanted: &[&str]| list.iter().any(|it| it == "*" || wanted.contains(&it.as_str()));
    entry.rules.iter().any(|rule| {
        let pods = is_any(&rule.api_groups, &[""]) && is_any(&rule.resources, &["pods", "*/*"]);
        let makers =
            is_any(&rule.api_groups, &["apps"]) && is_any(&rule.resources, &["deployments", "replicasets", "*/*"]);
        is_any(&rule.operations, &["CREATE", "UPDATE"]) && (pods && selects_pods || makers)
    })
}

/// Why a webhook will not answer, as far as that is known.
fn trouble(facts: &Facts, entry: &Entry) -> Option<String> {
    let called = entry.client_config.service.as_ref()?;
    let name = format!("Service {}/{}", called.namespace, called.name);
    let is_unread = |kind| facts.unread.contains(&kind);
    let Some(service) = facts.cluster.service(&called.namespace, &called.name) else {
        return (!is_unread(crate::k8s::Kind::Service)).then(|| format!("there is no {name}"));
    };
    let selector = service.selector.as_ref()?;
    let namespace: &Str = &service.namespace;
    let state = facts.cluster.namespace(namespace)?;
    let has_pods = state.live_workloads().any(|it| it.is_pod() && selector.is_subset(&it.labels));
    (!has_pods && !is_unread(crate::k8s::Kind::Workload)).then(|| format!("there is no pod behind {name}"))
}
