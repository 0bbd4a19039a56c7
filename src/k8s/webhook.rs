//! Configurations of admission webhooks: whom the API server calls.

use std::sync::Arc;

use serde::Deserialize;

use super::meta::Meta;
use super::policy::port_number;
use super::read::{Many, Source};
use super::{Lowered, Problem, Read};
use crate::model::{AdmissionWebhook, FieldPath, Object, OnFailure, Revision, Str, WebhookConfiguration, WebhookKind};

#[derive(Deserialize)]
struct Written {
    metadata: Meta,
    webhooks: Option<Many<Webhook>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Webhook {
    name: Str,
    client_config: Option<ClientConfig>,
    failure_policy: Option<Str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ClientConfig {
    service: Option<ServiceReference>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ServiceReference {
    namespace: Str,
    name: Str,
    port: Option<i32>,
}

pub(super) fn lower<'a>(kind: WebhookKind, source: impl Source<'a>) -> Read {
    let Written { metadata, webhooks } = source.read()?;
    let mut problems = Vec::new();
    let mut called = Vec::new();
    for (index, webhook) in webhooks.into_iter().flatten().enumerate() {
        let Webhook { name, client_config, failure_policy } = webhook;
        let Some(service) = client_config.and_then(|client| client.service) else { continue };
        let path = FieldPath::new("webhooks").index(index);
        let Some(port) = port_number(service.port.unwrap_or(443)) else {
            let path = path.field("clientConfig").field("service").field("port");
            problems.push(Problem::new(path, "this is no port: ports are 1 to 65535"));
            continue;
        };
        let on_failure = match failure_policy.as_deref() {
            None | Some("Fail") => OnFailure::Fail,
            Some("Ignore") => OnFailure::Ignore,
            Some(other) => {
                let message = format!("unknown policy `{other}`: Fail and Ignore are supported");
                problems.push(Problem::new(path.field("failurePolicy"), message));
                OnFailure::default()
            }
        };
        let ServiceReference { namespace, name: service, port: _ } = service;
        called.push(AdmissionWebhook { name, namespace, service, port, on_failure });
    }
    let labels = metadata.labels();
    let (revision, tag) = (labels.get("istio.io/rev").cloned(), labels.get("istio.io/tag").cloned());
    let injects = kind == WebhookKind::Mutating && (revision.is_some() || tag.is_some());
    let configuration = WebhookConfiguration {
        kind,
        name: metadata.name(),
        revision: injects.then_some(Revision { revision, tag }),
        webhooks: called,
    };
    Ok(Lowered { object: Some(Object::WebhookConfiguration(Arc::new(configuration))), problems })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::k8s::lower_value;
    use crate::model::{AdmissionWebhook, Object, OnFailure};

    #[test]
    fn of_a_webhook_it_is_known_whom_the_api_server_calls_and_what_follows_from_silence() {
        let lowered = lower_value(
            &json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingWebhookConfiguration",
                "metadata": {"name": "gate", "labels": {"istio.io/rev": "default"}},
                "webhooks": [
                    {"name": "a.dev", "clientConfig": {"service": {"namespace": "guard", "name": "gate"}}},
                    {"name": "b.dev", "clientConfig": {"url": "https://elsewhere"}},
                    {"name": "c.dev", "failurePolicy": "Ignore",
                     "clientConfig": {"service": {"namespace": "guard", "name": "gate", "port": 8443}}},
                    {"name": "d.dev", "failurePolicy": "Maybe",
                     "clientConfig": {"service": {"namespace": "guard", "name": "gate", "port": 0}}},
                ],
            }),
            "default",
        );
        let Some(Object::WebhookConfiguration(configuration)) = lowered.object else { panic!("no configuration") };
        let webhook = |name: &str, port, on_failure| AdmissionWebhook {
            name: name.into(),
            namespace: "guard".into(),
            service: "gate".into(),
            port,
            on_failure,
        };
        let expected = [webhook("a.dev", 443, OnFailure::Fail), webhook("c.dev", 8443, OnFailure::Ignore)];
        assert_eq!(configuration.webhooks, expected);
        assert_eq!(configuration.revision, None, "only what mutates injects");
        let paths: Vec<_> = lowered.problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["webhooks[3].clientConfig.service.port"]);
    }
}
