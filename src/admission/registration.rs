//! The `ValidatingWebhookConfiguration` by which the API server knows the gate: what the rules that
//! are on have to be asked about, and nothing else.
//!
//! The narrower it is, the less there is for the gate to hold up when it is away. Kinds and
//! operations are the rules' ([`crate::rules::Meta::watches`]); match conditions, which the API
//! server evaluates itself, leave out the changes that say nothing new. Everything here but
//! [`RESOURCES`] follows from the rule set.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::own::CONFIGURATION_KEY;
use super::request::{CLEANERS, POD_CONTROLLERS, SERVICE_ACCOUNT};
use crate::cluster::{DNS_APP_LABEL, DNS_APPS, DNS_POD_LABELS, DNS_SERVICE_NAMES};
use crate::model::{GROUP, MESH_ANNOTATIONS, METADATA_NAME, Operation};
use crate::rules::{Action, CL_INVALID_CONFIGURATION, CL_WEAKENED_CONFIGURATION, RuleSet, Watched};
use crate::yaml;

/// The entry that guards the gate and cluster DNS: it never holds anything up, whatever the others do.
pub const GUARD: &str = "guard.portcullis.dev";

/// The entry for the pods that operators make: they start while the gate is away.
pub const OWNED_PODS: &str = "owned-pods.portcullis.dev";

/// The condition by which the first entry leaves these to that one.
pub(crate) const NOT_PODS_OF_OPERATORS: &str = "not-pods-of-operators";

/// The namespaces a cluster cannot heal without.
pub const SYSTEM_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// How the API calls what rules watch. Subresources are not in it: a status says nothing rules
/// read, and it is written all the time.
#[rustfmt::skip]
const RESOURCES: &[Resource] = &[
    Resource { what: Watched::NetworkPolicies, group: "networking.k8s.io", versions: "v1", scope: "Namespaced", names: &["networkpolicies"] },
    // Of a CRD any version: which ones are served is the installation's.
    Resource { what: Watched::PeerAuthentications, group: "security.istio.io", versions: "*", scope: "Namespaced", names: &["peerauthentications"] },
    Resource { what: Watched::Waivers, group: GROUP, versions: "*", scope: "Namespaced", names: &["waivers"] },
    Resource { what: Watched::Namespaces, group: "", versions: "v1", scope: "Cluster", names: &["namespaces"] },
    Resource { what: Watched::Workloads, group: "", versions: "v1", scope: "Namespaced", names: &[PODS] },
    Resource { what: Watched::Workloads, group: "", versions: "v1", scope: "Namespaced", names: &["replicationcontrollers"] },
    Resource { what: Watched::Workloads, group: "apps", versions: "v1", scope: "Namespaced", names: &["daemonsets", "deployments", "replicasets", "statefulsets"] },
    Resource { what: Watched::Workloads, group: "batch", versions: "v1", scope: "Namespaced", names: &["cronjobs", "jobs"] },
    Resource { what: Watched::DnsServices, group: "", versions: "v1", scope: "Namespaced", names: &["services"] },
    // To scale is a subresource of its own, which says nothing of labels.
    Resource { what: Watched::DnsWorkloads, group: "", versions: "v1", scope: "Namespaced", names: &["pods", "replicationcontrollers", "replicationcontrollers/scale"] },
    Resource { what: Watched::DnsWorkloads, group: "apps", versions: "v1", scope: "Namespaced", names: &["daemonsets", "deployments", "deployments/scale", "replicasets", "replicasets/scale", "statefulsets", "statefulsets/scale"] },
    Resource { what: Watched::MeshConfigs, group: "", versions: "v1", scope: "Namespaced", names: &["configmaps"] },
    Resource { what: Watched::OwnConfig, group: "", versions: "v1", scope: "Namespaced", names: &["configmaps"] },
];

const PODS: &str = "pods";

/// The annotations of a pod that runs by which it leaves its mesh, or its traffic passes the mesh by,
/// now or when its sandbox is made again. Not what ztunnel's agent writes on every pod.
fn written_on_pods() -> impl Iterator<Item = &'static str> {
    MESH_ANNOTATIONS.into_iter().filter(|key| *key != "ambient.istio.io/redirection")
}

struct Resource {
    what: Watched,
    group: &'static str,
    versions: &'static str,
    scope: &'static str,
    names: &'static [&'static str],
}

/// Where the API server finds the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// By an address: `https://…/validate`.
    Url(String),
    /// By a Service of the cluster.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its port.
        port: u16,
    },
}

/// What becomes of a request while the gate does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    /// It is refused.
    Fail,
    /// It is let through.
    Ignore,
}

impl FailurePolicy {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "Fail",
            Self::Ignore => "Ignore",
        }
    }
}

/// What the registration says beside what follows from the rules.
#[derive(Clone, Debug)]
pub struct Options {
    /// `metadata.name`.
    pub name: String,
    /// Where the gate is.
    pub target: Target,
    /// The certificates the gate's own is verified by, as PEM; left out where something else fills
    /// them in.
    pub ca: Option<Vec<u8>>,
    /// The namespace the gate runs in, which must start without it.
    pub own_namespace: Option<String>,
    /// How long the API server waits, in seconds.
    pub timeout: u8,
    /// What becomes of a request while the gate does not answer.
    pub failure_policy: FailurePolicy,
    /// Whether what could cut off the gate or cluster DNS is sent from their namespaces, though these
    /// are left out otherwise.
    pub guard: bool,
}

