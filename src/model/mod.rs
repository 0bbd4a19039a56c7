//! The domain's own words: what a policy, a workload, a namespace *mean*, free of how Kubernetes
//! spells them.
//!
//! Values here are already defaulted and parsed: `policyTypes` is decided, a block is a set of
//! addresses, a port is a number or a name. Turning API objects into these values is the job of
//! [`crate::k8s`]; judging them is the job of the layers above.

mod change;
mod generated;
mod labels;
mod lifetime;
mod made;
mod mesh;
mod namespace;
mod object;
mod path;
mod policy;
mod selector;
mod service;
mod stop;
mod waiver;
mod webhook;
mod workload;
pub mod written;

pub use change::{Change, Operation};
pub use generated::{Generated, POD_TEMPLATE_HASH, is_by_controllers, is_generated};
pub use labels::Labels;
pub use lifetime::{Ending, Lifetime, MOST_GRACE, OwnerReference};
pub use made::makes;
pub use mesh::{MESH_ANNOTATIONS, MeshConfig, MtlsMode, PROXY_CONFIG, PeerAuthentication, Revision};
pub use namespace::{METADATA_NAME, Namespace};
pub use object::{Object, ObjectRef};
pub use path::FieldPath;
pub use policy::{Direction, Directions, ForeignPolicy, IpBlock, NetworkPolicy, PeerSpec, PolicyRule, Port, PortSpec};
pub use selector::{Operator, Requirement, Selector};
pub use service::{Service, ServicePort, TargetPort};
pub use stop::{Stop, Stopped};
pub use waiver::{GROUP, Waiver, WaiverMatch, WaiverTerms};
pub use webhook::{AdmissionWebhook, OnFailure, WebhookConfiguration, WebhookKind};
pub use workload::{ContainerPort, DnsPolicy, NamedProxy, Owner, Workload, WorkloadId};

/// A short string: names, label keys and values. Inline up to 23 bytes, shared beyond.
pub type Str = smol_str::SmolStr;
