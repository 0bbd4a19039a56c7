//! NP009.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Action, Aspect, Finding, Meta, Moment, Profile, Rule, Scope, Severity, Subject, View, Violation, Watched, openness,
    space, words,
};
use crate::model::{Change, Direction, FieldPath, NetworkPolicy, Object, ObjectRef, Operation, PeerSpec, written};
use crate::netset::{Family, IpSet, Protocol};

/// Reports policies that allow egress to a cloud's metadata address by name.
///
/// ## Why is this bad?
/// A cloud's metadata service answers every process on a node and hands out the credentials of that node.
/// A pod that reaches it can act as the node. Block the address, and give pods an identity of their own.
///
/// ## Example
/// ```yaml
/// apiVersion: networking.k8s.io/v1
/// kind: NetworkPolicy
/// metadata:
///   name: metadata
///   namespace: shop
/// spec:
///   podSelector: {}
///   policyTypes: [Egress]
///   egress:
///   - to:
///     - ipBlock: {cidr: 169.254.169.254/32}
/// ```
///
/// Use instead:
/// ```yaml
/// apiVersion: networking.k8s.io/v1
/// kind: NetworkPolicy
/// metadata:
///   name: node-local-dns
///   namespace: shop
/// spec:
///   podSelector: {}
///   policyTypes: [Egress]
///   egress:
///   - to:
///     - ipBlock: {cidr: 169.254.20.10/32}
///     ports:
///     - {protocol: UDP, port: 53}
///     - {protocol: TCP, port: 53}
/// ```
///
/// ## When it fires
/// When a policy is created or changed and one of its egress blocks holds a metadata address on TCP
/// port 80, where these services answer. Other ports, 53 for the cloud's resolver above all, are left
/// alone. What stood before is a warning at most, unless the policy comes to select more pods.
///
/// ## What it does not see
/// Blocks of more than 65,536 addresses: `wildcard-ip-block` reports those. Where pods get their own
/// identity from this address, as with workload identity on GKE, list it under `allow`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct MetadataAccess {
    /// Networks that may be allowed: metadata addresses that give pods an identity of their own.
    #[serde(deserialize_with = "written::ranges")]
    #[schemars(with = "Vec<String>")]
    allow: Vec<IpNet>,
}

/// Where clouds answer every process of a node: Amazon, Google, Microsoft and Oracle by one address, and
/// the IPv6 ones of Amazon and Google; Microsoft's wire server; Alibaba.
const METADATA: [IpAddr; 5] = [
    space::METADATA_SERVICE,
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
];

/// The port metadata services answer on.
const HTTP: u16 = 80;

/// A block of more addresses than this is not one that names an address.
const MOST_ADDRESSES: f64 = 65_536.0;

impl Rule for MetadataAccess {
    const META: Meta = Meta {
        code: "NP009",
        name: "metadata-access",
        severity: Severity::High,
        baseline: Action::Warn,
        restricted: Action::Deny,
        since: "0.1.0",
        watches: &[Watched::NetworkPolicies.when_set()],
    };

    fn scope(&self, change: &Change, _before: &View<'_>, _after: &View<'_>) -> Scope {
        match (change.operation(), change.subject()) {
            (Operation::Create | Operation::Update, Object::NetworkPolicy(policy)) => {
                Scope::Namespace(policy.namespace.clone())
            }
            (
                _,
                Object::Workload(_)
                | Object::NetworkPolicy(_)
                | Object::Namespace(_)
                | Object::Service(_)
                | Object::PeerAuthentication(_)
                | Object::MeshConfig(_)
                | Object::WebhookConfiguration(_)
                | Object::ForeignPolicy(_)
                | Object::Waiver(_),
            ) => Scope::Nothing,
        }
    }

    fn violations(&self, view: &View<'_>, scope: &Scope, out: &mut Vec<Violation>) {
        for namespace in scope.namespaces(view.cluster) {
            let Some(state) = view.cluster.namespace(namespace) else { continue };
            if view.environment.namespaces.is_exempt(namespace) || state.is_terminating() {
                continue;
            }
            for policy in state.policies.iter() {
                view.check_stop();
                // More addresses are worse.
                let addresses: BTreeSet<IpAddr> = self.named(policy).map(|(address, _)| address).collect();
                if !addresses.is_empty() {
                    out.push(Violation {
                        namespace: namespace.clone(),
                        subject: Subject::Policy(policy.name.clone()),
                        aspect: Aspect::Metadata,
                        badness: u8::try_from(addresses.len()).unwrap_or(u8::MAX),
                    });
                }
            }
        }
    }

    fn worsened(&self, violation: &Violation, before: &View<'_>, after: &View<'_>) -> bool {
        let Subject::Policy(name) = &violation.subject else { return false };
        let pods = |view: &View<'_>| {
            view.cluster.namespace(&violation.namespace)?.policies.get(name.as_str()).map(|policy| policy.pods.clone())
        };
        let (Some(then), Some(now)) = (pods(before), pods(after)) else { return false };
        now.implies(&then) != Some(true)
    }

    /// What allows it is there.
    fn rests_on_absence(&self, _violation: &Violation, _moment: &Moment<'_>) -> bool {
        false
    }

    fn loosened(&self, before: &Self, _profile: Profile, _then: Profile) -> Vec<(&'static str, bool)> {
        let Self { allow } = self;
        let allowed = |networks: &[IpNet]| networks.iter().copied().collect::<IpSet>();
        vec![("allow", !allowed(allow).subtract(&allowed(&before.allow)).is_empty())]
    }

    fn explain(&self, violations: &[Violation], moment: &Moment<'_>) -> Vec<Finding> {
        violations.iter().filter_map(|violation| self.tell(violation, moment)).collect()
    }
}