/// A registration, and why it is as it is.
#[derive(Debug)]
pub struct Registration {
    /// The `ValidatingWebhookConfiguration`.
    pub object: Value,
    /// Comments by the JSON pointer of what they stand above.
    reasons: BTreeMap<String, String>,
    /// What someone who applies it should know.
    pub notes: Vec<String>,
}

impl Registration {
    /// The registration for these rules; nothing where none of them has anything to be asked about.
    pub fn of(rules: &RuleSet, options: &Options) -> Option<Self> {
        let watched = watched(rules);
        if watched.is_empty() {
            return None;
        }
        let (excluded, notes) = excluded(rules, &watched, options);
        let mut main = watched.clone();
        // Workloads are deleted and scaled all the time: where DNS is one among others, that is not asked.
        main.remove(&Watched::DnsWorkloads);
        if main.is_empty() {
            return None;
        }
        let mut gate = webhook("gate.portcullis.dev", rules, &main, options, &excluded);
        let owned = owned_pods(rules, &main, options, &excluded);
        if owned.is_some() {
            add_condition(&mut gate, NOT_PODS_OF_OPERATORS, &format!("!({})", is_operators_pod()));
        }
        let mut webhooks = vec![gate];
        let mut reasons = BTreeMap::from(
            [
                ("failurePolicy", match options.failure_policy {
                    FailurePolicy::Fail => "While the gate is away, what is sent to it is refused. What the cluster's own controllers make\nand the namespaces below are not sent, and pods of operators pass, so the cluster can start and\nheal. The way out:\nkubectl delete validatingwebhookconfiguration NAME".replace("NAME", &options.name),
                    FailurePolicy::Ignore => "While the gate is away, everything passes unjudged.".to_owned(),
                }),
                ("namespaceSelector", "The gate's own namespace and those a cluster cannot heal without. It goes by a label that\nthe API server sets on every namespace and nobody can change.".to_owned()),
                ("matchConditions", "Evaluated by the API server: what they leave out never leaves it.".to_owned()),
            ]
            .map(|(field, reason)| (format!("/webhooks/0/{field}"), reason)),
        );
        if let Some(owned) = owned {
            reasons.insert(
                format!("/webhooks/{}", webhooks.len()),
                "The pods that operators make. They are judged like all others, and start while the gate is away: a\ndatabase comes back after a drain."
                    .to_owned(),
            );
            webhooks.push(owned);
        }
        if options.guard
            && let Some(guard) = guard(rules, &watched, options, &excluded)
        {
            reasons.insert(
                format!("/webhooks/{}", webhooks.len()),
                "What can cut off cluster DNS or the gate itself, in the namespaces they run in. It never holds\nthem up."
                    .to_owned(),
            );
            webhooks.push(guard);
        }
        let object = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": { "name": options.name, "labels": { "app.kubernetes.io/name": "portcullis" } },
            "webhooks": webhooks,
        });
        Some(Self { object, reasons, notes })
    }

    /// All conditions by which nothing is left out that a rule reads, as `matchConditions` of any
    /// registration of a gate in these surroundings. Those by which two entries share what there is
    /// are not among them.
    pub fn conditions(rules: &RuleSet) -> Vec<Value> {
        let all = || RESOURCES.iter().map(|resource| resource.what);
        // An entry asks about all workloads, or about those of DNS.
        let without = [Watched::Workloads, Watched::DnsWorkloads];
        let mut conditions: Vec<Value> = Vec::new();
        for without in without {
            let watched = all().filter(|what| *what != without).map(|what| (what, BTreeSet::new())).collect();
            for condition in self::conditions(rules, &watched) {
                if !conditions.contains(&condition) {
                    conditions.push(condition);
                }
            }
        }
        conditions
    }

    /// As YAML, with the reasons as comments.
    pub fn yaml(&self) -> String {
        yaml::block(&self.object, &self.reasons)
    }
}

/// What the rules that are on watch, and the operations they watch it for.
fn watched(rules: &RuleSet) -> BTreeMap<Watched, BTreeSet<Operation>> {
    let mut watched: BTreeMap<Watched, BTreeSet<Operation>> = BTreeMap::new();
    for watch in rules.rules.iter().flat_map(|active| active.rule.meta().watches) {
        watched.entry(watch.what).or_default().extend(watch.on);
    }
    // Where the configuration names resolvers and no Service, none is looked for.
    let dns = &rules.environment.dns;
    if dns.services.is_empty() && !dns.addresses.is_empty() {
        watched.remove(&Watched::DnsServices);
        watched.remove(&Watched::DnsWorkloads);
    }
    // Where it names the mesh's root, no ConfigMap is asked.
    if rules.environment.mesh.root_namespace.is_some() {
        watched.remove(&Watched::MeshConfigs);
    }
    watched
}

