//! Which pods are open, worked out flow by flow from the objects as they are stored: by nothing of
//! the product, and as simply as can be.

use std::net::Ipv4Addr;

use serde_json::Value;

/// One end of a flow that is not the pod in question.
enum Other {
    /// A pod of another namespace, with these labels on both.
    Stranger(&'static str),
    Outside(Ipv4Addr),
}

/// Nothing that a workload has a reason to admit all of.
const OTHERS: [Other; 8] = [
    Other::Stranger("red"),
    Other::Stranger("blue"),
    Other::Outside(Ipv4Addr::new(1, 2, 3, 4)),
    Other::Outside(Ipv4Addr::new(45, 9, 148, 3)),
    Other::Outside(Ipv4Addr::new(93, 184, 216, 34)),
    Other::Outside(Ipv4Addr::new(130, 1, 1, 9)),
    Other::Outside(Ipv4Addr::new(185, 7, 7, 7)),
    Other::Outside(Ipv4Addr::new(217, 160, 0, 1)),
];

/// Ports of well-known services and others.
const PORTS: [u64; 13] = [22, 80, 443, 1000, 3306, 5432, 6379, 8080, 9200, 15_000, 27_017, 40_000, 60_000];

/// The directions in which a pod is open: no policy isolates it, or those that do admit everything.
pub(crate) fn open_directions(pod: &Value, policies: &[&Value]) -> Vec<&'static str> {
    if pod["spec"]["hostNetwork"] == true {
        return vec!["Ingress", "Egress"];
    }
    ["Ingress", "Egress"].into_iter().filter(|direction| is_open(pod, policies, direction)).collect()
}

fn is_open(pod: &Value, policies: &[&Value], direction: &str) -> bool {
    let isolating: Vec<&Value> = policies
        .iter()
        .map(|policy| &policy["spec"])
        .filter(|spec| selects(&spec["podSelector"], &pod["metadata"]["labels"]))
        .filter(|spec| list(&spec["policyTypes"]).iter().any(|it| it == direction))
        .collect();
    if isolating.is_empty() {
        return true;
    }
    let (rules, peers) = if direction == "Ingress" { ("ingress", "from") } else { ("egress", "to") };
    let rules: Vec<&Value> = isolating.iter().flat_map(|spec| list(&spec[rules])).collect();
    OTHERS.iter().all(|other| {
        PORTS.iter().all(|port| {
            rules.iter().any(|rule| {
                let (peers, ports) = (list(&rule[peers]), list(&rule["ports"]));
                (peers.is_empty() || peers.iter().any(|peer| is_about(peer, other)))
                    && (ports.is_empty() || ports.iter().any(|it| opens(it, *port)))
            })
        })
    })
}

fn is_about(peer: &Value, other: &Other) -> bool {
    match other {
        Other::Stranger(color) => {
            let labels = serde_json::json!({ "color": color });
            // Without a selector of namespaces, pods of the policy's own are meant.
            peer.get("namespaceSelector").is_some_and(|it| selects(it, &labels))
                && peer.get("podSelector").is_none_or(|it| selects(it, &labels))
        }
        Other::Outside(address) => peer.get("ipBlock").is_some_and(|block| {
            contains(block["cidr"].as_str().unwrap(), *address)
                && !list(&block["except"]).iter().any(|it| contains(it.as_str().unwrap(), *address))
        }),
    }
}

fn contains(cidr: &str, address: Ipv4Addr) -> bool {
    let (net, length) = cidr.split_once('/').unwrap();
    let Ok(net) = net.parse::<Ipv4Addr>() else { return false };
    (net.to_bits() ^ address.to_bits()).leading_zeros() >= length.parse().unwrap()
}

/// Whether this is about the port of TCP.
fn opens(port: &Value, number: u64) -> bool {
    let is_tcp = port.get("protocol").is_none_or(|it| it == "TCP");
    is_tcp
        && match (port["port"].as_u64(), port["endPort"].as_u64()) {
            (None, _) => true,
            (Some(first), None) => first == number,
            (Some(first), Some(last)) => (first..=last).contains(&number),
        }
}

pub(crate) fn selects(selector: &Value, labels: &Value) -> bool {
    let has_labels =
        selector["matchLabels"].as_object().into_iter().flatten().all(|(key, value)| labels[key] == *value);
    has_labels
        && list(&selector["matchExpressions"]).iter().all(|expression| {
            let value = labels.get(expression["key"].as_str().unwrap());
            let is_listed = value.is_some_and(|it| list(&expression["values"]).contains(it));
            match expression["operator"].as_str().unwrap() {
                "In" => is_listed,
                "NotIn" => !is_listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                other => unreachable!("no such operator is generated: {other}"),
            }
        })
}

/// The items of a list; none where it is absent.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
