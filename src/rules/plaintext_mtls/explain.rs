//! What MT001 says of violations.

use std::collections::{BTreeMap, BTreeSet};

use super::{Case, case_of, doubt, posture_of, setting_of};
use crate::mesh::{Authority, Cause, Dataplane, Idle, Membership, Mesh, Mode, Reason, Root, RootSource, Setting};
use crate::model::{
    Change, FieldPath, Labels, MtlsMode, Object, ObjectRef, Operation, PeerAuthentication, Service, Str, TargetPort,
    WorkloadId,
};
use crate::rules::yaml::{documents, scalar};
use crate::rules::{Aspect, Finding, Moment, Subject, Violation, words};

/// How many of a kind are named before the rest is counted.
const NAMED: usize = 3;

/// One subject, on one port or all, and what is said of it.
struct Row<'a> {
    namespace: Str,
    subject: Subject,
    port: Option<u16>,
    /// What it was before, where that was stronger.
    from: Option<Mode>,
    /// What it accepts; nothing where it is about membership.
    to: Option<Setting<'a>>,
    membership: Membership,
}

/// What is said: rows of one kind make one finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// It gets weaker.
    Weakened,
    /// It leaves the mesh.
    Left,
    /// It is weak from its beginning.
    Starts,
    /// It is weak.
    Stands,
    /// It is not in the mesh, and should be.
    Outside,
}

/// Rows that make one finding: of one kind, under one authority, from and to one mode, and with
/// one doubt.
type Key = (Kind, ObjectRef, Option<Mode>, Option<Mode>, Option<String>);

pub(super) fn explain(violations: &[Violation], moment: &Moment<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut groups: BTreeMap<Key, Vec<Row<'_>>> = BTreeMap::new();
    for violation in violations {
        if violation.aspect == Aspect::Ineffective {
            findings.extend(ineffective(violation, moment));
            continue;
        }
        for (kind, doubt, row) in rows(violation, moment) {
            let key = (kind, anchor(kind, &row, moment), row.from, row.to.map(|to| to.mode), doubt);
            groups.entry(key).or_default().push(row);
        }
    }
    findings.extend(
        groups
            .into_iter()
            .map(|((kind, anchor, from, _, doubt), rows)| Group { kind, anchor, from, doubt, rows, moment }.finding()),
    );
    findings
}

/// A violation, taken apart by ports that fell from different modes.
fn rows<'a>(violation: &Violation, moment: &Moment<'a>) -> Vec<(Kind, Option<String>, Row<'a>)> {
    let Some(now) = posture_of(moment.view, &violation.namespace, &violation.subject) else { return Vec::new() };
    let case = case_of(violation, &now, moment);
    let doubt = doubt(violation, &now, &case, moment)
        .then(|| doubt_in_words(setting_of(violation, &now), &now.membership, moment.view.mesh().root()));
    let row = |port, from, to| Row {
        namespace: violation.namespace.clone(),
        subject: violation.subject.clone(),
        port,
        from,
        to,
        membership: now.membership.clone(),
    };
    let port = match violation.aspect {
        Aspect::Plaintext(port) => port,
        _ => None,
    };
    let to = setting_of(violation, &now);
    match case {
        Case::Left(was) => vec![(Kind::Left, doubt, row(None, Some(was.default.mode), None))],
        _ if violation.aspect == Aspect::OutsideMesh => vec![(Kind::Outside, doubt, row(None, None, None))],
        Case::Weakened(drops) => {
            // One that is about all ports says it once; single ports only where they alone fell.
            let whole = drops.iter().find(|drop| drop.port == port);
            let told = whole.map_or(drops.as_slice(), std::slice::from_ref);
            told.iter()
                .map(|drop| (Kind::Weakened, doubt.clone(), row(drop.port, Some(drop.from.mode), Some(drop.to))))
                .collect()
        }
        Case::New if moment.change.is_some() => vec![(Kind::Starts, doubt, row(port, None, to))],
        Case::New | Case::Unchanged | Case::Doubtful => vec![(Kind::Stands, doubt, row(port, None, to))],
    }
}