/// The namespaces nothing is sent of, and what to know about them.
fn excluded(
    rules: &RuleSet,
    watched: &BTreeMap<Watched, BTreeSet<Operation>>,
    options: &Options,
) -> (BTreeSet<String>, Vec<String>) {
    let exempt = rules.environment.namespaces.exempt.iter();
    let (patterns, names): (Vec<_>, Vec<_>) = exempt.partition(|name| name.ends_with('*'));
    let mut excluded: BTreeSet<String> = names.into_iter().cloned().collect();
    excluded.extend(SYSTEM_NAMESPACES.map(str::to_owned));
    let mut notes = Vec::new();
    // An exempt namespace's own workloads are nobody's business, but the policies of the mesh's
    // root hold for all the others.
    let root = rules.environment.mesh.expected_root();
    let is_own = options.own_namespace.as_deref() == Some(root);
    let is_system = SYSTEM_NAMESPACES.contains(&root);
    if watched.contains_key(&Watched::PeerAuthentications) && !is_own && !is_system && excluded.remove(root) {
        notes.push(format!(
            "`{root}` is exempt, and changes in it are sent all the same: its PeerAuthentications hold for the whole mesh"
        ));
    }
    excluded.extend(options.own_namespace.clone());
    if !patterns.is_empty() {
        let patterns: Vec<_> = patterns.iter().map(|pattern| format!("`{pattern}`")).collect();
        notes.push(format!(
            "changes in namespaces exempt by a pattern are sent and pass: a selector knows only whole names, not {}",
            patterns.join(", ")
        ));
    }
    let hidden: BTreeSet<String> = if watched.contains_key(&Watched::DnsServices) {
        let of_dns = dns_namespaces(rules).filter(|namespace| excluded.contains(namespace));
        of_dns.chain(options.own_namespace.clone()).collect()
    } else {
        options.own_namespace.iter().cloned().collect()
    };
    if !hidden.is_empty() && !options.guard {
        let hidden: Vec<_> = hidden.iter().map(String::as_str).collect();
        notes.push(format!(
            "what cuts off the DNS pods or the gate itself, in `{}`, is not seen; `--guard` sends that without ever holding these namespaces up",
            hidden.join("`, `")
        ));
    }
    (excluded, notes)
}

/// The namespaces of cluster DNS.
fn dns_namespaces(rules: &RuleSet) -> impl Iterator<Item = String> {
    let configured = rules.environment.dns.services.iter().map(|service| service.namespace.to_string());
    let mut namespaces: BTreeSet<String> = configured.collect();
    if namespaces.is_empty() {
        namespaces.insert("kube-system".to_owned());
    }
    namespaces.into_iter()
}

/// The entry for pods that operators make, disjoint with the first: it fails open, whatever the others
/// do. Nothing where no rule reads workloads.
fn owned_pods(
    rules: &RuleSet,
    watched: &BTreeMap<Watched, BTreeSet<Operation>>,
    options: &Options,
    excluded: &BTreeSet<String>,
) -> Option<Value> {
    let operations = watched.get(&Watched::Workloads)?;
    let watched = BTreeMap::from([(Watched::Workloads, operations.clone())]);
    let options = Options { failure_policy: FailurePolicy::Ignore, ..options.clone() };
    let mut entry = webhook(OWNED_PODS, rules, &watched, &options, excluded);
    *entry.get_mut("rules")? = resources(&watched, |resource| resource.names == [PODS]).into();
    entry
        .get_mut("matchConditions")?
        .as_array_mut()?
        .retain(|it| it.get("name").is_none_or(|name| name != TEMPLATES_THAT_CHANGE));
    add_condition(&mut entry, "pods-of-operators", &is_operators_pod());
    Some(entry)
}

/// Whether a request is about a pod that has a controller, before and after, and comes from a service
/// account, as every operator is one. A person who writes an owner reference is held up by no gate that
/// is there, and gets past none that is away.
fn is_operators_pod() -> String {
    format!(
        "{} && request.userInfo.username.startsWith('{SERVICE_ACCOUNT}') && [object, oldObject].all(it, it == null || {})",
        is_one_of(&[PODS]),
        has_controller("it")
    )
}

/// Whether an object that is there has a controller.
fn has_controller(object: &str) -> String {
    format!("{object}.metadata.?ownerReferences.orValue([]).exists(owner, owner.?controller.orValue(false))")
}

fn add_condition(webhook: &mut Value, name: &str, expression: &str) {
    if let Some(conditions) = webhook.get_mut("matchConditions").and_then(Value::as_array_mut) {
        conditions.push(json!({ "name": name, "expression": expression }));
    }
}

/// What the guard's entry asks about: what decides whether the gate and cluster DNS are reached, the
/// mode of their namespaces, and the gate's own waivers and configuration.
const GUARDED: [Watched; 7] = [
    Watched::NetworkPolicies,
    Watched::PeerAuthentications,
    Watched::Namespaces,
    Watched::DnsServices,
    Watched::DnsWorkloads,
    Watched::Waivers,
    Watched::OwnConfig,
];

