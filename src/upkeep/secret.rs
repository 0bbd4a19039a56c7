//! The Secret that replicas agree by: whoever writes first wins, and the others follow.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::api::{Api, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Client, Error};
use serde_json::{Map, Value, json};

use super::MANAGER;
use super::keyring::{Content, Keyring, Members};

/// Members a gate writes, or takes away.
const OURS: [&str; 7] = ["ca.crt", "ca.key", "ca-next.crt", "ca-next.key", "ca-former.crt", "tls.crt", "tls.key"];

/// Where the Secret is.
pub(super) struct Place {
    api: Api<DynamicObject>,
    resource: ApiResource,
    name: String,
}

/// The Secret as it was read.
pub(super) struct Found {
    pub(super) content: Content,
    object: Option<DynamicObject>,
}

impl Found {
    /// The version it was read in; nothing where it was not there.
    pub(super) fn version(&self) -> Option<String> {
        self.object.as_ref()?.metadata.resource_version.clone()
    }
}

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is there.
    Done,
    /// Somebody else wrote first: what they wrote counts.
    Lost,
}

impl Place {
    pub(super) fn new(client: Client, namespace: &str, name: &str) -> Self {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Secret"), "secrets");
        let api = Api::namespaced_with(client, namespace, &resource);
        Self { api, resource, name: name.to_owned() }
    }

    pub(super) fn api(&self) -> Api<DynamicObject> {
        self.api.clone()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) async fn read(&self) -> Result<Found, Error> {
        let object = self.api.get_opt(&self.name).await?;
        let content = object.as_ref().map_or(Content::Nothing, |object| Content::of(&members(object)));
        Ok(Found { content, object })
    }

    /// Writes a keyring in place of what was found, and of nothing else.
    pub(super) async fn write(&self, found: &Found, keyring: &Keyring) -> Result<Written, Error> {
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let written = if let Some(object) = &found.object {
            let mut object = object.clone();
            fill(&mut object, keyring);
            self.api.replace(&self.name, &params, &object).await
        } else {
            let mut object = DynamicObject::new(&self.name, &self.resource);
            object.metadata.labels = Some([("app.kubernetes.io/managed-by".to_owned(), MANAGER.to_owned())].into());
            object.data = json!({ "type": "kubernetes.io/tls" });
            fill(&mut object, keyring);
            self.api.create(&params, &object).await
        };
        match written {
            Ok(_) => Ok(Written::Done),
            // There already, changed since, or gone since.
            Err(Error::Api(status)) if status.code == 409 || status.code == 404 && found.object.is_some() => {
                Ok(Written::Lost)
            }
            Err(error) => Err(error),
        }
    }
}

fn members(object: &DynamicObject) -> Members {
    let data = object.data.get("data").and_then(Value::as_object).cloned().unwrap_or_default();
    let decoded = |value: &Value| STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default();
    data.iter().map(|(name, value)| (name.clone(), decoded(value))).collect()
}

fn fill(object: &mut DynamicObject, keyring: &Keyring) {
    let mut data = object.data.get("data").and_then(Value::as_object).cloned().unwrap_or_else(Map::new);
    data.retain(|name, _| !OURS.contains(&name.as_str()));
    data.extend(keyring.members().into_iter().map(|(name, value)| (name, STANDARD.encode(value).into())));
    if let Some(fields) = object.data.as_object_mut() {
        fields.insert("data".to_owned(), data.into());
    }
}
