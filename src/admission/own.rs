//! The gate's own configuration, judged where it is written: a ConfigMap of its own namespace.
//!
//! What a configuration may say is [`config::read`]'s to decide; it is asked here as it is when the
//! gate starts, so that what passes is what will be taken.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::request::Request;
use crate::cluster::Cluster;
use crate::config;
use crate::model::{FieldPath, ObjectRef};
use crate::rules::{Action, CL_INVALID_CONFIGURATION, Finding, RuleSet};
use crate::yaml::{Place, Source};

/// The key under which the gate reads its configuration.
pub const CONFIGURATION_KEY: &str = "portcullis.yaml";

/// What is wrong with a configuration of the gate; nothing where the request is about none.
pub(super) fn findings(
    rules: &RuleSet,
    cluster: &Cluster,
    request: &Request<'_>,
    object: &ObjectRef,
) -> Option<Vec<Finding>> {
    let is_own = request.kind.kind == "ConfigMap"
        && request.kind.group.is_empty()
        && rules.environment.is_own(&request.namespace)
        && rules.on_invalid_configuration > Action::Off;
    let text = is_own.then(|| configuration(request.object))??;
    let Err(refused) = config::read(Source::new(CONFIGURATION_KEY, text)) else { return Some(Vec::new()) };
    // One that was refused before is mended in steps, as every object is.
    let stood = configuration(request.old_object)
        .is_some_and(|text| config::read(Source::new(CONFIGURATION_KEY, text)).is_err());
    let mode = rules.environment.mode_in(cluster, &request.namespace);
    let ratchet = if stood { Action::Warn } else { Action::Deny };
    let finding = |problem: &crate::yaml::Problem| {
        Finding {
        rule: &CL_INVALID_CONFIGURATION,
        action: rules.on_invalid_configuration.min(mode.ceiling()).min(ratchet),
        standing: stood,
        why: "a gate that runs keeps its last good configuration, so that this would have no effect; one that starts with it does not start".to_owned(),
        help: problem.help.clone().unwrap_or_else(|| {
            "correct it; `portcullis config default` prints every setting, and `portcullis config check FILE` tries one".to_owned()
        }),
        ..Finding::new(
            object.namespace.clone(),
            object.clone(),
            FieldPath::new("data").field(CONFIGURATION_KEY),
            format!("{object}: {}: {}", Place { source: &refused.source, span: problem.span.clone() }, problem.message),
        )
    }
    };
    Some(refused.problems.iter().map(finding).collect())
}

/// The configuration in a ConfigMap, if there is one.
fn configuration(object: Option<&RawValue>) -> Option<String> {
    #[derive(Deserialize)]
    struct ConfigMap {
        data: Option<BTreeMap<String, String>>,
    }
    let ConfigMap { data } = serde_json::from_str(object?.get()).ok()?;
    data?.remove(CONFIGURATION_KEY)
}
