//! What stood for the owner of a new workload: what the workload is compared with.
//!
//! The client that creates an object writes its owner references, so a reference never lets anything through. It
//! only says what stood already, and the ratchet makes of a workload that is no more open than that a
//! warning and not a denial. What a forged reference gains is bounded by this:
//!
//! - A reference to a workload that the cluster's own controllers carry out counts if the new one has
//!   the labels and the network of that workload's template: it is one more of what stands.
//! - A reference to anything else counts only if a service account asks, as every operator is one. The
//!   operator makes again what was drained, evicted or rolled over, and what it makes is compared with
//!   what else its owner has there.
//! - Of an owner that has nothing there (its one pod was drained, or it is new, as each run of a
//!   pipeline is) nothing can be known: the workload is compared with a pod that no policy names. So
//!   it is warned about where the namespace stands open as a whole, and denied where it opens more than
//!   that. A person who may edit one namespace cannot ask as a service account of another one. He can
//!   ask as one of his own namespace, for the role `edit` lets him impersonate those; there he gains a
//!   pod as open as every pod he may change already, and a warning. In `restricted` he does not.

use crate::cluster::Cluster;
use crate::model::{Labels, Workload, makes};
use crate::rules::Profile;

use super::request::Request;

/// What stood for the owner of this new workload, under the workload's name; nothing where it has none,
/// or where its claim to have one counts for nothing.
pub(super) fn stood(
    workload: &Workload,
    request: &Request<'_>,
    cluster: &Cluster,
    profile: Profile,
) -> Option<Workload> {
    let owner = workload.owner.as_ref()?;
    let namespace = &workload.namespace;
    if let Some(id) = owner.workload().filter(|id| makes(&id.kind, &workload.id.kind)) {
        let template = cluster.workload(namespace, id)?;
        let is_made = request.is_by_pod_controller() || workload.is_made_by(template);
        return is_made.then(|| in_place_of(workload, template));
    }
    let operator = request.service_account_namespace()?;
    let state = cluster.namespace(namespace);
    let kin = state.into_iter().flat_map(|state| state.workloads.iter()).filter(|other| {
        let is_kin = other.owner.as_ref() == Some(owner) || owner.workload() == Some(&other.id);
        is_kin && other.id.kind == workload.id.kind && other.id != workload.id
    });
    let shared =
        |other: &Workload| other.labels.iter().filter(|label| workload.labels.iter().any(|it| it == *label)).count();
    if let Some(alike) = kin.max_by_key(|other| shared(other)) {
        return Some(in_place_of(workload, alike));
    }
    let counts = operator != namespace.as_str() || profile == Profile::Baseline;
    counts.then(|| Workload {
        uid: workload.uid.clone(),
        owner: workload.owner.clone(),
        ending: workload.ending,
        dns_policy: workload.dns_policy,
        nameservers: workload.nameservers.clone(),
        ..Workload::bare(&workload.id.kind, namespace, &workload.id.name, Labels::default())
    })
}

/// Another workload, had it the name of this one.
fn in_place_of(workload: &Workload, other: &Workload) -> Workload {
    Workload {
        id: workload.id.clone(),
        uid: workload.uid.clone(),
        owner: workload.owner.clone(),
        ending: workload.ending,
        ips: Vec::new(),
        is_finished: false,
        is_idle: false,
        is_scaled_to_zero: workload.is_scaled_to_zero,
        ..other.clone()
    }
}
