//! NetworkPolicy.

use portcullis::model::{Direction, Directions, IpBlock, Labels, NetworkPolicy, Object, PeerSpec, Port, PortSpec};
use portcullis::netset::Protocol;

use crate::{lower, policy, problems};

/// A policy of this spec, in flow style.
fn of(spec: &str) -> NetworkPolicy {
    policy(&text(spec))
}

fn text(spec: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: x}}, spec: {{{spec}}}}}"
    )
}

/// What is said of a policy of this spec.
fn said(spec: &str) -> Vec<String> {
    let said = problems(&text(spec));
    assert!(!of(spec).is_partial || !said.is_empty(), "{spec}");
    said
}

#[test]
fn policy_types_are_defaulted_as_the_api_server_does() {
    let (ingress, egress) = (Directions { ingress: true, egress: false }, Directions { ingress: false, egress: true });
    for (spec, isolates) in [
        ("", ingress),
        ("policyTypes: null", ingress),
        ("policyTypes: []", ingress),
        ("egress: null", ingress),
        ("egress: []", ingress),
        ("egress: [{}]", Directions::BOTH),
        ("policyTypes: [], egress: [{}]", Directions::BOTH),
        ("policyTypes: null, egress: [{}], ingress: []", Directions::BOTH),
        ("ingress: [{}]", ingress),
        ("policyTypes: [Ingress]", ingress),
        ("policyTypes: [Ingress], egress: [{}]", ingress),
        ("policyTypes: [Egress]", egress),
        ("policyTypes: [Egress], ingress: [{}]", egress),
        ("policyTypes: [Egress, Ingress]", Directions::BOTH),
        ("policyTypes: [Ingress, Ingress]", ingress),
    ] {
        assert_eq!(of(spec).isolates, isolates, "{spec}");
        assert_eq!(said(spec), [""; 0], "{spec}");
    }
}

#[test]
fn policy_types_of_no_meaning_are_said() {
    assert_eq!(
        said("policyTypes: [Ingress, egress]"),
        ["spec.policyTypes[1]: unknown policy type `egress`: `Ingress` and `Egress` are supported"]
    );
    assert_eq!(
        said("policyTypes: [Ingress, Egress, Egress]"),
        ["spec.policyTypes: there are only two policy types: list each once"]
    );
}

#[test]
fn a_missing_spec_or_selector_selects_every_pod() {
    for policy in [
        policy("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}}"),
        policy("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}, spec: null}"),
        of(""),
        of("podSelector: null"),
        of("podSelector: {}"),
        of("podSelector: {matchLabels: {}, matchExpressions: null}"),
    ] {
        assert!(policy.pods.is_everything(), "{policy:?}");
        assert!(!policy.is_partial);
    }
}

#[test]
fn lists_that_are_missing_null_or_empty_are_alike() {
    let rule = |rule: &str| of(&format!("ingress: [{{{rule}}}]")).ingress.remove(0);
    for everyone in ["", "from: null", "from: []", "ports: null", "ports: []", "from: [], ports: []"] {
        let rule = rule(everyone);
        assert_eq!((rule.peers, rule.ports), (None, None), "{everyone}");
    }
    for nothing in ["", "ingress: null", "ingress: []"] {
        assert_eq!(of(nothing).ingress, [], "{nothing}");
    }
}

#[test]
fn an_item_that_is_null_is_said_and_its_policy_is_not_taken_for_absent() {
    let text = text("ingress: [null]");
    assert!(problems(&text)[0].starts_with("spec.ingress[0]: invalid type: null"), "{:?}", problems(&text));
    assert!(matches!(lower(&text).object, Some(Object::ForeignPolicy(it)) if it.kind == "NetworkPolicy"));
}

fn peer(peer: &str) -> PeerSpec {
    of(&format!("egress: [{{to: [{peer}]}}]")).egress.remove(0).peers.unwrap().remove(0)
}

#[test]
fn the_four_peers_of_selectors() {
    let is = |peer: PeerSpec| match peer {
        PeerSpec::Pods { namespaces, pods, pods_written } => {
            (namespaces.map(|it| it.is_everything()), pods.is_everything(), pods_written)
        }
        other => panic!("{other:?}"),
    };
    for (written, expected) in [
        ("{podSelector: {}}", (None, true, true)),
        ("{podSelector: {matchLabels: {a: b}}}", (None, false, true)),
        ("{podSelector: {}, namespaceSelector: null}", (None, true, true)),
        ("{namespaceSelector: {}}", (Some(true), true, false)),
        ("{namespaceSelector: {matchLabels: {a: b}}}", (Some(false), true, false)),
        ("{namespaceSelector: {}, podSelector: {}}", (Some(true), true, true)),
        ("{namespaceSelector: {matchLabels: {a: b}}, podSelector: {matchLabels: {a: b}}}", (Some(false), false, true)),
    ] {
        assert_eq!(is(peer(written)), expected, "{written}");
    }
}

