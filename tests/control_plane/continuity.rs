//! Certificates are renewed and gates replaced under load, with nothing failing for it. The
//! registration fails closed: a single answer missed is a create refused.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::load::{Balancer, Load, tls};
use crate::support::{Certificate, ControlPlane, Gate, Knows, Registration, Setup, Through, free_port, own_address};

#[tokio::test(flavor = "multi_thread")]
async fn renewing_the_certificate_every_second_for_a_minute_fails_no_create() {
    let plane = ControlPlane::shared().await;
    let address = own_address();
    let certificate = Certificate::new(&[address]);
    let setup = Setup {
        cluster: Knows::Live(plane.kubeconfig()),
        listen: Some(SocketAddr::new(address, 0)),
        certificate: Some(&certificate),
        ..Setup::default()
    };
    let mut gate = Gate::start(setup).await;
    let mut loads = Vec::new();
    for (through, name) in [(Through::Url, "renewed-url"), (Through::Service, "renewed-service")] {
        Registration::new(plane, &gate, through, name).await;
        // More clients than an API server keeps idle connections, so that it keeps making new ones.
        loads.push(Load::begin(plane, name, 32).await);
    }

    let begun = Instant::now();
    let mut seen = BTreeSet::new();
    for second in 1..=60 {
        certificate.renew();
        while begun.elapsed() < Duration::from_secs(second) {
            let connection = tls(&gate).await;
            seen.insert(connection.get_ref().1.peer_certificates().unwrap()[0].to_vec());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    for load in loads {
        load.end_without_failure().await;
    }
    // The gate looks once a second, so now and then two renewals are one to it.
    assert!(seen.len() > 30, "{} certificates were served", seen.len());
    gate.assert_running();
}

#[tokio::test(flavor = "multi_thread")]
async fn replacing_the_gates_one_by_one_fails_no_create() {
    let plane = ControlPlane::shared().await;
    let name = "replaced";
    let address = own_address();
    let address = SocketAddr::new(address, free_port(address));
    let certificate = Certificate::new(&[address.ip()]);
    let setup = || Setup {
        cluster: Knows::Live(plane.kubeconfig()),
        certificate: Some(&certificate),
        arguments: &["--linger", "1"],
        ..Setup::default()
    };
    let balancer = Balancer::new(address).await;
    let mut gates = vec![Gate::start(setup()).await, Gate::start(setup()).await];
    for gate in &gates {
        balancer.add(gate);
    }
    Registration::at(plane, &[&gates[0], &gates[1]], address, Through::Service, name).await;
    let load = Load::begin(plane, name, 32).await;
    for _ in 0..10 {
        let new = Gate::start(setup()).await;
        balancer.add(&new);
        gates.push(new);
        let old = gates.remove(0);
        assert!(old.reviews().await > 0.0, "the load did not reach this gate");
        let status = old.stop().await;
        assert!(status.success(), "{status}");
    }
    load.end_without_failure().await;
}