fn doubt_in_words(setting: Option<Setting<'_>>, membership: &Membership, root: &Root) -> String {
    if let Some(Setting { mode: Mode::Unknown, by: Authority::Policy(policy) }) = setting {
        let name = policy_name(policy);
        return match policy.ports.values().chain([&policy.mode]).find(|mode| matches!(mode, MtlsMode::Unknown(_))) {
            Some(mode) => format!("{name} says `{mode}`, a mode this version does not know"),
            None if policy.revision.is_some() && !policy.is_partial => {
                let revision = policy.revision.as_deref().unwrap_or_default();
                format!(
                    "{name} counts only for the revision `{revision}` of the control plane, and which one serves is not known"
                )
            }
            None if policy.is_partial => format!("{name} could not be read in full, so it may be about anything here"),
            None => format!("{name} is one of many of the same second, of which ambient takes any"),
        };
    }
    match (&root.source, membership.dataplane) {
        (_, Dataplane::Unknown) => format!("whether it is in the mesh: {}", membership.reason),
        (RootSource::Disputed(configs), _) => {
            let configs: Vec<_> = configs.iter().map(|config| format!("`{config}`")).collect();
            format!("the mesh's root namespace: {} name different ones", words::list(&configs))
        }
        (RootSource::Injector, _) => format!(
            "the mesh's root namespace: its injector is in `{}`, and its ConfigMap was not read; `mesh.rootNamespace` in \
             the configuration settles it",
            root.namespace
        ),
        (RootSource::Unproven(configs), _) => {
            let configs: Vec<_> = configs.iter().map(|config| format!("`{config}`")).collect();
            format!(
                "the mesh's root namespace: {} may be the mesh's and may be anyone's; `mesh.rootNamespace` in the \
                 configuration settles it",
                words::some_of(&configs)
            )
        }
        _ => "what it accepted before".into(),
    }
}

/// The object a finding is about.
fn anchor(kind: Kind, row: &Row<'_>, moment: &Moment<'_>) -> ObjectRef {
    let namespace = || ObjectRef { kind: "Namespace".into(), namespace: None, name: row.namespace.clone() };
    let workload = |id: WorkloadId| ObjectRef { kind: id.kind, namespace: Some(row.namespace.clone()), name: id.name };
    match (kind, moment.change, row.to.map(|to| to.by), &row.subject) {
        (Kind::Weakened | Kind::Left, Some((change, _)), ..) => change.reference(),
        (.., Some(Authority::Policy(policy)), _) => reference(policy),
        (.., Some(Authority::Annotation(_)), Subject::Workload(id)) => workload(root_owner(&row.namespace, id, moment)),
        (Kind::Outside, .., Subject::Workload(id)) if !is_of_namespace(&row.membership.reason) => {
            workload(root_owner(&row.namespace, id, moment))
        }
        _ => namespace(),
    }
}

/// Whether a workload is outside the mesh because its namespace is.
fn is_of_namespace(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::NotAsked
            | Reason::Disabled(_)
            | Reason::UnknownRevision(_)
            | Reason::SystemNamespace
            | Reason::NamespaceUnknown
    )
}

fn root_owner(namespace: &str, id: &WorkloadId, moment: &Moment<'_>) -> WorkloadId {
    let cluster = moment.view.cluster;
    cluster.workload(namespace, id).map_or_else(|| id.clone(), |workload| cluster.root_owner(workload))
}

/// A finding in the making.
struct Group<'m, 'a> {
    kind: Kind,
    anchor: ObjectRef,
    from: Option<Mode>,
    doubt: Option<String>,
    rows: Vec<Row<'a>>,
    moment: &'m Moment<'a>,
}

