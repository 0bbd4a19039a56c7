//! Whether a pod is, or will be, in the mesh.

use std::fmt;

use super::Mesh;
use crate::cluster::NamespaceState;
use crate::model::{Labels, NamedProxy, Str, Workload};

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
    /// A container has the name, and the injector did not put it there.
    NamedProxy,
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
    /// `sidecar.istio.io/inject` has a value that injectors read differently.
    Undecided(Str),
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
            Self::NamedProxy => f.write_str(
                "a container is named `istio-proxy`, the injector does not put it there, and a name does not prove that \
                 it is Istio's proxy",
            ),
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
            Self::Undecided(value) => write!(
                f,
                "`sidecar.istio.io/inject` is `{value}`, which is neither `true` nor `false`: some versions of the \
                 injector leave the pod without a proxy"
            ),
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
const SIDECAR_TEMPLATE: &str = "sidecar";
const GATEWAY_TEMPLATE: &str = "gateway";
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

const LABEL_OPT_OUT: &str = "sidecar.istio.io/inject=false";
const ANNOTATION_OPT_OUT: &str = "sidecar.istio.io/inject: false";
const AMBIENT_OPT_OUT: &str = "istio.io/dataplane-mode=none";
const GATEWAY_OPT_OUT: &str = "inject.istio.io/templates: gateway";

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
    /// A container named `istio-proxy` and the annotation `sidecar.istio.io/status` are what the
    /// injector leaves, and anyone can write them. So they count only where the injector takes the
    /// pod, or in a pod that runs and does not decline it.
    pub fn membership(&self, workload: &Workload) -> Membership {
        let Workload { labels, annotations, .. } = workload;
        if workload.host_network {
            return Membership::new(Dataplane::Outside, Reason::HostNetwork);
        }
        if workload.is_partial {
            return Membership::new(Dataplane::Unknown, Reason::Unreadable);
        }
        let injection = match self.described(&workload.namespace) {
            Some(state) => self.injection(state, labels, annotations),
            None => match declined(labels, annotations) {
                Some(reason) => Err(reason),
                None => Err(Reason::NamespaceUnknown),
            },
        };
        match injection {
            Ok(_) if runs(workload) && workload.proxy == NamedProxy::None => {
                self.without_injection(workload, Reason::RunsWithout)
            }
            Ok(revision) => injected(workload, revision),
            Err(reason) => self.without_injection(workload, reason),
        }
    }

    /// What a pod is that the injector leaves alone, for this reason.
    fn without_injection(&self, workload: &Workload, reason: Reason) -> Membership {
        use Dataplane::{Ambient, Outside, Sidecar, Unknown};
        let Workload { annotations, proxy, .. } = workload;
        let has_proxy = *proxy != NamedProxy::None;
        let has_status = annotations.get(STATUS).is_some();
        match self.ambient(workload) {
            // ztunnel's agent goes by the annotation and not by the containers.
            Some(true) if !has_status => return Membership::new(Ambient, Reason::AmbientLabel),
            Some(true) if !has_proxy => return Membership::new(Outside, Reason::StatusWithoutProxy),
            Some(_) => {}
            None if *proxy == NamedProxy::Alone || has_proxy && runs(workload) => {}
            None if runs(workload) && annotations.has(REDIRECTION, "enabled") && !has_status => {
                return Membership::new(Ambient, Reason::Redirected);
            }
            None => return Membership::new(Unknown, Reason::NamespaceUnknown),
        }
        let reason = match reason {
            Reason::OptedOut(_) | Reason::Undecided(_) => reason,
            _ if self.is_ambient_but_for(workload) => Reason::OptedOut(AMBIENT_OPT_OUT),
            reason => reason,
        };
        match (proxy, reason) {
            (NamedProxy::None, reason @ Reason::NamespaceUnknown) | (_, reason @ Reason::Undecided(_)) => {
                Membership::new(Unknown, reason)
            }
            (NamedProxy::Alone, Reason::OptedOut(_)) if looks_like_gateway(workload) => {
                Membership::new(Outside, Reason::Gateway)
            }
            // What declines the injector did not get its proxy from it. Of a pod that runs, the
            // label may have come later.
            (NamedProxy::Beside, Reason::OptedOut(_)) if runs(workload) => Membership::new(Unknown, Reason::NamedProxy),
            (NamedProxy::None, reason) | (_, reason @ Reason::OptedOut(_)) => Membership::new(Outside, reason),
            (_, _) if runs(workload) => Membership::new(Sidecar, Reason::Proxy),
            (_, _) => Membership::new(Unknown, Reason::NamedProxy),
        }
    }

    /// Whether ambient takes a pod, by the selectors its agent has unless it is set up otherwise:
    /// the pod's own label, or that of its namespace where the pod does not say `none`. Nothing
    /// where the namespace decides and is not known.
    fn ambient(&self, workload: &Workload) -> Option<bool> {
        if workload.namespace == NEVER_AMBIENT {
            return Some(false);
        }
        match workload.labels.get(DATAPLANE_MODE).map(Str::as_str) {
            Some("ambient") => Some(true),
            Some("none") => Some(false),
            _ => Some(self.described(&workload.namespace)?.labels.has(DATAPLANE_MODE, "ambient")),
        }
    }

    /// Whether only its own label keeps a pod out of ambient.
    fn is_ambient_but_for(&self, workload: &Workload) -> bool {
        let is_ambient = |state: &NamespaceState| state.labels.has(DATAPLANE_MODE, "ambient");
        workload.labels.has(DATAPLANE_MODE, "none")
            && workload.namespace != NEVER_AMBIENT
            && self.described(&workload.namespace).is_some_and(is_ambient)
    }

    /// A namespace whose labels are known.
    fn described(&self, namespace: &str) -> Option<&NamespaceState> {
        self.cluster.namespace(namespace).map(AsRef::as_ref).filter(|state| state.object.is_some())
    }

    /// Whether a pod to come in a namespace will be in the mesh while it says nothing itself.
    pub fn membership_of_new_pods(&self, namespace: &str) -> Membership {
        use Dataplane::{Ambient, Outside, Sidecar, Unknown};
        let Some(state) = self.described(namespace) else {
            return Membership::new(Unknown, Reason::NamespaceUnknown);
        };
        let says_nothing = Labels::default();
        match self.injection(state, &says_nothing, &says_nothing) {
            Ok(revision) => Membership::new(Sidecar, Reason::Injected(revision)),
            Err(_) if state.labels.has(DATAPLANE_MODE, "ambient") && namespace != NEVER_AMBIENT => {
                Membership::new(Ambient, Reason::AmbientLabel)
            }
            Err(reason) => Membership::new(Outside, reason),
        }
    }

    /// Which revision's injector takes a pod, or why none does: the selectors of the chart's five
    /// webhooks (`istio-discovery/templates/mutatingwebhook.yaml`), then `injectRequired`.
    fn injection(&self, state: &NamespaceState, labels: &Labels, annotations: &Labels) -> Result<Str, Reason> {
        if NEVER_INJECTED.contains(&state.name.as_str()) {
            return Err(Reason::SystemNamespace);
        }
        let pod_inject = labels.get(INJECT).map(Str::as_str);
        let revision = match (state.labels.get(INJECTION), state.labels.get(REVISION)) {
            (Some(value), _) if value != "enabled" => return Err(Reason::Disabled(value.clone())),
            (Some(_), _) => DEFAULT_REVISION.into(),
            (None, Some(revision)) => revision.clone(),
            (None, None) => match (pod_inject, labels.get(REVISION)) {
                (Some("false"), _) => return Err(Reason::OptedOut(LABEL_OPT_OUT)),
                (_, Some(revision)) => revision.clone(),
                (Some("true"), None) => DEFAULT_REVISION.into(),
                (None, None) if self.inject_by_default => DEFAULT_REVISION.into(),
                (_, None) => return Err(Reason::NotAsked),
            },
        };
        if let Some(reason) = declined(labels, annotations) {
            return Err(reason);
        }
        if !self.is_installed(&revision) {
            return Err(Reason::UnknownRevision(revision));
        }
        Ok(revision)
    }

    /// The revision whose control plane serves a workload, where its injector's choice says so.
    pub(super) fn revision_of(&self, workload: &Workload) -> Option<&Str> {
        let state = self.described(&workload.namespace)?;
        self.revision_named(&self.injection(state, &workload.labels, &workload.annotations).ok()?)
    }

    /// The revision that a revision's name or a tag means.
    pub(super) fn revision_named(&self, name: &str) -> Option<&Str> {
        let tagged = self.cluster.revisions().find(|it| it.tag.as_ref().is_some_and(|tag| tag == name));
        match tagged {
            Some(it) => it.revision.as_ref(),
            None => self.revisions.get(&Str::from(name)).copied(),
        }
    }

    /// Whether an injector answers to a revision or tag. Where none at all is known, that is
    /// because nobody looked.
    fn is_installed(&self, revision: &str) -> bool {
        let mut known = self.cluster.revisions().peekable();
        known.peek().is_none()
            || known.any(|it| [&it.revision, &it.tag].into_iter().flatten().any(|name| name == revision))
    }
}