/// The guard's entry, for the gate's own namespace and those of cluster DNS: disjoint with the others,
/// so that a change is still judged once and told of in one message.
fn guard(
    rules: &RuleSet,
    watched: &BTreeMap<Watched, BTreeSet<Operation>>,
    options: &Options,
    excluded: &BTreeSet<String>,
) -> Option<Value> {
    let mut guarded = watched.clone();
    let mut namespaces: BTreeSet<String> = options.own_namespace.iter().cloned().collect();
    if watched.contains_key(&Watched::DnsServices) {
        namespaces.extend(dns_namespaces(rules).filter(|namespace| excluded.contains(namespace)));
    }
    let mut of_config: BTreeSet<Operation> = BTreeSet::new();
    if rules.action_of(&CL_INVALID_CONFIGURATION) > Action::Off {
        of_config.extend([Operation::Create, Operation::Update]);
    }
    if rules.action_of(&CL_WEAKENED_CONFIGURATION) > Action::Off {
        of_config.extend([Operation::Create, Operation::Update, Operation::Delete]);
    }
    if options.own_namespace.is_some() && !of_config.is_empty() {
        guarded.insert(Watched::OwnConfig, of_config);
    }
    guarded.retain(|what, _| GUARDED.contains(what));
    if namespaces.is_empty() || guarded.is_empty() {
        return None;
    }
    let options = Options { failure_policy: FailurePolicy::Ignore, ..options.clone() };
    let mut guard = webhook(GUARD, rules, &guarded, &options, &BTreeSet::new());
    *guard.pointer_mut("/namespaceSelector/matchExpressions/0")? =
        json!({ "key": METADATA_NAME, "operator": "In", "values": namespaces });
    Some(guard)
}

fn webhook(
    name: &str,
    rules: &RuleSet,
    watched: &BTreeMap<Watched, BTreeSet<Operation>>,
    options: &Options,
    excluded: &BTreeSet<String>,
) -> Value {
    let mut client = match &options.target {
        Target::Url(url) => json!({ "url": url }),
        Target::Service { namespace, name, port } => {
            json!({ "service": { "namespace": namespace, "name": name, "port": port, "path": "/validate" } })
        }
    };
    if let (Some(ca), Some(client)) = (&options.ca, client.as_object_mut()) {
        client.insert("caBundle".to_owned(), STANDARD.encode(ca).into());
    }
    json!({
        "name": name,
        "clientConfig": client,
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "timeoutSeconds": options.timeout,
        "failurePolicy": options.failure_policy.as_str(),
        "matchPolicy": "Equivalent",
        "namespaceSelector": { "matchExpressions": [
            { "key": METADATA_NAME, "operator": "NotIn", "values": excluded },
        ] },
        "rules": resources(watched, |_| true),
        "matchConditions": conditions(rules, watched),
    })
}

/// `rules` of the webhook: what shares group, version, scope and operations is one of them.
fn resources(watched: &BTreeMap<Watched, BTreeSet<Operation>>, asks: impl Fn(&Resource) -> bool) -> Vec<Value> {
    let mut grouped: Vec<(&Resource, &BTreeSet<Operation>, Vec<&str>)> = Vec::new();
    for resource in RESOURCES.iter().filter(|it| asks(it)) {
        let Some(operations) = watched.get(&resource.what) else { continue };
        let same = grouped.iter_mut().find(|(other, on, _)| {
            (other.group, other.versions, other.scope, *on)
                == (resource.group, resource.versions, resource.scope, operations)
        });
        match same {
            Some((_, _, names)) => names.extend(resource.names),
            None => grouped.push((resource, operations, resource.names.to_vec())),
        }
    }
    let rule = |(resource, operations, names): (&Resource, &BTreeSet<Operation>, Vec<&str>)| {
        let operations: Vec<_> = operations
            .iter()
            .map(|operation| match operation {
                Operation::Create => "CREATE",
                Operation::Update => "UPDATE",
                Operation::Delete => "DELETE",
            })
            .collect();
        json!({
            "operations": operations,
            "apiGroups": [resource.group],
            "apiVersions": [resource.versions],
            "resources": names,
            "scope": resource.scope,
        })
    };
    grouped.into_iter().map(rule).collect()
}

