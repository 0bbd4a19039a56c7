//! What is said of a webhook that is cut off, and how to let the API server in again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::{Answers, answers};
use crate::mesh::Authority;
use crate::model::{
    Change, Direction, Directions, FieldPath, Labels, Lifetime, MtlsMode, Object, ObjectRef, OnFailure,
    PeerAuthentication, PolicyRule, Port, PortSpec, Selector, Str, Workload,
};
use crate::netset::Protocol;
use crate::rules::yaml::{self, FreeNames, scalar};
use crate::rules::{Barrier, Finding, Moment, Scope, Violation, words};

pub(super) fn explain(
    namespace: &Str,
    service: &Str,
    port: u16,
    barrier: Barrier,
    violations: &[&Violation],
    moment: &Moment<'_>,
) -> Option<Finding> {
    let scope = Scope::Namespace(namespace.clone());
    let mut behind: Vec<Answers<'_>> = answers(moment.view.cluster, &scope);
    behind.retain(|it| it.service.name == *service && it.port == port);
    let first = behind.first()?;
    let workloads = words::workloads(moment.view.cluster, violations);
    let called: BTreeMap<(&str, &str), (OnFailure, BTreeSet<&str>)> =
        behind.iter().fold(BTreeMap::new(), |mut all, it| {
            let key = (it.configuration.kind.as_str(), it.configuration.name.as_str());
            let (gravest, names) = all.entry(key).or_insert((it.webhook.on_failure, BTreeSet::new()));
            *gravest = (*gravest).max(it.webhook.on_failure);
            names.insert(it.webhook.name.as_str());
            all
        });
    let configurations: Vec<String> = called.keys().map(|(kind, name)| format!("`{kind} {name}`")).collect();
    let how = match barrier {
        Barrier::Policies => format!("policies admit nothing from outside the cluster on TCP port {port}"),
        Barrier::Mesh => format!("TCP port {port} takes nothing but the mesh's mutual TLS"),
    };
    let message = format!(
        "the API server cannot reach {} of namespace `{namespace}`, which answers {}: {how}",
        words::some_of(&workloads),
        words::some_of(&configurations)
    );
    let mut evidence: Vec<String> = called
        .iter()
        .map(|((kind, name), (_, webhooks))| {
            let webhooks: Vec<_> = webhooks.iter().map(|name| format!("`{name}`")).collect();
            format!("{kind} `{name}` calls Service `{namespace}/{service}` for {}", words::some_of(&webhooks))
        })
        .collect();
    let (object, by, help, fix) = match barrier {
        Barrier::Policies => by_policies(first.workload, port, first.service.selector.as_ref(), moment),
        Barrier::Mesh => by_mesh(first.workload, port, first.service.selector.as_ref(), moment),
    };
    evidence.extend(by);
    Some(Finding {
        why: consequence(called.values().map(|(on_failure, _)| *on_failure).max()?),
        evidence,
        help,
        fix,
        ..Finding::new(Some(namespace.clone()), object?, FieldPath::root(), message)
    })
}

fn consequence(on_failure: OnFailure) -> String {
    match on_failure {
        OnFailure::Fail => "its `failurePolicy` is `Fail`: everything it is asked about is refused from then on, for every user, and often that includes what would mend it",
        OnFailure::Ignore => "its `failurePolicy` is `Ignore`: from then on changes pass unjudged, and nobody is told",
    }
    .to_owned()
}

type Said = (Option<ObjectRef>, Vec<String>, String, String);

fn by_policies(workload: &Workload, port: u16, selector: Option<&Labels>, moment: &Moment<'_>) -> Said {
    let namespace = &workload.namespace;
    let isolating: Vec<_> = moment.view.reach().isolating(workload, Direction::Ingress).collect();
    let names: Vec<_> = isolating.iter().map(|policy| format!("`{}`", policy.name)).collect();
    let evidence = format!(
        "isolated for ingress by {}; none of them admits an outside address on TCP {port}",
        words::some_of(&names)
    );
    let ports = vec![PortSpec { protocol: Protocol::Tcp, port: Port::Range(port, port) }];
    let mut policy = yaml::isolating(
        namespace,
        FreeNames::of(namespace, moment).next("admit-api-server"),
        Selector::from(selector.unwrap_or(&workload.labels)),
        Directions { ingress: true, egress: false },
        Vec::new(),
    );
    policy.ingress = vec![PolicyRule { peers: None, ports: Some(ports) }];
    let object = changed(moment).or_else(|| {
        let policy = isolating.first()?;
        Some(ObjectRef { kind: "NetworkPolicy".into(), namespace: Some(namespace.clone()), name: policy.name.clone() })
    });
    let order = match moment.change.map(|(change, _)| change) {
        Some(Change::Create(Object::NetworkPolicy(policy))) => format!(
            "apply the policy that admits this port before `{0}`, or write it above `{0}` in the same file, which `kubectl` applies from the top. If you have none, this is one: it admits the port from everywhere, for",
            policy.name
        ),
        Some(_) | None => "admit the port from everywhere, for".to_owned(),
    };
    let help = format!(
        "{order} the API server has no labels and its addresses change. TLS verifies who calls; where its addresses are known, `from` may name them"
    );
    (object, vec![evidence], help, yaml::network_policy(&policy))
}

