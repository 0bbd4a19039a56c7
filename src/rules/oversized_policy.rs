//! `oversized-policy`: a NetworkPolicy that is far larger than any that people or generators need.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Aspect, Finding, Meta, Moment, Profile, Rule, Scope, Severity, Subject, View, Violation, Watched};
use crate::model::{
    Change, Direction, FieldPath, NetworkPolicy, Object, ObjectRef, Operation, Operator, PeerSpec, Selector,
};

/// Reports a NetworkPolicy that is far larger than any that people or generators need.
///
/// ## Why is this bad?
/// The CNI programs every rule, peer and port of a policy on each node that runs a selected pod. The
/// gate judges them again at each change in the namespace. A policy with hundreds of thousands of them
/// costs each node and the gate time and memory, and a person can no longer read what the policy allows.
/// Such a policy can also be an attack on the gate: one that takes too long to judge.
///
/// The limits are far above what clusters use. The largest honest policies are generated lists of
/// networks. The list of a cloud provider has some thousands.
///
/// ## Example
/// ```yaml
/// apiVersion: networking.k8s.io/v1
/// kind: NetworkPolicy
/// metadata:
///   name: cart
///   namespace: shop
/// spec:
///   podSelector:
///     # 65 labels
///     matchLabels: {
///       l00: x, l01: x, l02: x, l03: x, l04: x, l05: x, l06: x, l07: x, l08: x, l09: x, l10: x,
///       l11: x, l12: x, l13: x, l14: x, l15: x, l16: x, l17: x, l18: x, l19: x, l20: x, l21: x,
///       l22: x, l23: x, l24: x, l25: x, l26: x, l27: x, l28: x, l29: x, l30: x, l31: x, l32: x,
///       l33: x, l34: x, l35: x, l36: x, l37: x, l38: x, l39: x, l40: x, l41: x, l42: x, l43: x,
///       l44: x, l45: x, l46: x, l47: x, l48: x, l49: x, l50: x, l51: x, l52: x, l53: x, l54: x,
///       l55: x, l56: x, l57: x, l58: x, l59: x, l60: x, l61: x, l62: x, l63: x, l64: x }
///   policyTypes: [Ingress]
/// ```
///
/// Use instead:
/// ```yaml
/// apiVersion: networking.k8s.io/v1
/// kind: NetworkPolicy
/// metadata:
///   name: cart
///   namespace: shop
/// spec:
///   podSelector:
///     matchLabels:
///       app: cart
///   policyTypes: [Ingress]
/// ```
///
/// ## When it fires
/// When a policy over a limit is created, or when a change makes it larger. A policy that was over a
/// limit before and does not grow gets a warning at most. Making it smaller and deleting it always pass.
///
/// ## What it does not see
/// How many policies a namespace has. A policy that is too large to be read at all is not judged:
/// `onTimeout` decides.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct OversizedPolicy {
    /// The most rules in one direction.
    rules: usize,
    /// The most peers of all rules together; each network under `except` counts as one.
    peers: usize,
    /// The most ports of one rule.
    ports: usize,
    /// The most labels and expressions of one selector.
    expressions: usize,
    /// The most values of one expression.
    values: usize,
}

impl Default for OversizedPolicy {
    fn default() -> Self {
        Self { rules: 1000, peers: 20_000, ports: 500, expressions: 64, values: 1000 }
    }
}

/// What a policy can have too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// Rules in one direction.
    Rules,
    /// Peers of all rules.
    Peers,
    /// Ports of one rule.
    Ports,
    /// Requirements of one selector.
    Expressions,
    /// Values of one requirement.
    Values,
}

impl Limit {
    const ALL: [Self; 5] = [Self::Rules, Self::Peers, Self::Ports, Self::Expressions, Self::Values];

    fn option(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Peers => "peers",
            Self::Ports => "ports",
            Self::Expressions => "expressions",
            Self::Values => "values",
        }
    }

    /// What there is too much of.
    fn of_what(self) -> &'static str {
        match self {
            Self::Rules => "rules in one direction",
            Self::Peers => "peers and excepted networks",
            Self::Ports => "ports in one rule",
            Self::Expressions => "labels and expressions in one selector",
            Self::Values => "values in one expression",
        }
    }
}

