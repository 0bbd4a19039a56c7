//! Whether a pod is, or will be, in the mesh.

use std::fmt;

use super::Mesh;
use crate::cluster::NamespaceState;
use crate::model::{Labels, Str, Workload};

/// What carries a pod's traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dataplane {
    /// A proxy in the pod.
    Sidecar,
    /// ztunnel, on the pod's node.
    Ambient,
    /// Nothing of the mesh: no policy of it counts.
    Outside,
    /// It cannot be told.
    Unknown,
}

/// Whether a pod is in the mesh, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// What carries its traffic.
    pub dataplane: Dataplane,
    /// What that rests on.
    pub reason: Reason,
}

/// What a membership rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// An `istio-proxy` container is in the pod.
    Proxy,
    /// This revision's injector will put one there.
    Injected(Str),
    /// Taken for granted of a namespace to come.
    Joins,
    /// `istio.io/dataplane-mode=ambient` on the pod or its namespace.
    AmbientLabel,
    /// ztunnel has the pod's traffic already.
    Redirected,
    /// It is on its node's network, which no dataplane touches.
    HostNetwork,
    /// Its proxy is a gateway, whose listeners PeerAuthentication does not govern.
    Gateway,
    /// The injector leaves this namespace alone, whatever its labels say.
    SystemNamespace,
    /// Neither the pod nor its namespace asks for it.
    NotAsked,
    /// The namespace says `istio-injection` with a value other than `enabled`, which also
    /// overrides every other label.
    Disabled(Str),
    /// The pod says no: the label or annotation, as `key=value`.
    OptedOut(&'static str),
    /// No injector of this revision or tag is installed: pods start without a proxy and without
    /// an error.
    UnknownRevision(Str),
    /// The pod runs, and without a proxy: what its namespace's labels say now counts for pods to
    /// come.
    RunsWithout,
    /// `sidecar.istio.io/status` keeps ambient away, and there is no sidecar.
    StatusWithoutProxy,
    /// The namespace's labels are not known.
    NamespaceUnknown,
    /// Something of the pod could not be read.
    Unreadable,
    /// The pod asks for injection templates of its own.
    Templates(Str),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy => f.write_str("an `istio-proxy` container is in the pod"),
            Self::Injected(revision) => write!(f, "the injector of revision `{revision}` puts a proxy into the pod"),
            Self::Joins => f.write_str("it joins the mesh"),
            Self::AmbientLabel => f.write_str("`istio.io/dataplane-mode=ambient` is set"),
            Self::Redirected => f.write_str("ztunnel has taken over the pod's traffic"),
            Self::HostNetwork => f.write_str("the pod is on its node's network, which the mesh does not touch"),
            Self::Gateway => f.write_str("the pod is a gateway"),
            Self::SystemNamespace => f.write_str("Istio injects nothing into this namespace"),
            Self::NotAsked => f.write_str("neither the pod nor its namespace carries a label that asks for the mesh"),
            Self::Disabled(value) => {
                write!(f, "the namespace says `istio-injection={value}`, which overrides every other label")
            }
            Self::OptedOut(mark) => write!(f, "the pod opts out with `{mark}`"),
            Self::UnknownRevision(revision) => write!(
                f,
                "no injector of the revision or tag `{revision}` is installed, so pods start without a proxy and \
                 without an error"
            ),
            Self::RunsWithout => {
                f.write_str("the pod runs without a proxy; the labels of its namespace count when it is started anew")
            }
            Self::StatusWithoutProxy => {
                f.write_str("the annotation `sidecar.istio.io/status` keeps ambient away, and no proxy is in the pod")
            }
            Self::NamespaceUnknown => f.write_str("the labels of its namespace are not known"),
            Self::Unreadable => f.write_str("something of the pod could not be read"),
            Self::Templates(templates) => {
                write!(f, "`inject.istio.io/templates: {templates}` asks for templates whose content is not known")
            }
        }
    }
}