fn by_mesh(workload: &Workload, port: u16, selector: Option<&Labels>, moment: &Moment<'_>) -> Said {
    let namespace = &workload.namespace;
    let posture = moment.view.mesh().posture(workload);
    let strict = match posture.effective.port(port).by {
        Authority::Policy(policy) => Some(policy),
        Authority::Nobody | Authority::Annotation(_) => None,
    };
    let reference = |policy: &PeerAuthentication| ObjectRef {
        kind: "PeerAuthentication".into(),
        namespace: Some(policy.namespace.clone()),
        name: policy.name.clone(),
    };
    let mut evidence = vec![format!("in the mesh: {}", posture.membership.reason)];
    evidence.extend(strict.map(|policy| format!("STRICT by {}", reference(policy))));
    let own = moment.view.mesh().policies(namespace).of_workload(&workload.labels).cloned();
    let help = match &own {
        // Of several policies about a workload the oldest counts: another one would do nothing.
        Some(policy) => {
            format!("let `{}` take plaintext on this one port; what the webhook speaks is TLS of its own", policy.name)
        }
        None => {
            "let this one port take plaintext: what the webhook speaks is TLS of its own, and the rest stays STRICT"
                .to_owned()
        }
    };
    let exempting = own.unwrap_or_else(|| PeerAuthentication {
        namespace: namespace.clone(),
        name: free_name(namespace, moment),
        created: None,
        revision: None,
        lifetime: Lifetime::default(),
        has_empty_selector: false,
        selector: selector.unwrap_or(&workload.labels).clone(),
        mode: MtlsMode::Unset,
        ports: BTreeMap::new(),
        is_partial: false,
    });
    let object = changed(moment).or_else(|| strict.map(reference));
    (object, evidence, help, with_plaintext_port(&exempting, port))
}

/// The object under review, where a change is: that is what has to be different.
fn changed(moment: &Moment<'_>) -> Option<ObjectRef> {
    let (change, _) = moment.change?;
    let subject = change.subject();
    matches!(subject, Object::NetworkPolicy(_) | Object::PeerAuthentication(_) | Object::Namespace(_))
        .then(|| subject.reference())
}

fn free_name(namespace: &str, moment: &Moment<'_>) -> Str {
    let views = [Some(moment.view), moment.change.map(|(_, before)| before)];
    let is_taken = |name: &str| {
        let mut states = views.iter().flatten().filter_map(|view| view.cluster.namespace(namespace));
        states.any(|state| state.peer_authentications.get(name).is_some())
    };
    let numbered = (2..).map(|n| format!("admit-api-server-{n}"));
    let mut names = std::iter::once("admit-api-server".to_owned()).chain(numbered);
    names.find(|name| !is_taken(name)).unwrap_or_default().into()
}

/// A PeerAuthentication as it is, but for one port that takes plaintext too.
fn with_plaintext_port(policy: &PeerAuthentication, port: u16) -> String {
    let mut text = format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: {}\n  namespace: {}\nspec:\n  selector:\n    matchLabels:\n",
        scalar(&policy.name),
        scalar(&policy.namespace)
    );
    for (key, value) in policy.selector.iter() {
        let _ = writeln!(text, "      {}: {}", scalar(key), scalar(value));
    }
    if policy.mode != MtlsMode::Unset {
        let _ = writeln!(text, "  mtls:\n    mode: {}", policy.mode);
    }
    text.push_str("  portLevelMtls:\n");
    let mut ports = policy.ports.clone();
    ports.insert(port, MtlsMode::Permissive);
    for (port, mode) in &ports {
        let _ = writeln!(text, "    {port}:\n      mode: {mode}");
    }
    text
}