/// The largest number of something that a policy has, and where.
struct Extent {
    count: usize,
    path: FieldPath,
}

impl Rule for OversizedPolicy {
    const META: Meta = Meta {
        code: "NP006",
        name: "oversized-policy",
        severity: Severity::Medium,
        baseline: Action::Deny,
        restricted: Action::Deny,
        since: "0.1.0",
        watches: &[Watched::NetworkPolicies.when_set()],
    };

    fn scope(&self, change: &Change, _before: &View<'_>, _after: &View<'_>) -> Scope {
        match change.subject() {
            Object::NetworkPolicy(policy) if change.operation() != Operation::Delete => {
                Scope::Namespace(policy.namespace.clone())
            }
            Object::NetworkPolicy(_)
            | Object::Namespace(_)
            | Object::Workload(_)
            | Object::Service(_)
            | Object::PeerAuthentication(_)
            | Object::MeshConfig(_)
            | Object::WebhookConfiguration(_)
            | Object::ForeignPolicy(_)
            | Object::Waiver(_) => Scope::Nothing,
        }
    }

    fn violations(&self, view: &View<'_>, scope: &Scope, out: &mut Vec<Violation>) {
        if let Scope::Workload(..) = scope {
            return;
        }
        for namespace in scope.namespaces(view.cluster) {
            let Some(state) = view.cluster.namespace(namespace) else { continue };
            if view.environment.namespaces.is_exempt(namespace) || state.is_terminating() {
                continue;
            }
            for policy in state.policies.iter() {
                view.check_stop();
                let sizes = Sizes::of(policy);
                for limit in Limit::ALL {
                    if sizes.count(limit) > self.most(limit) {
                        out.push(Violation {
                            namespace: namespace.clone(),
                            subject: Subject::Policy(policy.name.clone()),
                            aspect: Aspect::Oversized(limit),
                            badness: 1,
                        });
                    }
                }
            }
        }
    }

    /// One that is larger than it was, by however little.
    fn worsened(&self, violation: &Violation, before: &View<'_>, after: &View<'_>) -> bool {
        let Aspect::Oversized(limit) = violation.aspect else { return false };
        let count = |view: &View<'_>| policy_of(violation, view).map(|policy| Sizes::of(policy).count(limit));
        count(after) > count(before)
    }

    /// Other oversized policies of the namespace stood before and are not under review.
    fn ceiling(&self, violation: &Violation, moment: &Moment<'_>) -> Action {
        let is_other = |change: &Change| Some(change.reference()) != reference_of(violation);
        match moment.change {
            Some((change, _)) if is_other(change) => Action::Off,
            Some(_) | None => Action::Deny,
        }
    }

    /// What is too much is there.
    fn rests_on_absence(&self, _violation: &Violation, _moment: &Moment<'_>) -> bool {
        false
    }

    fn loosened(&self, before: &Self, _profile: Profile, _then: Profile) -> Vec<(&'static str, bool)> {
        let Self { rules, peers, ports, expressions, values } = self;
        vec![
            ("rules", *rules > before.rules),
            ("peers", *peers > before.peers),
            ("ports", *ports > before.ports),
            ("expressions", *expressions > before.expressions),
            ("values", *values > before.values),
        ]
    }

    fn explain(&self, violations: &[Violation], moment: &Moment<'_>) -> Vec<Finding> {
        violations.iter().filter_map(|violation| self.explain_one(violation, moment)).collect()
    }
}

impl OversizedPolicy {
    fn most(&self, limit: Limit) -> usize {
        match limit {
            Limit::Rules => self.rules,
            Limit::Peers => self.peers,
            Limit::Ports => self.ports,
            Limit::Expressions => self.expressions,
            Limit::Values => self.values,
        }
    }

