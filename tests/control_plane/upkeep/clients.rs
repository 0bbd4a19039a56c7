//! Who may ask: an API server that shows its certificate.

use super::Home;
use crate::support::{ControlPlane, WEBHOOK_CLIENT, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_shows_its_certificate_may_ask_and_one_of_another_name_may_not() {
    let plane = ControlPlane::shared().await;
    let authority = plane.authority();
    let authority = authority.to_str().unwrap();
    for (name, client, is_let_in) in
        [("clients-let-in", WEBHOOK_CLIENT, true), ("clients-turned-away", "somebody.else", false)]
    {
        let home = Home::new(plane, name).await;
        home.register().await;
        let gate = home.begin(&["--failure-policy", "fail", "--client-ca", authority, "--client-name", client]).await;
        gate.is_ready().await;
        if is_let_in {
            home.until_it_fails_closed().await;
            assert!(gate.reviews().await > 0.0);
        } else {
            let turned_away = async || gate.metric("portcullis_rejected_total", "handshake").await > 0.0;
            eventually("the API server is turned away", async || turned_away().await.then_some(())).await;
            assert!(gate.reviews().await <= 0.0);
            assert_eq!(home.entry().await["failurePolicy"], "Ignore");
        }
    }
}
