//! The cluster is a value: what it holds is what counts, not how it came to hold it.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis::cluster::{Cluster, Index};
use portcullis::model::{
    Change, ForeignPolicy, Labels, Lifetime, MeshConfig, MtlsMode, Object, ObjectRef, PeerAuthentication, Revision,
    Str, WebhookConfiguration, WebhookKind,
};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use crate::world::{cases, dns_service, namespace, object, pod, policy};

/// Objects of every kind in few places, so that histories meet: namespaces and names from two
/// letters, contents from three values.
fn any_object() -> impl Strategy<Value = Object> {
    let names = || prop::sample::select(&["x", "y"]);
    (0..9u8, names(), names(), 0..3u8).prop_map(|(kind, place, name, content)| {
        let version = content.to_string();
        match kind {
            0 => namespace(place, [("version", &version)]),
            1 => object(pod(place, name, [("version", &version)], &[])),
            2 => object(policy(place, name, json!({"podSelector": {"matchLabels": {"version": version}}}))),
            // Content 0 makes it a DNS Service, others not.
            3 => service(place, name, content),
            4 => Object::PeerAuthentication(Arc::new(PeerAuthentication {
                namespace: place.into(),
                name: name.into(),
                created: None,
                revision: None,
                lifetime: Lifetime::default(),
                has_empty_selector: false,
                selector: Labels::from([("version", version.as_str())]),
                mode: MtlsMode::Strict,
                ports: BTreeMap::new(),
                is_partial: false,
            })),
            5 => Object::MeshConfig(Arc::new(MeshConfig {
                namespace: place.into(),
                name: name.into(),
                root_namespace: Some(version.into()),
            })),
            6 => {
                let (revision, tag) = (Some(Str::from(version)), None);
                Object::WebhookConfiguration(Arc::new(WebhookConfiguration {
                    kind: if content == 0 { WebhookKind::Validating } else { WebhookKind::Mutating },
                    name: name.into(),
                    revision: Some(Revision { revision, tag }),
                    webhooks: Vec::new(),
                }))
            }
            7 => Object::ForeignPolicy(Arc::new(ForeignPolicy {
                // Content 0 makes it a NetworkPolicy that cannot be read.
                kind: if content == 0 { "NetworkPolicy".into() } else { version.into() },
                namespace: Some(place.into()),
                name: name.into(),
            })),
            _ => Object::ForeignPolicy(Arc::new(ForeignPolicy {
                kind: version.into(),
                namespace: None,
                name: name.into(),
            })),
        }
    })
}

fn service(place: &str, name: &str, content: u8) -> Object {
    let name = if content == 2 { "coredns" } else { name };
    let mut object = dns_service(place, name, [("app", "dns")], 53);
    if let Object::Service(service) = &mut object {
        let service = Arc::make_mut(service);
        if content == 0 {
            service.labels = Labels::from([("k8s-app", "kube-dns")]);
        } else if content == 1 {
            service.ports.clear();
        }
    }
    object
}

#[derive(Clone, Debug)]
enum Event {
    Apply(Object),
    Delete(Object),
}

fn history() -> impl Strategy<Value = Vec<Event>> {
    vec(prop_oneof![2 => any_object().prop_map(Event::Apply), 1 => any_object().prop_map(Event::Delete)], 0..24)
}