impl<'a> Group<'_, 'a> {
    fn finding(&self) -> Finding {
        let mut namespaces: Vec<&Str> = self.rows.iter().map(|row| &row.namespace).collect();
        namespaces.dedup();
        let namespace = match namespaces.as_slice() {
            [one] => Some((*one).clone()),
            _ => None,
        };
        let (help, fix) = self.remedy();
        Finding {
            why: self.why(),
            evidence: self.evidence(),
            help,
            fix,
            ..Finding::new(namespace, self.anchor.clone(), self.path(), self.message())
        }
    }

    fn to(&self) -> Option<Setting<'a>> {
        self.rows.first().and_then(|row| row.to)
    }

    fn mode(&self) -> Mode {
        self.to().map_or(Mode::Unknown, |to| to.mode)
    }

    fn membership(&self) -> Option<&Membership> {
        self.rows.first().map(|row| &row.membership)
    }

    fn mesh(&self) -> &Mesh<'a> {
        self.moment.view.mesh()
    }

    /// Names by namespace; those of pods are those of what they belong to.
    fn workloads(&self) -> BTreeMap<&Str, BTreeSet<WorkloadId>> {
        let mut workloads: BTreeMap<&Str, BTreeSet<WorkloadId>> = BTreeMap::new();
        for row in &self.rows {
            if row.subject == Subject::Namespace && row.namespace == self.mesh().root().namespace {
                continue;
            }
            let named = workloads.entry(&row.namespace).or_default();
            if let Subject::Workload(id) = &row.subject {
                named.insert(root_owner(&row.namespace, id, self.moment));
            }
        }
        workloads
    }

    /// Whom it concerns, and whether that is more than one.
    fn who(&self) -> (String, bool) {
        let root = &self.mesh().root().namespace;
        let is_namespace = |row: &&Row<'_>| row.subject == Subject::Namespace;
        let is_mesh_wide = self.rows.iter().filter(is_namespace).any(|row| row.namespace == *root);
        let pods_to_come = self.rows.iter().filter(is_namespace).any(|row| row.namespace != *root);
        let workloads = self.workloads();
        let count: usize = workloads.values().map(BTreeSet::len).sum();
        let mut parts = Vec::new();
        match workloads.iter().collect::<Vec<_>>().as_slice() {
            [] => {}
            [(namespace, ids)] => {
                let ids = if ids.is_empty() { Vec::new() } else { vec![some_names(ids)] };
                let who: Vec<_> = ids.into_iter().chain(pods_to_come.then(|| "every pod to come".into())).collect();
                parts.push(format!("{} in `{namespace}`", who.join(" and ")));
            }
            several => {
                let names: Vec<_> = several.iter().map(|(namespace, _)| format!("`{namespace}`")).collect();
                let who = match (count, pods_to_come) {
                    (0, _) => "every pod to come".into(),
                    (_, true) => format!("{} and every pod to come", counted(count, "workload")),
                    (_, false) => counted(count, "workload"),
                };
                parts.push(format!("{who} in {} namespaces ({})", names.len(), words::some_of(&names)));
            }
        }
        if is_mesh_wide {
            parts.push("every namespace to come without a policy of its own".into());
        }
        let is_plural = count > 1 || parts.len() > 1 || (count == 1 && pods_to_come);
        (words::list(&parts), is_plural)
    }

    /// The ports it is about, ready to follow a verb; empty for all.
    fn ports(&self) -> String {
        let ports: BTreeSet<_> = self.rows.iter().map(|row| row.port).collect();
        let numbers: Vec<_> = ports.iter().flatten().map(u16::to_string).collect();
        match numbers.as_slice() {
            _ if ports.contains(&None) => String::new(),
            [one] => format!(" on port {one}"),
            several => format!(" on ports {}", words::list(several)),
        }
    }

    fn doing(&self) -> String {
        let Some((change, _)) = self.moment.change else { return "this".into() };
        let verb = match change.operation() {
            Operation::Create => "creating",
            Operation::Update => "changing",
            Operation::Delete => "deleting",
        };
        format!("{verb} `{}`", change.reference())
    }

    fn message(&self) -> String {
        let (who, is_plural) = self.who();
        let ports = self.ports();
        let reason = || self.membership().map(|it| it.reason.to_string()).unwrap_or_default();
        let from = self.from.unwrap_or(Mode::Unknown);
        if let (Mode::Unknown, Some(doubt), true) = (self.mode(), &self.doubt, self.to().is_some()) {
            return format!("cannot tell whether {who} still {} mutual TLS{ports}: {doubt}", verb("demand", is_plural));
        }
        let doubt = self.doubt.as_ref().map(|doubt| format!("; not certain: {doubt}")).unwrap_or_default();
        let message = match self.kind {
            Kind::Weakened => {
                format!("{} takes {who} from {from} to {}{ports}: {}", self.doing(), self.mode(), self.because())
            }
            Kind::Left if self.doubt.is_some() => {
                let doing = self.doing();
                return format!("{doing} may take {who} out of the mesh, where {from} held: {}", reason());
            }
            Kind::Left => format!("{} takes {who} out of the mesh, where {from} held: {}", self.doing(), reason()),
            Kind::Starts | Kind::Stands => {
                let accepts = match self.mode() {
                    Mode::Disable => format!("{} plaintext only (DISABLE){ports}", verb("accept", is_plural)),
                    Mode::Bypassed => format!("{} plaintext past the proxy{ports}", verb("accept", is_plural)),
                    mode @ (Mode::Permissive | Mode::Strict | Mode::Unknown) => {
                        format!("{} plaintext ({mode}){ports}", verb("accept", is_plural))
                    }
                };
                let newly = if self.kind == Kind::Starts { " from the start" } else { "" };
                format!("{who} {accepts}{newly}: {}", self.because())
            }
            Kind::Outside if self.doubt.is_some() => {
                return format!("cannot tell whether {who} {} in the mesh: {}", be(is_plural), reason());
            }
            Kind::Outside => format!("{who} {} not in the mesh: {}", be(is_plural), reason()),
        };
        message + &doubt
    }

    fn because(&self) -> String {
        let Some(to) = self.to() else { return String::new() };
        match to.by {
            Authority::Policy(policy) => {
                let created = created(policy);
                format!("{}{created} decides", policy_name(policy))
            }
            Authority::Nobody => "no PeerAuthentication decides, and Istio's default is PERMISSIVE".into(),
            Authority::Annotation(key) => {
                let value = self.rows.iter().find_map(|row| match &row.subject {
                    Subject::Workload(id) => {
                        let workload = self.moment.view.cluster.workload(&row.namespace, id)?;
                        workload.annotations.get(key).cloned()
                    }
                    Subject::Namespace | Subject::Policy(_) | Subject::Waiver(_) => None,
                });
                format!("the annotation `{key}: {}` keeps traffic from the proxy", value.unwrap_or_default())
            }
        }
    }

    fn why(&self) -> String {
        match (self.kind, self.mode()) {
            (Kind::Left | Kind::Outside, _) => {
                "outside the mesh no policy of it counts: what the application accepts is accepted, in plaintext and \
                 from anyone who can reach the port"
            }
            (_, Mode::Disable) => {
                "DISABLE is worse than PERMISSIVE: clients in the mesh, which could prove who they are, must speak \
                 plaintext too, and nothing on the port is encrypted or has an identity"
            }
            (_, Mode::Bypassed) => {
                "what does not pass the proxy is not subject to STRICT, nor to any AuthorizationPolicy: anyone who can \
                 reach the port talks to the application itself"
            }
            (_, Mode::Permissive) => {
                "anyone who can reach the port may speak plaintext: not encrypted, and without an identity that an \
                 AuthorizationPolicy could ask for"
            }
            (_, Mode::Strict | Mode::Unknown) => {
                "what cannot be judged may accept plaintext from anyone who can reach the port"
            }
        }
        .into()
    }

    fn path(&self) -> FieldPath {
        let port = self.rows.first().and_then(|row| row.port);
        if let Some(Setting { by: Authority::Policy(policy), .. }) = self.to()
            && reference(policy) == self.anchor
        {
            return mode_path(policy, port);
        }
        let ObjectRef { kind, namespace, name } = &self.anchor;
        let Some(namespace) = namespace else {
            let is_relabelled = matches!(self.moment.change, Some((Change::Update(Object::Namespace(_), _), _)));
            return FieldPath::new(if is_relabelled { "metadata.labels" } else { "" });
        };
        let id = WorkloadId { kind: kind.clone(), name: name.clone() };
        let Some(workload) = self.moment.view.cluster.workload(namespace, &id) else { return FieldPath::root() };
        let metadata = workload.pod_path().field("metadata");
        match self.to().map(|to| to.by) {
            Some(Authority::Annotation(key)) => metadata.field("annotations").field(key),
            _ => metadata.field("labels"),
        }
    }

    fn evidence(&self) -> Vec<String> {
        let mut evidence = Vec::new();
        let workloads = self.workloads();
        if workloads.len() > 1 {
            let named = workloads.iter().filter(|(_, ids)| !ids.is_empty());
            evidence.extend(named.take(NAMED).map(|(namespace, ids)| format!("`{namespace}`: {}", some_names(ids))));
        }
        evidence.extend(self.authority_before());
        if let Some(Setting { by: Authority::Policy(policy), .. }) = self.to() {
            evidence.push(described(policy));
            let named = self.rows.iter().filter_map(|row| row.port);
            let misnamed = named.filter_map(|port| Some((port, self.mesh().service_of_port(policy, port)?)));
            evidence.extend(misnamed.take(NAMED).map(|(port, service)| service_port_in_words(port, service)));
            let is_ambient = self.membership().is_some_and(|it| it.dataplane == Dataplane::Ambient);
            if is_ambient
                && (policy.mode == MtlsMode::Disable || policy.ports.values().any(|it| *it == MtlsMode::Disable))
            {
                evidence.push("ambient mode does not support DISABLE: it counts as not STRICT".into());
            }
        }
        let root = self.mesh().root();
        let mut asked: BTreeSet<&Str> = workloads.keys().copied().collect();
        asked.insert(&root.namespace);
        if self.moment.view.cluster.mesh_configs().next().is_some() {
            asked.extend(self.moment.view.cluster.mesh_configs().map(|config| &config.namespace));
        }
        asked.extend(self.taken_for_root());
        let idle = asked.into_iter().flat_map(|namespace| self.mesh().idle(namespace).to_vec());
        evidence.extend(idle.filter(|idle| self.would_help(idle)).take(NAMED).map(|idle| idle_in_words(&idle)));
        if let Some(membership) = self.membership().filter(|it| it.is_in_mesh() && it.reason != Reason::Joins) {
            evidence.push(format!("it is in the mesh: {}", membership.reason));
        }
        if self.to().is_some_and(|to| to.by == Authority::Nobody) && root.source == RootSource::Default {
            evidence.push(format!(
                "the mesh's root namespace is taken to be `{}`, Istio's default: no mesh ConfigMap is known",
                root.namespace
            ));
        }
        evidence
    }

    /// The usual namespace of the control plane, where the root is another.
    fn taken_for_root(&self) -> Option<&Str> {
        self.moment.view.cluster.namespace("istio-system").map(|state| &state.name)
    }

    /// Whether a policy without effect was about one of the rows.
    fn would_help(&self, idle: &Idle<'_>) -> bool {
        let selects = |row: &Row<'_>| match &row.subject {
            Subject::Workload(id) => {
                let workload = self.moment.view.cluster.workload(&row.namespace, id);
                workload.is_some_and(|workload| idle.policy.selector.is_subset(&workload.labels))
            }
            Subject::Namespace | Subject::Policy(_) | Subject::Waiver(_) => idle.policy.selector.is_empty(),
        };
        let by = self.to().map(|to| to.by);
        let is_own = |policy: &PeerAuthentication| !policy.selector.is_empty();
        let is_own_policy = matches!(by, Some(Authority::Policy(policy)) if is_own(policy));
        match &idle.cause {
            _ if matches!(by, Some(Authority::Annotation(_))) => false,
            Cause::SelectsNothing => self.rows.iter().any(|row| row.namespace == idle.policy.namespace),
            Cause::NoSuchRevision(_) => {
                let is_root = idle.policy.namespace == self.mesh().root().namespace;
                self.rows.iter().any(|row| (is_root || row.namespace == idle.policy.namespace) && selects(row))
            }
            Cause::NotTheRoot(_) => !is_own_policy,
            Cause::SelectorInRoot => self.rows.iter().any(selects),
            Cause::ServicePort(..) => by == Some(Authority::Policy(idle.policy)),
            Cause::OlderWins(winner) => {
                let is_root = idle.policy.namespace == self.mesh().root().namespace;
                is_own(winner) == is_own_policy
                    && self.rows.iter().any(|row| (is_root || row.namespace == idle.policy.namespace) && selects(row))
            }
        }
    }

    /// Who decided before.
    fn authority_before(&self) -> Option<String> {
        let (_, before) = self.moment.change?;
        let row = self.rows.first().filter(|row| row.from.is_some())?;
        let was = posture_of(before, &row.namespace, &row.subject)?;
        let setting = row.port.map_or(was.effective.default, |port| was.effective.port(port));
        Some(match setting.by {
            Authority::Policy(policy) => format!("before: {}", described(policy)),
            Authority::Nobody => "before: Istio's default, PERMISSIVE".into(),
            Authority::Annotation(key) => format!("before: the annotation `{key}`"),
        })
    }

    /// What to do, and YAML that does it where there is some.
    fn remedy(&self) -> (String, String) {
        match (self.kind, self.to().map(|to| to.by)) {
            (Kind::Left | Kind::Outside, _) | (_, None) => self.back_into_the_mesh(),
            (_, Some(Authority::Annotation(key))) => (
                format!(
                    "remove the annotation `{key}`; where one port must take plaintext, a PeerAuthentication with a \
                     `selector` and `portLevelMtls` says so in the open, and leaves the other ports STRICT"
                ),
                String::new(),
            ),
            (_, Some(Authority::Policy(policy))) if self.mode() == Mode::Unknown => (
                format!("write {} so that it can be read: UNSET, STRICT, PERMISSIVE or DISABLE", policy_name(policy)),
                strict(policy),
            ),
            (_, Some(Authority::Policy(policy))) if self.is_about(policy) => (self.set_strict(policy), strict(policy)),
            (_, Some(Authority::Policy(_) | Authority::Nobody)) => self.namespace_default(),
        }
    }

    /// Whether a policy is the one to change: not one of the whole mesh for the sake of a few.
    fn is_about(&self, policy: &PeerAuthentication) -> bool {
        let is_mesh_wide = policy.namespace == self.mesh().root().namespace;
        let is_changed = self.moment.change.is_some_and(|(change, _)| {
            matches!(change.subject(), Object::PeerAuthentication(changed) if changed.namespace == policy.namespace)
        });
        !is_mesh_wide || is_changed || self.workloads().len() > NAMED || self.workloads().is_empty()
    }

    fn set_strict(&self, policy: &PeerAuthentication) -> String {
        let name = policy_name(policy);
        let own = self.moment.change.is_some_and(|(change, _)| change.reference() == reference(policy));
        match self.moment.change {
            Some((Change::Delete(deleted), _)) if self.kind == Kind::Weakened => format!(
                "set {name} to STRICT first, under its own name, or delete it; then `{}` can go",
                deleted.reference()
            ),
            Some((Change::Create(_) | Change::Update(..), _)) if own => {
                "keep STRICT; where one port must take plaintext, leave only that port out, with a `selector` and \
                 `portLevelMtls`"
                    .into()
            }
            Some((Change::Update(Object::Workload(_), _), _)) if self.kind == Kind::Weakened => {
                format!("keep the labels it had, or set {name} to STRICT, which its new labels put it under")
            }
            _ => format!(
                "set {name} to STRICT under its own name: a new policy beside it would be younger and have no effect"
            ),
        }
    }

    fn namespace_default(&self) -> (String, String) {
        let mut namespaces: Vec<&Str> = self.workloads().keys().copied().collect();
        let root = &self.mesh().root().namespace;
        let help = match self.moment.change {
            Some((Change::Delete(_), _)) if self.kind == Kind::Weakened => {
                "apply the policy that takes its place first, then delete this one"
            }
            _ => "demand mutual TLS for the namespace",
        };
        let is_mesh_wide = namespaces.is_empty() || namespaces.len() > NAMED;
        if is_mesh_wide {
            namespaces = vec![root];
        }
        let help = if is_mesh_wide { help.replace("the namespace", "the whole mesh") } else { help.to_owned() };
        let fixes: Vec<_> = namespaces.iter().map(|namespace| self.namespace_strict(namespace)).collect();
        (help, documents(&fixes))
    }

    /// The policy that makes a namespace STRICT as a whole: the one in force under its own name,
    /// else a new one of a free name.
    fn namespace_strict(&self, namespace: &str) -> String {
        let policies = self.mesh().policies(namespace);
        let is_root = namespace == self.mesh().root().namespace;
        let in_force = if is_root { policies.mesh_wide } else { policies.namespace_wide };
        if let Some(policy) = in_force {
            return strict(policy);
        }
        let state = self.moment.view.cluster.namespace(namespace);
        let changed = self.moment.change.map(|(change, _)| change.reference());
        let is_free = |name: &&str| {
            let exists = state.is_some_and(|state| state.peer_authentications.get(*name).is_some());
            let goes =
                changed.as_ref().is_some_and(|it| it.name == *name && it.namespace.as_deref() == Some(namespace));
            !exists && !goes
        };
        let name = ["default", "strict", "strict-mtls"].into_iter().find(is_free).unwrap_or("mtls-strict");
        yaml(namespace, name, &Labels::default(), &BTreeMap::new())
    }

    fn back_into_the_mesh(&self) -> (String, String) {
        let Some((row, membership)) = self.rows.first().map(|row| (row, &row.membership)) else {
            return Default::default();
        };
        let namespace = &row.namespace;
        let who = self.who().0;
        let label = |key: &str, value: &str| {
            format!(
                "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {}\n  labels:\n    {key}: {}\n",
                scalar(namespace),
                scalar(value)
            )
        };
        match &membership.reason {
            Reason::OptedOut(mark) => (format!("remove `{mark}` from {who}"), String::new()),
            Reason::HostNetwork => (format!("take `hostNetwork: true` from {who}"), String::new()),
            Reason::Gateway => (format!("keep {who} free of the template and labels of a gateway"), String::new()),
            Reason::RunsWithout => (format!("restart {who}: pods get a proxy when they are created"), String::new()),
            Reason::StatusWithoutProxy => {
                (format!("remove the annotation `sidecar.istio.io/status` from {who}"), String::new())
            }
            Reason::Templates(_) => (
                format!("let `inject.istio.io/templates` of {who} name `sidecar` too, or say what is meant otherwise"),
                String::new(),
            ),
            Reason::NamespaceUnknown => {
                (format!("add the Namespace `{namespace}` with its labels to what is judged"), String::new())
            }
            Reason::NamedProxy => (
                format!(
                    "let the injector give {who} its proxy: remove the container `istio-proxy` and what keeps the injector away"
                ),
                String::new(),
            ),
            Reason::Undecided(_) => {
                (format!("set `sidecar.istio.io/inject` of {who} to `true` or `false`"), String::new())
            }
            Reason::Unreadable => (format!("mend what could not be read of {who}"), String::new()),
            Reason::SystemNamespace => (format!("run {who} in a namespace that Istio injects"), String::new()),
            Reason::Proxy | Reason::Injected(_) | Reason::Joins | Reason::AmbientLabel | Reason::Redirected => {
                Default::default()
            }
            Reason::NotAsked | Reason::Disabled(_) | Reason::UnknownRevision(_) => {
                let (key, value) = self.label_that_works(namespace);
                (format!("label the namespace `{namespace}` with `{key}={value}`"), label(&key, &value))
            }
        }
    }

    /// A label that puts a namespace into the mesh: the one it had, else one an injector answers to.
    fn label_that_works(&self, namespace: &str) -> (Str, Str) {
        let before = self.moment.change.and_then(|(_, before)| before.cluster.namespace(namespace));
        let kept = before.filter(|_| self.kind == Kind::Left).and_then(|state| {
            let mut labels = ["istio-injection", "istio.io/rev", "istio.io/dataplane-mode"].into_iter();
            labels.find_map(|key| Some((Str::from(key), state.labels.get(key)?.clone())))
        });
        let mut revisions = self.moment.view.cluster.revisions().flat_map(|it| it.tag.iter().chain(&it.revision));
        kept.unwrap_or_else(|| match revisions.next() {
            Some(name) if name != "default" => ("istio.io/rev".into(), name.clone()),
            _ => ("istio-injection".into(), "enabled".into()),
        })
    }
}