/// `matchConditions`: CEL that the API server evaluates before it sends anything. All must hold.
///
/// None of them may fail on any object: with `Fail` that would be a refusal. So every field that
/// may be absent is read by `.?` with something to fall back on.
fn conditions(rules: &RuleSet, watched: &BTreeMap<Watched, BTreeSet<Operation>>) -> Vec<Value> {
    let mut conditions =
        vec![("not-the-clusters-cleaners", format!("!(request.userInfo.username in [{}])", quoted(CLEANERS)))];
    let has = |what| watched.contains_key(&what);
    if has(Watched::Workloads) {
        // The names of accounts in `kube-system` are the cluster's to give, owner references are
        // anybody's to write: only both together say that this was judged as another object.
        conditions.push((
            "not-what-a-controller-makes",
            format!(
                "!((request.userInfo.username in [{}] || request.userInfo.username.startsWith('system:node:')) && object != null && {})",
                quoted(POD_CONTROLLERS),
                has_controller("object")
            ),
        ));
    }
    // A change that leaves what rules read as it was says nothing. A policy that is being deleted
    // goes with its last finalizer, which no DELETE tells of.
    let same = |field: &str| format!("object.{field} == oldObject.{field}");
    let same_spec = same("?spec.orValue({})");
    let same_labels = same("metadata.?labels.orValue({})");
    let same_template =
        format!("{} && {}", same("?spec.?template.orValue({})"), same("?spec.?jobTemplate.orValue({})"));
    let is_staying = "!has(oldObject.metadata.deletionTimestamp)";
    // By another owner the garbage collector deletes the object, and that is not sent.
    let same_owners = same("metadata.?ownerReferences.orValue([])");
    let unchanged = [
        (Watched::NetworkPolicies, "policies-that-change", format!("{is_staying} && {same_spec} && {same_owners}")),
        (
            Watched::PeerAuthentications,
            "mesh-policies-that-change",
            format!("{is_staying} && {same_spec} && {same_owners} && {}", same("metadata.?labels[?'istio.io/rev']")),
        ),
        (Watched::Waivers, "waivers-that-change", same_spec.clone()),
        (Watched::Namespaces, "namespaces-relabelled", same_labels.clone()),
        (Watched::DnsServices, "services-that-change", format!("{same_spec} && {same_labels} && {same_owners}")),
        (
            Watched::MeshConfigs,
            "mesh-configs-that-change",
            format!("{} && {same_owners}", same("?data.?mesh.orValue('')")),
        ),
        (
            Watched::OwnConfig,
            "own-configs-that-change",
            [
                same(&format!("?data[?'{CONFIGURATION_KEY}'].orValue('')")),
                same(&format!("?binaryData[?'{CONFIGURATION_KEY}'].orValue('')")),
                same_owners.clone(),
            ]
            .join(" && "),
        ),
    ];
    for (what, name, unchanged) in unchanged {
        if has(what) {
            let is_it = is_one_of(RESOURCES.iter().filter(|it| it.what == what).flat_map(|it| it.names));
            conditions.push((name, format!("!({is_it} && request.operation == 'UPDATE' && {unchanged})")));
        }
    }
    if has(Watched::Workloads) {
        // Of a pod nothing else that rules read can change once it is there.
        let pods = is_one_of(&[PODS]);
        let same_annotations = format!(
            "[{}].all(key, object.metadata.?annotations[?key] == oldObject.metadata.?annotations[?key])",
            quoted(written_on_pods())
        );
        conditions.push((
            "pods-relabelled",
            format!("!({pods} && request.operation == 'UPDATE' && {same_labels} && {same_annotations})"),
        ));
        let names = RESOURCES.iter().filter(|it| it.what == Watched::Workloads).flat_map(|it| it.names);
        let templates = is_one_of(names.filter(|name| **name != PODS));
        conditions.push((
            TEMPLATES_THAT_CHANGE,
            format!("!({templates} && request.operation == 'UPDATE' && {same_template})"),
        ));
    }
    if has(Watched::DnsWorkloads) {
        conditions.extend(of_dns_workloads(&same_labels, &same_template));
    }
    if has(Watched::DnsServices) {
        let names = &rules.environment.dns.services;
        let is_dns = if names.is_empty() {
            either(&format!(
                "(it.metadata.?name.orValue('') in [{}] || it.metadata.?labels[?'{DNS_APP_LABEL}'].orValue('') in [{}])",
                quoted(DNS_SERVICE_NAMES),
                quoted(DNS_APPS)
            ))
        } else {
            let names: Vec<String> = names.iter().map(|it| format!("{}/{}", it.namespace, it.name)).collect();
            let is_named = format!("request.namespace + '/' + it.metadata.?name.orValue('') in [{}]", quoted(&names));
            either(&is_named)
        };
        conditions.push(("services-of-dns", format!("!{} || {is_dns}", is_one_of(&["services"]))));
    }
    if has(Watched::MeshConfigs) {
        let is_mesh = either("it.metadata.?name.orValue('').matches('^istio(-.*)?$') && it.?data.?mesh.hasValue()");
        conditions.push(("config-of-the-mesh", format!("!{} || {is_mesh}", is_one_of(&["configmaps"]))));
    }
    if has(Watched::OwnConfig) {
        let has_it = ["data", "binaryData"].map(|field| format!("it.?{field}[?'{CONFIGURATION_KEY}'].hasValue()"));
        let is_own = either(&format!("({})", has_it.join(" || ")));
        conditions.push(("config-of-the-gate", format!("!{} || {is_own}", is_one_of(&["configmaps"]))));
    }
    conditions.into_iter().map(|(name, expression)| json!({ "name": name, "expression": expression })).collect()
}

const TEMPLATES_THAT_CHANGE: &str = "templates-that-change";

/// That an object asks for pods. A Scale of none leaves the number out.
const HAS_REPLICAS: &str =
    "object != null && object.?spec.?replicas.orValue(request.?subResource.orValue('') == 'scale' ? 0 : 1) != 0";

/// Which workloads those of DNS are, and which of their changes matter: another label, another template,
/// no pods any more.
fn of_dns_workloads(same_labels: &str, same_template: &str) -> [(&'static str, String); 2] {
    let names = RESOURCES.iter().filter(|it| it.what == Watched::DnsWorkloads).flat_map(|it| it.names);
    let workloads = is_one_of(names.filter(|name| !name.contains('/')));
    let has_label = |at: &str| {
        let one = |(key, values): (&str, &[&str])| {
            format!("it.{at}labels[?{}].orValue('') in [{}]", string(key), quoted(values))
        };
        DNS_POD_LABELS.map(one).join(" || ")
    };
    let places = ["?metadata.?", "?spec.?template.?metadata.?"];
    let is_dns = either(&format!("({})", places.map(has_label).join(" || ")));
    let subresource = "request.?subResource.orValue('')";
    let concerned = format!("({subresource} == 'scale' ? !({HAS_REPLICAS}) : {is_dns})");
    let unchanged =
        format!("(request.resource.resource == 'pods' ? {same_labels} : {same_template} && {HAS_REPLICAS})");
    [
        ("workloads-of-dns", format!("!{workloads} || {concerned}")),
        (
            "dns-workloads-that-change",
            format!("!({workloads} && request.operation == 'UPDATE' && {subresource} == '' && {unchanged})"),
        ),
    ]
}

/// A claim about the object as it was or as it will be.
fn either(claim: &str) -> String {
    format!("[object, oldObject].exists(it, it != null && {claim})")
}

fn is_one_of<'a>(names: impl IntoIterator<Item = &'a &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().copied().collect();
    match names.as_slice() {
        [name] => format!("(request.resource.resource == {})", string(name)),
        names => format!("(request.resource.resource in [{}])", quoted(names)),
    }
}