/// What a pod is that the injector takes.
fn injected(workload: &Workload, revision: Str) -> Membership {
    use Dataplane::{Outside, Sidecar, Unknown};
    let named: Vec<&str> = match workload.annotations.get(TEMPLATES) {
        None => vec![SIDECAR_TEMPLATE],
        Some(list) => list.split(',').map(str::trim).collect(),
    };
    match (named.contains(&SIDECAR_TEMPLATE), named.contains(&GATEWAY_TEMPLATE)) {
        (true, false) if runs(workload) => Membership::new(Sidecar, Reason::Proxy),
        (true, false) => Membership::new(Sidecar, Reason::Injected(revision)),
        // The template of a gateway captures nothing: what runs beside its proxy is in plain sight.
        (false, true) if workload.proxy == NamedProxy::Alone => Membership::new(Outside, Reason::Gateway),
        (false, true) => Membership::new(Outside, Reason::OptedOut(GATEWAY_OPT_OUT)),
        (true, true) | (false, false) => {
            let list = workload.annotations.get(TEMPLATES).cloned().unwrap_or_default();
            Membership::new(Unknown, Reason::Templates(list))
        }
    }
}

/// Whether a pod has an address, so that what it is made of is settled.
fn runs(workload: &Workload) -> bool {
    workload.is_pod() && !workload.ips.is_empty()
}

/// How a pod declines a sidecar, or leaves it open. The label counts before the deprecated
/// annotation of its name.
fn declined(labels: &Labels, annotations: &Labels) -> Option<Reason> {
    let (value, opt_out) = match labels.get(INJECT) {
        Some(value) => (value, LABEL_OPT_OUT),
        None => (annotations.get(INJECT)?, ANNOTATION_OPT_OUT),
    };
    match value.to_ascii_lowercase().as_str() {
        "false" if value == "false" => Some(Reason::OptedOut(opt_out)),
        // Injectors up to 1.2x read YAML 1.1 here, and later ones take what they do not know for
        // nothing: of these values both make the same.
        "" | "true" | "yes" | "y" | "on" => None,
        _ => Some(Reason::Undecided(value.clone())),
    }
}

/// Whether the labels of a pod that is nothing but a proxy say that it is a gateway, made by hand or
/// by istiod and not by the injector.
fn looks_like_gateway(workload: &Workload) -> bool {
    let labels = &workload.labels;
    labels.get(GATEWAY_NAME).is_some() || labels.get("istio").is_some_and(|name| name.ends_with("gateway"))
}