/// The finding about a policy that says STRICT and has no effect.
fn ineffective(violation: &Violation, moment: &Moment<'_>) -> Option<Finding> {
    let Subject::Policy(name) = &violation.subject else { return None };
    let mesh = moment.view.mesh();
    let idle = mesh.idle(&violation.namespace);
    let idle = idle.iter().find(|idle| idle.policy.name == *name)?;
    let policy = idle.policy;
    let (path, help, fix) = match &idle.cause {
        Cause::SelectorInRoot => {
            let states = moment.view.cluster.namespaces().filter(|state| {
                state.name != policy.namespace
                    && state.live_workloads().any(|workload| policy.selector.is_subset(&workload.labels))
            });
            let namespaces: Vec<_> = states.map(|state| &state.name).take(NAMED).collect();
            let fixes = namespaces.iter().map(|namespace| strict_in(namespace, policy));
            (
                FieldPath::new("spec.selector"),
                "put the policy into the namespace of the workloads it is about; for the whole mesh, leave the \
                 selector out"
                    .to_owned(),
                documents(&fixes.collect::<Vec<_>>()),
            )
        }
        Cause::OlderWins(winner) => (
            mode_path(policy, None),
            format!(
                "set {} to STRICT under its own name, then delete this one: changing it in place leaves no gap",
                policy_name(winner)
            ),
            strict(winner),
        ),
        Cause::SelectsNothing => {
            let state = moment.view.cluster.namespace(&policy.namespace);
            let labels = state.into_iter().flat_map(|state| state.live_workloads()).flat_map(|workload| {
                let keys: Vec<_> = policy.selector.iter().map(|(key, _)| key.clone()).collect();
                let found = keys
                    .into_iter()
                    .filter_map(|key| workload.labels.get(&key).map(|value| format!("`{key}={value}`")));
                found.collect::<Vec<_>>()
            });
            let in_use: Vec<_> = labels.collect::<BTreeSet<_>>().into_iter().collect();
            let help = match in_use.as_slice() {
                [] => "select by labels the pods have, or leave the selector out to mean the whole namespace".into(),
                some => format!("select by labels the pods have: there are {}", words::some_of(some)),
            };
            (FieldPath::new("spec.selector.matchLabels"), help, String::new())
        }
        Cause::ServicePort(port, service) => (
            mode_path(policy, Some(*port)),
            format!("name the port the pods of `{}` listen on", service.name),
            String::new(),
        ),
        Cause::NoSuchRevision(_) => (
            FieldPath::new("metadata.labels[istio.io/rev]"),
            "remove the label `istio.io/rev`, so that every revision reads the policy".to_owned(),
            strict(policy),
        ),
        Cause::NotTheRoot(root) => (
            mode_path(policy, None),
            format!("apply it in `{root}`; or, if that is not the root namespace, set `mesh.rootNamespace`"),
            strict_in(root, policy),
        ),
    };
    Some(Finding {
        why: "it reads as if mutual TLS were demanded, and plaintext is accepted all the same".into(),
        evidence: vec![described(policy)],
        help,
        fix,
        ..Finding::new(Some(violation.namespace.clone()), reference(policy), path, idle_in_words(idle))
    })
}

