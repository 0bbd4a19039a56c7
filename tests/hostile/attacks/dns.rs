//! Taking DNS from everybody. What is tried here is only tried: cluster DNS is everybody's.

use crate::shop::{CART, CLOSED, Profile, Shop};
use crate::support::{Kubectl, eventually};

/// A registration that asks about cluster DNS as well, of a gate that is there.
async fn guarding() -> Shop {
    let shop = Shop::standing(Profile::Restricted, "resolves", "", &[CLOSED, CART].join("\n---\n")).await;
    let url = format!("https://{}", shop.gate.webhook);
    let arguments = ["--guard", "--url", &url];
    let mut guard = crate::shop::registration(shop.plane, "guarding", &arguments);
    let entries = guard["webhooks"].as_array_mut().unwrap();
    entries.retain(|entry| entry["name"] == "guard.portcullis.dev");
    assert_eq!(entries.len(), 1);
    let bundle = crate::shop::base64(shop.gate.authority().as_bytes());
    entries[0]["clientConfig"]["caBundle"] = bundle.into();
    shop.plane.apply(&guard.to_string()).await;
    eventually("the gate is asked about cluster DNS", async || {
        let before = shop.gate.reviews().await;
        shop.admin("label service kube-dns asked=yes --namespace=kube-system --dry-run=server", "").await;
        shop.admin("delete service kube-dns --namespace=kube-system --dry-run=server", "").await;
        (shop.gate.reviews().await > before).then_some(())
    })
    .await;
    shop
}

/// Denied or warned about: the guard's entry fails open only while the gate is away.
#[track_caller]
fn told(what: &str, said: &Kubectl) {
    assert!(said.stderr.contains("[NP008 "), "{what} should not be silent: {said:?}");
}

#[tokio::test]
async fn a_change_that_takes_dns_from_everybody_is_told() {
    let shop = guarding().await;
    for command in [
        "delete service kube-dns --namespace=kube-system",
        r#"patch service kube-dns --namespace=kube-system --type=merge --patch={"spec":{"selector":null}}"#,
        r#"patch service kube-dns --namespace=kube-system --type=merge --patch={"spec":{"selector":{"k8s-app":"nothing"}}}"#,
        r#"patch service kube-dns --namespace=kube-system --type=merge --patch={"spec":{"type":"ExternalName","externalName":"example.com","clusterIP":null,"clusterIPs":null,"selector":null}}"#,
        "delete deployment coredns --namespace=kube-system",
    ] {
        told(command, &shop.admin(&format!("{command} --dry-run=server"), "").await);
    }
    let restart = "rollout restart deployment coredns --namespace=kube-system --dry-run=server";
    let said = shop.admin(restart, "").await;
    assert!(!said.stderr.contains("Warning: ["), "{said:?}");
}