fn quoted<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> String {
    texts.into_iter().map(|text| string(text.as_ref())).collect::<Vec<_>>().join(", ")
}

/// A text as CEL writes it.
fn string(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::cluster::Cluster;
    use crate::config;
    use crate::k8s;
    use crate::model::{Change, Object};
    use crate::rules::{RULES, Scope, View};

    fn rules(configuration: &str) -> RuleSet {
        config::read(yaml::Source::new("c.yaml", configuration)).unwrap_or_else(|error| panic!("{error}")).rule_set()
    }

    fn options() -> Options {
        Options {
            name: "portcullis".to_owned(),
            target: Target::Url("https://gate/validate".to_owned()),
            ca: None,
            own_namespace: Some("guard".to_owned()),
            timeout: 5,
            failure_policy: FailurePolicy::Fail,
            guard: false,
        }
    }

    fn registered(configuration: &str, options: &Options) -> Registration {
        Registration::of(&rules(configuration), options).unwrap()
    }

    /// The configuration in which these rules are on and no others.
    fn only(codes: &[&str]) -> String {
        let off = RULES.iter().filter(|entry| entry.has_options() && !codes.contains(&entry.meta.code));
        let off: Vec<_> = off.map(|entry| format!("{}: {{action: 'off'}}", entry.meta.name)).collect();
        format!("rules: {{{}}}", off.join(", "))
    }

    fn objects(yaml: &str) -> Vec<Object> {
        let lowered =
            yaml::parse(yaml).into_iter().map(|document| k8s::lower_value(&document.unwrap().value(), "shop"));
        lowered.filter_map(|lowered| lowered.object).collect()
    }

    /// What the API server sends of a group's resource, by the first entry.
    fn operations(registration: &Registration, group: &str, resource: &str) -> Vec<String> {
        let holds =
            |rule: &Value, field: &str, name: &str| rule[field].as_array().unwrap().iter().any(|value| value == name);
        let rules = registration.object["webhooks"][0]["rules"].as_array().unwrap().iter();
        let sent: Vec<_> =
            rules.filter(|rule| holds(rule, "apiGroups", group) && holds(rule, "resources", resource)).collect();
        assert!(sent.len() <= 1, "{group}/{resource} is registered twice");
        let operations = sent.into_iter().flat_map(|rule| rule["operations"].as_array().unwrap());
        operations.map(|operation| operation.as_str().unwrap().to_owned()).collect()
    }

    fn condition<'a>(registration: &'a Registration, name: &str) -> Option<&'a str> {
        let conditions = registration.object["webhooks"][0]["matchConditions"].as_array().unwrap();
        conditions.iter().find(|it| it["name"] == name).map(|it| it["expression"].as_str().unwrap())
    }

    /// Every kind that is read, with its resource: an object before and after a change that matters
    /// as much as one of its kind can.
    const KINDS: &[(&str, &str, &str, &str)] = &[
        (
            "networking.k8s.io",
            "networkpolicies",
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a}, spec: {podSelector: {}}}",
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a}, spec: {podSelector: {matchLabels: {a: b}}}}",
        ),
        (
            "security.istio.io",
            "peerauthentications",
            "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: a}, spec: {mtls: {mode: STRICT}}}",
            "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: a}, spec: {mtls: {mode: DISABLE}}}",
        ),
        (
            "portcullis.dev",
            "waivers",
            "{apiVersion: portcullis.dev/v1alpha1, kind: Waiver, metadata: {name: a}, spec: {rules: [NP001], match: {}, owner: a, reason: b, expires: c}}",
            "{apiVersion: portcullis.dev/v1alpha1, kind: Waiver, metadata: {name: a}, spec: {rules: [NP001], match: {}, owner: a, reason: b, expires: d}}",
        ),
        (
            "",
            "namespaces",
            "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}",
            "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio-injection: enabled}}}",
        ),
        (
            "",
            "pods",
            "{apiVersion: v1, kind: Pod, metadata: {name: a}}",
            "{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {a: b}}}",
        ),
        ("", "replicationcontrollers", "{apiVersion: v1, kind: ReplicationController, TEMPLATE}", ""),
        ("apps", "deployments", "{apiVersion: apps/v1, kind: Deployment, TEMPLATE}", ""),
        ("apps", "statefulsets", "{apiVersion: apps/v1, kind: StatefulSet, TEMPLATE}", ""),
        ("apps", "daemonsets", "{apiVersion: apps/v1, kind: DaemonSet, TEMPLATE}", ""),
        ("apps", "replicasets", "{apiVersion: apps/v1, kind: ReplicaSet, TEMPLATE}", ""),
        ("batch", "jobs", "{apiVersion: batch/v1, kind: Job, TEMPLATE}", ""),
        (
            "batch",
            "cronjobs",
            "{apiVersion: batch/v1, kind: CronJob, metadata: {name: a}, spec: {jobTemplate: {spec: {template: {metadata: {labels: {a: LABEL}}}}}}}",
            "",
        ),
        (
            "",
            "services",
            "{apiVersion: v1, kind: Service, metadata: {name: kube-dns, namespace: dns}, spec: {selector: {a: b}, ports: [{port: 53}]}}",
            "{apiVersion: v1, kind: Service, metadata: {name: kube-dns, namespace: dns}, spec: {selector: {a: c}, ports: [{port: 53}]}}",
        ),
        (
            "",
            "configmaps",
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: 'rootNamespace: a'}}",
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: 'rootNamespace: b'}}",
        ),
        (
            "cilium.io",
            "ciliumnetworkpolicies",
            "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: a}}",
            "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: a}}",
        ),
        ("", "secrets", "", ""),
    ];

    #[test]
    fn what_is_sent_is_what_some_rule_answers_to_and_nothing_else() {
        let now = Timestamp::UNIX_EPOCH;
        let mut seen = 0;
        for entry in RULES.iter().filter(|entry| entry.has_options()) {
            let rules = rules(&only(&[entry.meta.code]));
            let rule = &rules.rules.first().unwrap().rule;
            let registration = Registration::of(&rules, &options()).unwrap();
            for (group, resource, before, after) in KINDS {
                let template = |label: &str| {
                    let template =
                        format!("metadata: {{name: a}}, spec: {{template: {{metadata: {{labels: {{a: {label}}}}}}}}}");
                    let text = before.replace("TEMPLATE", &template).replace("LABEL", label);
                    objects(&text).pop()
                };
                let (old, new) = if after.is_empty() {
                    (template("x"), template("y"))
                } else {
                    (template("x"), objects(after).pop())
                };
                let mut expected = Vec::new();
                if let (Some(old), Some(new)) = (old, new) {
                    let changes = [
                        ("CREATE", Change::Create(new.clone())),
                        ("UPDATE", Change::Update(old.clone(), new)),
                        ("DELETE", Change::Delete(old)),
                    ];
                    for (operation, change) in changes {
                        let cluster = Cluster::default().as_found_by(&change);
                        let after = cluster.with(&change);
                        let views = [&cluster, &after].map(|cluster| View::new(cluster, &rules.environment, now));
                        if rule.scope(&change, &views[0], &views[1]) != Scope::Nothing {
                            expected.push(operation.to_owned());
                            seen += 1;
                        }
                    }
                }
                let sent = operations(&registration, group, resource);
                assert_eq!(sent, expected, "{} {group}/{resource}", entry.meta.name);
            }
        }
        assert!(seen > 40, "the samples do not reach the rules: {seen}");
    }

    #[test]
    fn every_kind_that_is_read_is_registered_or_said_not_to_be() {
        let all = registered("", &options());
        for (group, resource, ..) in KINDS {
            let is_foreign = matches!(*resource, "ciliumnetworkpolicies" | "secrets");
            assert_eq!(operations(&all, group, resource).is_empty(), is_foreign, "{group}/{resource}");
        }
    }

    #[test]
    fn a_rule_that_is_off_adds_nothing() {
        let network = registered(&only(&["NP001", "NP003"]), &options());
        assert!(operations(&network, "security.istio.io", "peerauthentications").is_empty());
        assert!(operations(&network, "", "configmaps").is_empty());
        assert!(operations(&network, "", "services").is_empty());
        assert_eq!(condition(&network, "config-of-the-mesh"), None);
        assert!(operations(&registered(&only(&["NP003"]), &options()), "", "namespaces").is_empty());
        assert!(
            operations(&registered(&only(&["MT001"]), &options()), "networking.k8s.io", "networkpolicies").is_empty()
        );
        assert!(Registration::of(&rules(&only(&[])), &options()).is_none());
    }

    #[test]
    fn what_the_configuration_settles_is_not_watched() {
        let settled = registered("{dns: {addresses: [10.0.0.1]}, mesh: {rootNamespace: mesh}}", &options());
        assert!(operations(&settled, "", "services").is_empty() && operations(&settled, "", "configmaps").is_empty());
        let named = registered("dns: {services: [{namespace: dns, name: resolver}]}", &options());
        let said = condition(&named, "services-of-dns").unwrap();
        assert!(said.contains("['dns/resolver']") && !said.contains("kube-dns"), "{said}");
    }

    fn excluded(registration: &Registration) -> Vec<&str> {
        let values = &registration.object["webhooks"][0]["namespaceSelector"]["matchExpressions"][0]["values"];
        values.as_array().unwrap().iter().map(|value| value.as_str().unwrap()).collect()
    }

    #[test]
    fn own_system_and_exempt_namespaces_are_left_out() {
        let all = registered("namespaces: {exempt: [infra, 'team-*']}", &options());
        assert_eq!(excluded(&all), ["guard", "infra", "kube-node-lease", "kube-public", "kube-system"]);
        assert!(all.notes.iter().any(|note| note.contains("`team-*`")), "{:?}", all.notes);
    }

    #[test]
    fn the_meshs_root_is_sent_even_where_it_is_exempt() {
        let exempt = "namespaces: {exempt: [istio-system]}";
        let all = registered(exempt, &options());
        assert!(!excluded(&all).contains(&"istio-system"));
        assert!(all.notes.iter().any(|note| note.contains("`istio-system`")), "{:?}", all.notes);
        let no_mesh = registered(&format!("{exempt}\n{}", only(&["NP001"])), &options());
        assert!(excluded(&no_mesh).contains(&"istio-system"));
    }

    #[test]
    fn the_gate_and_dns_are_guarded_on_request_and_never_held_up() {
        let plain = registered("", &options());
        assert_eq!(plain.object["webhooks"].as_array().unwrap().len(), 2);
        assert!(plain.notes.iter().any(|note| note.contains("--guard")), "{:?}", plain.notes);
        let guarded = registered("", &Options { guard: true, ..options() });
        let guard = &guarded.object["webhooks"][2];
        assert_eq!(guard["failurePolicy"], "Ignore");
        assert_eq!(guard["namespaceSelector"]["matchExpressions"][0]["values"], json!(["guard", "kube-system"]));
        let sent: Vec<_> = guard["rules"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|rule| rule["resources"].as_array().unwrap())
            .map(|name| name.as_str().unwrap())
            .collect();
        let services = ["networkpolicies", "peerauthentications", "waivers", "namespaces", "services", "configmaps"];
        let workloads = [
            "pods",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "daemonsets",
            "deployments",
            "deployments/scale",
            "replicasets",
            "replicasets/scale",
            "statefulsets",
            "statefulsets/scale",
        ];
        assert_eq!(sent, [&services[..], &workloads[..]].concat());
        assert!(guarded.notes.is_empty(), "{:?}", guarded.notes);
    }

    #[test]
    fn the_guard_asks_about_nothing_that_no_rule_is_on_for() {
        let guard = |configuration: &str, options: Options| {
            let registration = Registration::of(&rules(configuration), &Options { guard: true, ..options }).unwrap();
            registration.object["webhooks"].as_array().unwrap().iter().find(|entry| entry["name"] == GUARD).cloned()
        };
        let only_config = guard(&only(&["NP001"]), options()).unwrap();
        assert!(!only_config["rules"].to_string().contains("services"), "{only_config}");
        assert_eq!(only_config["namespaceSelector"]["matchExpressions"][0]["values"], json!(["guard"]));
        let nowhere = Options { own_namespace: None, ..options() };
        assert_eq!(guard(&only(&["NP001"]), nowhere.clone()), None);
        let of_dns = guard("", nowhere).unwrap();
        assert_eq!(of_dns["namespaceSelector"]["matchExpressions"][0]["values"], json!(["kube-system"]));
        assert!(!of_dns["rules"].to_string().contains("configmaps"), "{of_dns}");
    }

    #[test]
    fn pods_of_operators_are_asked_about_once_and_start_while_the_gate_is_away() {
        let all = registered("", &options());
        let owned = &all.object["webhooks"][1];
        assert_eq!((&owned["name"], &owned["failurePolicy"]), (&json!(OWNED_PODS), &json!("Ignore")));
        let gate = &all.object["webhooks"][0];
        assert_eq!(owned["namespaceSelector"], gate["namespaceSelector"]);
        let pods = gate["rules"].as_array().unwrap().iter().find(|it| it["resources"].to_string().contains("pods"));
        assert_eq!(owned["rules"][0]["operations"], pods.unwrap()["operations"]);
        assert_eq!(owned["rules"][0]["resources"], json!(["pods"]));
        assert_eq!(owned["rules"].as_array().unwrap().len(), 1);
        let last = |entry: &Value| entry["matchConditions"].as_array().unwrap().last().unwrap().clone();
        let (here, elsewhere) = (last(owned), last(gate));
        assert_eq!(elsewhere["expression"], format!("!({})", here["expression"].as_str().unwrap()));
        let no_pods = registered(&only(&["CL007"]), &options());
        assert_eq!(no_pods.object["webhooks"].as_array().unwrap().len(), 1);
        assert!(!no_pods.object.to_string().contains("pods-of-operators"));
    }

    #[test]
    fn conditions_are_within_what_the_api_server_takes() {
        let all = registered("", &options());
        let conditions = all.object["webhooks"][0]["matchConditions"].as_array().unwrap();
        let names: BTreeSet<_> = conditions.iter().map(|it| it["name"].as_str().unwrap()).collect();
        assert!(names.len() == conditions.len() && conditions.len() <= 64);
        for condition in conditions {
            let text = condition["expression"].as_str().unwrap();
            let balance = text.matches('(').count() == text.matches(')').count();
            assert!(balance && text.matches('\'').count() % 2 == 0 && !text.contains('\n'), "{text}");
        }
        assert_eq!(string(r"a'b\"), r"'a\'b\\'");
    }

    #[test]
    fn the_yaml_is_the_object() {
        for guard in [false, true] {
            let registration = registered("", &Options { guard, ca: Some(b"pem".to_vec()), ..options() });
            let text = registration.yaml();
            assert_eq!(yaml::parse(&text).remove(0).unwrap().value(), registration.object, "{text}");
            assert_eq!(registration.object["webhooks"][0]["clientConfig"]["caBundle"], "cGVt");
        }
    }
}