fn idle_in_words(idle: &Idle<'_>) -> String {
    let name = policy_name(idle.policy);
    match &idle.cause {
        Cause::SelectorInRoot => format!(
            "{name} says STRICT without effect: it has a selector, and in the mesh's root namespace Istio ignores \
             policies with one"
        ),
        Cause::OlderWins(winner) => {
            format!("{name} says STRICT without effect: {} wins, {}", described(winner), older(winner, idle.policy))
        }
        Cause::SelectsNothing => {
            format!(
                "{name} says STRICT without effect: no workload in its namespace is labelled `{}`",
                idle.policy.selector
            )
        }
        Cause::ServicePort(port, service) => {
            format!("{name} says STRICT without effect on port {port}: {}", service_port_in_words(*port, service))
        }
        Cause::NoSuchRevision(revision) => format!(
            "{name} says STRICT without effect: its label `istio.io/rev={revision}` names a revision of the control plane \
             that is not installed, and no other reads it"
        ),
        Cause::NotTheRoot(root) => format!(
            "{name} says STRICT for `{}` alone: the mesh's root namespace is `{root}`, where there is no STRICT",
            idle.policy.namespace
        ),
    }
}

fn service_port_in_words(port: u16, service: &Service) -> String {
    let target = service.ports.iter().find(|it| it.port == port).map(|it| match &it.target {
        TargetPort::Number(number) => format!("its pods listen on {number}"),
        TargetPort::Name(name) => format!("its pods listen on the port they name `{name}`"),
    });
    format!(
        "`portLevelMtls` counts workload ports, and {port} is a port of the Service `{}`: {}",
        service.name,
        target.unwrap_or_default()
    )
}

