//! Services.

use portcullis::model::{Labels, ServicePort, TargetPort};
use portcullis::netset::Protocol;

use crate::{problems, service};

fn text(spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: s, namespace: x, labels: {{a: b}}}}, spec: {{{spec}}}}}"
    )
}

#[test]
fn target_ports() {
    for (written, protocol, port, target) in [
        ("{port: 80}", Protocol::Tcp, 80, TargetPort::Number(80)),
        ("{port: 80, targetPort: null}", Protocol::Tcp, 80, TargetPort::Number(80)),
        ("{port: 80, targetPort: 0}", Protocol::Tcp, 80, TargetPort::Number(80)),
        ("{port: 80, targetPort: ''}", Protocol::Tcp, 80, TargetPort::Number(80)),
        ("{port: 53, protocol: UDP, targetPort: 5353}", Protocol::Udp, 53, TargetPort::Number(5353)),
        ("{port: 53, protocol: '', targetPort: dns-tcp}", Protocol::Tcp, 53, TargetPort::Name("dns-tcp".into())),
        (
            "{port: 80, targetPort: 8080, nodePort: 30000, appProtocol: http}",
            Protocol::Tcp,
            80,
            TargetPort::Number(8080),
        ),
    ] {
        let text = text(&format!("ports: [{written}]"));
        assert_eq!(service(&text).ports, [ServicePort { protocol, port, target }], "{written}");
        assert_eq!(problems(&text), [""; 0], "{written}");
    }
}

#[test]
fn ports_of_no_meaning_are_said_and_the_others_stay() {
    for (written, field) in [
        ("{port: 0}", "port"),
        ("{port: 65536}", "port"),
        ("{port: 80, targetPort: 70000}", "targetPort"),
        ("{port: 80, targetPort: '8080'}", "targetPort"),
        ("{port: 80, targetPort: HTTP}", "targetPort"),
        ("{port: 80, protocol: HTTP}", "protocol"),
    ] {
        let text = text(&format!("ports: [{{port: 1}}, {written}]"));
        let said = problems(&text);
        assert_eq!(said.len(), 1, "{written}: {said:?}");
        assert!(said[0].starts_with(&format!("spec.ports[1].{field}: ")), "{said:?}");
        assert_eq!(service(&text).ports.len(), 1, "{written}");
    }
}

#[test]
fn an_empty_selector_selects_nothing() {
    let selector = |spec: &str| service(&text(spec)).selector;
    assert_eq!(selector("selector: {app: cart}"), Some(Labels::from([("app", "cart")])));
    for none in ["", "selector: null", "selector: {}"] {
        assert_eq!(selector(none), None, "{none}");
    }
    assert_eq!(service("{apiVersion: v1, kind: Service, metadata: {name: s}}").ports, []);
}

#[test]
fn virtual_addresses_are_read_once_and_headless_services_have_none() {
    let ips = |spec: &str| service(&text(spec)).cluster_ips.len();
    assert_eq!(ips("clusterIP: 10.96.0.10, clusterIPs: [10.96.0.10, 'fd00::a']"), 2);
    assert_eq!(ips("clusterIP: None, clusterIPs: [None]"), 0);
    assert_eq!(ips("clusterIP: ''"), 0);
}