fn play(events: &[Event]) -> (Index, BTreeMap<ObjectRef, Object>) {
    let (mut index, mut standing) = (Index::new(), BTreeMap::new());
    for event in events {
        match event {
            Event::Apply(object) => {
                index.apply(object.clone());
                standing.insert(object.reference(), object.clone());
            }
            Event::Delete(object) => {
                index.delete(object);
                standing.remove(&object.reference());
            }
        }
    }
    (index, standing)
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn histories_that_end_in_the_same_objects_give_equal_clusters(events in history(), turn in any::<prop::sample::Index>()) {
        let (index, standing) = play(&events);
        let mut objects: Vec<Object> = standing.into_values().collect();
        let found = index.snapshot();
        prop_assert_eq!(&found, &Cluster::of(objects.clone()));
        if !objects.is_empty() {
            let at = turn.index(objects.len());
            objects.rotate_left(at);
            objects.reverse();
        }
        prop_assert_eq!(&found, &Cluster::of(objects.clone()));
        let mut other = Index::new();
        other.apply(namespace("z", []));
        other.replace(|_| true, objects);
        prop_assert_eq!(found, other.snapshot());
    }

    #[test]
    fn a_fresh_list_of_a_kind_replaces_that_kind_and_nothing_else(before in history(), after in history()) {
        let is_of_kind = |object: &Object| matches!(&*object.reference().kind, "NetworkPolicy" | "Namespace");
        let (mut index, standing) = play(&before);
        let (_, listed) = play(&after);
        let listed: Vec<Object> = listed.into_values().filter(is_of_kind).collect();
        let expected: Vec<Object> =
            standing.into_values().filter(|object| !is_of_kind(object)).chain(listed.iter().cloned()).collect();
        index.replace(is_of_kind, listed);
        prop_assert_eq!(index.snapshot(), Cluster::of(expected));
    }

    #[test]
    fn every_object_of_a_cluster_is_told_once(events in history()) {
        let (index, standing) = play(&events);
        let told: Vec<Object> = index.snapshot().objects().collect();
        prop_assert_eq!(told.len(), standing.len());
        prop_assert_eq!(Cluster::of(told), index.snapshot());
    }

    #[test]
    fn a_cluster_holds_exactly_the_objects_that_stand(events in history()) {
        let (index, standing) = play(&events);
        let cluster = index.snapshot();
        let mut found = Vec::new();
        for state in cluster.namespaces() {
            found.extend(state.object.iter().cloned().map(Object::Namespace));
            found.extend(state.workloads.iter().cloned().map(Object::Workload));
            found.extend(state.policies.iter().cloned().map(Object::NetworkPolicy));
            found.extend(state.services.iter().cloned().map(Object::Service));
            found.extend(state.peer_authentications.iter().cloned().map(Object::PeerAuthentication));
            found.extend(state.foreign.iter().cloned().map(Object::ForeignPolicy));
        }
        found.extend(cluster.mesh_configs().cloned().map(Object::MeshConfig));
        found.extend(cluster.webhooks().cloned().map(Object::WebhookConfiguration));
        // Of no namespace, so what is left are the cluster-scoped ones.
        found.extend(cluster.foreign_policies("nowhere").cloned().map(Object::ForeignPolicy));
        let mut found: Vec<_> = found.into_iter().map(|object| (object.reference(), object)).collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let standing: Vec<_> = standing.into_iter().collect();
        prop_assert_eq!(found, standing.clone());
        let is_dns = |object: &&Object| matches!(object, Object::Service(it) if portcullis::cluster::looks_like_dns(it));
        let dns: Vec<Object> = standing.iter().map(|(_, object)| object).filter(is_dns).cloned().collect();
        let found: Vec<Object> = cluster.dns_services().cloned().map(Object::Service).collect();
        prop_assert_eq!(found, dns);
    }

    #[test]
    fn a_change_and_its_inverse_leave_nothing_behind(events in history(), new in any_object()) {
        let (index, standing) = play(&events);
        let cluster = index.snapshot();
        let (there, back) = match standing.get(&new.reference()) {
            None => (Change::Create(new.clone()), Change::Delete(new)),
            Some(old) => (Change::Update(old.clone(), new.clone()), Change::Update(new, old.clone())),
        };
        prop_assert_eq!(cluster.with(&there).with(&back), cluster.clone());
        prop_assert_eq!(cluster.as_found_by(&there), cluster.clone(), "it already is as the change found it");
        let after = cluster.with(&there);
        prop_assert_eq!(after.as_found_by(&there), cluster, "the watch was faster than the review");
    }

    #[test]
    fn a_snapshot_does_not_change(events in history(), more in history()) {
        let (mut index, standing) = play(&events);
        let snapshot = index.snapshot();
        for event in &more {
            let (changed, change) = match event {
                Event::Apply(object) => (object, Change::Create(object.clone())),
                Event::Delete(object) => (object, Change::Delete(object.clone())),
            };
            let before = index.snapshot();
            match event {
                Event::Apply(_) => index.apply(changed.clone()),
                Event::Delete(_) => index.delete(changed),
            }
            prop_assert_eq!(before.with(&change), index.snapshot(), "asking what if is the same as doing");
        }
        prop_assert_eq!(snapshot, Cluster::of(standing.into_values()));
    }
}

#[test]
fn a_namespace_known_by_its_contents_only_carries_its_name() {
    let cluster = Cluster::of([object(pod("shop", "cart", [], &[]))]);
    let name = Labels::from([("kubernetes.io/metadata.name", "shop")]);
    assert_eq!(cluster.namespace_labels("shop"), name);
    let with_object = cluster.with(&Change::Create(namespace("shop", [("team", "a")])));
    assert!(with_object.namespace_labels("shop").has("team", "a"));
    let without = with_object.with(&Change::Delete(namespace("shop", [("team", "a")])));
    assert_eq!(without.namespace_labels("shop"), name);
    assert_eq!(without, cluster);
}

#[test]
fn the_owner_at_the_top_is_found_and_a_cycle_ends() {
    let owned = |kind: &str, name: &str, owner: (&str, &str)| {
        let id = |(kind, name): (&str, &str)| portcullis::model::WorkloadId { kind: kind.into(), name: name.into() };
        let workload = pod("x", name, [], &[]);
        let owner = portcullis::model::Owner { group: None, id: id(owner) };
        portcullis::model::Workload { id: id((kind, name)), owner: Some(owner), ..workload }
    };
    let pod = owned("Pod", "p", ("ReplicaSet", "r"));
    let set = owned("ReplicaSet", "r", ("Deployment", "d"));
    let cluster = Cluster::of([object(pod.clone()), object(set)]);
    assert_eq!(cluster.root_owner(&pod).to_string(), "Deployment d");
    assert_eq!(Cluster::default().root_owner(&pod).to_string(), "ReplicaSet r", "the link beyond is not known");
    let selfish = owned("Job", "j", ("Job", "j"));
    assert_eq!(Cluster::of([object(selfish.clone())]).root_owner(&selfish).to_string(), "Job j");
}