/// Why one of two policies comes before the other.
fn older(winner: &PeerAuthentication, loser: &PeerAuthentication) -> String {
    match (winner.created.map(jiff::Timestamp::as_second), loser.created.map(jiff::Timestamp::as_second)) {
        (Some(first), Some(second)) if first == second => {
            "since both are of the same second and its name sorts first".into()
        }
        (Some(_), Some(_)) if date(winner) == date(loser) => {
            let time = |policy: &PeerAuthentication| {
                policy.created.map(|created| created.strftime("%H:%M:%S").to_string()).unwrap_or_default()
            };
            format!("since it is older ({} against {} UTC)", time(winner), time(loser))
        }
        (Some(_), Some(_)) => format!("since it is older (`{}` was created {})", loser.name, date(loser)),
        (Some(_), None) => "since it is older".into(),
        (None, _) => "since neither is stored yet and its name sorts first".into(),
    }
}

fn reference(policy: &PeerAuthentication) -> ObjectRef {
    ObjectRef {
        kind: "PeerAuthentication".into(),
        namespace: Some(policy.namespace.clone()),
        name: policy.name.clone(),
    }
}

fn policy_name(policy: &PeerAuthentication) -> String {
    format!("`{}`", reference(policy))
}

/// `PeerAuthentication shop/old` (PERMISSIVE, created 2025-11-03, for app=cart).
fn described(policy: &PeerAuthentication) -> String {
    let mut facts = vec![policy.mode.to_string()];
    facts.extend(policy.ports.iter().take(NAMED).map(|(port, mode)| format!("port {port} {mode}")));
    if policy.created.is_some() {
        facts.push(format!("created {}", date(policy)));
    }
    if !policy.selector.is_empty() {
        facts.push(format!("for {}", policy.selector));
    }
    format!("{} ({})", policy_name(policy), facts.join(", "))
}