    fn explain_one(&self, violation: &Violation, moment: &Moment<'_>) -> Option<Finding> {
        let Aspect::Oversized(limit) = violation.aspect else { return None };
        let policy = policy_of(violation, moment.view)?;
        let Extent { count, path } = Sizes::of(policy).extent(policy, limit);
        let (most, what) = (self.most(limit), limit.of_what());
        let named = format!("in namespace `{}`, NetworkPolicy `{}`", policy.namespace, policy.name);
        let message = format!("{named} has {count} {what}: {most} are allowed");
        let split = "split the policy by what it is for, and join networks that lie side by side";
        Some(Finding {
            why: "each part is programmed on every node and judged at each change of the namespace, and what so many add up to can no longer be read".to_owned(),
            help: format!("{split}; or raise `rules.oversized-policy.{}` in the configuration", limit.option()),
            ..Finding::new(Some(violation.namespace.clone()), reference_of(violation)?, path, message)
        })
    }
}

fn policy_of<'a>(violation: &Violation, view: &View<'a>) -> Option<&'a NetworkPolicy> {
    let Subject::Policy(name) = &violation.subject else { return None };
    Some(view.cluster.namespace(&violation.namespace)?.policies.get(name.as_str())?.as_ref())
}

fn reference_of(violation: &Violation) -> Option<ObjectRef> {
    let Subject::Policy(name) = &violation.subject else { return None };
    let namespace = Some(violation.namespace.clone());
    Some(ObjectRef { kind: "NetworkPolicy".into(), namespace, name: name.clone() })
}

/// How large a policy is.
#[derive(Default)]
struct Sizes {
    rules: usize,
    peers: usize,
    ports: usize,
    expressions: usize,
    values: usize,
}

impl Sizes {
    fn of(policy: &NetworkPolicy) -> Self {
        let mut sizes = Self::default();
        sizes.add_selector(&policy.pods);
        for direction in Direction::ALL {
            let rules = policy.rules(direction);
            sizes.rules = sizes.rules.max(rules.len());
            for rule in rules {
                let ports = rule.ports.as_ref().map_or(0, Vec::len);
                sizes.ports = sizes.ports.max(ports);
                for peer in rule.peers.iter().flatten() {
                    let networks = match peer {
                        PeerSpec::Block(block) => 1 + block.except.len(),
                        PeerSpec::Pods { .. } | PeerSpec::Unreadable => 1,
                    };
                    sizes.peers += networks;
                    selectors_of(peer).for_each(|selector| sizes.add_selector(selector));
                }
            }
        }
        sizes
    }

    fn add_selector(&mut self, selector: &Selector) {
        let requirements = selector.requirements();
        self.expressions = self.expressions.max(requirements.len());
        for requirement in requirements {
            if let Operator::In(values) | Operator::NotIn(values) = &requirement.operator {
                self.values = self.values.max(values.len());
            }
        }
    }

    fn count(&self, limit: Limit) -> usize {
        match limit {
            Limit::Rules => self.rules,
            Limit::Peers => self.peers,
            Limit::Ports => self.ports,
            Limit::Expressions => self.expressions,
            Limit::Values => self.values,
        }
    }

    /// So much of something, and where the most of it is.
    fn extent(&self, policy: &NetworkPolicy, limit: Limit) -> Extent {
        let count = self.count(limit);
        let rules = || {
            Direction::ALL.into_iter().flat_map(|direction| {
                policy.rules(direction).iter().enumerate().map(move |(i, rule)| (direction, i, rule))
            })
        };
        let has = |selector: &Selector| {
            let mut sizes = Self::default();
            sizes.add_selector(selector);
            sizes.count(limit) == count
        };
        let spec = FieldPath::new("spec");
        let path = match limit {
            Limit::Rules => Direction::ALL
                .into_iter()
                .find(|direction| policy.rules(*direction).len() == count)
                .map(|direction| spec.field(direction.field())),
            Limit::Ports => rules()
                .find(|(.., rule)| rule.ports.as_ref().is_some_and(|ports| ports.len() == count))
                .map(|(direction, i, _)| NetworkPolicy::rule_path(direction, i).field("ports")),
            Limit::Peers => rules()
                .max_by_key(|(.., rule)| rule.peers.as_ref().map_or(0, Vec::len))
                .map(|(direction, i, _)| NetworkPolicy::rule_path(direction, i).field(direction.peers_field())),
            Limit::Expressions | Limit::Values if has(&policy.pods) => Some(spec.field("podSelector")),
            Limit::Expressions | Limit::Values => rules().find_map(|(direction, i, rule)| {
                let mut peers = rule.peers.iter().flatten();
                let at = peers.position(|peer| selectors_of(peer).any(&has))?;
                Some(NetworkPolicy::peer_path(direction, i, at))
            }),
        };
        Extent { count, path: path.unwrap_or(spec) }
    }
}