impl MetadataAccess {
    /// The metadata addresses that a policy's blocks name, each with the place of its block.
    fn named<'p>(&self, policy: &'p NetworkPolicy) -> impl Iterator<Item = (IpAddr, FieldPath)> + use<'p> {
        let allowed: IpSet = self.allow.iter().copied().collect();
        let is_isolated = policy.isolates.contains(Direction::Egress);
        let rules = policy.egress.iter().enumerate().filter(move |_| is_isolated);
        let answered = rules.filter(|(_, rule)| openness::numbered(rule).contains(Protocol::Tcp, HTTP));
        let peers =
            answered.flat_map(|(r, rule)| rule.peers.iter().flatten().enumerate().map(move |(p, peer)| (r, p, peer)));
        peers.flat_map(move |(r, p, peer)| {
            let of_block = |address: &IpAddr| match peer {
                PeerSpec::Block(block) => {
                    let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
                    block.addresses.contains(*address)
                        && block.addresses.count(family) <= MOST_ADDRESSES
                        && !allowed.contains(*address)
                }
                PeerSpec::Pods { .. } | PeerSpec::Unreadable => false,
            };
            let path = NetworkPolicy::peer_path(Direction::Egress, r, p).field("ipBlock");
            METADATA.into_iter().filter(of_block).map(move |it| (it, path.clone())).collect::<Vec<_>>()
        })
    }

    fn tell(&self, violation: &Violation, moment: &Moment<'_>) -> Option<Finding> {
        let (namespace, Subject::Policy(name)) = (&violation.namespace, &violation.subject) else { return None };
        let policy = moment.view.cluster.namespace(namespace)?.policies.get(name.as_str())?;
        let mut named: Vec<(IpAddr, FieldPath)> = self.named(policy).collect();
        named.sort_by_key(|(address, _)| *address);
        named.dedup_by_key(|(address, _)| *address);
        let path = named.first()?.1.clone();
        let addresses: Vec<String> = named.iter().map(|(address, _)| format!("`{address}`")).collect();
        let own = ObjectRef { kind: "NetworkPolicy".into(), namespace: Some(namespace.clone()), name: name.clone() };
        let (object, path) = match moment.change {
            Some((change, _)) if change.reference() != own => (change.reference(), FieldPath::root()),
            Some(_) | None => (own, path),
        };
        let message = format!(
            "in namespace `{namespace}`, NetworkPolicy `{name}` allows egress to the cloud's metadata address {}",
            words::list(&addresses)
        );
        Some(Finding {
            why: "the metadata service hands the node's credentials to each pod that asks".to_owned(),
            help: format!(
                "remove the block, or allow only the ports that are needed, such as 53 for the cloud's resolver; where pods get their own identity there, list it under `rules.{}.allow` in the configuration",
                Self::META.name
            ),
            ..Finding::new(Some(namespace.clone()), object, path, message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    fn to(cidr: &str, ports: &str) -> String {
        policy(
            "shop/metadata",
            &format!(
                "podSelector: {{}}, policyTypes: [Egress], egress: [{{to: [{{ipBlock: {{cidr: '{cidr}'}}}}]{ports}}}]"
            ),
        )
    }

    fn shop() -> Gate {
        gate(&namespace("shop", "")).only("NP009")
    }

    #[test]
    fn a_metadata_address_by_name_is_warned_about_and_denied_in_restricted() {
        for cidr in ["169.254.169.254/32", "169.254.0.0/16", "fd00:ec2::254/128", "168.63.129.16/32"] {
            for ports in ["", ", ports: [{port: 80}]", ", ports: [{port: 1, endPort: 100}]"] {
                shop().create(&to(cidr, ports)).is(&["warn NP009"]);
                shop().restricted().create(&to(cidr, ports)).is(&["deny NP009"]);
            }
        }
        shop().create(&to("169.254.169.254/32", "")).mentions("`169.254.169.254`");
    }

    #[test]
    fn the_clouds_resolver_and_other_networks_are_left_alone() {
        shop()
            .restricted()
            .create(&to("169.254.169.254/32", ", ports: [{port: 53, protocol: UDP}, {port: 53}]"))
            .nothing();
        shop().restricted().create(&to("169.254.20.10/32", "")).nothing();
        shop().restricted().create(&to("10.0.0.0/8", "")).nothing();
        // Too wide to name an address: another rule reports it.
        shop().restricted().create(&to("0.0.0.0/0", "")).nothing();
        let allowed = shop().restricted().option("metadata-access", "allow: [169.254.169.254/32]");
        allowed.create(&to("169.254.169.254/32", "")).nothing();
    }

    #[test]
    fn what_stood_is_warned_about_and_may_not_grow_over_more_pods_or_addresses() {
        let narrow = to("169.254.169.254/32", "").replace("podSelector: {}", "podSelector: {matchLabels: {app: a}}");
        let stood = || shop().restricted().with(&narrow);
        stood().update(&narrow.replace("metadata,", "metadata, labels: {a: b},")).is(&["warn NP009 standing"]);
        stood().update(&to("169.254.169.254/32", "")).is(&["deny NP009"]);
        let more = narrow.replace("egress: [", "egress: [{to: [{ipBlock: {cidr: 168.63.129.16/32}}]}, ");
        stood().update(&more).is(&["deny NP009"]);
        stood().delete("NetworkPolicy shop/metadata").nothing();
    }
}