fn created(policy: &PeerAuthentication) -> String {
    if policy.created.is_none() { String::new() } else { format!(" (created {})", date(policy)) }
}

fn date(policy: &PeerAuthentication) -> String {
    policy.created.map(|created| created.strftime("%Y-%m-%d").to_string()).unwrap_or_default()
}

fn mode_path(policy: &PeerAuthentication, port: Option<u16>) -> FieldPath {
    let spec = FieldPath::new("spec");
    match port.filter(|port| policy.ports.get(port).is_some_and(|mode| *mode != MtlsMode::Unset)) {
        Some(port) => spec.field("portLevelMtls").field(&port.to_string()).field("mode"),
        None if policy.mode == MtlsMode::Unset => spec,
        None => spec.field("mtls").field("mode"),
    }
}

/// The whole policy of this name, STRICT: its selector stays, and of its ports those that say
/// STRICT themselves.
fn strict(policy: &PeerAuthentication) -> String {
    strict_in(&policy.namespace, policy)
}

fn strict_in(namespace: &str, policy: &PeerAuthentication) -> String {
    let ports = policy.ports.iter().filter(|(_, mode)| **mode == MtlsMode::Strict && !policy.selector.is_empty());
    yaml(namespace, &policy.name, &policy.selector, &ports.map(|(port, mode)| (*port, mode.clone())).collect())
}