#[test]
fn two_items_are_two_peers_and_one_item_is_one() {
    let peers = |to: &str| of(&format!("egress: [{{to: [{to}]}}]")).egress.remove(0).peers.unwrap().len();
    assert_eq!(peers("{namespaceSelector: {}, podSelector: {}}"), 1);
    assert_eq!(peers("{namespaceSelector: {}}, {podSelector: {}}"), 2);
}

#[test]
fn peers_the_api_server_refuses_are_said() {
    let refused = "egress[0].to[0]: a peer needs `podSelector`, `namespaceSelector` or `ipBlock`";
    assert_eq!(said("egress: [{to: [{}]}]"), [format!("spec.{refused}")]);
    assert_eq!(
        said("ingress: [{}, {from: [{podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]"),
        ["spec.ingress[1].from[1]: `ipBlock` cannot stand beside a selector: make them two peers"]
    );
    assert_eq!(peer("{}"), PeerSpec::Unreadable);
    assert_eq!(peer("{ipBlock: {cidr: 10.0.0.0/8}, namespaceSelector: {}}"), PeerSpec::Unreadable);
}

fn block(cidr: &str, except: &[&str]) -> PeerSpec {
    PeerSpec::Block(IpBlock::new(cidr.parse().unwrap(), except.iter().map(|it| it.parse().unwrap()).collect()))
}