/// Namespaces the injector never touches (`pkg/kube/inject`, `IgnoredNamespaces`).
const NEVER_INJECTED: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// The namespace ambient's node agent leaves alone unless it is installed otherwise.
const NEVER_AMBIENT: &str = "kube-system";

const INJECT: &str = "sidecar.istio.io/inject";
const INJECTION: &str = "istio-injection";
const REVISION: &str = "istio.io/rev";
const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
const STATUS: &str = "sidecar.istio.io/status";
const REDIRECTION: &str = "ambient.istio.io/redirection";
const TEMPLATES: &str = "inject.istio.io/templates";
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// The revision that labels without a revision's name mean.
const DEFAULT_REVISION: &str = "default";

impl Membership {
    fn new(dataplane: Dataplane, reason: Reason) -> Self {
        Self { dataplane, reason }
    }

    /// Whether policies of the mesh count.
    pub fn is_in_mesh(&self) -> bool {
        matches!(self.dataplane, Dataplane::Sidecar | Dataplane::Ambient)
    }
}

impl Mesh<'_> {
    /// Whether a workload is in the mesh: by what runs where something does, else by the labels
    /// and annotations that decide it for pods to come.
    ///
    /// The list of containers decides over what only *says* that a proxy is there
    /// (`sidecar.istio.io/status`, `security.istio.io/tlsMode`): anyone can write those.
    pub fn membership(&self, workload: &Workload) -> Membership {
        use Dataplane::{Ambient, Outside, Sidecar, Unknown};
        let Workload { labels, annotations, .. } = workload;
        if workload.host_network {
            return Membership::new(Outside, Reason::HostNetwork);
        }
        let templates = annotations.get(TEMPLATES);
        let has_template = |name: &str| templates.is_some_and(|list| list.split(',').any(|it| it.trim() == name));
        if is_gateway(workload) || has_template("gateway") {
            return Membership::new(Outside, Reason::Gateway);
        }
        if workload.has_proxy {
            return Membership::new(Sidecar, Reason::Proxy);
        }
        if workload.is_partial {
            return Membership::new(Unknown, Reason::Unreadable);
        }
        let runs = workload.is_pod() && !workload.ips.is_empty();
        let state = self.cluster.namespace(&workload.namespace).filter(|state| state.object.is_some());
        let injection = match state {
            Some(state) => self.injection(state, labels, annotations).and_then(|revision| {
                if runs { Err(Membership::new(Outside, Reason::RunsWithout)) } else { Ok(revision) }
            }),
            None => match opted_out(labels, annotations) {
                Some(mark) => Err(Membership::new(Outside, Reason::OptedOut(mark))),
                None if runs => Err(Membership::new(Outside, Reason::RunsWithout)),
                None => return Membership::new(Unknown, Reason::NamespaceUnknown),
            },
        };
        match injection {
            Ok(revision) => match templates {
                Some(list) if !has_template("sidecar") => Membership::new(Unknown, Reason::Templates(list.clone())),
                _ => Membership::new(Sidecar, Reason::Injected(revision)),
            },
            Err(outside) => {
                if workload.namespace == NEVER_AMBIENT {
                    return outside;
                }
                if annotations.has(REDIRECTION, "enabled") {
                    return Membership::new(Ambient, Reason::Redirected);
                }
                let by_namespace = state.and_then(|state| state.labels.get(DATAPLANE_MODE));
                match labels.get(DATAPLANE_MODE).or(by_namespace).map(Str::as_str) {
                    Some("ambient") if annotations.get(STATUS).is_some() => {
                        Membership::new(Outside, Reason::StatusWithoutProxy)
                    }
                    Some("ambient") => Membership::new(Ambient, Reason::AmbientLabel),
                    Some(_) if by_namespace.is_some_and(|mode| mode == "ambient") => {
                        Membership::new(Outside, Reason::OptedOut("istio.io/dataplane-mode"))
                    }
                    // The namespace may still be ambient as a whole.
                    None if state.is_none() => Membership::new(Unknown, Reason::NamespaceUnknown),
                    _ => outside,
                }
            }
        }
    }

    /// Whether a pod to come in a namespace will be in the mesh while it says nothing itself.
    pub fn membership_of_new_pods(&self, namespace: &str) -> Membership {
        use Dataplane::{Ambient, Outside, Sidecar, Unknown};
        let state = self.cluster.namespace(namespace).filter(|state| state.object.is_some());
        let Some(state) = state else { return Membership::new(Unknown, Reason::NamespaceUnknown) };
        let says_nothing = Labels::default();
        match self.injection(state, &says_nothing, &says_nothing) {
            Ok(revision) => Membership::new(Sidecar, Reason::Injected(revision)),
            Err(_) if state.labels.has(DATAPLANE_MODE, "ambient") && namespace != NEVER_AMBIENT => {
                Membership::new(Ambient, Reason::AmbientLabel)
            }
            Err(Membership { reason, .. }) => Membership::new(Outside, reason),
        }
    }

    /// Which revision's injector takes a pod, or why none does: the selectors of the chart's five
    /// webhooks (`istio-discovery/templates/mutatingwebhook.yaml`), then `injectRequired`.
    fn injection(&self, state: &NamespaceState, labels: &Labels, annotations: &Labels) -> Result<Str, Membership> {
        let outside = |reason| Err(Membership::new(Dataplane::Outside, reason));
        if NEVER_INJECTED.contains(&state.name.as_str()) {
            return outside(Reason::SystemNamespace);
        }
        let pod_inject = labels.get(INJECT).map(Str::as_str);
        let revision = match (state.labels.get(INJECTION), state.labels.get(REVISION)) {
            (Some(value), _) if value != "enabled" => return outside(Reason::Disabled(value.clone())),
            (Some(_), _) => DEFAULT_REVISION.into(),
            (None, Some(revision)) => revision.clone(),
            (None, None) => match (pod_inject, labels.get(REVISION)) {
                (Some("false"), _) => return outside(Reason::OptedOut("sidecar.istio.io/inject=false")),
                (_, Some(revision)) => revision.clone(),
                (Some("true"), None) => DEFAULT_REVISION.into(),
                (None, None) if self.inject_by_default => DEFAULT_REVISION.into(),
                (_, None) => return outside(Reason::NotAsked),
            },
        };
        if let Some(mark) = opted_out(labels, annotations) {
            return outside(Reason::OptedOut(mark));
        }
        if !self.is_installed(&revision) {
            return outside(Reason::UnknownRevision(revision));
        }
        Ok(revision)
    }

    /// Whether an injector answers to a revision or tag. Where none at all is known, that is
    /// because nobody looked.
    fn is_installed(&self, revision: &str) -> bool {
        let mut known = self.cluster.revisions().peekable();
        known.peek().is_none()
            || known.any(|it| [&it.revision, &it.tag].into_iter().flatten().any(|name| name == revision))
    }
}

/// How a pod declines a sidecar. The label counts before the deprecated annotation of its name.
fn opted_out(labels: &Labels, annotations: &Labels) -> Option<&'static str> {
    match labels.get(INJECT) {
        Some(value) => (value == "false").then_some("sidecar.istio.io/inject=false"),
        None => annotations.has(INJECT, "false").then_some("sidecar.istio.io/inject: false"),
    }
}

/// Whether the proxy of a pod is a gateway that was not made by the injector. Only labels tell it
/// from a sidecar, and anyone can write labels: so they count only together with `inject=false`,
/// which the gateways of Istio carry and with which no sidecar is made.
fn is_gateway(workload: &Workload) -> bool {
    let labels = &workload.labels;
    let looks_like_one =
        labels.get(GATEWAY_NAME).is_some() || labels.get("istio").is_some_and(|name| name.ends_with("gateway"));
    looks_like_one && workload.has_proxy && opted_out(labels, &workload.annotations).is_some()
}