fn yaml(namespace: &str, name: &str, selector: &Labels, ports: &BTreeMap<u16, MtlsMode>) -> String {
    let mut lines = vec![
        "apiVersion: security.istio.io/v1".to_owned(),
        "kind: PeerAuthentication".to_owned(),
        "metadata:".to_owned(),
        format!("  name: {}", scalar(name)),
        format!("  namespace: {}", scalar(namespace)),
        "spec:".to_owned(),
    ];
    if !selector.is_empty() {
        lines.extend(["  selector:".to_owned(), "    matchLabels:".to_owned()]);
        lines.extend(selector.iter().map(|(key, value)| format!("      {}: {}", scalar(key), scalar(value))));
    }
    lines.extend(["  mtls:".to_owned(), "    mode: STRICT".to_owned()]);
    if !ports.is_empty() {
        lines.push("  portLevelMtls:".to_owned());
        lines.extend(ports.iter().flat_map(|(port, mode)| [format!("    {port}:"), format!("      mode: {mode}")]));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn some_names(ids: &BTreeSet<WorkloadId>) -> String {
    words::some_of(&ids.iter().map(|id| format!("`{id}`")).collect::<Vec<_>>())
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn verb(verb: &str, is_plural: bool) -> String {
    if is_plural { verb.into() } else { format!("{verb}s") }
}

fn be(is_plural: bool) -> &'static str {
    if is_plural { "are" } else { "is" }
}
