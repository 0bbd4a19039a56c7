//! `portcullis probe`: whether the gate is asked, and its denials arrive.

use std::path::PathBuf;

use anyhow::Context;
use kube::Client;

use super::{Outcome, Said};
use crate::source;
use crate::upkeep::{self, Proof};

/// Asks the API server to create a policy that opens everything, as a dry run, and sees whether the
/// gate denies it.
///
/// Nothing is stored. The gate denies this one in every mode, since it is marked as a probe, so it
/// can be sent to a gate that only warns. The exit code is 0 where it was denied, 1 where it was let
/// through, and 2 where that cannot be said.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  portcullis probe
  portcullis probe --context staging --namespace shop")]
pub(super) struct Args {
    /// The namespace to ask about
    #[arg(long, short, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
    /// The kubeconfig of the cluster to ask; left out, `KUBECONFIG`, else the pod's own account
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; left out, its current one
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// Why the gate may not have been asked, in the order in which to look.
const REASONS: &str = "\
No webhook denied it, so changes pass unjudged. What to look at:
  - kubectl get validatingwebhookconfigurations: is portcullis registered?
  - its `namespaceSelector`, `objectSelector` and `matchConditions`: do they leave NAMESPACE out?
  - its `failurePolicy`: with `Ignore`, a gate that cannot be reached lets everything pass. The
    API server's log and its metric apiserver_admission_webhook_fail_open_count tell
  - the gate's /readyz?verbose: is it ready, and does its certificate fit the `caBundle`?
  - a network policy, a firewall or a mesh between the API server and the gate's port
";

pub(super) fn run(args: &Args, said: &mut Said) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let proof = runtime.context("the runtime cannot be started")?.block_on(async {
        let configuration = source::configuration(args.kubeconfig.as_deref(), args.context.as_deref()).await?;
        let client = Client::try_from(configuration).context("the client of the API server cannot be set up")?;
        anyhow::Ok(upkeep::probe(&client, &args.namespace).await)
    })?;
    said.out = format!("namespace `{}`: {proof}\n", args.namespace);
    Ok(match proof {
        Proof::Denied => Outcome::Clean,
        Proof::Admitted => {
            said.err.push_str(&REASONS.replace("NAMESPACE", &args.namespace));
            Outcome::Findings
        }
        Proof::Unreachable(_) | Proof::Unasked(_) => Outcome::Incomplete,
    })
}