fn selectors_of(peer: &PeerSpec) -> impl Iterator<Item = &Selector> {
    let (pods, namespaces) = match peer {
        PeerSpec::Pods { namespaces, pods, pods_written: _ } => (Some(pods), namespaces.as_ref()),
        PeerSpec::Block(_) | PeerSpec::Unreadable => (None, None),
    };
    namespaces.into_iter().chain(pods)
}

#[cfg(test)]
mod tests {
    use crate::rules::testing::*;

    fn peers(count: usize) -> String {
        let block = |n: usize| format!("{{ipBlock: {{cidr: 10.{}.{}.{}/32}}}}", n / 65536, n / 256 % 256, n % 256);
        let blocks: Vec<String> = (0..count).map(block).collect();
        policy(
            "shop/list",
            &format!("podSelector: {{}}, policyTypes: [Ingress], ingress: [{{from: [{}]}}]", blocks.join(", ")),
        )
    }

    fn rules(count: usize) -> String {
        let rules = vec!["{ports: [{port: 443}]}"; count].join(", ");
        policy("shop/list", &format!("podSelector: {{}}, policyTypes: [Ingress], ingress: [{rules}]"))
    }

    fn shop() -> Gate {
        gate(&(namespace("shop", "") + &default_deny("shop"))).only("NP006")
    }

    #[test]
    fn what_a_policy_has_too_much_of_is_named_with_its_place() {
        let said = shop().create(&rules(1001));
        said.is(&["deny NP006"]).mentions("NetworkPolicy `list` has 1001 rules in one direction: 1000 are allowed");
        said.mentions("rules.oversized-policy.rules");
        shop().create(&rules(1000)).nothing();
        let labels: Vec<String> = (0..65).map(|n| format!("l{n}: x")).collect();
        let wide = policy("shop/labels", &format!("podSelector: {{matchLabels: {{{}}}}}", labels.join(", ")));
        shop().create(&wide).is(&["deny NP006"]).mentions("has 65 labels and expressions in one selector");
        let ports = vec!["{port: 443}"; 501].join(", ");
        let ports = policy("shop/ports", &format!("podSelector: {{}}, ingress: [{{ports: [{ports}]}}]"));
        shop().create(&ports).is(&["deny NP006"]).mentions("has 501 ports in one rule");
        let values: Vec<String> = (0..1001).map(|n| format!("v{n}")).collect();
        let values = format!("{{key: app, operator: NotIn, values: [{}]}}", values.join(", "));
        let values = policy("shop/values", &format!("podSelector: {{matchExpressions: [{values}]}}"));
        shop().create(&values).is(&["deny NP006"]).mentions("has 1001 values in one expression");
    }

    #[test]
    fn a_generated_list_of_thousands_of_networks_passes() {
        shop().create(&peers(9000)).nothing();
        shop()
            .option("oversized-policy", "{peers: 8999}")
            .create(&peers(9000))
            .is(&["deny NP006"])
            .mentions("has 9000 peers");
    }

    #[test]
    fn what_stood_may_shrink_and_go_and_may_not_grow() {
        let gate = shop().with(&rules(2000));
        gate.update(&rules(1500)).is(&["warn NP006 standing"]);
        gate.update(&rules(2001)).is(&["deny NP006"]);
        gate.update(&rules(10)).nothing();
        gate.delete("NetworkPolicy shop/list").nothing();
        gate.create(&policy("shop/other", "podSelector: {}")).nothing();
        gate.check().is(&["deny NP006"]);
    }
}