#[test]
fn networks_are_read_as_leniently_as_stored_ones() {
    for (written, read) in [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("010.001.02.3/8", "10.0.0.0/8"),
        ("10.0.0.0/08", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("10.0.0.1/32", "10.0.0.1/32"),
        ("::/0", "::/0"),
        ("2001:DB8::1/32", "2001:db8::/32"),
        ("::ffff:0:0/95", "::fffe:0:0/95"),
        ("2001:0db8:0000::/48", "2001:db8::/48"),
    ] {
        let spec = format!("egress: [{{to: [{{ipBlock: {{cidr: '{written}'}}}}]}}]");
        assert_eq!(said(&spec), [""; 0], "{written}");
        assert_eq!(of(&spec).egress[0].peers.as_ref().unwrap()[0], block(read, &[]), "{written}");
    }
}

#[test]
fn what_is_no_network_admits_nobody_knows_whom() {
    for written in [
        "",
        "/",
        "10.0.0.0",
        "10.0.0.0/",
        "/8",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0.0/+8",
        "10.0.0.0/8/8",
        "10.0.0/8",
        "1.2.3.4.5/8",
        "+10.0.0.0/8",
        "10.0.0.256/8",
        "0x0a.0.0.0/8",
        "10.0.0.0001/8",
        " 10.0.0.0/8",
        "10.0.0.0/8 ",
        "::/129",
        "::1",
        "fe80::1%eth0/64",
        "example.com",
        "10.0.0.0/255.0.0.0",
        "١٠.0.0.0/8",
        "10.0.0.0/٨",
    ] {
        let spec = format!("ingress: [{{from: [{{ipBlock: {{cidr: '{written}'}}}}]}}]");
        let said = said(&spec);
        assert_eq!(said.len(), 1, "{written}: {said:?}");
        assert!(said[0].starts_with("spec.ingress[0].from[0].ipBlock.cidr: `"), "{said:?}");
        assert_eq!(of(&spec).ingress[0].peers, Some(vec![PeerSpec::Unreadable]), "{written}");
    }
    assert_eq!(
        said("ingress: [{from: [{ipBlock: {cidr: '::1'}}]}]"),
        ["spec.ingress[0].from[0].ipBlock.cidr: `::1` is one address, not a network: write `::1/128`"]
    );
}

#[test]
fn ipv4_written_as_ipv6_is_ipv4_and_said() {
    for (written, read) in
        [("::ffff:10.0.0.0/104", "10.0.0.0/8"), ("::ffff:0.0.0.0/96", "0.0.0.0/0"), ("::ffff:a00:1/128", "10.0.0.1/32")]
    {
        let spec = format!("egress: [{{to: [{{ipBlock: {{cidr: '{written}'}}}}]}}]");
        assert_eq!(of(&spec).egress[0].peers.as_ref().unwrap()[0], block(read, &[]), "{written}");
        assert_eq!(said(&spec).len(), 1, "{written}");
    }
}

#[test]
fn exceptions_lie_inside_their_block() {
    let said = |except: &str| said(&format!("egress: [{{to: [{{ipBlock: {{cidr: 10.0.0.0/8, except: {except}}}}}]}}]"));
    for fine in ["null", "[]", "[10.1.0.0/16]", "[10.1.0.0/16, 10.2.3.4/32]", "['010.1.0.0/16']"] {
        assert_eq!(said(fine), [""; 0], "{fine}");
    }
    for (wrong, place) in [
        ("[10.0.0.0/8]", 0),
        ("[10.0.0.0/7]", 0),
        ("[10.1.0.0/16, 11.0.0.0/16]", 1),
        ("['2001:db8::/32']", 0),
        ("[10.1.0.0]", 0),
    ] {
        let said = said(wrong);
        assert_eq!(said.len(), 1, "{wrong}: {said:?}");
        assert!(said[0].starts_with(&format!("spec.egress[0].to[0].ipBlock.except[{place}]: ")), "{said:?}");
    }
    assert_eq!(peer("{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}"), block("10.0.0.0/8", &["10.1.0.0/16"]));
    // What is removed outside the block removes nothing, and what is not readable removes nothing.
    assert_eq!(peer("{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16, x]}}"), block("10.0.0.0/8", &["11.0.0.0/16"]));
}

#[test]
fn ports() {
    let port = |port: &str| of(&format!("ingress: [{{ports: [{port}]}}]")).ingress.remove(0).ports.unwrap().remove(0);
    for (written, protocol, expected) in [
        ("{}", Protocol::Tcp, Port::All),
        ("{port: null, protocol: null}", Protocol::Tcp, Port::All),
        ("{protocol: UDP}", Protocol::Udp, Port::All),
        ("{port: 53}", Protocol::Tcp, Port::Range(53, 53)),
        ("{port: 53, protocol: ''}", Protocol::Tcp, Port::Range(53, 53)),
        ("{port: 1, protocol: SCTP}", Protocol::Sctp, Port::Range(1, 1)),
        ("{port: 65535}", Protocol::Tcp, Port::Range(65535, 65535)),
        ("{port: 80, endPort: 80}", Protocol::Tcp, Port::Range(80, 80)),
        ("{port: 32000, endPort: 32768}", Protocol::Tcp, Port::Range(32000, 32768)),
        ("{port: http}", Protocol::Tcp, Port::Named("http".into())),
        ("{port: dns-tcp, protocol: UDP}", Protocol::Udp, Port::Named("dns-tcp".into())),
        ("{port: 1a}", Protocol::Tcp, Port::Named("1a".into())),
        ("{port: abcdefghijklmno}", Protocol::Tcp, Port::Named("abcdefghijklmno".into())),
    ] {
        assert_eq!(port(written), PortSpec { protocol, port: expected }, "{written}");
        assert_eq!(said(&format!("ingress: [{{ports: [{written}]}}]")), [""; 0], "{written}");
    }
    for (written, field) in [
        ("{port: 0}", "port"),
        ("{port: -1}", "port"),
        ("{port: 65536}", "port"),
        ("{port: '80'}", "port"),
        ("{port: ''}", "port"),
        ("{port: HTTP}", "port"),
        ("{port: a--b}", "port"),
        ("{port: -a}", "port"),
        ("{port: a-}", "port"),
        ("{port: abcdefghijklmnop}", "port"),
        ("{port: 80, endPort: 79}", "endPort"),
        ("{port: 80, endPort: 65536}", "endPort"),
        ("{port: 80, endPort: 0}", "endPort"),
        ("{endPort: 80}", "endPort"),
        ("{port: http, endPort: 80}", "endPort"),
        ("{port: 80, protocol: ICMP}", "protocol"),
        ("{port: 80, protocol: tcp}", "protocol"),
    ] {
        let said = said(&format!("egress: [{{}}, {{ports: [{{}}, {written}]}}]"));
        assert_eq!(said.len(), 1, "{written}: {said:?}");
        assert!(said[0].starts_with(&format!("spec.egress[1].ports[1].{field}: ")), "{said:?}");
        if written != "{port: http, endPort: 80}" {
            assert_eq!(port(written).port, Port::Unreadable, "{written}");
        }
    }
}

#[test]
fn a_number_in_quotes_is_a_name_without_a_letter() {
    assert_eq!(
        said("ingress: [{ports: [{port: '80'}]}]"),
        [
            "spec.ingress[0].ports[0].port: `\"80\"` in quotes is a port's name, and a name needs a letter: write 80 without quotes"
        ]
    );
}

#[test]
fn selectors() {
    let with = |pairs: &[(&str, &str)]| pairs.iter().copied().collect::<Labels>();
    let (none, ab, ac) = (with(&[]), with(&[("a", "b")]), with(&[("a", "c")]));
    for (selector, matches) in [
        ("{}", [true, true, true]),
        ("{matchLabels: {a: b}}", [false, true, false]),
        ("{matchExpressions: [{key: a, operator: In, values: [b, c]}]}", [false, true, true]),
        ("{matchExpressions: [{key: a, operator: NotIn, values: [b]}]}", [true, false, true]),
        ("{matchExpressions: [{key: a, operator: Exists}]}", [false, true, true]),
        ("{matchExpressions: [{key: a, operator: DoesNotExist, values: []}]}", [true, false, false]),
        ("{matchLabels: {a: b}, matchExpressions: [{key: a, operator: In, values: [c]}]}", [false, false, false]),
    ] {
        let spec = format!("podSelector: {selector}");
        assert_eq!([&none, &ab, &ac].map(|labels| of(&spec).pods.matches(labels)), matches, "{selector}");
        assert_eq!(said(&spec), [""; 0], "{selector}");
    }
    for (expression, field) in [
        ("{key: a, operator: In}", "values"),
        ("{key: a, operator: NotIn, values: []}", "values"),
        ("{key: a, operator: Exists, values: [b]}", "values"),
        ("{key: a, operator: DoesNotExist, values: [b]}", "values"),
        ("{key: a, operator: in, values: [b]}", "operator"),
        ("{key: a, operator: Gt, values: ['1']}", "operator"),
    ] {
        let said = said(&format!("podSelector: {{matchExpressions: [{{key: x, operator: Exists}}, {expression}]}}"));
        assert_eq!(said.len(), 1, "{expression}: {said:?}");
        assert!(said[0].starts_with(&format!("spec.podSelector.matchExpressions[1].{field}: ")), "{said:?}");
    }
}

#[test]
fn a_selector_of_a_peer_is_said_with_its_path() {
    assert_eq!(
        said("ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: a, operator: In}]}}]}]"),
        [
            "spec.ingress[0].from[0].namespaceSelector.matchExpressions[0].values: operator `In` needs at least one value"
        ]
    );
}

#[test]
fn unknown_fields_are_said_wherever_they_are_in_the_spec() {
    let unknown = "unknown field: the API server drops it, and a newer version may give it a meaning";
    for (spec, path) in [
        ("tier: admin", "spec.tier"),
        ("Egress: [{}]", "spec.Egress"),
        ("ingress: [{action: Deny}]", "spec.ingress[0].action"),
        ("ingress: [{from: [{podSelector: {}, serviceAccounts: [a]}]}]", "spec.ingress[0].from[0].serviceAccounts"),
        ("ingress: [{ports: [{port: 80, icmp: 1}]}]", "spec.ingress[0].ports[0].icmp"),
        ("podSelector: {matchlabels: {a: b}}", "spec.podSelector.matchlabels"),
    ] {
        assert_eq!(said(spec), [format!("{path}: {unknown}")]);
    }
}

#[test]
fn a_policy_of_another_shape_stands_as_one_of_unknown_meaning() {
    for spec in [
        "spec: [1]",
        "spec: {ingress: {}}",
        "spec: {podSelector: [a]}",
        "spec: {ingress: [{ports: [{port: 99999999999}]}]}",
    ] {
        let text = format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: x}}, {spec}}}"
        );
        assert_eq!(problems(&text).len(), 1, "{spec}");
        match lower(&text).object {
            Some(Object::ForeignPolicy(it)) => {
                assert_eq!((it.namespace.as_deref(), it.name.as_str()), (Some("x"), "p"));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn rules_keep_their_order_and_direction() {
    let policy = of(
        "policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 1}]}, {ports: [{port: 2}]}], egress: [{ports: [{port: 3}]}]",
    );
    let first = |direction| {
        let ports = policy.rules(direction).iter().map(|rule| rule.ports.as_ref().unwrap()[0].port.clone());
        ports.collect::<Vec<_>>()
    };
    assert_eq!(first(Direction::Ingress), [Port::Range(1, 1), Port::Range(2, 2)]);
    assert_eq!(first(Direction::Egress), [Port::Range(3, 3)]);
}
